"""Nearest sums of Kronecker products, compared with the singular values of the rearranged matrix."""

import functools
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kronmodel import KroneckerLinear
from kronmodel.nn.functional import nearest_kronecker
from kronmodel.shapes import PrimeWidthError, max_rank


def dense(factors: tuple[Tensor, ...]) -> Tensor:
    return sum((functools.reduce(torch.kron, term) for term in zip(*factors, strict=True)), torch.zeros(()))


def rearranged(weight: Tensor, n: tuple[int, int], m: tuple[int, int]) -> np.ndarray:
    """Matrix (m1 n1, m2 n2) that is of rank 1 for a Kronecker product, entry by entry."""
    out = np.zeros((m[0] * n[0], m[1] * n[1]))
    for i1, i2, j1, j2 in itertools.product(range(m[0]), range(m[1]), range(n[0]), range(n[1])):
        out[i1 * n[0] + j1, i2 * n[1] + j2] = weight[i1 * m[1] + i2, j1 * n[1] + j2]
    return out


@pytest.mark.parametrize("rank", [1, 2, 5, 6])
def test_the_error_is_the_tail_of_the_singular_values(rank: int) -> None:
    n, m = (3, 7), (2, 5)
    weight = torch.randn(10, 21, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    singular = np.linalg.svd(rearranged(weight, n, m), compute_uv=False)
    factors = nearest_kronecker(weight, n, m, rank)
    assert [tuple(factor.shape) for factor in factors] == [(rank, 2, 3), (rank, 5, 7)]
    error = float((dense(factors) - weight).norm())
    assert error == pytest.approx(np.sqrt((singular[rank:] ** 2).sum()), abs=1e-10)


@pytest.mark.parametrize(("n", "m"), [((3, 2), (4, 5)), ((5, 2, 3), (2, 3, 4)), ((2, 3, 2, 2), (3, 1, 2, 4))])
def test_a_single_product_of_any_number_of_factors_is_recovered(n: tuple[int, ...], m: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(2)
    single = tuple(torch.randn(1, *sizes, generator=generator, dtype=torch.float64) for sizes in zip(m, n, strict=True))
    found = nearest_kronecker(dense(single), n, m, 2)
    torch.testing.assert_close(dense(found), dense(single))
    norms = torch.stack([factor.flatten(1).norm(dim=1) for factor in found])
    torch.testing.assert_close(norms, norms[:1].expand_as(norms))  # of a term, all factors have the same norm
    assert bool((norms[0].diff() <= 0).all())


def test_three_factors_of_the_largest_rank_represent_any_matrix() -> None:
    n, m = (5, 2, 3), (2, 3, 4)
    weight = torch.randn(24, 30, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    factors = nearest_kronecker(weight, n, m, max_rank(n, m))
    torch.testing.assert_close(dense(factors), weight)


def test_a_large_matrix_is_decomposed_at_random_but_reproducibly() -> None:
    n, m = (34, 33), (33, 32)  # both sides of the rearranged matrix are above the limit of the exact decomposition
    generator = torch.Generator().manual_seed(4)
    factors = (torch.randn(3, 33, 34, generator=generator), torch.randn(3, 32, 33, generator=generator))
    weight = dense(factors)
    state = torch.get_rng_state()
    found = nearest_kronecker(weight, n, m, 3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(dense(found), weight, atol=1e-3, rtol=1e-3)
    for one, again in zip(found, nearest_kronecker(weight, n, m, 3), strict=True):
        assert torch.equal(one, again)


def test_half_precision_keeps_its_type() -> None:
    factors = nearest_kronecker(torch.ones(6, 8, dtype=torch.bfloat16), (4, 2), (2, 3), 1)
    assert {factor.dtype for factor in factors} == {torch.bfloat16}
    torch.testing.assert_close(dense(factors).float(), torch.ones(6, 8), atol=0.02, rtol=0.02)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must have shape \(6, 8\) for .* got \(6, 9\)"):
        nearest_kronecker(torch.ones(6, 9), (4, 2), (2, 3))
    with pytest.raises(ValueError, match="rank must be between 1 and 6"):
        nearest_kronecker(torch.ones(6, 8), (4, 2), (2, 3), 7)


def test_a_layer_from_a_dense_one_is_the_nearest() -> None:
    linear = nn.Linear(6, 20).eval()
    linear.weight.requires_grad_(False)
    layer = KroneckerLinear.from_linear(linear, rank=2)
    assert (layer.in_shape, layer.out_shape, layer.training) == ((2, 3), (4, 5), False)
    assert {factor.requires_grad for factor in layer.factors} == {False}
    best = dense(nearest_kronecker(linear.weight, (2, 3), (4, 5), 2))
    torch.testing.assert_close(layer.weight, best)
    x = torch.randn(7, 6)
    torch.testing.assert_close(layer(x), x @ best.T + linear.bias)
    exact = KroneckerLinear.from_linear(linear, 8, in_shape=(3, 2), out_shape=(5, 4))
    torch.testing.assert_close(exact.weight, linear.weight)


def test_a_layer_of_a_prime_width_needs_padding() -> None:
    linear = nn.Linear(13, 6, bias=False)
    with pytest.raises(PrimeWidthError, match="pad=True"):
        KroneckerLinear.from_linear(linear)
    padded = KroneckerLinear.from_linear(linear, 6, pad=True)
    assert (padded.in_features, padded.in_shape, padded.bias) == (13, (3, 5), None)
    torch.testing.assert_close(padded.weight, linear.weight, atol=1e-5, rtol=1e-5)
