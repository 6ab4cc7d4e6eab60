"""Random split of samples into a training set and a test set, determined by a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.errors import DataError

__all__ = ["split"]

Indices = NDArray[np.intp]


def split(count: int, fraction: float, seed: int, classes: NDArray[Any] | None = None) -> tuple[Indices, Indices]:
    """Draw the indices of the training samples and of the test samples, both in ascending order.

    Args:
        count: number of samples.
        fraction: fraction of the samples that is used for the test, between 0 and 1.
        seed: random seed; the same seed gives the same split on any machine.
        classes: class of each sample ``(count,)``; if given, the split is stratified: both parts have each class in the
            same proportion. The sample of a class that has only one is used for training.

    Raises:
        ValueError: ``fraction`` is out of range.
        DataError: there are too few samples for both parts.
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
