"""Second moments of a layer's inputs and targets, accumulated batch by batch: all that a least-squares fit needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_GRAM_WIDTH", "Array", "Moments", "System"]

Array = NDArray[np.floating]

MAX_GRAM_WIDTH = 8192  # widest input with a full second moment: 256 MB in float32; wider ones keep its diagonal
EXACT_WIDTH = 2048  # widest input whose moments are float64
EXACT_PRODUCTS = 512  # widest input of which each batch's products are float64; wider ones are only added up so


@dataclass(frozen=True, eq=False)
class System:
    """Least-squares problem of one layer: find a structured ``M`` with the least error ``E|y - M x - b|²``.

    The error of any matrix is ``offset + tr((M - W) G (M - W)ᵀ)`` with ``W`` the best dense matrix.

    Attributes:
        gram: ``G``, the regularised second moment (with a bias: the covariance) of the inputs, ``(n, n)``; or its
            diagonal ``(n,)``.
        target: ``W``, the best dense matrix ``(m, n)``: the original weight, unless the inputs differ from those that
            the targets were computed from.
        offset: mean squared error of ``W`` itself, summed over the outputs.
        energy: mean square of the targets (with a bias: their variance), summed over the outputs.
        in_mean: mean of the inputs ``(n,)``, if a bias is fitted, else zeros.
        out_mean: mean of the targets ``(m,)``, if a bias is fitted, else zeros.
    """

    gram: Array
    target: Array
    offset: float
    energy: float
    in_mean: Array
    out_mean: Array

    @property
    def is_diagonal(self) -> bool:
        """Whether only the diagonal of the inputs' second moment is known."""
        return self.gram.ndim == 1

    @cached_property
    def cross(self) -> Array:
        """The dense solution times the second moment, ``W G``, ``(m, n)``."""
        return self.weighted(self.target)

    @cached_property
    def zero_error(self) -> float:
        """Mean squared error of a matrix of zeros, summed over the outputs."""
        return self.offset + float(np.vdot(self.cross, self.target))

    def single(self) -> System:
        """Return the problem in float32, for estimates that need not be exact."""
        gram, target = self.gram.astype(np.float32), self.target.astype(np.float32)
        return replace(self, gram=gram, target=target)

    def weighted(self, matrix: Array) -> Array:
        """Multiply a matrix ``(k, n)`` by the second moment from the right."""
        return matrix * self.gram if self.is_diagonal else matrix @ self.gram

    def square_error(self, matrix: Array) -> float:
        """Compute the mean squared error of a matrix ``(m, n)``, summed over the outputs, with the best bias."""
        difference = matrix - self.target
        return self.offset + max(float(np.vdot(self.weighted(difference), difference)), 0.0)

    def relative_error(self, matrix: Array) -> float:
        """Compute the root of the mean squared error relative to the targets' energy; 0 is exact."""
        return float(np.sqrt(self.square_error(matrix) / max(self.energy, np.finfo(np.float64).tiny)))

    def bias(self, matrix: Array) -> Array:
        """Compute the best bias ``(m,)`` for a matrix: the outputs' mean becomes the targets' mean."""
        return self.out_mean - matrix @ self.in_mean


