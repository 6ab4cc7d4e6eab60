"""Split of samples into training and test, drawn by a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.errors import DataError

__all__ = ["split"]

Indices = NDArray[np.intp]


def split(count: int, fraction: float, seed: int, classes: NDArray[Any] | None = None) -> tuple[Indices, Indices]:
    """Draw the indices of the training and of the test samples, both in the order of the file.

    Args:
        count: number of samples.
        fraction: of the test samples, between 0 and 1.
        seed: the same seed gives the same split anywhere.
        classes: class of each sample ``(count,)``; if given, each class is split by itself, so that both parts have it
            in the same proportion. A class of one sample is for training.

    Raises:
        ValueError: a fraction out of range.
        DataError: too few samples for both parts.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the test fraction must be between 0 and 1, got {fraction}")
    rng = np.random.default_rng(seed)
    groups = [np.arange(count)] if classes is None else [np.flatnonzero(classes == each) for each in np.unique(classes)]
    test = np.concatenate(
        [rng.permutation(group)[: min(round(fraction * len(group)), len(group) - 1)] for group in groups]
    )
    in_test = np.zeros(count, bool)
    in_test[test] = True
    if not len(test):
        raise DataError(f"{count} samples are too few to keep {fraction:.0%} of them for the test")
    return np.flatnonzero(~in_test), np.flatnonzero(in_test)
