"""CIFAR-10 (Krizhevsky 2009) from the user's own copy of the official Python archive, or its unpacked folder.

The archive is read where it lies, never unpacked to disk, and its pickles are not trusted: see ``safe_pickle.py``.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.data.dataset import Note
from kronmodel.data.idx import Arrays, user_cache
from kronmodel.data.safe_pickle import read_plain
from kronmodel.errors import DataError

__all__ = ["ARCHIVE", "FOLDER", "LABELS", "folders", "locate", "read"]

ARCHIVE = "cifar-10-python.tar.gz"
ARCHIVE_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
FOLDER = "cifar-10-batches-py"
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = "test_batch"
# The published MD5 of each file, which tell whether it is the official one; they protect against nothing.
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGE = (3, 32, 32)
WIDTH = 3 * 32 * 32

MAX_BATCH_BYTES = 64 << 20  # the official ones have 31 million
MAX_UNPACKED_BYTES = 512 << 20  # the official archive has 186 million
MAX_MEMBERS = 100  # the official archive has 9
MAX_SAMPLES = 10_000  # in one batch


def folders(data_home: str | None = None) -> list[Path]:
    """Where the archive or its folder is looked for: ``$KRONMODEL_DATA/cifar10``, the user's cache."""
    home = data_home if data_home is not None else os.environ.get("KRONMODEL_DATA")
    return [*([Path(home).expanduser() / "cifar10"] if home else []), user_cache("cifar10")]


def locate(data_home: str | None = None) -> Path | None:
    """The archive, or the folder with its files; None if neither is there."""
    for folder in folders(data_home):
        for place in (folder / FOLDER, folder):
            if all((place / name).is_file() for name in (*TRAIN, TEST)):
                return place
        if (folder / ARCHIVE).is_file():
            return folder / ARCHIVE
    return None


def read(place: Path, note: Note) -> Arrays:
    """Training images ``(n, 3, 32, 32)``, training labels ``(n,)``, test images, test labels, all uint8.

    Args:
        place: the archive, or the folder with its files.
        note: told where the files are not the official ones.

    Raises:
        DataError: a file is missing, too large, damaged or holds anything but such data.
    """
    try:
        files = _from_archive(place, note) if place.is_file() else _from_folder(place, note)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(f"{place} can't be read: {error}") from error
    missing = [name for name in (*TRAIN, TEST) if name not in files]
    if missing:
        raise DataError(f"{place} has no {', '.join(missing)}; expected {', '.join(TRAIN)} and {TEST}")
    train = [_batch(files.pop(name), f"{place}: {name}") for name in TRAIN]
    test = _batch(files.pop(TEST), f"{place}: {TEST}")
    x_train, y_train = (np.concatenate(parts) for parts in zip(*train, strict=True))
    return x_train, y_train, *test


def _from_folder(folder: Path, note: Note) -> dict[str, bytes]:
    files = {}
    for name in (*TRAIN, TEST):
        with (folder / name).open("rb") as stream:
            files[name] = stream.read(MAX_BATCH_BYTES + 1)
        _check_size(folder / name, len(files[name]))
    others = [name for name, content in files.items() if _md5(content) != MD5[name]]
    if others:
        note(f"{folder}: {', '.join(others)} differ from the official CIFAR-10; going on with what they hold")
    return files


def _from_archive(path: Path, note: Note) -> dict[str, bytes]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != ARCHIVE_SHA256:
        note(f"{path} is not the official archive (SHA-256 {digest}, expected {ARCHIVE_SHA256}); going on with it")
    files: dict[str, bytes] = {}
    with gzip.open(path) as unpacked, tarfile.open(fileobj=_Bounded(unpacked, path), mode="r|") as archive:
        for count, member in enumerate(archive, start=1):
            if count > MAX_MEMBERS:
                raise DataError(f"{path} has more than {MAX_MEMBERS} members, which is not CIFAR-10's archive")
            name = PurePosixPath(member.name)
            if name.parent.name != FOLDER or name.name not in MD5:
                continue
            # A link would have the reader look elsewhere, a second file of a name is nobody's archive.
            if not member.isreg() or name.name in files:
                raise DataError(f"{path}: {member.name} is a link, a special file or there twice; expected one file")
            _check_size(f"{path}: {member.name}", member.size)
            content = archive.extractfile(member)
            files[name.name] = content.read() if content else b""
    return files


class _Bounded(io.BufferedIOBase):
    """A stream that refuses to unpack more than an archive of this kind can hold."""

    def __init__(self, stream: gzip.GzipFile, path: Path) -> None:
        super().__init__()
        self.stream = stream
        self.path = path
        self.left = MAX_UNPACKED_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to ``size`` bytes."""
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
    """Images ``(n, 3, 32, 32)`` and labels ``(n,)`` of one pickled dictionary with ``data`` and ``labels``."""
    batch: Any = read_plain(content, what)
    if not isinstance(batch, dict):
        raise DataError(f"{what} holds a {type(batch).__name__}, expected a dictionary with data and labels")
    data, labels = (batch.get(key.encode(), batch.get(key)) for key in ("data", "labels"))
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != WIDTH:
        got = f"of shape {data.shape}" if isinstance(data, np.ndarray) else f"a {type(data).__name__}"
        raise DataError(f"{what}: data is {got}, expected bytes of shape (n, {WIDTH})")
    if not 1 <= len(data) <= MAX_SAMPLES:
        raise DataError(f"{what}: got {len(data)} images, expected 1 to {MAX_SAMPLES:,}")
    if not isinstance(labels, list) or len(labels) != len(data):
        got = str(len(labels)) if isinstance(labels, list) else f"a {type(labels).__name__}"
        raise DataError(f"{what}: labels are {got}, expected a list of {len(data)}")
    wrong = next((label for label in labels if type(label) is not int or not 0 <= label < len(LABELS)), None)
    if wrong is not None:
        raise DataError(f"{what}: got the label {wrong!r}, expected 0 to {len(LABELS) - 1}")
    return data.reshape(-1, *IMAGE), np.array(labels, np.uint8)


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
