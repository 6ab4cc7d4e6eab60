"""Monarch matrices fitted to a layer's outputs: two block-diagonal factors with a transposition in between."""

from __future__ import annotations

import numpy as np

from kronmodel.compress.matrices.moments import Array, System
from kronmodel.compress.matrices.structures import Structure

__all__ = ["fit_monarch", "is_affordable"]

MAX_UNKNOWNS = 1024  # largest linear system of a step for the first factor; above, only the second factor is refitted
SWEEPS = 4


def is_affordable(structure: Structure) -> bool:
    """Tell whether the linear systems for the second factor are of a reasonable size."""
    return structure.rank * structure.in_shape[0] <= 4 * MAX_UNKNOWNS


def fit_monarch(system: System, structure: Structure, *, sweeps: int = SWEEPS) -> tuple[tuple[Array, Array], float]:
    """Fit a Monarch matrix to a least-squares problem.

    Starts from the truncated singular value decomposition of each block ``(m1, n2)``, which is optimal for uncorrelated
    inputs; then each step solves for one factor in closed form, separately for each block of the second factor.

    Args:
        system: the layer's problem.
        structure: a structure of kind ``"monarch"``.
        sweeps: number of steps for both factors; 0 for the decomposition alone.

    Returns:
        The factors ``(t, m1, n1, r)`` and ``(n1, t, r, n2)``, and the mean squared error, summed over the outputs.
    """
    (n1, n2), (m1, t), rank = structure.in_shape, structure.out_shape, structure.rank
    blocks = system.target.reshape(m1, t, n1, n2).transpose(1, 2, 0, 3)  # (t, n1, m1, n2)
    if system.is_diagonal:
        scale = np.sqrt(np.maximum(system.gram, np.finfo(np.float32).tiny)).reshape(n1, 1, n2)
        u, s, v = np.linalg.svd(blocks * scale, full_matrices=False)
        v = v / scale
    else:
        u, s, v = np.linalg.svd(blocks, full_matrices=False)
    root = np.sqrt(s[..., :rank])
    left = (u[..., :rank] * root[..., None, :]).transpose(0, 2, 1, 3)  # (t, m1, n1, r)
    right = root[..., None] * v[..., :rank, :]  # (t, n1, r, n2)
    if not system.is_diagonal:  # otherwise the blocks are uncorrelated, and this is the optimum
        cross = system.cross.reshape(m1, t, n1 * n2).transpose(1, 0, 2)  # (t, m1, n)
        for _ in range(sweeps):
            for index in range(t):
                left[index] = _solve_left(right[index], system.gram, cross[index])
                if n1 * rank * n2 <= MAX_UNKNOWNS:
                    right[index] = _solve_right(left[index], system.gram, cross[index], n2)
            if n1 * rank * n2 > MAX_UNKNOWNS:
                break  # a second step for the same factor would change nothing
    matrix = np.einsum("tijk,tjkp->itjp", left, right, optimize=True).reshape(m1 * t, n1 * n2)
    factors = np.ascontiguousarray(left), np.ascontiguousarray(right.transpose(1, 0, 2, 3))
    return factors, system.square_error(matrix)


def _solve_left(right: Array, gram: Array, cross: Array) -> Array:
    """Return the best block ``(m1, n1, r)`` of the second factor for blocks ``(n1, r, n2)`` of the first."""
    n1, rank, n2 = right.shape
    half = np.matmul(right, gram.reshape(n1, n2, n1 * n2)).reshape(n1 * rank, n1, n2)  # rows of R G
    normal = np.einsum("ajp,jkp->ajk", half, right, optimize=True).reshape(n1 * rank, n1 * rank)
    moments = np.einsum("ijp,jkp->ijk", cross.reshape(-1, n1, n2), right, optimize=True).reshape(-1, n1 * rank)
    return _solve(normal, moments.T).T.reshape(-1, n1, rank)


def _solve_right(left: Array, gram: Array, cross: Array, n2: int) -> Array:
    """Return the best blocks ``(n1, r, n2)`` of the first factor for a block ``(m1, n1, r)`` of the second."""
    m1, n1, rank = left.shape
    flat = left.reshape(m1, n1 * rank)
    products = (flat.T @ flat).reshape(n1, rank, n1, rank)
    normal = np.einsum("akbl,apbq->akpblq", products, gram.reshape(n1, n2, n1, n2), optimize=True)
    size = n1 * rank * n2
    moments = np.einsum("ijk,ijp->jkp", left, cross.reshape(m1, n1, n2), optimize=True).reshape(size)
    return _solve(normal.reshape(size, size), moments).reshape(n1, rank, n2)


def _solve(normal: Array, right: Array) -> Array:
    """Solve a symmetric system whose matrix may be singular."""
    normal[np.diag_indices_from(normal)] += 1e-9 * max(float(np.diagonal(normal).mean()), np.finfo(np.float64).tiny)
    try:
        solved: Array = np.linalg.solve(normal, right)
    except np.linalg.LinAlgError:
        solved = np.linalg.lstsq(normal, right, rcond=None)[0]
    return solved
