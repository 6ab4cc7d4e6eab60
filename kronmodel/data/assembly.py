"""Assembly of a data set from the samples of a user's file: split, standardisation, names for the model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.data.dataset import ColumnNote, Dataset, Report, Scaling
from kronmodel.data.file_options import TEST_FRACTION, FileOptions
from kronmodel.data.grouping import RowSplit
from kronmodel.data.split import Indices, split
from kronmodel.data.target import Target
from kronmodel.errors import DataError

__all__ = ["STANDARDISED", "assemble", "check_names", "split_samples", "target_scaling"]

STANDARDISED = "none needed: the graph takes the values as they are and standardises them itself"
MAX_FEATURES = 1 << 20
MAX_CARD_NAMES = 192 << 10  # bytes of JSON; services accept model cards of up to 256 KiB in all


def assemble(
    name: str,
    origin: str,
    report: Report,
    options: FileOptions,
    *,
    x: NDArray[np.float32],
    target: Target,
    names: tuple[str, ...],
    published: int | None = None,
    image: tuple[int, ...] | None = None,
    preprocessing: str | None = None,
    columns: tuple[ColumnNote, ...] = (),
    formats: Mapping[str, str] | None = None,
    target_names: tuple[str, ...] = (),
    by_column: RowSplit | None = None,
) -> Dataset:
    """Split the samples and standardise their columns; in a file with its own split, the first ``published`` train."""
    check_names(origin, x.shape[1], target, [names, target.labels])
    y, classes = target.y, target.task == "classification"
    if published is None:
        train, test, how = split_samples(len(x), target, report, options, by_column)
    else:
        train, test = np.arange(published), np.arange(published, len(x))
        how = "as in the file"
    scaling = Scaling.of(x[train]) if preprocessing is None else None
    if scaling is not None:
        _report_constant(origin, report, scaling, names)
    return Dataset(
        name=name,
        x_train=x[train],
        y_train=y[train],
        x_test=x[test],
        y_test=y[test],
        task=target.task,
        labels=target.labels,
        image_shape=image,
        feature_names=names,
        scaling=scaling,
        target_scaling=None if classes else target_scaling(origin, y[train]),
        preprocessing=preprocessing or STANDARDISED,
        origin=origin,
        split=how,
        columns=columns,
        formats=formats or {},
        target_names=target_names,
    )


def split_samples(
    count: int, target: Target, report: Report, options: FileOptions, by_column: RowSplit | None = None
) -> tuple[Indices, Indices, str]:
    """Choose training and test samples; return their indices and a sentence that describes the choice.

    They are drawn, for each class apart, or chosen by a column of groups or times.
    """
    classes = target.task == "classification"
    fraction = TEST_FRACTION if options.test_fraction is None else options.test_fraction
    if by_column is not None:
        train, test, how = by_column.split(fraction, options.seed)
        report(f"split: {how}")
        unseen = [target.labels[each] for each in np.setdiff1d(target.y[test], target.y[train])] if classes else []
        if unseen:
            shown = ", ".join(map(repr, unseen[:5])) + (f" and {len(unseen) - 5:,} more" if len(unseen) > 5 else "")
            report(f"classes without a training sample, which can't be learned: {shown}")
        return train, test, how
    if classes:
        single = [target.labels[index] for index in np.flatnonzero(np.bincount(target.y.astype(np.int64)) == 1)]
        if single:
            more = f" and {len(single) - 5:,} more" if len(single) > 5 else ""
            shown = ", ".join(map(repr, single[:5]))
            report(f"classes with one sample, which is used for training, so that they are not tested: {shown}{more}")
    train, test = split(count, fraction, options.seed, target.y if classes else None)
    of = "of the samples of each class" if classes else "of the samples"
    return train, test, f"{fraction:.4g} {of} for the test, drawn with seed {options.seed}"


def check_names(origin: str, features: int, target: Target, described: Any) -> None:
    """Check that the number of features is supported, and that their description fits in a model card.

    Raises:
        DataError: there are too many, or their names are too long.
    """
    size = len(json.dumps(described))
    if features > MAX_FEATURES or size > MAX_CARD_NAMES:
        raise DataError(
            f"{origin} has {features:,} features and {len(target.labels):,} classes, with {size:,} bytes of names; "
            f"expected at most {MAX_FEATURES:,} features, and {MAX_CARD_NAMES:,} bytes of names in the model card"
        )


def target_scaling(origin: str, y: NDArray[Any]) -> Scaling:
    """Compute the scaling of the values to predict in the training samples.

    Raises:
        DataError: one of them is constant.
    """
    scaling = Scaling.of(y)
    if len(scaling.constant):
        raise DataError(
            f"{origin}: the target is {y[0, scaling.constant[0]]} in every training sample, nothing to learn"
        )
    return scaling


def _report_constant(origin: str, report: Report, scaling: Scaling, names: tuple[str, ...]) -> None:
    constant = scaling.constant
    if len(constant) == len(names):
        raise DataError(
            f"{origin}: every feature is constant in the training samples, so there is nothing to learn from"
        )
    if len(constant):
        shown = ", ".join(repr(names[index]) for index in constant[:5])
        more = f" and {len(constant) - 5} more" if len(constant) > 5 else ""
        report(f"constant in the training samples, so ignored by the networks: {shown}{more}")
