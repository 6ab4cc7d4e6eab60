"""Counters that several processes keep in files of one folder, each its own; whoever is asked adds them all up.

A file outlives its process, so the sums never fall when a worker dies. Counting is one addition in mapped memory.
"""

import mmap
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

BLOCK = 96  # values under one key
BLOCKS = 4000
_HEADER_BYTES = 512 * 1024
_BYTES = _HEADER_BYTES + BLOCK * BLOCKS * 8

Key: TypeAlias = tuple[str, ...]


class Counters:
    """Blocks of `BLOCK` float64 values by key.

    Args:
        folder: shared with the other processes; None if there are none.
        name: of these counters, where a folder holds several.
    """

    def __init__(self, folder: Path | None = None, name: str = "counters") -> None:
        self._folder = folder
        self._suffix = name
        if folder is None:
            self._map = mmap.mmap(-1, _BYTES)
        else:
            with (folder / f"{os.getpid()}.{name}").open("w+b") as file:
                file.truncate(_BYTES)
                self._map = mmap.mmap(file.fileno(), _BYTES)
        self._header_used = 0
        self._blocks: dict[Key, memoryview[float]] = {}
        self._lock = threading.Lock()  # for new keys: the shadow counts in a thread of its own

    def block(self, key: Key) -> "memoryview[float]":
        """The values under a key, all 0 at first. Past `BLOCKS` keys it counts where nobody reads."""
        found = self._blocks.get(key)
        if found is not None:
            return found
        with self._lock:
            return self._blocks.get(key) or self._add(key)

    def _add(self, key: Key) -> "memoryview[float]":
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
        for key, block in self.each():
            before = sums.get(key, [0.0] * BLOCK)
            sums[key] = [a + b for a, b in zip(before, block, strict=True)]
        return sums

    def each(self) -> "Iterator[tuple[Key, memoryview[float]]]":
        """The values of every process by themselves."""
        for header, content in self._contents():
            values = memoryview(content).cast("d")
            for number, key in enumerate(_keys(header)):
                yield key, values[number * BLOCK : (number + 1) * BLOCK]

    def clear_others(self, wanted: Callable[[Key], bool], ended: Callable[[int], bool]) -> None:
        """Set to 0 what other processes, that have ended, counted under certain keys."""
        if self._folder is None:
            return
        for path in sorted(self._folder.glob(f"*.{self._suffix}")):
            if path.stem == str(os.getpid()) or not ended(int(path.stem)):
                continue
            with path.open("r+b") as file:
                for number, key in enumerate(_keys(file.read(_HEADER_BYTES).rstrip(b"\0"))):
                    if wanted(key):
                        file.seek(_HEADER_BYTES + number * BLOCK * 8)
                        file.write(bytes(BLOCK * 8))

    def _contents(self) -> Iterator[tuple[bytes, bytes]]:
        """Of each process: the keys, one a line, and the blocks of as many."""
        if self._folder is None:
            header = self._map[: self._header_used]
            yield header, self._map[_HEADER_BYTES : _HEADER_BYTES + header.count(b"\n") * BLOCK * 8]
            return
        for path in sorted(self._folder.glob(f"*.{self._suffix}")):
            with path.open("rb") as file:
                header = file.read(_HEADER_BYTES).rstrip(b"\0")
                file.seek(_HEADER_BYTES)
                yield header, file.read(header.count(b"\n") * BLOCK * 8)


def _keys(header: bytes) -> list[Key]:
    return [tuple(line.split("\t")) for line in header.decode().split("\n")[:-1]]
