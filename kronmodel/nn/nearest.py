"""Nearest sum of Kronecker products to a matrix (Van Loan and Pitsianis)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kronmodel.shapes import Shape, check_linear_rank, check_shapes

__all__ = ["nearest_kronecker"]

EXACT_SIDE = 1024  # rearranged matrices whose smaller side exceeds this are decomposed at random if the rank is small
OVERSAMPLING = 16  # additional directions of the randomised decomposition
ITERATIONS = 4  # power iterations of the randomised decomposition


def nearest_kronecker(
    weight: Tensor, in_shape: Sequence[int], out_shape: Sequence[int], rank: int = 1
) -> tuple[Tensor, ...]:
    """Compute the nearest sum of Kronecker products to a matrix: ``weight ≈ Σ_k F1[k] ⊗ F2[k] ⊗ ...``.

    The entries are rearranged so that each Kronecker product is an outer product of vectors; the truncated singular
    value decomposition then gives the best sum. With two factors it is optimal in the Frobenius norm. With more, one
    factor after another is split off from the remainder of each term, the smallest first, and the largest terms are
    kept: in general another sum of that rank is nearer. If the smaller side of the rearranged matrix is
    above 1,024 and the rank below a tenth of it, the decomposition is randomised with a fixed seed, and accurate to
    a few digits beyond the gap after the last term.

    Args:
        weight: ``(m1 * m2 * ..., n1 * n2 * ...)``, of any floating-point type; computed in float32 at least.
        in_shape: factor sizes ``(n1, n2, ...)`` of the columns.
        out_shape: equally many factor sizes ``(m1, m2, ...)`` of the rows.
        rank: number of terms.

    Returns:
        The factors ``(rank, m_i, n_i)``, in the weight's data type, on its device. The factors of a term have equal
        norms, and terms are sorted by falling norm of their product.

    Raises:
        ValueError: the shapes don't fit the weight or each other, or the rank is out of range.

    Example:
        >>> a, b = torch.randn(2, 4, 3), torch.randn(2, 5, 2)
        >>> weight = torch.kron(a[0], b[0]) + torch.kron(a[1], b[1])
        >>> factors = nearest_kronecker(weight, in_shape=(3, 2), out_shape=(4, 5), rank=2)
        >>> torch.allclose(sum(torch.kron(*term) for term in zip(*factors)), weight, atol=1e-4)
        True

    Reference:
        C. F. Van Loan, N. Pitsianis, *Approximation with Kronecker Products*, 1993.
    """
    sizes_in, sizes_out = check_shapes(in_shape, out_shape)
    rank = check_linear_rank(rank, sizes_in, sizes_out)
    if weight.dim() != 2 or tuple(weight.shape) != (math.prod(sizes_out), math.prod(sizes_in)):
        expected = (math.prod(sizes_out), math.prod(sizes_in))
        raise ValueError(
            f"the weight must have shape {expected} for {sizes_in} -> {sizes_out}, got {tuple(weight.shape)}"
        )
    with torch.no_grad():
        dtype = torch.promote_types(weight.dtype, torch.float32)
        factors = _split(weight.detach().to(dtype), sizes_in, sizes_out, rank)
        factors = _sorted(_balanced(factors))
        return tuple(factor.to(weight.dtype).contiguous() for factor in factors)


def _split(weight: Tensor, in_shape: Shape, out_shape: Shape, rank: int) -> list[Tensor]:
    """Decompose a matrix by successive singular value decompositions, the factor with the fewest weights first.

    All terms of such a decomposition are orthogonal to each other, so that the largest ones are the best to keep. With
    the largest factor last, there are no more terms than the largest useful rank.
    """
    count = len(in_shape)
    by_size = sorted(range(count), key=lambda axis: in_shape[axis] * out_shape[axis])
    sizes_in, sizes_out = ([shape[axis] for axis in by_size] for shape in (in_shape, out_shape))
    both = [*by_size, *(count + axis for axis in by_size)]
    rest = weight.reshape(*out_shape, *in_shape).permute(both).reshape(1, math.prod(sizes_out), math.prod(sizes_in))
    done: list[Tensor] = []  # factors (terms, m_i, n_i) that are split off
    for n, m in zip(sizes_in[:-1], sizes_out[:-1], strict=True):
        terms, m_all, n_all = rest.shape
        # (terms, m n, m_rest n_rest)
        rearranged = rest.reshape(terms, m, m_all // m, n, n_all // n).transpose(2, 3).reshape(terms, m * n, -1)
        u, s, v = _svd(rearranged, min(rank, *rearranged.shape[1:]))
        kept = s.flatten().argsort(descending=True, stable=True)[:rank]
        done = [factor.repeat_interleave(s.shape[1], 0)[kept] for factor in done]
        done.append(u.transpose(1, 2).flatten(0, 1)[kept].reshape(-1, m, n))
        # The singular values stay with the remainder, by which the terms of the next decomposition are ranked.
        rest = (s[..., None] * v.transpose(1, 2)).flatten(0, 1)[kept].reshape(-1, m_all // m, n_all // n)
    done.append(rest)
    missing = rank - len(rest)  # a factor may be too small for so many terms
    ordered = [done[by_size.index(axis)] for axis in range(count)]
    return [torch.cat([factor, factor.new_zeros(missing, *factor.shape[1:])]) for factor in ordered]


def _svd(matrices: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the ``rank`` largest singular values of matrices ``(k, p, q)``, and their vectors."""
    side = min(matrices.shape[1:])
    if side > EXACT_SIDE and 10 * (rank + OVERSAMPLING) < side:
        with torch.random.fork_rng([matrices.device] if matrices.device.type == "cuda" else []):
            torch.manual_seed(0)
            u, s, v = torch.svd_lowrank(matrices, rank + OVERSAMPLING, niter=ITERATIONS)
    else:
        u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
        v = vh.transpose(1, 2)
    return u[..., :rank], s[..., :rank], v[..., :rank]


def _balanced(factors: Sequence[Tensor]) -> list[Tensor]:
    """Give the factors of a term equal norms."""
    norms = torch.stack([factor.flatten(1).norm(dim=1) for factor in factors])  # (factors, r)
    common = norms.prod(0) ** (1 / len(factors))
    scales = torch.where(norms > 0, common / norms, torch.zeros_like(norms))
    return [factor * scale[:, None, None] for factor, scale in zip(factors, scales, strict=True)]


def _sorted(factors: Sequence[Tensor]) -> list[Tensor]:
    order = factors[0].flatten(1).norm(dim=1).argsort(descending=True, stable=True)
    return [factor[order] for factor in factors]
