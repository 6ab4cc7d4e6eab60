"""Streams of text files: decompression, conversion to UTF-8, lines without comments."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from pathlib import Path

__all__ = ["COMPRESSED", "Lines", "Pieces", "byte_chunks", "text_lines", "utf8_chunks"]

COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
CHUNK = 1 << 20


def byte_chunks(path: Path) -> Iterator[bytes]:
    """Read a file piece by piece, decompressed if its name ends in .gz, .bz2, .zst or .lz4.

    Raises:
        OSError: the file can't be read, or its compressed content is damaged.
    """
    compression = COMPRESSED.get(path.suffix.lower())
    if compression is None:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
        return
    import pyarrow as pa

    with path.open("rb") as file, pa.CompressedInputStream(file, compression) as stream:
        while chunk := stream.read(CHUNK):
            yield chunk


def utf8_chunks(path: Path, encoding: str) -> Iterator[bytes]:
    """Read a text file piece by piece as UTF-8 without a byte order mark.

    Raises:
        OSError: the file can't be read.
        UnicodeDecodeError: it is not text of this encoding.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    for chunk in byte_chunks(path):
        if text := decoder.decode(chunk):
            yield text.encode()
    if text := decoder.decode(b"", final=True):
        yield text.encode()


class Pieces(io.RawIOBase):
    """Stream of the bytes that an iterator yields."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def readable(self) -> bool:
        """Return True, as a stream for reading."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # io calls it with a memoryview
        """Fill a buffer from the front; return the number of bytes, 0 at the end."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


class Lines:
    """Iterator over the lines of a text for :mod:`csv`, which leaves out comments and counts all lines.

    Args:
        lines: lines with their ends.
        comments: leave out lines that begin with ``#``, but not inside a quoted cell.

    Attributes:
        number: number of the line that was returned last.
        begin: number of the first line of the record that is being read.
    """

    def __init__(self, lines: Iterator[str], *, comments: bool) -> None:
        self._lines = lines
        self._comments = comments
        self._quoted = False
        self._fresh = True
        self.number = self.begin = 0

    def end_record(self) -> None:
        """Note that the next line begins a record."""
        self._fresh = True

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        while True:
            line = next(self._lines)
            self.number += 1
            if self._comments and not self._quoted and line.startswith("#"):
                continue
            if line.count('"') % 2:
                self._quoted = not self._quoted
            if self._fresh:
                self.begin, self._fresh = self.number, False
            return line


def text_lines(chunks: Iterator[bytes], *, comments: bool) -> Lines:
    """Return the lines of UTF-8 text that an iterator yields in pieces."""
    text = io.TextIOWrapper(io.BufferedReader(Pieces(chunks), CHUNK), encoding="utf-8", newline="")
    return Lines(iter(text.readline, ""), comments=comments)
