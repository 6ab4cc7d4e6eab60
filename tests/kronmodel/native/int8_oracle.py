"""Inference with 8 bits by exact integers in numpy: an oracle for the native library, with a bound of its rounding.

The rules are those of docs/native.md and of the C headers: weights are whole multiples of a scale for each row of a
factor, activations whole multiples of a step, sums of their products are exact, and activation functions are the
polynomials below. The library scales sums in float32, so that a value next to the boundary of two steps may be rounded
to the other one. Such values are known here: each number has a slack, which later layers carry on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.native.network import Activation, DenseArrays, KroneckerArrays, Layer, NetworkArrays
from kronmodel.native.quantize import QuantizedLayer, Range
from tests.kronmodel.native.arrays import activated

Array = NDArray[Any]
ROUNDING = 2.0**-22  # relative error of a value that is scaled and shifted in float32
GELU = (1.08763031e-05, -4.24638793e-04, 6.81134195e-03, -6.02333985e-02, 3.94888284e-01)
TANH = (-1.65935947e-05, 5.94288451e-04, -8.45639903e-03, 6.24294021e-02, -2.73814032e-01, 9.84189489e-01)


@dataclass(frozen=True)
class Values:
    """Values, and how far those of the library may be from them."""

    values: Array
    slack: Array

    def reshaped(self, *shape: int) -> Values:
        """Give the values another shape."""
        return Values(self.values.reshape(shape), self.slack.reshape(shape))

    def __add__(self, other: Values) -> Values:
        return Values(self.values + other.values, self.slack + other.slack)


@dataclass(frozen=True)
class Step:
    """Quantization of a matrix of activations, ``q = floor(x * inverse + zero + 0.5)`` limited to 0 .. 255."""

    inverse: float
    zero: float

    def integers(self, x: Values) -> tuple[Array, Array]:
        """Quantize values; return the integers, and by how many steps those of the library may differ."""
        scaled = x.values * self.inverse + self.zero + 0.5
        slack = x.slack * self.inverse + ROUNDING * (np.abs(scaled) + self.zero + 1)
        q, low, high = (np.floor(np.clip(each, 0, 255.5)).astype(np.int64) for each in
                        (scaled, scaled - slack, scaled + slack))  # fmt: skip
        return q, np.maximum(high - q, q - low)

    def matches(self, x: Array) -> bool:
        """Tell whether the range is that from the smallest to the largest value and 0, up to float32."""
        low, high = min(0.0, x.min(initial=0)), max(0.0, x.max(initial=0))
        inverse = 255 / max(high - low, 1e-30)
        return bool(abs(self.inverse / inverse - 1) < 1e-4 and abs(self.zero + low * inverse) < 0.51)


def polynomial(name: Activation, x: Array) -> Array:
    """Compute the activation that the library takes for 8 bits."""
    return _activate(name, Values(x, np.zeros(1))).values


def _activate(name: Activation, x: Values) -> Values:
    if name not in {"gelu", "tanh"}:
        return Values(activated(name, x.values), x.slack)
    limit, coefficients = (3.4, GELU) if name == "gelu" else (3.2, TANH)
    z = np.clip(x.values, -limit, limit)
    p = z * np.polyval(coefficients, z * z)
    terms = np.abs(z) * np.polyval(np.abs(coefficients), z * z)  # whose signs alternate: larger than their sum
    if name == "tanh":
        return Values(p, x.slack + ROUNDING * terms)
    rounding = ROUNDING * np.abs(x.values) * (terms + 0.5)
    return Values(x.values * (p + 0.5), 1.2 * x.slack + rounding)  # 1.2: more than the steepest slope


def _scales(weights: Array, integers: Array, axis: int | tuple[int, ...]) -> Array:
    """Compute the scale of each row, and check that the integers are its nearest multiples."""
    scale: Array = np.maximum(np.abs(weights.astype(np.float64)).max(axis, keepdims=True), 1e-30) / 127
    assert np.abs(weights / scale - integers).max() <= 0.5 + 1e-4
    return scale


def _product(left: Array, right: Array, radius: Array, scale: Array, zero: float) -> Values:
    """Multiply integers, of which one matrix is an activation less its zero; ``radius`` is the sum of their slack."""
    sums = left @ right
    # What the library converts to float32 is the sum with the zero in it.
    return Values(sums * scale, radius * scale + ROUNDING * (np.abs(sums) + abs(zero)) * scale)


def _dense(layer: DenseArrays, quantized: QuantizedLayer, x: Values, given: Step) -> Values:
    weights = quantized.second.astype(np.int64)
    scale = _scales(layer.weight, weights, 1)[:, 0] / given.inverse
    q, radius = given.integers(x)
    zeros = given.zero * np.abs(weights.sum(1))
    y = _product(q - int(given.zero), weights.T, radius @ np.abs(weights.T), scale, 0)
    return y + Values(layer.bias.astype(np.float64), ROUNDING * (np.abs(layer.bias) + zeros * scale))


def _kronecker(
    layer: KroneckerArrays, quantized: QuantizedLayer, x: Values, given: Step, hidden: Sequence[Step]
) -> Values:
    n1, n2, m1, m2, left, right = quantized.shape
    assert quantized.first is not None
    firsts, seconds = quantized.first.astype(np.int64), quantized.second.astype(np.int64)
    steps = np.array([1 / step.inverse for step in hidden])[:, None, None]
    q, radius = given.integers(x.reshaped(-1, n1, n2))
    q = q - int(given.zero)
    zero = Values(np.zeros((len(q), m1, m2)), np.zeros((len(q), m1, m2)))
    total = zero + Values(layer.bias.reshape(m1, m2), ROUNDING * np.abs(layer.bias.reshape(m1, m2)))
    if left:
        first_scale = _scales(layer.first[:left], firsts[:left], 2) / given.inverse  # (left, m1, 1)
        second_scale = _scales(layer.second[:left] * steps[:left], seconds[:left], (0, 2))[0, :, 0]  # (m2)
    if right:
        inner_scale = _scales(layer.second[left:], seconds[left:], 2)[..., 0] / given.inverse  # (right, m2)
        outer_scale = _scales(layer.first[left:] * steps[left:], firsts[left:], (0, 2))[0]  # (m1, 1)
    for k, step in enumerate(hidden):
        a, b = firsts[k], seconds[k]
        if k < left:
            z = _product(a, q, np.abs(a) @ radius, first_scale[k], 0)
            z += _inner_bias(layer.left_bias, k, first_scale[k] * np.abs(given.zero * a.sum(1, keepdims=True)))
            h, slack = step.integers(_activate(layer.inner, z))
            total += _product(h - int(step.zero), b.T, slack @ np.abs(b.T), second_scale, 0)
            total += Values(np.zeros(1), ROUNDING * second_scale * np.abs(step.zero * b.sum(1)))
        else:
            z = _product(q, b.T, radius @ np.abs(b.T), inner_scale[k - left], 0)
            z += _inner_bias(layer.right_bias, k - left, inner_scale[k - left] * np.abs(given.zero * b.sum(1)))
            h, slack = step.integers(_activate(layer.inner, z))
            total += _product(a, h - int(step.zero), np.abs(a) @ slack, outer_scale, 0)
            total += Values(np.zeros(1), ROUNDING * outer_scale * np.abs(step.zero * a.sum(1, keepdims=True)))
    return total.reshaped(-1, m1 * m2)


def _inner_bias(biases: Array | None, k: int, folded: Array) -> Values:
    """Bias of a hidden matrix; the library adds it in one number with what the zero of activations amounts to."""
    bias = np.zeros((1, 1)) if biases is None else biases[k].astype(np.float64)
    return Values(bias, ROUNDING * (np.abs(bias) + np.abs(folded)))


def _in_float64(layer: Layer, x: Array) -> tuple[list[Array], Array]:
    """Compute the hidden matrices and the output of a layer without quantization."""
    if isinstance(layer, DenseArrays):
        return [], activated(layer.activation, x @ layer.weight.T.astype(np.float64) + layer.bias)
    matrices, left = x.reshape(len(x), layer.first.shape[2], -1), int((~layer.right).sum())
    hidden: list[Array] = []
    total: Any = 0
    for k, (a, b) in enumerate(zip(layer.first.astype(np.float64), layer.second.astype(np.float64), strict=True)):
        bias = layer.left_bias if k < left else layer.right_bias
        z = a @ matrices if k < left else matrices @ b.T
        hidden.append(activated(layer.inner, z + (0 if bias is None else bias[k if k < left else k - left])))
        total = total + (hidden[-1] @ b.T if k < left else a @ hidden[-1])
    return hidden, activated(layer.activation, total.reshape(len(x), -1) + layer.bias)


def expected_int8(
    network: NetworkArrays, given: Range, quantized: Sequence[QuantizedLayer], samples: Array, x: Array
) -> Values:
    """Compute a network with 8 bits; of ``quantized``, only integers and ranges are taken, after a check.

    Args:
        network: real weights and biases.
        given: range of the first layer's input.
        quantized: layers as the library takes them.
        samples: inputs ``(n, features)`` of the first layer from which the ranges come.
        x: inputs ``(batch, features)`` of the first layer.

    Returns:
        outputs of the last layer, without the network's scale and offset.
    """
    step = Step(given.inverse, given.zero)
    samples = samples.astype(np.float64)
    assert step.matches(samples)
    y = Values(x.astype(np.float64), ROUNDING * np.abs(x))
    for layer, integers in zip(network.layers, quantized, strict=True):
        hidden, samples = _in_float64(layer, samples)
        if isinstance(layer, DenseArrays):
            y = _dense(layer, integers, y, step)
        else:
            assert integers.hidden_inverse is not None and integers.hidden_zero is not None  # noqa: PT018
            pairs = zip(integers.hidden_inverse.tolist(), integers.hidden_zero.tolist(), strict=True)
            steps = [Step(*pair) for pair in pairs]
            assert all(each.matches(values) for each, values in zip(steps, hidden, strict=True))
            y = _kronecker(layer, integers, y, step, steps)
        y = _activate(layer.activation, y)
        step = Step(integers.output_inverse, integers.output_zero)
        assert step.matches(samples)
    return y
