"""Loading of a user's file as a data set: a table, or a .npz file of arrays."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.data.arrays import SPLIT, WHOLE, read_npz
from kronmodel.data.assembly import assemble
from kronmodel.data.dataset import Dataset, Report
from kronmodel.data.file_options import FileOptions
from kronmodel.data.tables.reader import FORMATS, is_table
from kronmodel.data.target import target_from_array
from kronmodel.data.user_table import load_table
from kronmodel.errors import Argument, DataError, Message

__all__ = ["SUFFIXES", "FileOptions", "from_arrays", "is_data_file", "load_file"]

SUFFIXES = (*FORMATS, ".npz")
GREY = "bytes divided by 255"
AS_IS = "none: values between 0 and 1 as they are"


def load_file(path: Path, report: Report, options: FileOptions) -> Dataset:
    """Load a user's table or .npz file as a data set.

    Raises:
        DataError: the file can't be read or has no usable data; the message names unusable rows by line number.
        ValueError: an option is out of range or does not apply to this kind of file.
    """
    if options.test_fraction is not None and not 0 < options.test_fraction < 1:
        raise ValueError(f"the test fraction must be between 0 and 1, got {options.test_fraction}")
    if is_table(path):
        return load_table(path, _name(path), report, options)
    return _from_npz(path, report, options)


def is_data_file(path: Path) -> bool:
    """Tell whether the suffix of a file's name is one of :data:`SUFFIXES`, perhaps of a compressed table."""
    return is_table(path) or path.suffix.lower() == ".npz"


def _from_npz(path: Path, report: Report, options: FileOptions) -> Dataset:
    if options.given_for_tables():
        arguments = [part for argument in options.given_for_tables() for part in (" and ", argument)][1:]
        verb = "is" if len(arguments) == 1 else "are"
        raise ValueError(Message(*arguments, f" {verb} for tables such as .csv files; the target of {path} is its y"))
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
    return assemble(
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


def _name(path: Path) -> str:
    """Convert a file name to a valid model name of letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.name.partition(".")[0] or path.stem).strip("._-")[:80] or "data"