class Moments:
    """Sums over samples of ``x``, ``y``, ``x xᵀ``, ``y xᵀ`` and ``|y|²`` for inputs ``x`` and target outputs ``y``.

    Memory is ``n * (n + m)`` values, whatever the number of samples. Above :data:`MAX_GRAM_WIDTH` inputs only the
    diagonal of ``x xᵀ`` is kept, and ``y xᵀ`` is derived from the weight: the targets' dependence on changed inputs is
    then ignored.

    Args:
        in_features: number of inputs ``n``.
        out_features: number of outputs ``m``.
        diagonal: keep only the diagonal of ``x xᵀ``; None decides by the width. Embeddings, of which the inputs are
            one-hot, need no more.
    """

    def __init__(self, in_features: int, out_features: int, *, diagonal: bool | None = None) -> None:
        self.diagonal = in_features > MAX_GRAM_WIDTH if diagonal is None else diagonal
        dtype = np.float64 if in_features <= EXACT_WIDTH else np.float32
        self.count = 0
        self.x = np.zeros(in_features)
        self.y = np.zeros(out_features)
        self.xx: Array = np.zeros(in_features if self.diagonal else (in_features, in_features), dtype)
        self.yx: Array | None = None if self.diagonal else np.zeros((out_features, in_features), dtype)
        self.yy = 0.0

    @classmethod
    def of_weights_alone(cls, weight: Array) -> Moments:
        """Return the moments of uncorrelated inputs of variance 1, for a fit without data: the error is the weights'.

        Args:
            weight: matrix ``(m, n)`` of the layer.
        """
        moments = cls(weight.shape[1], weight.shape[0], diagonal=True)
        moments.count = 1
        moments.xx = np.ones_like(moments.xx)
        moments.yy = float(np.vdot(weight, weight))
        return moments

    def add(self, x: Array, y: Array) -> None:
        """Add samples.

        Args:
            x: inputs of the layer as the compressed network computes them, ``(rows, n)``, any floating-point type.
            y: outputs of the original layer on the original inputs, ``(rows, m)``, including its bias.

        Raises:
            ValueError: the shapes don't fit, or a value is not finite.
        """
        if x.shape != (len(y), len(self.x)) or y.shape != (len(x), len(self.y)):
            raise ValueError(
                f"expected inputs (rows, {len(self.x)}) and targets (rows, {len(self.y)}), got {x.shape} and {y.shape}"
            )
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError("the layer's inputs or outputs hold values that are not finite; expected finite ones")
        dtype = self.xx.dtype if len(self.x) <= EXACT_PRODUCTS else np.dtype(np.float32)
        x, y = (np.asarray(each, dtype) for each in (x, y))
        self.count += len(x)
        self.x += x.sum(0, dtype=np.float64)
        self.y += y.sum(0, dtype=np.float64)
        self.yy += float(np.square(y).sum(dtype=np.float64))
        if self.yx is None:
            self.xx += (x * x).sum(0)
        else:
            self.xx += x.T @ x
            self.yx += y.T @ x

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of the samples of both."""
        both = Moments(len(self.x), len(self.y), diagonal=self.diagonal)
        both.count = self.count + other.count
        both.x, both.y = self.x + other.x, self.y + other.y
        both.xx, both.yy = self.xx + other.xx, self.yy + other.yy
        if self.yx is not None and other.yx is not None:
            both.yx = self.yx + other.yx
        return both

    def system(self, weight: Array, *, bias: bool, ridge: float = 0.0) -> System:
        """Return the least-squares problem of these samples.

        Args:
            weight: original matrix ``(m, n)``, from which the solution departs only as far as the data support it.
            bias: whether a bias is fitted too.
            ridge: strength of the regularisation towards the original matrix, relative to the mean square of an input.

        Raises:
            ValueError: there are no samples.
        """
        if not self.count:
            raise ValueError("a fit needs at least one sample, got none")
        in_mean, out_mean = self.x / self.count, self.y / self.count
        if not bias:
            in_mean, out_mean = np.zeros_like(in_mean), np.zeros_like(out_mean)
        energy = max(self.yy / self.count - float(out_mean @ out_mean), 0.0)
        weight = np.asarray(weight, self.xx.dtype)
        if self.yx is None:
            gram = np.maximum(self.xx / self.count - in_mean**2, 0)
            return System(gram + _shift(gram.mean(), ridge), weight, 0.0, energy, in_mean, out_mean)
        gram = self.xx / self.count
        cross = self.yx / self.count
        if bias:
            gram -= np.outer(in_mean, in_mean).astype(gram.dtype)
            cross -= np.outer(out_mean, in_mean).astype(cross.dtype)
        shift = _shift(float(np.trace(gram)) / len(gram), ridge)
        # The departure from the original weight solves D (G + shift) = C - W G, so that exact inputs give D = 0.
        residual = cross - weight @ gram
        gram[np.diag_indices_from(gram)] += shift
        target = weight
        if np.linalg.norm(residual) > 1e-6 * np.linalg.norm(cross):  # else the inputs are the original ones
            target = weight + np.linalg.solve(gram, residual.T).T
        # |y - T x|² = |y|² - 2 tr(T Cᵀ) + tr(T G Tᵀ), with G without the shift.
        shifted = target @ gram
        offset = energy - 2 * float(np.vdot(target, cross)) + float(np.vdot(target, shifted - shift * target))
        return System(gram, target, max(offset, 0.0), energy, in_mean, out_mean)


def _shift(mean_square: float, ridge: float) -> float:
    """Return the value to add to the diagonal; never 0, since constant inputs would make the problem singular."""
    return max(ridge, 1e-6) * max(mean_square, 1e-12)
