"""Kronecker sums fitted to a layer's outputs: alternating least squares with the inputs' full second moment."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from kronmodel.compress.matrices.moments import Array, System
from kronmodel.compress.matrices.structures import Structure
from kronmodel.nn.functional import nearest_kronecker

__all__ = ["MAX_UNKNOWNS", "fit_kronecker", "is_affordable", "kronecker_sum"]

MAX_UNKNOWNS = 1024  # largest linear system of a step: one row of one factor in all terms
IMPROVEMENT = 1e-5  # relative decrease of the error a sweep below which the fit has converged


def is_affordable(structure: Structure) -> bool:
    """Tell whether the steps of the fit are linear systems of a reasonable size."""
    return structure.rank * max(structure.in_shape) <= MAX_UNKNOWNS


def fit_kronecker(
    system: System, structure: Structure, *, sweeps: int = 60, start: Sequence[Array] | None = None
) -> tuple[tuple[Array, ...], float]:
    """Fit a sum of Kronecker products to a least-squares problem.

    Each step solves for one factor of all terms in closed form with the other factors fixed, so that the error never
    rises; a sweep is a step for each factor. Starts from the nearest Kronecker sum of the problem's dense solution.

    Args:
        system: the layer's problem.
        structure: a structure of kind ``"kronecker"``.
        sweeps: most sweeps; fewer if the error has converged.
        start: factors to start from; of smaller rank, the missing terms are the nearest ones to the remainder.

    Returns:
        The factors, and the mean squared error, summed over the outputs.
    """
    factors = _start(system, structure, start)
    if system.is_diagonal and np.ptp(system.gram) == 0 and len(structure.in_shape) == 2:
        return tuple(factors), system.square_error(kronecker_sum(factors))  # the nearest sum is the optimum
    steps = [_Step(system, structure, axis) for axis in range(len(structure.in_shape))]
    error = math.inf
    for sweep in range(sweeps):
        before = error
        for step in steps:
            gain = step.solve(factors)
        error = max(system.zero_error - gain, 0.0)
        _balance(factors)
        if sweep >= 2 and before - error <= IMPROVEMENT * max(error, 1e-6 * system.energy):
            break
    return tuple(factors), system.square_error(kronecker_sum(factors))


def _start(system: System, structure: Structure, start: Sequence[Array] | None) -> list[Array]:
    """Return starting factors of the full rank."""
    have = 0 if start is None else len(start[0])
    target = system.target
    if start is not None and have:
        target = target - kronecker_sum(start)
    missing = structure.rank - have
    if missing <= 0:
        return [np.array(factor[: structure.rank], target.dtype) for factor in start or ()]
    # Inputs of different strength: each is weighted by its root mean square, averaged along the other axes so that the
    # weighted matrix stays a Kronecker problem.
    scales = _scales(system, structure.in_shape)
    weight = (target * _outer(scales)).astype(np.float32)  # a starting point need not be exact
    nearest = nearest_kronecker(torch.from_numpy(weight), structure.in_shape, structure.out_shape, missing)
    scales = [scale.astype(target.dtype) for scale in scales]
    new: list[Array] = [factor.numpy() / scale for factor, scale in zip(nearest, scales, strict=True)]
    if start is None:
        return new
    return [np.concatenate([old.astype(one.dtype), one]) for old, one in zip(start, new, strict=True)]


def _scales(system: System, in_shape: Sequence[int]) -> list[Array]:
    """Return a scale for each index of each axis; their outer product is near the inputs' root mean squares."""
    squares = (system.gram if system.is_diagonal else np.diagonal(system.gram)).reshape(in_shape)
    total = max(float(squares.mean()), np.finfo(np.float32).tiny)
    scales = []
    for axis in range(len(in_shape)):
        others = tuple(each for each in range(len(in_shape)) if each != axis)
        relative = squares.mean(others) / total
        scales.append(np.sqrt(np.maximum(relative, 1e-3)))
    return scales


def _outer(scales: Sequence[Array]) -> Array:
    product = np.ones(1)
    for scale in scales:
        product = np.multiply.outer(product, scale).reshape(-1)
    return product


def kronecker_sum(factors: Sequence[Array]) -> Array:
    """Return the dense matrix ``Σ_k F1[k] ⊗ F2[k] ⊗ ...`` of factors ``(r, m_i, n_i)``."""
    *before, last = factors
    first = _joined(before)
    (rank, m, n), (_, a, b) = first.shape, last.shape
    # One product over the terms, instead of a dense matrix for each.
    flat: Array = first.reshape(rank, m * n).T @ last.reshape(rank, a * b)
    return flat.reshape(m, n, a, b).transpose(0, 2, 1, 3).reshape(m * a, n * b)


def _balance(factors: list[Array]) -> None:
    """Give all factors of a term the same norm, which keeps the steps well conditioned."""
    norms = [np.linalg.norm(factor.reshape(len(factor), -1), axis=1) for factor in factors]
    product = np.prod(norms, axis=0)
    common = product ** (1 / len(factors))
    for index, norm in enumerate(norms):
        scale = np.divide(common, norm, out=np.zeros_like(norm), where=norm > 0)
        factors[index] = factors[index] * scale[:, None, None]


