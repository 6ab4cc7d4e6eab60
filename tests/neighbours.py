"""Tests beside each other (`pytest -n 2`): those that measure have the machine to themselves."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_GATE, _FLOOR = Path(__file__), Path(__file__).with_name("conftest.py")  # any two files that all of them have


class Floor:
    """Where tests run: many at a time, each in a process of its own, or one alone."""

    def __init__(self) -> None:
        self._alone: IO[bytes] | None = None

    @contextmanager
    def turn(self, *, alone: bool, next_alone: bool) -> Iterator[None]:
        """Wait until nobody runs who is alone, or until nobody runs at all; between two tests alone nobody else may.

        Whoever waits keeps the gate: otherwise the others, one after another, might leave no gap.
        """
        floor, self._alone = self._alone, None
        if floor is None:
            floor = _FLOOR.open("rb")
            with _GATE.open("rb") as gate:
                fcntl.flock(gate, fcntl.LOCK_EX)
                fcntl.flock(floor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        try:
            yield
        finally:
            if alone and next_alone:
                self._alone = floor
            else:
                floor.close()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
