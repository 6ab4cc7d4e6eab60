"""Samples to fit to, to train on and to measure on: from a data set, a file, or those beside the model."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from kronmodel.compress.graphs.samples import Array, InputSpec, Samples, card_of, input_specs
from kronmodel.compress.matrices.fitting import HELD_OUT
from kronmodel.data.arrays import SPLIT, WHOLE, array_names, read_arrays
from kronmodel.data.dataset import Dataset, Report
from kronmodel.data.registry import load
from kronmodel.data.user_file import FileOptions
from kronmodel.errors import DataError

__all__ = ["PUBLISHED", "fitting_and_test", "training_and_validation"]

BATCH = 32
PUBLISHED = "samples.npz"
VALIDATED = 10  # one of so many training samples judges a training


def fitting_and_test(
    model: onnx.ModelProto, path: Path, data: str | None, options: FileOptions, *, count: int, report: Report
) -> tuple[Samples, Samples] | None:
    """Load the samples to fit layers to, and those to measure the result on.

    Args:
        model: the model.
        path: its file; samples beside it are used if no data is given.
        data: name of a data set, path of a ``.csv`` or ``.npz`` file as ``kronmodel train`` takes, or of an ``.npz``
            file with an array for each input; None takes the samples beside the model.
        options: how to read a file.
        count: most samples to fit to, drawn at random.
        report: called with messages for the user.

    Returns:
        Both; without samples of their own to measure on, the part of the first that is never fitted to, or if they are
        too few for that, the same samples twice. None if there are no samples at all.

    Raises:
        DataError: the data can't be read, or doesn't fit the model's inputs.
    """
    found = _load(model, path, data, options, count=count, report=report)
    if found is None:
        return None
    fitting = found[0].in_runs(HELD_OUT)
    return fitting, fitting.part(HELD_OUT) if found[1] is found[0] else found[1]


def _load(
    model: onnx.ModelProto, path: Path, data: str | None, options: FileOptions, *, count: int, report: Report
) -> tuple[Samples, Samples] | None:
    """Load samples to fit to and others to measure on; the same twice if there are no others."""
    specs = input_specs(model)
    if data is None:
        beside = path.with_name(PUBLISHED)
        if not beside.is_file():
            return None
        found = read_arrays(beside, ("inputs", "labels"))
        if "inputs" not in found or len(specs) != 1:
            report(f"{beside} has no array for each input of the model, so it is not used")
            return None
        samples = _one_input(specs[0], found["inputs"], found.get("labels"), None, str(beside))
        return samples, samples
    names = [spec.name for spec in specs]
    if Path(data).suffix.lower() == ".npz":
        there = array_names(Path(data).expanduser())
        for_training = len(specs) == 1 and any(there.issuperset(each) for each in (SPLIT, WHOLE))
        if there.issuperset(names) and not for_training:
            return _split(_from_arrays(specs, read_arrays(Path(data).expanduser(), names), data), count)
        if not for_training:
            raise DataError(_missing(data, there, names))
    described = (card_of(model) or {}).get("input")
    if isinstance(described, dict) and "columns" in described:
        return _from_table(specs, load(data, report, options), count, _classes(model))
    if len(specs) != 1:
        listed = ", ".join(names)
        raise DataError(f"the model has the inputs {listed}; expected --data to be an .npz file with an array for each")
    return _from_dataset(specs[0], load(data, report, options), count, _classes(model))


def _from_dataset(spec: InputSpec, data: Dataset, count: int, classes: Sequence[str] | None) -> tuple[Samples, Samples]:
    """Arrange a data set's samples as the model takes them.

    Args:
        spec: the model's input.
        data: the data set.
        count: most training samples.
        classes: names of the model's outputs, if its card has them. Without, classes that are whole numbers are the
            indices of the outputs.
    """
    y = [_labels(data, each, classes) for each in (data.y_train, data.y_test)]
    train = _one_input(spec, data.x_train, y[0], data.task, f"training samples of {data.name}")
    test = _one_input(spec, data.x_test, y[1], data.task, f"test samples of {data.name}")
    train, test = (replace(each, image_shape=data.image_shape) for each in (train, test))
    return train.take(_draw(len(train), count)), test


def _from_table(
    specs: Sequence[InputSpec], data: Dataset, count: int, classes: Sequence[str] | None
) -> tuple[Samples, Samples]:
    """Arrange the test rows of a table, which the model's training did not see, as the columns that the model takes."""
    rows, encoding = data.test_rows, data.encoding
    arrays = {} if rows is None or encoding is None else {each.input: rows[each.name] for each in encoding.columns}
    missing = [spec.name for spec in specs if spec.name not in arrays]
    if missing:
        raise DataError(f"{data.name} has no column for the model's input {', '.join(missing)}")
    shaped = {spec.name: arrays[spec.name].astype(spec.dtype).reshape(-1, *spec.shape[1:]) for spec in specs}
    samples = Samples(
        arrays=shaped,
        constant={},
        batch=BATCH,
        fixed=False,
        by_call=False,
        labels=_labels(data, data.y_test, classes),
        task=data.task,
        origin=f"test rows of {data.name}",
    )
    return _split(samples, count)


