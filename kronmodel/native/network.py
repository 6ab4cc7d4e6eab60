"""Feed-forward networks of dense and Kronecker layers as plain arrays, which native code and code generators read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Activation", "DenseArrays", "KroneckerArrays", "Layer", "NetworkArrays"]

Activation = Literal["none", "relu", "gelu", "tanh"]
Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class DenseArrays:
    """Arrays of a dense layer: ``y = activation(x @ weight.T + bias)``.

    Attributes:
        weight: ``(out_features, in_features)``.
        bias: ``(out_features,)``.
        activation: applied to the output.
    """

    weight: Floats
    bias: Floats
    activation: Activation = "none"

    @property
    def in_features(self) -> int:
        """Number of inputs."""
        return int(self.weight.shape[1])

    @property
    def out_features(self) -> int:
        """Number of outputs."""
        return int(self.weight.shape[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class KroneckerArrays:
    """Arrays of a Kronecker layer with two factors: ``Y = activation(sum of the branches + bias)``.

    A branch is ``inner(A_k X + C_k) B_kᵀ`` in the order ``"left"``, and ``A_k inner(X B_kᵀ + C_k)`` in ``"right"``.

    Attributes:
        first: A, ``(rank, m1, n1)``.
        second: B, ``(rank, m2, n2)``.
        right: ``(rank,)``, whether the branch has the order ``"right"``; the left branches stand first.
        left_bias: C of the left branches, ``(branches, m1, n2)``; None if there are none or they have no biases.
        right_bias: C of the right branches, ``(branches, n1, m2)``; or None.
        bias: ``(m1 * m2,)``.
        inner: activation between the factors.
        activation: applied to the output.
    """

    first: Floats
    second: Floats
    right: NDArray[np.bool_]
    left_bias: Floats | None
    right_bias: Floats | None
    bias: Floats
    inner: Activation
    activation: Activation = "none"

    @property
    def in_features(self) -> int:
        """Number of inputs."""
        return int(self.first.shape[2] * self.second.shape[2])

    @property
    def out_features(self) -> int:
        """Number of outputs."""
        return int(self.first.shape[1] * self.second.shape[1])


Layer = DenseArrays | KroneckerArrays


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkArrays:
    """Arrays of a network with its preprocessing, in the order of its arithmetic.

    Attributes:
        input_shape: shape of a sample.
        mean: subtracted from a sample's features in the first step; None if they are not standardised.
        inverse: multiplied with them afterwards.
        layers: each takes as many features as the one before gives; the first may take more than a sample has, which
            are zeros.
        scale: multiplied with the last layer's output; None for a classifier.
        offset: added to it afterwards.
        outputs: names of the graph's outputs in their order; True for those that are the softmax of the last layer's
            output, False for those that are that output itself.
        input_name: name of the graph's input.
    """

    input_shape: tuple[int, ...]
    mean: Floats | None = None
    inverse: Floats | None = None
    layers: tuple[Layer, ...]
    scale: Floats | None = None
    offset: Floats | None = None
    outputs: dict[str, bool] = field(default_factory=dict)
    input_name: str = "input"

    @property
    def n_features(self) -> int:
        """Number of features of a sample."""
        return math.prod(self.input_shape)

    @property
    def out_features(self) -> int:
        """Number of values that the last layer gives."""
        return self.layers[-1].out_features
