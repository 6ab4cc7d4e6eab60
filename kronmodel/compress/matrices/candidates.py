"""Layers as matrices, candidates for their replacement, and fitted replacements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kronmodel.compress.matrices.kronecker import kronecker_sum
from kronmodel.compress.matrices.moments import Array
from kronmodel.compress.matrices.structures import KINDS, Kind, Structure, dense

__all__ = ["Candidate", "Fitted", "MatrixLayer", "matrix_of", "unchanged"]


@dataclass(frozen=True, eq=False)
class MatrixLayer:
    """Layer of a network as a matrix: ``y = weight x + bias``.

    Attributes:
        name: name of the layer, unique in its network.
        weight: ``(out, in)``, float32 or float64; of a convolution ``(out_channels, in_channels * kh * kw)``.
        bias: ``(out,)``, or None.
        applications: rows that the matrix is applied to for one sample: 1, the positions of a convolution's output, or
            the tokens of a sequence.
        itemsize: bytes of a stored weight.
        importance: factor of the layer's squared relative error in the error of the whole network.
        structures: kinds of structures that can replace the layer.
        kernel: positions of a convolution's kernel, which must stay together in the last factor of a Kronecker product;
            1 for other layers.
        constant: ``(out,)``, added to the outputs besides the bias, which may change it; None if there is none.
        is_refittable: whether its dense weight may be fitted anew behind compressed layers; not if it is shared.
    """

    name: str
    weight: Array
    bias: Array | None = None
    applications: int = 1
    itemsize: int = 4
    importance: float = 1.0
    structures: tuple[Kind, ...] = KINDS
    kernel: int = 1
    constant: Array | None = None
    is_refittable: bool = True

    @property
    def in_features(self) -> int:
        """Number of inputs."""
        return int(self.weight.shape[1])

    @property
    def out_features(self) -> int:
        """Number of outputs."""
        return int(self.weight.shape[0])

    def bytes_of(self, structure: Structure) -> int:
        """Count the stored bytes of the layer in a structure, with its bias."""
        bias = 0 if self.bias is None else self.out_features
        return self.itemsize * (structure.weights + bias)

    def macs_of(self, structure: Structure) -> int:
        """Count the multiply-adds of the layer in a structure for one sample."""
        return self.applications * structure.macs


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Possible replacement of a layer: its structure, its costs, and its errors.

    Attributes:
        structure: structure of the replacement.
        bytes: stored bytes of the weights and the bias.
        macs: multiply-adds for one sample.
        weight_error: Frobenius norm of the change of the weight, relative to the weight's.
        output_error: root mean square of the change of the outputs on data, relative to the targets' standard deviation
            (without a bias: to their root mean square).
        microseconds: measured time of the layer, if the caller has measured it.
    """

    structure: Structure
    bytes: int
    macs: int
    weight_error: float
    output_error: float
    microseconds: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """Fitted replacement of a layer.

    Attributes:
        candidate: structure, costs and errors.
        factors: the arrays of :attr:`Structure.factor_shapes`.
        bias: bias ``(out,)``, or None if the layer has none.
    """

    candidate: Candidate
    factors: tuple[Array, ...]
    bias: Array | None

    @property
    def structure(self) -> Structure:
        """Structure of the replacement."""
        return self.candidate.structure

    def matrix(self) -> Array:
        """Return the dense matrix ``(out, in)`` that the factors imply."""
        return matrix_of(self.structure, self.factors)

    def apply(self, x: Array) -> Array:
        """Apply the replacement to inputs ``(rows, in)``, factor by factor; the reference for implementations."""
        kind = self.structure.kind
        y: Array
        if kind == "monarch":
            left, right = self.factors
            parts = x.reshape(len(x), *self.structure.in_shape)  # (rows, n1, n2)
            inner = np.einsum("bjp,jtkp->btjk", parts, right, optimize=True)  # (rows, t, n1, r)
            y = np.einsum("btjk,tijk->bit", inner, left, optimize=True).reshape(len(x), -1)  # (rows, m1 * t)
        elif kind == "low-rank":
            y = x @ self.factors[1].T @ self.factors[0].T
        else:
            y = x @ self.matrix().T
        return y if self.bias is None else y + self.bias


def matrix_of(structure: Structure, factors: tuple[Array, ...]) -> Array:
    """Return the dense matrix ``(out, in)`` that the factors of a structure imply."""
    if structure.kind == "dense":
        return factors[0]
    if structure.kind == "low-rank":
        return factors[0] @ factors[1]
    if structure.kind == "kronecker":
        return kronecker_sum(factors)
    left, right = factors
    # (m1, t, n1, n2): block (t, n1) is the product of its two factors.
    blocks: Array = np.einsum("tijk,jtkp->itjp", left, right, optimize=True)
    return blocks.reshape(structure.out_features, structure.in_features)


def unchanged(layer: MatrixLayer) -> Candidate:
    """Return the candidate that leaves a layer as it is."""
    structure = dense(layer.in_features, layer.out_features)
    return Candidate(
        structure=structure,
        bytes=layer.bytes_of(structure),
        macs=layer.macs_of(structure),
        weight_error=0.0,
        output_error=0.0,
    )
