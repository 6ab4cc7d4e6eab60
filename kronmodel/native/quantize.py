"""Quantization of a network's weights to 8 bits, and of its activations by the ranges that samples give them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kronmodel.native.network import Activation, DenseArrays, KroneckerArrays, Layer, NetworkArrays

__all__ = ["QuantizedLayer", "Range", "apply_activation", "preprocessed", "quantize"]

LEVELS = 255  # of an activation
LARGEST = 127  # of a weight
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Range:
    """Range of an activation, which is quantized as ``q = round(x * inverse + zero)`` to 0 .. 255.

    Attributes:
        scale: real value of a step.
        zero: whole number that stands for 0.
    """

    scale: float
    zero: int

    @property
    def inverse(self) -> float:
        """Steps of the real value 1."""
        return 1 / self.scale

    @classmethod
    def of(cls, values: Floats) -> Range:
        """Choose the range from the smallest to the largest of some values, and 0."""
        low, high = min(0.0, float(values.min(initial=0))), max(0.0, float(values.max(initial=0)))
        scale = max(high - low, 1e-30) / LEVELS
        return cls(scale, round(-low / scale))


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedLayer:
    """Arrays of ``kron_int8_layer`` in ``int8.h``, which describes them.

    Attributes:
        shape: n1, n2, m1, m2, and the numbers of left and right branches.
    """

    shape: tuple[int, int, int, int, int, int]
    inner: Activation
    activation: Activation
    first: NDArray[np.int8] | None = None
    second: NDArray[np.int8]
    first_scale: Floats | None = None
    left_scale: Floats | None = None
    second_scale: Floats | None = None
    right_scale: Floats | None = None
    left_bias: Floats | None = None
    right_bias: Floats | None = None
    bias: Floats
    hidden_inverse: Floats | None = None
    hidden_zero: Floats | None = None
    output_inverse: float
    output_zero: float


def preprocessed(network: NetworkArrays, samples: Floats) -> Floats:
    """Compute the first layer's input of samples ``(n, *input_shape)``: standardised, with zeros behind."""
    x = samples.reshape(len(samples), -1)
    if network.mean is not None and network.inverse is not None:
        x = (x - network.mean) * network.inverse
    return np.pad(x, ((0, 0), (0, network.layers[0].in_features - x.shape[1])))


def quantize(network: NetworkArrays, samples: Floats, offset: int) -> tuple[Range, list[QuantizedLayer]]:
    """Quantize the layers of a network.

    Args:
        network: the network.
        samples: real inputs ``(n, *input_shape)``, whose activations give the ranges.
        offset: ``kron_int8_offset()``.

    Returns:
        the range of the first layer's input, and the layers.
    """
    x = preprocessed(network, samples)
    first = given = Range.of(x)
    layers = []
    for layer in network.layers:
        hidden, y = _forward(layer, x)
        out = Range.of(y)
        if isinstance(layer, DenseArrays):
            layers.append(_dense(layer, given, out, offset))
        else:
            layers.append(_kronecker(layer, given, [Range.of(each) for each in hidden], out, offset))
        x, given = y, out
    return first, layers


def apply_activation(name: Activation, x: Floats) -> Floats:
    """Apply an activation by its name."""
    if name == "gelu":
        erf = np.fromiter(map(math.erf, (x / math.sqrt(2)).flat), np.float32, x.size).reshape(x.shape)
        return x * (0.5 + 0.5 * erf)
    if name == "tanh":
        return np.tanh(x)
    return np.maximum(x, 0) if name == "relu" else x


def _forward(layer: Layer, x: Floats) -> tuple[list[Floats], Floats]:
    """Compute the hidden matrices of each branch, after their activation, and the output of a layer."""
    if isinstance(layer, DenseArrays):
        return [], apply_activation(layer.activation, x @ layer.weight.T + layer.bias)
    n1, n2 = layer.first.shape[2], layer.second.shape[2]
    matrices = x.reshape(-1, n1, n2)
    hidden, total = [], np.zeros((), np.float32)
    left = int((~layer.right).sum())
    for k, (a, b) in enumerate(zip(layer.first, layer.second, strict=True)):
        if k < left:
            z = a @ matrices + (0 if layer.left_bias is None else layer.left_bias[k])
            hidden.append(apply_activation(layer.inner, z))
            total = total + hidden[-1] @ b.T
        else:
            z = matrices @ b.T + (0 if layer.right_bias is None else layer.right_bias[k - left])
            hidden.append(apply_activation(layer.inner, z))
            total = total + a @ hidden[-1]
    y = total.reshape(len(x), -1) + layer.bias
    return hidden, apply_activation(layer.activation, y)


