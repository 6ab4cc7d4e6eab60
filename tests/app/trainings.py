"""Helpers for trainings by a real service."""

import random
from pathlib import Path
from typing import Any

import httpx

from tests.app.events import events

LONG: dict[str, Any] = {"data": "digits", "name": "long", "hidden": [[8, 8]], "epochs": 100, "batch_size": 1}

Events = list[tuple[str, Any]]


def flowers() -> bytes:
    """A .csv file of 150 rows of four columns, in three classes that are easy to separate."""
    rng = random.Random(0)
    lines = ["a,b,c,d,the kind"]
    for row in range(150):
        kind = row % 3
        lines.append(",".join([*(f"{kind + rng.gauss(0, 0.3):.3f}" for _ in range(4)), ("red", "green", "blue")[kind]]))
    return "\n".join(lines).encode()


def follow(address: str, place: str) -> Events:
    """All events of a job, over a connection of its own, which any worker may accept."""
    with httpx.stream("GET", f"{address}{place}/events", timeout=250) as response:
        return list(events(response))


def leftovers(models: Path) -> list[str]:
    """Temporary files and folders of trainings in a model repository."""
    return [path.name for path in models.iterdir() if path.name.startswith((".training", ".publishing"))]
