"""Outputs of a network's layers in float32, whose ranges quantisation needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kronmodel.export.c.network import Convolution, TemplateNetwork
from kronmodel.export.c.steps import branches_of
from kronmodel.native.network import DenseArrays, KroneckerArrays
from kronmodel.native.quantize import Range, apply_activation

__all__ = ["LayerRanges", "measure_ranges", "stored_ranges"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class LayerRanges:
    """Ranges of a layer's activations.

    Attributes:
        given: of its input.
        hidden: of each branch, between its factors; the left ones first.
        result: of its output.
    """

    given: Range
    hidden: tuple[Range, ...]
    result: Range


def stored_ranges(network: TemplateNetwork) -> list[LayerRanges] | None:
    """Return the ranges that the file stores for all activations; None if it stores others, or none."""
    found = list(network.stored.ranges) if network.stored is not None else []
    layers = network.layers
    counts = [len(list(branches_of(each))) if isinstance(each, KroneckerArrays) else 0 for each in layers]
    if len(found) != sum(counts) + len(layers):  # the input's, those between factors, and those between layers
        return None
    ranges = []
    given = found.pop(0)
    for layer in layers:
        groups = list(branches_of(layer)) if isinstance(layer, KroneckerArrays) else []
        hidden = [each for group in groups for each in [found.pop(0)] * len(group.u)]
        result = found.pop(0) if found else given  # that of the last layer is not used
        ranges.append(LayerRanges(given, tuple(hidden), result))
        given = result
    return ranges


def measure_ranges(network: TemplateNetwork, samples: Floats) -> list[LayerRanges]:
    """Measure the ranges of all activations on samples ``(n, *shape)``."""
    front = network.front
    x = samples.reshape(len(samples), -1).astype(np.float32)
    if front.mean is not None and front.inverse is not None:
        x = (x - front.mean) * front.inverse
    ranges = []
    given = _range(x)
    for convolution in front.convolutions:
        x = _convolved(convolution, x)
        ranges.append(LayerRanges(given, (), _range(x)))
        given = ranges[-1].result
    x = np.pad(x, ((0, 0), (0, network.arrays.layers[0].in_features - x.shape[1])))
    for layer in network.arrays.layers:
        hidden, x = _layer(layer, x)
        ranges.append(LayerRanges(given, tuple(_range(each) for each in hidden), _range(x)))
        given = ranges[-1].result
    return ranges


def _range(values: Floats) -> Range:
    """Choose a range whose steps are not too small for integer arithmetic."""
    found = Range.of(values)
    return Range(max(found.scale, 2.0**-16), found.zero)


def _convolved(layer: Convolution, x: Floats) -> Floats:
    """Compute a convolution of flat images, its activation and pooling; flat outputs in their order."""
    top, bottom, left, right = layer.pads
    images = np.pad(x.reshape(-1, *layer.shape), ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(images, layer.weight.shape[2:], axis=(2, 3))
    windows = windows[:, :, :: layer.strides[0], :: layer.strides[1]]
    z = np.einsum("bchwij,fcij->bfhw", windows, layer.weight, optimize=True) + layer.bias[:, None, None]
    y = apply_activation(layer.activation, z.astype(np.float32))
    (down, across), (filters, out_height, out_width) = layer.pool, layer.out_shape
    y = y[:, :, : out_height * down, : out_width * across]
    y = y.reshape(len(y), filters, out_height, down, out_width, across).max((3, 5))
    y = y.transpose(0, 2, 3, 1) if layer.channels_last else y
    flat: Floats = y.reshape(len(y), -1)
    return flat


def _layer(layer: DenseArrays | KroneckerArrays, x: Floats) -> tuple[list[Floats], Floats]:
    """Compute a layer: what stands between the factors of each branch, and the output."""
    if isinstance(layer, DenseArrays):
        return [], apply_activation(layer.activation, x @ layer.weight.T + layer.bias)
    matrices = x.reshape(-1, layer.first.shape[2], layer.second.shape[2])
    hidden = []
    total = layer.bias.reshape(layer.first.shape[1], layer.second.shape[1])
    for group in branches_of(layer):
        given = matrices.transpose(0, 2, 1) if group.right else matrices
        for k in range(len(group.u)):
            h = apply_activation(layer.inner, group.u[k] @ given + (0 if group.c is None else group.c[k]))
            product = h @ group.v[k].T
            hidden.append(h)
            total = total + (product.transpose(0, 2, 1) if group.right else product)
    return hidden, apply_activation(layer.activation, total.reshape(len(x), -1))
