"""Kronecker products as functions, against dense matrices built by ``torch.kron``."""

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kronmodel import kron_dual, kron_linear
from kronmodel.nn.functional import inner_shapes
from kronmodel.shapes import axes

# Two to four factors, in and out, no two sizes of a pair the same: a swapped factor shows.
PAIRS = [((3, 7), (2, 5)), ((5, 2), (3, 8)), ((2, 5, 3), (4, 3, 6)), ((4, 2, 3, 5), (3, 5, 2, 4))]
RANKS = (1, 2, 3)
LEADS = ((), (4,), (0,), (2, 6), (17,), (4, 5))
Sizes = tuple[int, ...]


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def draw_factors(rank: int, n: Sizes, m: Sizes) -> list[Tensor]:
    return [draw(rank, rows, columns) for rows, columns in zip(m, n, strict=True)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(1)


def dense_linear(x: Tensor, factors: Sequence[Tensor], bias: Tensor | None = None) -> Tensor:
    terms = [reduce(torch.kron, branch) for branch in zip(*factors, strict=True)]
    return F.linear(x, torch.stack(terms).sum(0), bias)


def dense_dual(
    x: Tensor,
    factors: Sequence[Tensor],
    inner: Sequence[Tensor],
    bias: Tensor | None,
    order: Any,
    activation: Callable[[Tensor], Tensor] = torch.tanh,
) -> Tensor:
    """Apply each factor of each branch as a dense matrix, I ⊗ F ⊗ I, one after the other."""
    steps = axes(order, len(factors))
    total = torch.zeros(*x.shape[:-1], math.prod(factor.shape[1] for factor in factors), dtype=x.dtype)
    for branch in range(len(factors[0])):
        z, sizes = x, [factor.shape[2] for factor in factors]
        for step, axis in enumerate(steps):
            before = torch.eye(math.prod(sizes[:axis]), dtype=x.dtype)
            after = torch.eye(math.prod(sizes[axis + 1 :]), dtype=x.dtype)
            z = F.linear(z, torch.kron(torch.kron(before, factors[axis][branch]), after))
            sizes[axis] = factors[axis].shape[1]
            if step < len(factors) - 1:
                z = activation(z + inner[step][branch].flatten() if inner else z)
        total = total + z
    return total if bias is None else total + bias


def assert_same_values_and_gradients(got: Tensor, want: Tensor, inputs: Sequence[Tensor]) -> None:
    torch.testing.assert_close(got, want)
    direction = torch.randn_like(want)
    for got_grad, want_grad in zip(
        torch.autograd.grad(got, inputs, direction), torch.autograd.grad(want, inputs, direction), strict=True
    ):
        torch.testing.assert_close(got_grad, want_grad)


@pytest.mark.parametrize(("n", "m"), [*PAIRS, ((3, 7), (1, 11)), ((3, 7), (11, 1))])
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("lead", LEADS)
def test_linear_equals_dense(n: Sizes, m: Sizes, rank: int, lead: Sizes) -> None:
    x, factors, bias = draw(*lead, math.prod(n)), draw_factors(rank, n, m), draw(math.prod(m))
    got, want = kron_linear(x, factors, bias), dense_linear(x, factors, bias)
    assert_same_values_and_gradients(got, want, [x, *factors, bias])


@pytest.mark.parametrize(("n", "m"), PAIRS)
@pytest.mark.parametrize("order", ["left", "right"])
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("lead", LEADS)
def test_dual_equals_dense(n: Sizes, m: Sizes, order: Any, rank: int, lead: Sizes) -> None:
    x, factors, bias = draw(*lead, math.prod(n)), draw_factors(rank, n, m), draw(math.prod(m))
    inner = [draw(rank, *shape) for shape in inner_shapes(n, m, order)]
    got = kron_dual(x, factors, torch.tanh, inner_biases=inner, bias=bias, order=order)
    want = dense_dual(x, factors, inner, bias, order)
    assert_same_values_and_gradients(got, want, [x, *factors, *inner, bias])


@pytest.mark.parametrize(("n", "m"), PAIRS)
@pytest.mark.parametrize("orders", [("right", "left", "right"), ("left", "right", "right"), ("right",) * 3])
@pytest.mark.parametrize("lead", [(4,), (0,), (2, 6), (17,)])
def test_dual_with_an_order_for_each_branch_equals_a_loop_over_branches(
    n: Sizes, m: Sizes, orders: Any, lead: Sizes
) -> None:
    x, factors, bias = draw(*lead, math.prod(n)), draw_factors(3, n, m), draw(math.prod(m))
    inner = [[draw(*shape) for shape in inner_shapes(n, m, order)] for order in orders]
    got = kron_dual(x, factors, torch.tanh, inner_biases=inner, bias=bias, order=orders)
    want = bias.expand(*lead, -1)
    for k, order in enumerate(orders):
        want = want + dense_dual(
            x, [each[k : k + 1] for each in factors], [each[None] for each in inner[k]], None, order
        )
    assert_same_values_and_gradients(got, want, [x, *factors, *(each for biases in inner for each in biases), bias])
    bare = kron_dual(x, factors, torch.tanh, order=list(orders))
    loop = [dense_dual(x, [each[k : k + 1] for each in factors], [], None, order) for k, order in enumerate(orders)]
    torch.testing.assert_close(bare, torch.stack(loop).sum(0))


def test_inner_biases_of_branches_that_do_not_fit_their_order() -> None:
    x, factors = torch.zeros(4, 21), [torch.zeros(2, 2, 3), torch.zeros(2, 5, 7)]
    left, right = [torch.zeros(2, 7)], [torch.zeros(3, 5)]
    kron_dual(x, factors, torch.tanh, inner_biases=[right, left], order=("right", "left"))
    with pytest.raises(ValueError, match=r"of branch 0 must have shapes \[\(3, 5\)\], got \[\(2, 7\)\]"):
        kron_dual(x, factors, torch.tanh, inner_biases=[left, right], order=("right", "left"))
    with pytest.raises(ValueError, match="one sequence for each of 2 branches, got 1"):
        kron_dual(x, factors, torch.tanh, inner_biases=[right], order=("right", "left"))
    with pytest.raises(ValueError, match="for each of 2 branches, got"):
        kron_dual(x, factors, torch.tanh, order=("right", "left", "left"))


@pytest.mark.parametrize("activation", [torch.sin, torch.nn.SiLU(), lambda z: z * z.sigmoid(), "gelu"])
def test_any_function_and_any_known_name_is_an_activation(activation: Any) -> None:
    n, m = PAIRS[0]
    x, factors = draw(17, math.prod(n)), draw_factors(2, n, m)
    inner = [draw(2, *shape) for shape in inner_shapes(n, m, "right")]
    function = F.gelu if activation == "gelu" else activation
    got = kron_dual(x, factors, activation, inner_biases=inner, order="right")
    assert_same_values_and_gradients(got, dense_dual(x, factors, inner, None, "right", function), [x, *factors, *inner])


def test_an_activation_that_is_neither_a_name_nor_a_function() -> None:
    factors = [torch.zeros(2, 2, 3), torch.zeros(2, 5, 7)]
    for activation in ("softplus", 3):
        with pytest.raises(ValueError, match=f"one of gelu, relu, tanh, got {activation!r}; any other is passed"):
            kron_dual(torch.zeros(4, 21), factors, activation)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("lead", [(15,), (16,), (33,), (4, 8), (0,), ()])
@pytest.mark.parametrize("orders", ["left", "right", ("right", "left")])
@pytest.mark.parametrize("size", [0, 2])
def test_results_and_gradients_are_contiguous_whatever_the_batch(lead: Sizes, orders: Any, size: int) -> None:
    n, m = PAIRS[size]
    x, factors, bias = draw(*lead, math.prod(n)), draw_factors(2, n, m), draw(math.prod(m))
    for y in (kron_dual(x, factors, torch.tanh, bias=bias, order=orders), kron_linear(x, factors, bias)):
        assert y.is_contiguous()
        assert y.view(-1).shape == (math.prod(lead) * math.prod(m),)
        y.square().sum().backward()
        for each in (x, *factors, bias):
            assert each.grad is not None
            assert each.grad.is_contiguous()
            each.grad = None


@pytest.mark.parametrize(("n", "m"), PAIRS)
@pytest.mark.parametrize("order", ["left", "right"])
def test_dual_without_activation_is_linear(n: Sizes, m: Sizes, order: Any) -> None:
    x, factors = draw(4, math.prod(n)), draw_factors(3, n, m)
    torch.testing.assert_close(kron_dual(x, factors, lambda z: z, order=order), kron_linear(x, factors))


@pytest.mark.parametrize("order", ["left", "right"])
def test_gradients_equal_finite_differences(order: Any) -> None:
    n, m = (2, 3, 2), (3, 2, 4)
    x, factors, bias = draw(2, 12), draw_factors(2, n, m), draw(24)
    inner = [draw(2, *shape) for shape in inner_shapes(n, m, order)]
    assert torch.autograd.gradcheck(lambda x, d, *f: kron_linear(x, f, d), (x, bias, *factors))
    dual = partial(kron_dual, activation=torch.tanh, order=order)
    assert torch.autograd.gradcheck(
        lambda x, d, *rest: dual(x, rest[:3], inner_biases=rest[3:], bias=d), (x, bias, *factors, *inner)
    )


def test_inner_shapes_are_those_between_the_factors() -> None:
    assert inner_shapes((3, 7), (2, 5), "left") == [(2, 7)]
    assert inner_shapes((3, 7), (2, 5), "right") == [(3, 5)]
    assert inner_shapes((2, 5, 3), (4, 3, 6), "right") == [(2, 5, 6), (2, 3, 6)]


@pytest.mark.parametrize(
    ("x", "factors", "message"),
    [
        ((4, 20), [(1, 2, 3), (1, 5, 7)], r"\(\*, 3 \* 7 = 21\), got \(4, 20\)"),
        ((), [(1, 2, 3), (1, 5, 7)], r"got \(\)"),
        ((4, 21), [(1, 2, 3), (2, 5, 7)], r"one rank r, got \(1, 2, 3\), \(2, 5, 7\)"),
        ((4, 21), [(2, 3), (5, 7)], r"got \(2, 3\), \(5, 7\)"),
        ((4, 21), [(1, 2, 21)], r"two or more .* got \(1, 2, 21\)"),
        ((4, 21), [], "got none"),
    ],
)
def test_shapes_that_do_not_fit(x: Sizes, factors: list[Sizes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kron_linear(torch.zeros(x), [torch.zeros(shape) for shape in factors])


def test_dual_refuses_biases_of_the_other_order_and_an_unknown_order() -> None:
    x, factors = torch.zeros(4, 21), [torch.zeros(2, 2, 3), torch.zeros(2, 5, 7)]
    with pytest.raises(ValueError, match=r"must have shapes \[\(2, 2, 7\)\], got \[\(2, 3, 5\)\]"):
        kron_dual(x, factors, torch.tanh, inner_biases=[torch.zeros(2, 3, 5)])
    with pytest.raises(ValueError, match=r"must have shapes \[\(2, 2, 7\)\], got \[\]"):
        kron_dual(x, factors, torch.tanh, inner_biases=[])
    with pytest.raises(ValueError, match="'left', 'right' or one of them for each of 2 branches, got 'up'"):
        kron_dual(x, factors, torch.tanh, order="up")  # type: ignore[arg-type]  # wrong on purpose
