"""Structures of a layer's matrix: dense, low rank, Kronecker and Monarch, with their numbers of weights and costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from kronmodel.shapes import Shape, linear_macs

__all__ = ["KINDS", "Kind", "Structure", "dense", "kronecker", "low_rank", "monarch"]

Kind = Literal["dense", "low-rank", "kronecker", "monarch"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, order=True)
class Structure:
    """Structure of a matrix ``(out, in)``: its kind, the factor sizes of both sides, and a rank.

    With the row-major order of ``reshape``, and factors as :attr:`factor_shapes` lists them:

    - ``"dense"``: ``W``; shapes ``(in,)`` and ``(out,)``, rank 1.
    - ``"low-rank"``: ``U V`` with ``U (out, r)`` and ``V (r, in)``; shapes ``(in,)`` and ``(out,)``.
    - ``"kronecker"``: ``Σ_k F1[k] ⊗ F2[k] ⊗ ...`` with ``Fi (r, m_i, n_i)``, two factors or more.
    - ``"monarch"``: ``W[(i, t), (j, p)] = Σ_k L[t, i, j, k] R[j, t, k, p]``: two block-diagonal matrices with a
      transposition in between. ``L (t, m1, n1, r)`` and ``R (n1, t, r, n2)`` for the shapes ``(n1, n2)`` and
      ``(m1, t)``: each block ``(m1, n2)`` has rank ``r``.

    Attributes:
        kind: kind of the structure.
        in_shape: factor sizes of the input, ``(n1, n2, ...)``.
        out_shape: factor sizes of the output, ``(m1, m2, ...)``.
        rank: rank ``r``.
    """

    kind: Kind
    in_shape: Shape
    out_shape: Shape
    rank: int = 1

    @property
    def in_features(self) -> int:
        """Number of inputs."""
        return math.prod(self.in_shape)

    @property
    def out_features(self) -> int:
        """Number of outputs."""
        return math.prod(self.out_shape)

    @property
    def factor_shapes(self) -> tuple[Shape, ...]:
        """Shape of each factor."""
        n, m, r = self.in_features, self.out_features, self.rank
        if self.kind == "dense":
            return ((m, n),)
        if self.kind == "low-rank":
            return ((m, r), (r, n))
        if self.kind == "kronecker":
            return tuple((r, mi, ni) for mi, ni in zip(self.out_shape, self.in_shape, strict=True))
        (n1, n2), (m1, t) = self.in_shape, self.out_shape
        return ((t, m1, n1, r), (n1, t, r, n2))

    @property
    def weights(self) -> int:
        """Number of values in all factors, without a bias."""
        return sum(math.prod(shape) for shape in self.factor_shapes)

    @property
    def macs(self) -> int:
        """Multiply-adds of one application to a vector."""
        if self.kind == "kronecker":
            return self.rank * linear_macs(self.in_shape, self.out_shape)[1]
        return self.weights

    def __str__(self) -> str:
        if self.kind == "dense":
            return "dense"
        if self.kind == "low-rank":
            return f"low-rank {self.rank}"
        sides = ("×".join(map(str, shape)) for shape in (self.in_shape, self.out_shape))
        return f"{self.kind} {' → '.join(sides)}, rank {self.rank}"


def dense(in_features: int, out_features: int) -> Structure:
    """Return the structure of an unchanged matrix."""
    return Structure("dense", (in_features,), (out_features,))


def low_rank(in_features: int, out_features: int, rank: int) -> Structure:
    """Return the structure of a product of two matrices, of which the inner width is ``rank``."""
    return Structure("low-rank", (in_features,), (out_features,), rank)


def kronecker(in_shape: Shape, out_shape: Shape, rank: int) -> Structure:
    """Return the structure of a sum of ``rank`` Kronecker products."""
    return Structure("kronecker", in_shape, out_shape, rank)


def monarch(in_shape: Shape, out_shape: Shape, rank: int = 1) -> Structure:
    """Return the structure of a Monarch matrix with blocks of rank ``rank``.

    Args:
        in_shape: ``(n1, n2)``: number of blocks of the first factor, and inputs of each.
        out_shape: ``(m1, t)``: outputs of each block of the second factor, and their number.
        rank: rank of each block ``(m1, n2)`` of the matrix.
    """
    return Structure("monarch", in_shape, out_shape, rank)