def _labels(data: Dataset, y: Array, classes: Sequence[str] | None) -> Array:
    """Return the labels of samples as indices of the model's outputs, or as values to predict."""
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if data.task == "classification":
        names = data.labels
        if classes is not None and set(names) <= set(classes):
            return np.array([classes.index(name) for name in names])[y]
        if all(name.isdecimal() for name in names):
            return np.array([int(name) for name in names])[y]
    return y


def _missing(data: str, there: Collection[str], names: Sequence[str]) -> str:
    """Say which arrays a file lacks: one for each input, or for a single input those that a training takes."""
    held = ", ".join(sorted(there)) or "no arrays"
    if len(names) != 1:
        return f"{data} holds {held}; expected an array for each input of the model: {', '.join(names)}"
    sets = " or ".join(", ".join(each) for each in (WHOLE, SPLIT))
    return f"{data} holds {held}; expected {names[0]}, the model's input, or with labels {sets}"


def training_and_validation(
    model: onnx.ModelProto, path: Path, data: str | None, options: FileOptions, fitting: Samples
) -> tuple[Samples, Samples]:
    """Load the samples to train on, and others to judge the training by; no layer was fitted to the latter.

    Args:
        model: the model.
        path: its file.
        data: the data, as for :func:`fitting_and_test`.
        options: how to read a file.
        fitting: the samples that layers are fitted to.

    Returns:
        Samples of a data set that are not of its test part; without a data set, those to fit to and those held out.
    """
    found = None
    if data is not None and fitting.task is not None:
        found = _load(model, path, data, options, count=sys.maxsize, report=lambda message: None)
    if found is not None:
        whole = found[0]
        others = np.setdiff1d(np.arange(len(whole)), _draw(len(whole), len(fitting)))
        count = len(whole) // VALIDATED
        if 0 < count <= len(others):
            chosen = np.sort(np.random.default_rng(1).choice(others, count, replace=False))
            return whole.take(np.setdiff1d(np.arange(len(whole)), chosen)), whole.take(chosen)
    return fitting.other_part(HELD_OUT), fitting.part(HELD_OUT)


def _classes(model: onnx.ModelProto) -> list[str] | None:
    """Read the names of a model's classes from its card; None if it has no usable ones."""
    labels = (card_of(model) or {}).get("labels")
    return [str(each) for each in labels] if isinstance(labels, list) else None


