"""Random networks as arrays, and their outputs in float64 by dense matrices: an oracle for native inference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from kronmodel.native.network import Activation, DenseArrays, KroneckerArrays, Layer, NetworkArrays

Array = NDArray[Any]
SIZES = st.sampled_from([1, 2, 7, 13, 16, 28, 33])
EVERY: tuple[Activation, ...] = ("none", "relu", "gelu", "tanh")
ACTIVATIONS = st.sampled_from(EVERY)


def random_kronecker(
    rng: np.random.Generator,
    in_shape: tuple[int, int],
    out_shape: tuple[int, int],
    right: Sequence[bool],
    inner: Activation = "gelu",
    activation: Activation = "gelu",
    *,
    bias: bool = True,
) -> KroneckerArrays:
    """Draw a Kronecker layer that keeps the variance of its inputs."""
    (n1, n2), (m1, m2), rank = in_shape, out_shape, len(right)
    right = sorted(right)
    left = rank - sum(right)

    def normal(*shape: int, fan: int) -> NDArray[np.float32]:
        return rng.normal(0, 1.5 / math.sqrt(fan), shape).astype(np.float32)

    return KroneckerArrays(
        first=normal(rank, m1, n1, fan=n1),
        second=normal(rank, m2, n2, fan=n2 * rank),
        right=np.array(right),
        left_bias=normal(left, m1, n2, fan=9) if bias and left else None,
        right_bias=normal(rank - left, n1, m2, fan=9) if bias and left < rank else None,
        bias=normal(m1 * m2, fan=9),
        inner=inner,
        activation=activation,
    )


def random_dense(
    rng: np.random.Generator, in_features: int, out_features: int, activation: Activation = "gelu"
) -> DenseArrays:
    """Draw a dense layer."""
    weight = rng.normal(0, 1.5 / math.sqrt(in_features), (out_features, in_features)).astype(np.float32)
    bias = rng.normal(0, 0.3, out_features).astype(np.float32)
    return DenseArrays(weight=weight, bias=bias, activation=activation)


def classifier(*layers: Layer, **fields: Any) -> NetworkArrays:
    """Build the network of a classifier."""
    fields.setdefault("input_shape", (layers[0].in_features,))
    return NetworkArrays(layers=layers, outputs={"logits": False, "probabilities": True}, **fields)


@st.composite
def networks(draw: st.DrawFn) -> NetworkArrays:
    """Draw a network of up to three layers of any kind."""
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    layers: list[Any] = []
    shape = (draw(SIZES), draw(SIZES))
    for _ in range(draw(st.integers(1, 3))):
        activation: Activation = draw(ACTIVATIONS)
        if draw(st.integers(0, 3)) == 0:
            width = draw(SIZES)
            layers.append(random_dense(rng, shape[0] * shape[1], width, activation))
            shape = (width, 1) if draw(st.booleans()) else (1, width)
            continue
        new = (draw(SIZES), draw(SIZES))
        right = draw(st.lists(st.booleans(), min_size=1, max_size=4))
        inner: Activation = draw(ACTIVATIONS)
        layers.append(random_kronecker(rng, shape, new, right, inner, activation, bias=draw(st.booleans())))
        shape = new
    return classifier(*layers)


def expected(network: NetworkArrays, x: Array) -> Array:
    """Compute the last layer's outputs, scaled, in float64, with each factor written as a dense matrix."""
    x = x.reshape(len(x), -1).astype(np.float64)
    if network.mean is not None and network.inverse is not None:
        x = (x - network.mean) * network.inverse
    x = np.pad(x, ((0, 0), (0, network.layers[0].in_features - x.shape[1])))
    for layer in network.layers:
        x = activated(layer.activation, _product(layer, x) + layer.bias)
    return x if network.scale is None or network.offset is None else x * network.scale + network.offset


def activated(name: Activation, x: Array) -> Array:
    """Apply an activation in float64."""
    if name == "gelu":
        normal = np.vectorize(lambda z: 0.5 * math.erfc(-z / math.sqrt(2)), otypes=[np.float64])
        return np.multiply(x, normal(x))
    results: dict[Activation, Array] = {"none": x, "relu": np.maximum(x, 0), "tanh": np.tanh(x)}
    return results[name]


def _product(layer: Layer, x: Array) -> Array:
    if isinstance(layer, DenseArrays):
        return x @ layer.weight.astype(np.float64).T
    total = np.zeros((len(x), layer.out_features))
    counts = [0, 0]
    for a, b, right in zip(layer.first, layer.second, layer.right.tolist(), strict=True):
        (m1, n1), (m2, n2) = a.shape, b.shape
        biases = layer.right_bias if right else layer.left_bias
        inner = 0 if biases is None else biases[counts[right]].reshape(-1)
        counts[right] += 1
        if right:
            steps = np.kron(np.eye(n1), b), np.kron(a, np.eye(m2))
        else:
            steps = np.kron(a, np.eye(n2)), np.kron(np.eye(m1), b)
        total += activated(layer.inner, x @ steps[0].T + inner) @ steps[1].T
    return total
