"""Low-rank products fitted to a layer's outputs, in closed form (reduced-rank regression)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from kronmodel.compress.matrices.moments import Array, System

__all__ = ["LowRank", "solve_low_rank"]


@dataclass(frozen=True, eq=False)
class LowRank:
    """Solution of a low-rank fit for all ranks at once.

    Attributes:
        directions: orthonormal columns ``(m, k)``: principal directions of the outputs, strongest first.
        projected: ``directions.T @ target``, ``(k, n)``.
        strengths: mean square of the outputs along each direction, ``(k,)``, falling.
        system: the problem that is solved.
    """

    directions: Array
    projected: Array
    strengths: Array
    system: System

    def factors(self, rank: int) -> tuple[Array, Array]:
        """Return the factors ``(m, rank)`` and ``(rank, n)`` of the best matrix of a rank, with equal norms."""
        # The factors of each term get equal norms, so that half precision and further training serve both alike.
        root = np.sqrt(np.linalg.norm(self.projected[:rank], axis=1))
        root[root == 0] = 1
        return self.directions[:, :rank] * root, self.projected[:rank] / root[:, None]

    def square_error(self, rank: int) -> float:
        """Compute the least mean squared error of a rank, summed over the outputs."""
        return self.system.offset + float(self.strengths[rank:].sum())


def solve_low_rank(system: System) -> LowRank:
    """Solve a least-squares problem for the best matrix of each rank.

    The error of a matrix is measured in the metric of the inputs' second moment; the best matrix of rank ``r`` is the
    dense solution, projected on the ``r`` principal directions of its outputs.

    Args:
        system: the layer's problem.
    """
    target = system.target
    m, n = target.shape
    if m <= n:
        outputs = system.weighted(target) @ target.T  # second moment of the outputs, (m, m)
        values, vectors = torch.linalg.eigh(torch.from_numpy((outputs + outputs.T) / 2))
        directions = np.ascontiguousarray(vectors.numpy()[:, ::-1])
        strengths = np.maximum(values.numpy()[::-1], 0)
    else:
        if system.is_diagonal:
            whitened = target * np.sqrt(system.gram)
        else:
            whitened = target @ torch.linalg.cholesky(torch.from_numpy(system.gram)).numpy()
        u, s, _ = torch.linalg.svd(torch.from_numpy(whitened), full_matrices=False)
        directions, strengths = u.numpy(), s.numpy() ** 2
    return LowRank(directions, directions.T @ target, strengths, system)