def _one_input(spec: InputSpec, x: Array, labels: Array | None, task: str | None, origin: str) -> Samples:
    if not spec.shape:
        raise DataError(
            f"the model's input {spec} has no batch axis; expected --data to be an .npz file with its array"
        )
    row = spec.shape[1:]
    if x.shape[1:] != row or None in row:
        size = int(np.prod(x.shape[1:]))
        if None in row and x.ndim == len(spec.shape):
            fits = all(want in (None, have) for want, have in zip(row, x.shape[1:], strict=True))
        else:
            fits = None not in row and int(np.prod([each or 0 for each in row])) == size
            x = x.reshape(len(x), *(each or 0 for each in row)) if fits else x
        if not fits:
            raise DataError(f"{origin} have the shape {x.shape}, expected the model's input {spec}")
    if labels is not None and (labels.ndim != 1 or len(labels) != len(x)):
        labels = None
    if labels is not None and task is None:
        task = "classification" if labels.dtype.kind in "iu" else "regression"
    batch = spec.shape[0] or BATCH
    fixed = spec.shape[0] is not None
    return _whole_batches(
        Samples(
            arrays={spec.name: x.astype(spec.dtype)},
            constant={},
            batch=batch,
            fixed=fixed,
            by_call=False,
            labels=labels,
            task=task,
            origin=origin,
        )
    )


def _from_arrays(specs: list[InputSpec], arrays: Mapping[str, Array], data: str) -> Samples:
    chosen = {}
    for spec in specs:
        array = arrays[spec.name]
        if array.ndim not in (len(spec.shape), len(spec.shape) + 1):
            raise DataError(f"{data}: {spec.name} has the shape {array.shape}, expected the model's input {spec}")
        sizes = array.shape[array.ndim - len(spec.shape) :]
        body = slice(0 if array.ndim > len(spec.shape) else 1, None)  # the first axis of rows counts the samples
        if any(want not in (None, have) for want, have in zip(spec.shape[body], sizes[body], strict=True)):
            raise DataError(f"{data}: {spec.name} has the shape {array.shape}, expected the model's input {spec}")
        chosen[spec.name] = array.astype(spec.dtype)
    by_call = any(chosen[spec.name].ndim > len(spec.shape) for spec in specs)
    changing = {
        spec.name for spec in specs if (chosen[spec.name].ndim > len(spec.shape) if by_call else len(spec.shape) > 0)
    }
    counts = {len(chosen[name]) for name in changing}
    if len(counts) != 1:
        listed = ", ".join(f"{name} {len(chosen[name]):,}" for name in sorted(changing))
        raise DataError(
            f"{data} has different numbers of samples: {listed or 'none'}; expected the same for each input"
        )
    fixed = {spec.shape[0] for spec in specs if spec.name in changing and spec.shape} - {None}
    batch = 1 if by_call else min((size for size in fixed if size is not None), default=BATCH)
    return _whole_batches(
        Samples(
            arrays={name: chosen[name] for name in changing},
            constant={name: array for name, array in chosen.items() if name not in changing},
            batch=batch,
            fixed=bool(fixed) and not by_call,
            by_call=by_call,
            labels=None,
            task=None,
            origin=str(data),
        )
    )


def _whole_batches(samples: Samples) -> Samples:
    """Leave out the samples of a last incomplete batch, if the model fixes the batch size."""
    if not samples.fixed:
        return samples
    usable = len(samples) // samples.batch * samples.batch
    if not usable:
        raise DataError(
            f"{samples.origin} has {len(samples)} samples, expected at least the model's batch of {samples.batch}"
        )
    return samples.take(np.arange(usable))


def _draw(have: int, count: int) -> NDArray[np.intp]:
    return np.sort(np.random.default_rng(0).choice(have, min(have, count), replace=False))


def _split(samples: Samples, count: int) -> tuple[Samples, Samples]:
    """Split samples into those to fit to and the rest; of few, all are used for both."""
    rest = len(samples) - count
    if rest < max(100, count // 10):
        if len(samples) < 200:
            return samples, samples
        count = len(samples) * 4 // 5
    chosen = _draw(len(samples), count)
    others = np.setdiff1d(np.arange(len(samples)), chosen)
    return samples.take(chosen), samples.take(others)
