"""Counters shared by worker processes: each one counts in a memory-mapped file of its own, readers add them up.

A file outlives its process, so that sums never decrease when a worker dies. Counting is one addition in memory. Space
on the disk is reserved before the memory that is mapped to it is used: a write to a page that the disk has no space for
would kill the process (SIGBUS).
"""

import logging
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from app.errors import ModelError
from app.system.files import reserve_space
from app.system.pidfiles import describe_shared_error

BLOCK_SIZE = 96  # values per key
MAX_BLOCKS = 4000
_HEADER_BYTES = 512 * 1024  # keys, one per line; then the blocks in the same order
_BYTES = _HEADER_BYTES + BLOCK_SIZE * MAX_BLOCKS * 8
_RESERVED_STEP = 64 * 1024  # bytes of a file that are reserved at a time

DISK_FULL = (
    "the disk of the service's folder for temporary files is full; free space, or restart it with another TMPDIR"
)

CounterKey: TypeAlias = tuple[str, ...]

log = logging.getLogger(__name__)


class Counters:
    """Blocks of `BLOCK_SIZE` float64 values by key.

    Args:
        folder: shared with the other processes; None if there are none.
        name: suffix of the files; counters of different names may share a folder.

    Raises:
        OSError: this process's file cannot be created, because the disk is full for example.
    """

    def __init__(self, folder: Path | None = None, name: str = "counters") -> None:
        self._folder = folder
        self._suffix = name
        self._path = None if folder is None else folder / f"{os.getpid()}.{name}"
        self._reserved = [0, _HEADER_BYTES]  # ends of the reserved parts: of the header, of the blocks
        if self._path is None:
            self._map = mmap.mmap(-1, _BYTES)
        else:
            with self._path.open("w+b") as file:
                file.truncate(_BYTES)
                self._map = mmap.mmap(file.fileno(), _BYTES)
            self._reserve(1, _HEADER_BYTES + 1)
        self._header_used = 0
        self._disk_was_full = False
        self._blocks: dict[CounterKey, memoryview[float]] = {}
        self._lock = threading.Lock()  # for adding keys: shadow requests are counted in another thread

    def block(self, key: CounterKey) -> "memoryview[float]":
        """This process's values under a key, initially 0; add to them in place.

        For further keys beyond `MAX_BLOCKS`, or while the disk is full, the values are not part of any sum.
        """
        found = self._blocks.get(key)
        if found is not None:
            return found
        try:
            found = self._reserved_block(key)
        except OSError as error:  # counting must not fail a request
            if self._folder is not None and not self._disk_was_full:
                log.error("%s is not counted: %s", " ".join(key), describe_shared_error(error, self._folder))
            self._disk_was_full = True
            return _uncounted()
        self._disk_was_full = False
        return found

    def reserve(self, key: CounterKey) -> None:
        """Add a key of a model that is being loaded, so that its values are counted.

        Raises:
            ModelError: the disk is full.
        """
        try:
            self._reserved_block(key)
        except OSError as error:
            if self._folder is not None:
                log.error("%s", describe_shared_error(error, self._folder))
            raise ModelError(DISK_FULL) from None

    def _reserved_block(self, key: CounterKey) -> "memoryview[float]":
        with self._lock:
            return self._blocks.get(key) or self._add(key)

    def _add(self, key: CounterKey) -> "memoryview[float]":
        line = ("\t".join(key) + "\n").encode()
        number = len(self._blocks)
        if number >= MAX_BLOCKS or self._header_used + len(line) >= _HEADER_BYTES:
            return _uncounted()
        self._reserve(self._header_used + len(line), _HEADER_BYTES + (number + 1) * BLOCK_SIZE * 8)
        blocks = memoryview(self._map).cast("B")[_HEADER_BYTES:].cast("d")
        block = blocks[number * BLOCK_SIZE : (number + 1) * BLOCK_SIZE]
        self._blocks[key] = block
        # The line comes last and in one piece: a reader sees the key with its block, or neither.
        self._map[self._header_used : self._header_used + len(line)] = line
        self._header_used += len(line)
        return block

    def _reserve(self, header_end: int, blocks_end: int) -> None:
        """Reserve space on the disk up to the given ends of the header and of the blocks.

        Raises:
            OSError: the disk is full.
        """
        if self._path is None:
            return
        for part, needed, most in ((0, header_end, _HEADER_BYTES), (1, blocks_end, _BYTES)):
            start = self._reserved[part]
            if needed > start:
                end = min(most, start + -(-(needed - start) // _RESERVED_STEP) * _RESERVED_STEP)
                reserve_space(self._path, start, end)
                self._reserved[part] = end

    def totals(self) -> dict[CounterKey, list[float]]:
        """Sums over all processes by key, in the order in which the keys were added."""
        sums: dict[CounterKey, list[float]] = {}
        for key, block in self.per_process():
            before = sums.get(key, [0.0] * BLOCK_SIZE)
            sums[key] = [a + b for a, b in zip(before, block, strict=True)]
        return sums

    def per_process(self) -> "Iterator[tuple[CounterKey, memoryview[float]]]":
        """Keys and values of each process separately: a key occurs once per process that has it."""
        for header, content in self._contents():
            values = memoryview(content).cast("d")
            for number, key in enumerate(_keys(header)):
                yield key, values[number * BLOCK_SIZE : (number + 1) * BLOCK_SIZE]

    def clear_ended(self, matches: Callable[[CounterKey], bool], has_ended: Callable[[int], bool]) -> None:
        """Set the values of processes that have ended to 0.

        Args:
            matches: whether to clear a key.
            has_ended: whether the process with an id has ended; not called for this process.
        """
        if self._folder is None:
            return
        for path in sorted(self._folder.glob(f"*.{self._suffix}")):
            if path.stem == str(os.getpid()) or not has_ended(int(path.stem)):
                continue
            with path.open("r+b") as file:
                for number, key in enumerate(_keys(file.read(_HEADER_BYTES).rstrip(b"\0"))):
                    if matches(key):
                        file.seek(_HEADER_BYTES + number * BLOCK_SIZE * 8)
                        file.write(bytes(BLOCK_SIZE * 8))

    def _contents(self) -> Iterator[tuple[bytes, bytes]]:
        """Read each process's counter file: the header with the keys, and the blocks in use."""
        if self._folder is None:
            header = self._map[: self._header_used]
            yield header, self._map[_HEADER_BYTES : _HEADER_BYTES + header.count(b"\n") * BLOCK_SIZE * 8]
            return
        for path in sorted(self._folder.glob(f"*.{self._suffix}")):
            with path.open("rb") as file:
                header = file.read(_HEADER_BYTES).rstrip(b"\0")
                file.seek(_HEADER_BYTES)
                yield header, file.read(header.count(b"\n") * BLOCK_SIZE * 8)


def _uncounted() -> "memoryview[float]":
    """Values that are not part of any sum."""
    return memoryview(bytearray(BLOCK_SIZE * 8)).cast("d")


def _keys(header: bytes) -> list[CounterKey]:
    return [tuple(line.split("\t")) for line in header.decode().split("\n")[:-1]]
