"""Operators of ONNX that arrange, select and fill values, and those on shapes, as functions of torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional as F

from kronmodel.compress.gradients.arguments import Attributes, Inputs, Operator, integers, needed

__all__ = ["ARRANGEMENTS"]

MAX_FILLED = 1 << 26  # values of a tensor that is made of a shape


def _reshape(inputs: Inputs, attributes: Attributes) -> Tensor:
    x = needed(inputs[0])
    sizes = integers(inputs, 1, attributes, "shape") or []
    if not attributes.get("allowzero", 0):
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(inputs: Inputs, attributes: Attributes) -> Tensor:
    x = needed(inputs[0])
    axis = attributes.get("axis", 1) % (x.dim() + 1)
    return x.reshape(int(torch.Size(x.shape[:axis]).numel()), -1)


def _transpose(inputs: Inputs, attributes: Attributes) -> Tensor:
    x = needed(inputs[0])
    return x.permute(*attributes.get("perm", range(x.dim())[::-1]))


def _squeeze(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, axes = needed(inputs[0]), integers(inputs, 1, attributes, "axes")
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueeze(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, axes = needed(inputs[0]), integers(inputs, 1, attributes, "axes") or []
    for axis in sorted(axis % (x.dim() + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _slice(inputs: Inputs, attributes: Attributes) -> Tensor:
    x = needed(inputs[0])
    names = ("starts", "ends", "axes", "steps")
    starts, ends, axes, steps = (integers(inputs, place, attributes, name) for place, name in enumerate(names, 1))
    count = len(starts or [])
    rows = zip(starts or [], ends or [], axes or range(count), steps or [1] * count, strict=True)
    for start, end, axis, step in rows:
        chosen = range(*slice(start, end, step).indices(x.shape[axis]))
        x = x.index_select(axis, torch.tensor(chosen)) if step != 1 else x.narrow(axis, chosen.start, len(chosen))
    return x


def _split(inputs: Inputs, attributes: Attributes) -> Sequence[Tensor]:
    x, axis = needed(inputs[0]), attributes.get("axis", 0)
    sizes = integers(inputs, 1, attributes, "split")
    if sizes is None:
        count, left = -(-x.shape[axis] // attributes["outputs"]), x.shape[axis]
        sizes = [max(min(count, left - place * count), 0) for place in range(attributes["outputs"])]
    found: Sequence[Tensor] = x.split(sizes, axis)
    return found


def _gather(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, indices = needed(inputs[0]), needed(inputs[1])
    axis = attributes.get("axis", 0) % x.dim()
    size = x.shape[axis]
    if len(indices.flatten()) and not -size <= int(indices.min()) <= int(indices.max()) < size:
        raise ValueError("an index is out of range")
    chosen = x.index_select(axis, (indices % size).flatten().long())
    return chosen.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _expand(inputs: Inputs, attributes: Attributes) -> Tensor:
    x = needed(inputs[0])
    return x.expand(torch.broadcast_shapes(x.shape, tuple(integers(inputs, 1, attributes, "shape") or ())))


def _shape(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.tensor(needed(inputs[0]).shape[attributes.get("start", 0) : attributes.get("end")], dtype=torch.int64)


def _constant_of_shape(inputs: Inputs, attributes: Attributes) -> Tensor:
    shape = integers(inputs, 0, attributes, "shape") or []
    if torch.Size(shape).numel() > MAX_FILLED:
        raise ValueError(f"a tensor of the shape {shape} is too large")
    value = numpy_helper.to_array(attributes["value"]) if "value" in attributes else np.zeros(1, np.float32)
    return torch.from_numpy(value.reshape(1).copy()).expand(shape)


def _range(inputs: Inputs, attributes: Attributes) -> Tensor:
    start, limit, delta = (needed(each).item() for each in inputs)
    if not delta or (limit - start) / delta > MAX_FILLED:
        raise ValueError(f"a range from {start} to {limit} in steps of {delta} is too large")
    return torch.arange(start, limit, delta, dtype=needed(inputs[0]).dtype)


def _pad(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, pads = needed(inputs[0]), integers(inputs, 1, attributes, "pads") or []
    if attributes.get("mode", b"constant") != b"constant" or (len(inputs) > 3 and inputs[3] is not None):
        raise ValueError("a padding that is not constant, or of some axes")
    value = inputs[2].item() if len(inputs) > 2 and inputs[2] is not None else attributes.get("value", 0.0)
    return F.pad(x, [each for axis in range(x.dim())[::-1] for each in (pads[axis], pads[axis + x.dim()])], value=value)


ARRANGEMENTS: dict[str, Operator] = {
    "Concat": lambda inputs, attributes: torch.cat([needed(each) for each in inputs], attributes["axis"]),
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": lambda inputs, attributes: needed(inputs[0]).repeat(integers(inputs, 1, attributes, "repeats") or []),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""Functions by the operator's name."""
