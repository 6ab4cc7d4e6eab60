"""Loading of a user's .csv or .npz file as a data set, with a seeded split and standardised columns."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.data.arrays import SPLIT, WHOLE, read_npz
from kronmodel.data.dataset import Dataset, Report, Scaling, TaskName
from kronmodel.data.split import split
from kronmodel.data.table import BadRow, Target, read_csv, target_from_array, target_from_text, usable_rows
from kronmodel.errors import Argument, DataError, Message

__all__ = ["SUFFIXES", "TEST_FRACTION", "FileOptions", "from_arrays", "load_file"]

SUFFIXES = (".csv", ".npz")
TEST_FRACTION = 0.2
STANDARDISED = "none needed: the graph takes the values as they are and standardises them itself"
GREY = "bytes divided by 255"
AS_IS = "none: values between 0 and 1 as they are"
MAX_FEATURES = 1 << 20
MAX_CARD_NAMES = 192 << 10  # bytes of JSON; services accept model cards of up to 256 KiB in all


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Options for reading a user's data file; a field that is None or False counts as not given.

    Attributes:
        target: name of the column to predict, for a .csv file.
        task: classification or regression; inferred from the target if None.
        test_fraction: fraction of the samples to keep for the test, for a file that is not split already; default 0.2.
        skip_bad_rows: leave out unusable rows instead of refusing the file.
        seed: random seed of the split.
    """

    target: str | None = None
    task: TaskName | None = None
    test_fraction: float | None = None
    skip_bad_rows: bool = False
    seed: int = 0

    def given(self) -> list[Argument]:
        """List the arguments that the caller set, except the seed, which applies to every data set."""
        names = ("target", "task", "test_fraction", "skip_bad_rows")
        return [Argument(name) for name in names if getattr(self, name) not in (None, False)]


def load_file(path: Path, report: Report, options: FileOptions) -> Dataset:
    """Load a user's .csv or .npz file as a data set.

    Raises:
        DataError: the file can't be read or has no usable data; the message names unusable rows by line number.
        ValueError: an option is out of range or does not apply to this kind of file.
    """
    if options.test_fraction is not None and not 0 < options.test_fraction < 1:
        raise ValueError(f"the test fraction must be between 0 and 1, got {options.test_fraction}")
    return _from_csv(path, report, options) if path.suffix.lower() == ".csv" else _from_npz(path, report, options)


def _from_csv(path: Path, report: Report, options: FileOptions) -> Dataset:
    table = read_csv(path, options.target)
    name = repr(options.target)
    target, wrong = target_from_text(table.targets, options.task) if table.targets else (None, {})
    bad = [*table.bad, *(BadRow(table.lines[index], f"the target {name}: {text}") for index, text in wrong.items())]
    left_out = usable_rows(path, bad, skip=options.skip_bad_rows)
    if left_out:
        report(left_out)
    good = np.ones(len(table.values), bool)
    good[list(wrong)] = False
    if not good.any():
        raise DataError(f"{path} has no rows that can be used")
    if target is None:
        target, _ = target_from_text([table.targets[index] for index in np.flatnonzero(good)], options.task)
    if target is None:
        raise DataError(f"{path}: the target {name} is not of numbers, expected numbers for regression")
    report(f"target {name}: {target.task}, because {target.reason}")
    return _split_and_scale(
        _name(path), str(path), report, options, x=table.values[good], target=target, names=table.names
    )


def _from_npz(path: Path, report: Report, options: FileOptions) -> Dataset:
    if options.target is not None or options.skip_bad_rows:
        raise ValueError(
            Message(
                Argument("target"),
                " and ",
                Argument("skip_bad_rows"),
                f" are for .csv files; the target of {path} is its y",
            )
        )
    return from_arrays(read_npz(path), report, options, name=_name(path), origin=str(path))


