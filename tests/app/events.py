"""Server-sent events of jobs, parsed."""

import json
from collections.abc import Iterator
from typing import Any

import httpx


def events(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    """Name and data of each event."""
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def stream(client: httpx.Client, **body: Any) -> Any:
    """Start a comparison and stream its events."""
    return client.stream("POST", "/api/compare", json=body, headers={"Accept": "text/event-stream"})