def _rounded(weights: Floats, axis: int | tuple[int, ...]) -> tuple[NDArray[np.int8], Floats]:
    """Round weights to whole multiples of a scale; one scale for all weights along some axes, which are kept."""
    scale = np.maximum(np.abs(weights).max(axis, keepdims=True, initial=0), 1e-30) / LARGEST
    return np.rint(weights / scale).astype(np.int8), scale.astype(np.float32)


def _dense(layer: DenseArrays, given: Range, out: Range, offset: int) -> QuantizedLayer:
    weight, scale = _rounded(layer.weight, 1)
    scales = scale[:, 0] * given.scale
    bias = layer.bias - scales * (given.zero - offset) * weight.sum(1, dtype=np.int64)
    return QuantizedLayer(
        shape=(1, layer.in_features, 1, layer.out_features, 0, 0),
        inner="none",
        activation=layer.activation,
        second=weight,
        second_scale=_f32(scales),
        bias=_f32(bias),
        output_inverse=out.inverse,
        output_zero=out.zero,
    )


def _kronecker(
    layer: KroneckerArrays, given: Range, hidden: Sequence[Range], out: Range, offset: int
) -> QuantizedLayer:
    (_, m1, n1), (_, m2, n2) = layer.first.shape, layer.second.shape
    left = int((~layer.right).sum())
    rank = len(layer.right)
    steps = np.array([each.scale for each in hidden], np.float32)[:, None, None]
    zeros = np.array([each.zero - offset for each in hidden])
    zero_in = given.zero - offset
    first, second = np.empty(layer.first.shape, np.int8), np.empty(layer.second.shape, np.int8)
    bias = layer.bias.reshape(m1, m2).astype(np.float64)

    # A of the left branches, by row; their B with the hidden steps, by row for all branches together.
    first[:left], first_scale = _rounded(layer.first[:left], 2)
    first_scale = first_scale[..., 0] * given.scale  # (left, m1)
    left_bias = np.zeros((left, m1, n2)) if layer.left_bias is None else layer.left_bias.astype(np.float64)
    left_bias = left_bias - (first_scale * zero_in * first[:left].sum(2, dtype=np.int64))[..., None]
    second[:left], left_scale = _rounded(layer.second[:left] * steps[:left], (0, 2))
    sums = np.einsum("kij,k->i", second[:left].astype(np.int64), zeros[:left])  # (m2,)
    bias -= left_scale[0, :, 0] * sums if left else 0

    second[left:], second_scale = _rounded(layer.second[left:], 2)
    second_scale = second_scale[..., 0] * given.scale  # (right, m2)
    right_bias = np.zeros((rank - left, n1, m2)) if layer.right_bias is None else layer.right_bias.astype(np.float64)
    right_bias = right_bias - (second_scale * zero_in * second[left:].sum(2, dtype=np.int64))[:, None]
    first[left:], right_scale = _rounded(layer.first[left:] * steps[left:], (0, 2))
    sums = np.einsum("kij,k->i", first[left:].astype(np.int64), zeros[left:])  # (m1,)
    bias -= (right_scale[0, :, 0] * sums)[:, None] if left < rank else 0

    return QuantizedLayer(
        shape=(n1, n2, m1, m2, left, rank - left),
        inner=layer.inner,
        activation=layer.activation,
        first=first,
        second=second,
        first_scale=_f32(first_scale),
        left_scale=_f32(left_scale),
        second_scale=_f32(second_scale),
        right_scale=_f32(right_scale),
        left_bias=_f32(left_bias),
        right_bias=_f32(right_bias),
        bias=_f32(bias),
        hidden_inverse=_f32(np.array([each.inverse for each in hidden])),
        hidden_zero=_f32(np.array([each.zero for each in hidden])),
        output_inverse=out.inverse,
        output_zero=out.zero,
    )


def _f32(values: NDArray[np.floating]) -> Floats:
    return np.ascontiguousarray(values, np.float32)