def from_arrays(
    arrays: Mapping[str, NDArray[Any]], report: Report, options: FileOptions, *, name: str, origin: str
) -> Dataset:
    """Build a data set from numpy arrays.

    Bytes, or values between 0 and 1 in the shape of images, are treated as images; other features are standardised.

    Args:
        arrays: ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_test`` and ``y_test``: features ``(n, features)``, or
            images ``(n, height, width)`` or ``(n, channels, height, width)``; targets ``(n,)`` or ``(n, k)``.
        report: called with messages for the user.
        options: the task, and the split of ``x`` and ``y``.
        name: name of the data set.
        origin: description of the arrays' source, for messages.

    Raises:
        DataError: the arrays don't fit each other, or have no usable data.
        ValueError: an option does not apply to these arrays.
    """
    parts = SPLIT if "x_train" in arrays else WHOLE
    counts = {name: len(arrays[name]) for name in parts}
    for one, other in zip(parts[::2], parts[1::2], strict=True):
        if counts[one] != counts[other]:
            raise DataError(
                f"{origin}: {one} has {counts[one]:,} samples, {other} has {counts[other]:,}; expected the same number"
            )
    if len({arrays[x].shape[1:] for x in parts[::2]}) > 1 or len({arrays[y].shape[1:] for y in parts[1::2]}) > 1:
        raise DataError(f"{origin}: the training and the test part are of different shapes")
    raw, y = (np.concatenate([arrays[name] for name in names]) for names in (parts[::2], parts[1::2]))
    if raw.ndim < 2 or raw.dtype.kind not in "biuf":
        raise DataError(f"{origin}: {parts[0]} is {raw.dtype} {raw.shape}, expected numbers of shape (n, features)")
    target = target_from_array(y, options.task)
    report(f"target {parts[1]!r}: {target.task}, because {target.reason}")
    # Bytes, or values in [0, 1] in the shape of an image, are images; anything else is a table of features.
    shape = raw.shape[1:] if raw.ndim in (3, 4) else None
    flat = raw.reshape(len(raw), -1)
    if flat.dtype.kind == "f" and np.abs(flat).max() > np.finfo(np.float32).max:
        raise DataError(f"{origin}: {parts[0]} has values that don't fit in float32")
    in_unit = shape is not None and flat.min() >= 0 and flat.max() <= 1
    values = flat.astype(np.float32) / np.float32(255) if flat.dtype == np.uint8 and shape else flat.astype(np.float32)
    preprocessing = None if shape is None else GREY if flat.dtype == np.uint8 else AS_IS if in_unit else None
    names = tuple(f"x{index}" for index in range(flat.shape[1])) if preprocessing is None else ()
    published = counts["x_train"] if parts == SPLIT else None
    if published is not None and options.test_fraction is not None:
        raise ValueError(Message(f"{origin} is split already, so ", Argument("test_fraction"), " means nothing for it"))
    return _split_and_scale(
        name,
        origin,
        report,
        options,
        x=values,
        target=target,
        names=names,
        published=published,
        image=shape,
        preprocessing=preprocessing,
    )


def _split_and_scale(
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
) -> Dataset:
    """Split the samples and standardise their columns; in a file with its own split, the first ``published`` train."""
    size = len(json.dumps([names, target.labels]))
    if x.shape[1] > MAX_FEATURES or size > MAX_CARD_NAMES:
        raise DataError(
            f"{origin} has {x.shape[1]:,} features and {len(target.labels):,} classes, with {size:,} bytes of names; "
            f"expected at most {MAX_FEATURES:,} features, and {MAX_CARD_NAMES:,} bytes of names in the model card"
        )
    y, classes = target.y, target.task == "classification"
    if published is None:
        fraction = TEST_FRACTION if options.test_fraction is None else options.test_fraction
        train, test = split(len(x), fraction, options.seed, y if classes else None)
        of = "of the samples of each class" if classes else "of the samples"
        how = f"{fraction:.4g} {of} for the test, drawn with seed {options.seed}"
    else:
        train, test = np.arange(published), np.arange(published, len(x))
        how = "as in the file"
    scaling = Scaling.of(x[train]) if preprocessing is None else None
    if scaling is not None:
        _report_constant(origin, report, scaling, names)
    target_scaling = None if classes else _target_scaling(origin, y[train])
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
        target_scaling=target_scaling,
        preprocessing=preprocessing or STANDARDISED,
        origin=origin,
        split=how,
    )


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


def _target_scaling(origin: str, y: NDArray[Any]) -> Scaling:
    scaling = Scaling.of(y)
    if len(scaling.constant):
        raise DataError(
            f"{origin}: the target is {y[0, scaling.constant[0]]} in every training sample, nothing to learn"
        )
    return scaling


def _name(path: Path) -> str:
    """Convert a file name to a valid model name of letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("._-")[:80] or "data"