class _Step:
    """Closed-form solution for the factors of one axis with the other axes' factors fixed.

    The axis is brought to the front of inputs and outputs, and the others are joined: ``y[i, a] = Σ_k A_k[i, j]
    B_k[a, b] x[j, b]``. Each row ``i`` of the ``A_k`` together solves a system with the same matrix
    ``H[(k, j), (l, q)] = Σ_bc (B_kᵀ B_l)[b, c] G[(j, b), (q, c)]``.
    """

    def __init__(self, system: System, structure: Structure, axis: int) -> None:
        self.axis = axis
        n, m = structure.in_shape, structure.out_shape
        self.n, self.m = n[axis], m[axis]
        self.n_rest, self.m_rest = structure.in_features // self.n, structure.out_features // self.m
        count = len(n)
        first = [axis, *(each for each in range(count) if each != axis)]
        both = [*first, *(count + each for each in first)]
        self.diagonal = system.is_diagonal
        if self.diagonal:
            self.gram: Array = np.ascontiguousarray(system.gram.reshape(n).transpose(first)).reshape(
                self.n, self.n_rest
            )
        else:
            gram = system.gram.reshape(*n, *n).transpose(both).reshape(self.n, self.n_rest, self.n, self.n_rest)
            # (n_rest², n²): rows (b, c), columns (j, q)
            self.gram = np.ascontiguousarray(gram.transpose(1, 3, 0, 2)).reshape(self.n_rest**2, self.n**2)
        cross = system.cross.reshape(*m, *n).transpose(both)
        cross = cross.reshape(self.m, self.m_rest, self.n, self.n_rest)
        # (m_rest n_rest, m n): rows (a, b), columns (i, j)
        self.cross = np.ascontiguousarray(cross.transpose(1, 3, 0, 2)).reshape(
            self.m_rest * self.n_rest, self.m * self.n
        )

    def solve(self, factors: list[Array]) -> float:
        """Replace the factors of this axis by the best ones; return the decrease of the error from a zero matrix."""
        rank = len(factors[0])
        rest = _joined([factor for index, factor in enumerate(factors) if index != self.axis])  # (r, m_rest, n_rest)
        moments = (rest.reshape(rank, -1) @ self.cross).reshape(rank, self.m, self.n)
        right: Array = moments.transpose(0, 2, 1).reshape(rank * self.n, self.m)
        normal = self._normal(rest)
        scale = np.diagonal(normal).mean()
        normal[np.diag_indices_from(normal)] += float(np.finfo(normal.dtype).eps) * 10 * max(float(scale), 1e-30)
        solved = _solve(normal, right)  # (r n, m)
        factors[self.axis] = np.ascontiguousarray(solved.reshape(rank, self.n, self.m).transpose(0, 2, 1))
        return float(np.vdot(right, solved))

    def _normal(self, rest: Array) -> Array:
        """Return the normal matrix ``(r n, r n)`` for fixed other factors ``(r, m_rest, n_rest)``."""
        rank = len(rest)
        flat = rest.transpose(0, 2, 1).reshape(rank * self.n_rest, self.m_rest)
        if self.diagonal:
            products = np.einsum("kab,lab->klb", rest, rest, optimize=True)  # (r, r, n_rest)
            blocks = products.reshape(rank * rank, self.n_rest) @ self.gram.T  # (r², n)
            sparse = np.zeros((rank, self.n, rank, self.n), blocks.dtype)
            index = np.arange(self.n)
            sparse[:, index, :, index] = blocks.reshape(rank, rank, self.n).transpose(2, 0, 1)
            return sparse.reshape(rank * self.n, rank * self.n)
        products = (flat @ flat.T).reshape(rank, self.n_rest, rank, self.n_rest)
        upper_k, upper_l = np.triu_indices(rank)
        pairs = products.transpose(0, 2, 1, 3).reshape(rank, rank, -1)[upper_k, upper_l]  # (r (r + 1) / 2, n_rest²)
        blocks = (pairs @ self.gram).reshape(-1, self.n, self.n)
        normal = np.empty((rank, self.n, rank, self.n), blocks.dtype)
        normal[upper_k, :, upper_l, :] = blocks
        normal[upper_l, :, upper_k, :] = blocks.transpose(0, 2, 1)
        return normal.reshape(rank * self.n, rank * self.n)


def _joined(factors: Sequence[Array]) -> Array:
    """Return the Kronecker products of the terms of several factors, ``(r, m, n)``."""
    product: Array = factors[0]
    for factor in factors[1:]:
        joined: Array = np.einsum("kij,kab->kiajb", product, factor, optimize=True)
        product = joined.reshape(len(product), product.shape[1] * factor.shape[1], product.shape[2] * factor.shape[2])
    return product


def _solve(normal: Array, right: Array) -> Array:
    """Solve a symmetric system, which is singular if terms are equal: then with the least norm."""
    try:
        factor = torch.linalg.cholesky(torch.from_numpy(normal))
        solved = torch.cholesky_solve(torch.from_numpy(np.ascontiguousarray(right)), factor).numpy()
        if np.isfinite(solved).all():
            return solved
    except RuntimeError:  # torch's error of a matrix that is not positive definite
        pass
    return np.linalg.lstsq(normal, right, rcond=None)[0]
