"""CIFAR-10 (Krizhevsky 2009) from the user's copy of the official binary version: the archive or its unpacked folder.

The archive is read in place and never unpacked to disk. Every read is bounded by the size of the official files.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from kronmodel.data.dataset import Report
from kronmodel.data.idx import Arrays, user_cache
from kronmodel.errors import DataError

__all__ = ["ARCHIVE", "FOLDER", "LABELS", "folders", "locate", "read"]

ARCHIVE = "cifar-10-binary.tar.gz"  # 170,052,171 bytes, published with the MD5 c32a1d4ab5d03f1284b67883e8d87530
ARCHIVE_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
FOLDER = "cifar-10-batches-bin"
TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = "test_batch.bin"
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGE = (3, 32, 32)
RECORD_BYTES = 1 + 3 * 32 * 32  # the label, then the red, green and blue pixels row by row

OFFICIAL_SAMPLES = 10_000  # per file; any copy may hold at most this many
MAX_BATCH_BYTES = OFFICIAL_SAMPLES * RECORD_BYTES
MAX_UNPACKED_BYTES = 256 << 20  # the official archive has 184 million
MAX_MEMBERS = 100  # the official archive has 9


def folders(data_home: str | None = None) -> list[Path]:
    """List the folders to search for the archive: ``$KRONMODEL_DATA/cifar10``, then the user's cache."""
    home = data_home if data_home is not None else os.environ.get("KRONMODEL_DATA")
    return [*([Path(home).expanduser() / "cifar10"] if home else []), user_cache("cifar10")]


def locate(data_home: str | None = None) -> Path | None:
    """Find the CIFAR-10 archive or its unpacked folder; None if both are missing."""
    for folder in folders(data_home):
        for place in (folder / FOLDER, folder):
            if all((place / name).is_file() for name in (*TRAIN, TEST)):
                return place
        if (folder / ARCHIVE).is_file():
            return folder / ARCHIVE
    return None


def read(place: Path, report: Report) -> Arrays:
    """Read training images ``(n, 3, 32, 32)``, training labels ``(n,)``, test images, test labels, all uint8.

    Args:
        place: the archive, or the folder with its files.
        report: called with a line where the archive or the files are not the official ones.

    Raises:
        DataError: a file is missing, too large, damaged or not in CIFAR-10's binary format.
    """
    try:
        files = _from_archive(place, report) if place.is_file() else _from_folder(place, report)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(f"{place} can't be read: {error}") from error
    missing = [name for name in (*TRAIN, TEST) if name not in files]
    if missing:
        raise DataError(f"{place} has no {', '.join(missing)}; expected {', '.join(TRAIN)} and {TEST}")
    train = [_batch(files.pop(name), f"{place}: {name}") for name in TRAIN]
    test = _batch(files.pop(TEST), f"{place}: {TEST}")
    x_train, y_train = (np.concatenate(parts) for parts in zip(*train, strict=True))
    return x_train, y_train, *test


def _from_folder(folder: Path, report: Report) -> dict[str, bytes]:
    """Read the six files of an unpacked folder, and compare their sizes, since no checksums of them are published."""
    files = {}
    for name in (*TRAIN, TEST):
        with (folder / name).open("rb") as stream:
            files[name] = stream.read(MAX_BATCH_BYTES + 1)
        _check_size(folder / name, len(files[name]))
    others = [name for name, content in files.items() if len(content) != MAX_BATCH_BYTES]
    if others:
        report(f"{folder}: {', '.join(others)} differ from the official CIFAR-10; they are used as they are")
    return files


def _from_archive(path: Path, report: Report) -> dict[str, bytes]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != ARCHIVE_SHA256:
        report(f"{path} is not the official archive (SHA-256 {digest}, expected {ARCHIVE_SHA256}); it is used as it is")
    files: dict[str, bytes] = {}
    with gzip.open(path) as unpacked, tarfile.open(fileobj=_Bounded(unpacked, path), mode="r|") as archive:
        for count, member in enumerate(archive, start=1):
            if count > MAX_MEMBERS:
                raise DataError(f"{path} has more than {MAX_MEMBERS} members, which is not CIFAR-10's archive")
            name = PurePosixPath(member.name)
            if name.parent.name != FOLDER or name.name not in (*TRAIN, TEST):
                continue
            # A link could redirect the reader to another file, and two files of one name are ambiguous.
            if not member.isreg() or name.name in files:
                raise DataError(f"{path}: {member.name} is a link, a special file or there twice; expected one file")
            _check_size(f"{path}: {member.name}", member.size)
            content = archive.extractfile(member)
            files[name.name] = content.read() if content else b""
    return files


class _Bounded(io.BufferedIOBase):
    """Stream with an upper bound on the number of unpacked bytes, as a protection against decompression bombs."""

    def __init__(self, stream: gzip.GzipFile, path: Path) -> None:
        super().__init__()
        self.stream = stream
        self.path = path
        self.left = MAX_UNPACKED_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to ``size`` bytes."""
        limit = self.left + 1
        part = self.stream.read(limit if size is None or size < 0 else min(size, limit))
        self.left -= len(part)
        if self.left < 0:
            raise DataError(f"{self.path} unpacks to more than {MAX_UNPACKED_BYTES:,} bytes, which is not CIFAR-10")
        return part


def _check_size(what: Path | str, size: int) -> None:
    if size > MAX_BATCH_BYTES:
        raise DataError(f"{what} has {size:,} bytes or more, expected at most {MAX_BATCH_BYTES:,}")


def _batch(content: bytes, what: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Decode the images ``(n, 3, 32, 32)`` and labels ``(n,)`` of one file of records."""
    if not content or len(content) % RECORD_BYTES:
        raise DataError(f"{what} has {len(content):,} bytes, expected records of {RECORD_BYTES:,} bytes, at least one")
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD_BYTES)
    labels, images = records[:, 0], records[:, 1:]
    if labels.max() >= len(LABELS):
        raise DataError(f"{what}: got the label {labels.max()}, expected 0 to {len(LABELS) - 1}")
    return images.reshape(-1, *IMAGE), labels.copy()
