"""Uploaded arrays as inputs of models: checked against the interface of the models."""

import math
from collections.abc import Mapping

import numpy as np

from app.inference.datatypes import BOOL, BYTES, DTYPES
from app.measure.inputs.arrays import Array, InputArrays
from app.measure.inputs.interface import FLOATS, GraphTensor, Interface
from app.measure.inputs.uploaded import INPUTS, MAX_ROWS


def fit_arrays(interface: Interface, arrays: Mapping[str, Array]) -> InputArrays:
    """Check uploaded arrays, and convert them to the datatypes and shapes of the inputs.

    Args:
        interface: that the models share.
        arrays: by name of the input; or `inputs`, for the only input of the models.

    Raises:
        ValueError: with a message that says what was got and what was expected.
    """
    alone = len(interface.inputs) == 1 and INPUTS in arrays and interface.inputs[0].name not in arrays
    if alone:
        tensor = interface.inputs[0]
        array = _converted(INPUTS, _shaped_rows(interface, arrays[INPUTS]), tensor, numbers=True)
        found, axes = {tensor.name: array}, dict(interface.batch_axes)
        if tensor.shape == () and array.ndim:  # of unknown rank
            axes = {tensor.name: 0}
    else:
        _check_names(interface, arrays)
        found = {each.name: _converted(each.name, arrays[each.name], each) for each in interface.inputs}
        axes = dict(interface.batch_axes)
    for tensor in interface.inputs:
        _check_shape(INPUTS if alone else tensor.name, found[tensor.name], tensor, axes.get(tensor.name))
    counts = {name: found[name].shape[axis] for name, axis in axes.items()}
    if len(set(counts.values())) > 1:
        each = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise ValueError(f"inputs: got rows in different numbers: {each}; expected as many of each")
    fitted = InputArrays(found, axes)
    if fitted.rows > MAX_ROWS:
        raise ValueError(f"inputs: got {fitted.rows} rows, expected 1 to {MAX_ROWS}")
    return fitted


def _check_names(interface: Interface, arrays: Mapping[str, Array]) -> None:
    names = [tensor.name for tensor in interface.inputs]
    expected = f"expected an array for each input: {', '.join(names)[:500]}"
    if missing := next((name for name in names if name not in arrays), None):
        raise ValueError(
            f"inputs: got {'the array' if len(arrays) == 1 else 'the arrays'} {', '.join(arrays)[:200]} without "
            f"{missing[:100]!r}, {expected}"
        )
    if unknown := next((name for name in arrays if name not in names), None):
        raise ValueError(f"inputs: got the unknown array {unknown[:100]!r}, {expected}")


def _shaped_rows(interface: Interface, array: Array) -> Array:
    """Rows in the shape of the graph's rows, where all their sizes are fixed; flat rows have as many values."""
    sizes = interface.inputs[0].shape[1:]
    fixed = [size for size in sizes if isinstance(size, int)]
    if not sizes or len(fixed) < len(sizes):
        return array
    if math.prod(array.shape[1:]) != math.prod(fixed):
        expected = " × ".join(map(str, fixed))
        raise ValueError(f"inputs: got rows of {math.prod(array.shape[1:])} values, expected {expected}")
    return array.reshape(len(array), *fixed)


def _converted(name: str, array: Array, tensor: GraphTensor, *, numbers: bool = False) -> Array:
    """An array in the datatype of its input.

    Args:
        name: in messages.
        array: to convert.
        tensor: the input.
        numbers: whole numbers may be floats, as they are in a .csv file.
    """
    kind = array.dtype.kind
    mistake = ValueError(f"{name}: got {array.dtype}, expected {tensor.datatype}")
    if tensor.datatype == BYTES:
        if kind != "U":
            raise mistake
        return array
    if kind == "U":
        raise mistake
    if tensor.datatype in FLOATS:
        return array.astype(np.float32, copy=False)
    if kind == "f" and not (numbers and bool((array == np.rint(array)).all())):
        raise mistake
    low, high = (0, 1) if tensor.datatype == BOOL else _limits(tensor.datatype)
    if tensor.datatype == BOOL and kind != "b" and not numbers:
        raise mistake
    smallest, largest = array.min(), array.max()
    if kind != "b" and not (low <= smallest and largest <= high):
        wrong = smallest if smallest < low else largest
        raise ValueError(f"{name}: got {wrong:g}, expected {low} to {high} for {tensor.datatype}")
    return array.astype(DTYPES[tensor.datatype])


def _limits(datatype: str) -> tuple[int, int]:
    limits = np.iinfo(DTYPES[datatype])
    return int(limits.min), int(limits.max)


def _check_shape(name: str, array: Array, tensor: GraphTensor, batch_axis: int | None) -> None:
    if tensor.shape == () and batch_axis == 0:  # of unknown rank
        return
    sizes = [
        None if axis == batch_axis or not isinstance(size, int) else size for axis, size in enumerate(tensor.shape)
    ]
    pairs = zip(sizes, array.shape, strict=False)
    if array.ndim != len(sizes) or any(size not in (None, got) for size, got in pairs):
        shown = ["n" if axis == batch_axis else "any" if size is None else str(size) for axis, size in enumerate(sizes)]
        raise ValueError(f"{name}: got the shape {array.shape}, expected ({', '.join(shown)})")
