"""Limits of docs/limits.md against the fields of Settings: every configurable limit, with its default."""

import re
from pathlib import Path

from app.settings import Settings, option

TABLE = (Path(__file__).parents[1] / "docs" / "limits.md").read_text()
NO_LIMITS = {"port", "shadow_share"}


def test_the_table_of_limits_has_every_limit_and_its_default() -> None:
    rows = re.findall(r"^\| [^|]+ \| `(--[a-z-]+)` \| ([^|]+) \|", TABLE, re.MULTILINE)
    numbers = {
        option(name): field
        for name, field in Settings.model_fields.items()
        if field.annotation in {int, float, int | None} and name not in NO_LIMITS
    }
    assert len(numbers) > 20
    assert {name for name, _ in rows} == numbers.keys()
    for name, default in rows:
        if numbers[name].default is not None:
            assert default == f"`{numbers[name].default}`", name
