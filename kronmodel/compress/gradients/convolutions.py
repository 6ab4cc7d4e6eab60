"""Convolutions and pooling of ONNX as differentiable functions of torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kronmodel.compress.gradients.arguments import Attributes, Inputs, Operator, integers, needed

__all__ = ["CONVOLUTIONS"]

CONV = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
TRANSPOSED = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}
MAXIMUM = {3: F.max_pool1d, 4: F.max_pool2d, 5: F.max_pool3d}
AVERAGE = {3: F.avg_pool1d, 4: F.avg_pool2d, 5: F.avg_pool3d}


def _padded(x: Tensor, kernel: list[int], attributes: Attributes, value: float = 0.0) -> Tensor:
    """Pad a tensor at the ends of its axes behind the second one as a node with this kernel does."""
    axes = len(kernel)
    pads = list(attributes.get("pads", [0] * 2 * axes))
    how = attributes.get("auto_pad", b"NOTSET")
    if how in (b"SAME_UPPER", b"SAME_LOWER"):
        for axis, (size, length) in enumerate(zip(x.shape[2:], kernel, strict=True)):
            stride = attributes.get("strides", [1] * axes)[axis]
            reach = attributes.get("dilations", [1] * axes)[axis] * (length - 1) + 1
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
            less, more = total // 2, total - total // 2
            pads[axis], pads[axes + axis] = (less, more) if how == b"SAME_UPPER" else (more, less)
    return F.pad(x, [each for axis in range(axes)[::-1] for each in (pads[axis], pads[axes + axis])], value=value)


def _window(inputs: Inputs, attributes: Attributes) -> tuple[list[int], list[int], list[int]]:
    """Return the sizes, strides and dilations of a node's kernel."""
    axes = needed(inputs[0]).dim() - 2
    kernel = attributes.get("kernel_shape") or list(needed(inputs[1]).shape[2:])
    strides, dilations = (list(attributes.get(name, [1] * axes)) for name in ("strides", "dilations"))
    return list(kernel), strides, dilations


def _conv(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, weight = needed(inputs[0]), needed(inputs[1])
    kernel, strides, dilations = _window(inputs, attributes)
    bias = inputs[2] if len(inputs) > 2 else None
    padded = _padded(x, kernel, attributes)
    return CONV[x.dim()](padded, weight, bias, strides, 0, dilations, attributes.get("group", 1))


def _conv_transpose(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, weight = needed(inputs[0]), needed(inputs[1])
    kernel, strides, dilations = _window(inputs, attributes)
    pads = attributes.get("pads", [0] * 2 * len(kernel))
    bias = inputs[2] if len(inputs) > 2 else None
    more = attributes.get("output_padding", [0] * len(kernel))
    function = TRANSPOSED[x.dim()]
    return function(x, weight, bias, strides, pads[: len(kernel)], more, attributes.get("group", 1), dilations)


def _max_pool(inputs: Inputs, attributes: Attributes) -> Tensor:
    x = needed(inputs[0])
    kernel, strides, dilations = _window(inputs, attributes)
    padded = _padded(x, kernel, attributes, -torch.inf)
    return MAXIMUM[x.dim()](padded, kernel, strides, 0, dilations, bool(attributes.get("ceil_mode", 0)))


def _average_pool(inputs: Inputs, attributes: Attributes) -> Tensor:
    x = needed(inputs[0])
    kernel, strides, _ = _window(inputs, attributes)
    if attributes.get("ceil_mode", 0):
        raise ValueError("an average over windows that reach over the end")
    y = AVERAGE[x.dim()](_padded(x, kernel, attributes), kernel, strides)
    if attributes.get("count_include_pad", 0):
        return y
    return y / AVERAGE[x.dim()](_padded(torch.ones_like(x[:1, :1]), kernel, attributes), kernel, strides)


def _resize(inputs: Inputs, attributes: Attributes) -> Tensor:
    x = needed(inputs[0])
    sizes = integers(inputs, 3, attributes, "sizes")
    if not sizes:
        scales = needed(inputs[2 if len(inputs) > 2 else 1]).tolist()
        sizes = [int(size * scale) for size, scale in zip(x.shape, scales, strict=True)]
    if list(x.shape[:2]) != sizes[:2]:
        raise ValueError("a change of the size of the batch or the channels")
    mode, is_flat = attributes.get("mode", b"nearest"), x.dim() == 4
    if mode == b"nearest":
        return F.interpolate(x, sizes[2:])
    if mode != b"linear" or not is_flat:
        raise ValueError("an interpolation that is neither of the nearest values nor bilinear")
    corners = attributes.get("coordinate_transformation_mode", b"half_pixel") == b"align_corners"
    return F.interpolate(x, sizes[2:], mode="bilinear", align_corners=corners)


CONVOLUTIONS: dict[str, Operator] = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _max_pool,
    "Resize": _resize,
}
"""Functions by the operator's name."""
