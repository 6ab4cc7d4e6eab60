"""Data sets of four IDX files, the format of MNIST: found on disk or downloaded, and checked."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kronmodel.data.dataset import Note
from kronmodel.errors import DataError

__all__ = ["Arrays", "File", "Source", "find", "locate", "places", "read", "user_cache"]

Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]
"""Training images ``(n, 28, 28)``, training labels ``(n,)``, test images, test labels."""

DOWNLOAD_TIMEOUT_S = 15


@dataclass(frozen=True)
class File:
    """One IDX file: its shape and the SHA-256 of its content, plain and as the mirrors compress it."""

    name: str
    shape: tuple[int, ...]
    sha256: str
    gz_sha256: str

    @property
    def size(self) -> int:
        """Bytes of the plain file: magic number, sizes, values."""
        return 4 + 4 * len(self.shape) + int(np.prod(self.shape))


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set of four IDX files and the places where it may be.

    Attributes:
        name: of its folder under ``$KRONMODEL_DATA`` and in the user's cache.
        title: for messages.
        files: training images, training labels, test images, test labels.
        mirrors: addresses of folders to download from, each tried in turn.
        megabytes: of the download.
        packaged: folders where a package of the system puts the files.
    """

    name: str
    title: str
    files: tuple[File, ...]
    mirrors: tuple[str, ...]
    megabytes: int
    packaged: tuple[Path, ...] = ()


def locate(source: Source, *, data_home: str | None = None, cache: Path | None = None) -> Path | None:
    """The folder of this machine with the four files, or None: see :func:`find`, which also downloads."""
    return next((folder for folder in places(source, data_home, cache) if _complete(folder, source)), None)


def places(source: Source, data_home: str | None = None, cache: Path | None = None) -> Iterator[Path]:
    """Where the files are looked for: ``$KRONMODEL_DATA``, the system's package, the user's cache."""
    home = data_home if data_home is not None else os.environ.get("KRONMODEL_DATA")
    if home:
        yield Path(home).expanduser() / source.name
    yield from source.packaged
    yield cache or user_cache(source.name)


def find(
    source: Source,
    note: Note,
    *,
    data_home: str | None = None,
    cache: Path | None = None,
    mirrors: Sequence[str] | None = None,
) -> Path | None:
    """The folder with the four files: ``$KRONMODEL_DATA/<name>``, a package's, the user's cache, a download into it.

    Args:
        source: what to look for.
        note: called with lines for the user.
        data_home: instead of the environment variable ``KRONMODEL_DATA``.
        cache: instead of the user's cache folder.
        mirrors: instead of the source's.

    Returns:
        The folder, or None if the files are nowhere and no mirror can be reached.

    Raises:
        DataError: a mirror answers with something else than the files.
    """
    home = data_home if data_home is not None else os.environ.get("KRONMODEL_DATA")
    if home and not _complete(own := Path(home).expanduser() / source.name, source):
        expected = f"{source.files[0].name}[.gz] and {len(source.files) - 1} more"
        note(f"no {source.title} in {own} (expected {expected}); looking elsewhere")
    found = locate(source, data_home=data_home, cache=cache)
    if found is not None:
        return found
    import pooch  # here because it takes 0.2 s to import

    cache = cache or user_cache(source.name)
    # pooch logs each address; we say in one line what happens.
    pooch.get_logger().setLevel(logging.WARNING)
    for mirror in source.mirrors if mirrors is None else mirrors:
        note(f"downloading {source.title} ({source.megabytes} MB) from {mirror}")
        try:
            for file in source.files:
                pooch.retrieve(
                    mirror + file.name + ".gz",
                    known_hash=f"sha256:{file.gz_sha256}",
                    fname=file.name + ".gz",
                    path=cache,
                    downloader=pooch.HTTPDownloader(timeout=DOWNLOAD_TIMEOUT_S),
                )
            return cache
        except OSError as error:  # requests' errors are OSErrors
            note(f"that failed: {type(error).__name__}")
        except ValueError as error:  # pooch's word for a wrong checksum; it has thrown the file away
            raise DataError(f"what {mirror} sent is not {source.title}: {error}") from error
    return None


def read(folder: Path, source: Source) -> Arrays:
    """Read the four files, plain or gzip-compressed, and check them.

    Raises:
        DataError: one is missing, can't be read, or has another checksum.
    """
    arrays = [_read_file(folder, file, source.title) for file in source.files]
    return arrays[0], arrays[1], arrays[2], arrays[3]


def user_cache(name: str) -> Path:
    """The folder of the user's cache for a data set."""
    import pooch

    return Path(pooch.os_cache("kronmodel")) / name


def _complete(folder: Path, source: Source) -> bool:
    return all(_path(folder, file) for file in source.files)


def _path(folder: Path, file: File) -> Path | None:
    candidates = (folder / file.name, folder / (file.name + ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def _read_file(folder: Path, file: File, title: str) -> NDArray[np.uint8]:
    path = _path(folder, file)
    if path is None:
        raise DataError(f"{folder / file.name}[.gz] is missing")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            content = stream.read(file.size + 1)  # no more than expected, however much a hostile file unpacks to
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise DataError(f"{path} is damaged or not {title}'s: got SHA-256 {digest}, expected {file.sha256}")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(file.shape)).reshape(file.shape)
