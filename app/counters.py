"""Counters that several processes keep in files of one folder, each its own; whoever is asked adds them all up.

A file outlives its process, so the sums never fall when a worker dies. Counting is one addition in mapped memory.
"""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

BLOCK = 96  # values under one key
BLOCKS = 1000
_HEADER_BYTES = 256 * 1024
_BYTES = _HEADER_BYTES + BLOCK * BLOCKS * 8

Key: TypeAlias = tuple[str, ...]


class Counters:
    """Blocks of `BLOCK` float64 values by key.

    Args:
        folder: shared with the other processes; None if there are none.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        if folder is None:
            self._map = mmap.mmap(-1, _BYTES)
        else:
            with (folder / f"{os.getpid()}.counters").open("w+b") as file:
                file.truncate(_BYTES)
                self._map = mmap.mmap(file.fileno(), _BYTES)
        self._header_used = 0
        self._blocks: dict[Key, memoryview[float]] = {}

    def block(self, key: Key) -> "memoryview[float]":
        """The values under a key, all 0 at first. Past `BLOCKS` keys it counts where nobody reads."""
        found = self._blocks.get(key)
        if found is not None:
            return found
        line = ("\t".join(key) + "\n").encode()
        number = len(self._blocks)
        if number >= BLOCKS or self._header_used + len(line) >= _HEADER_BYTES:
            return memoryview(bytearray(BLOCK * 8)).cast("d")
        block = memoryview(self._map).cast("B")[_HEADER_BYTES:].cast("d")[number * BLOCK : (number + 1) * BLOCK]
        self._blocks[key] = block
        # The line comes last and in one piece: a reader sees the key with its block, or neither.
        self._map[self._header_used : self._header_used + len(line)] = line
        self._header_used += len(line)
        return block

    def totals(self) -> dict[Key, list[float]]:
        """The sums over all processes, in the order in which keys appeared."""
        sums: dict[Key, list[float]] = {}
        for content in self._contents():
            header = content[:_HEADER_BYTES].rstrip(b"\0").decode()
            values = memoryview(content)[_HEADER_BYTES:].cast("d")
            for number, line in enumerate(header.split("\n")[:-1]):
                block = values[number * BLOCK : (number + 1) * BLOCK]
                key = tuple(line.split("\t"))
                before = sums.get(key, [0.0] * BLOCK)
                sums[key] = [a + b for a, b in zip(before, block, strict=True)]
        return sums

    def _contents(self) -> Iterator[bytes]:
        if self._folder is None:
            yield self._map[:]
        else:
            for path in sorted(self._folder.glob("*.counters")):
                yield path.read_bytes()
