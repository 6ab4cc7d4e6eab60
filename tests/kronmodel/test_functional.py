"""The algebra against the dense matrix that it stands for, built by ``torch.kron``."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kronmodel import kron_dual, kron_linear

N1, N2, M1, M2 = 3, 7, 2, 5  # four different sizes: a swapped factor shows
IN, OUT = N1 * N2, M1 * M2
RANKS = (1, 2, 3)
LEADS = ((), (4,), (0,), (2, 6))


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(1)


def dense_linear(x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    weight = torch.stack([torch.kron(left, right) for left, right in zip(a, b, strict=True)]).sum(0)
    return F.linear(x, weight, bias)


def dense_dual(x: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, order: str) -> Tensor:
    """Each factor as a dense matrix on its own: A ⊗ I and I ⊗ B, one after the other."""
    total = d.expand(*x.shape[:-1], OUT)
    for left, right, inner in zip(a, b, c, strict=True):
        if order == "left":
            first = torch.kron(left, torch.eye(N2, dtype=left.dtype))
            second = torch.kron(torch.eye(M1, dtype=left.dtype), right)
        else:
            first = torch.kron(torch.eye(N1, dtype=left.dtype), right)
            second = torch.kron(left, torch.eye(M2, dtype=left.dtype))
        total = total + F.linear(torch.tanh(F.linear(x, first, inner.flatten())), second)
    return total


def assert_same_values_and_gradients(got: Tensor, want: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(got, want)
    direction = torch.randn_like(want)
    for got_grad, want_grad in zip(
        torch.autograd.grad(got, inputs, direction), torch.autograd.grad(want, inputs, direction), strict=True
    ):
        torch.testing.assert_close(got_grad, want_grad)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("lead", LEADS)
def test_linear_equals_dense(rank: int, lead: tuple[int, ...]) -> None:
    inputs = [draw(*lead, IN), draw(rank, M1, N1), draw(rank, M2, N2), draw(OUT)]
    assert_same_values_and_gradients(kron_linear(*inputs), dense_linear(*inputs), inputs)


@pytest.mark.parametrize(("m1", "m2"), [(1, 11), (11, 1)])
def test_linear_equals_dense_whichever_order_is_cheaper(m1: int, m2: int) -> None:
    x, a, b = draw(4, IN), draw(2, m1, N1), draw(2, m2, N2)
    assert_same_values_and_gradients(kron_linear(x, a, b), dense_linear(x, a, b, None), [x, a, b])


@pytest.mark.parametrize("order", ["left", "right"])
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("lead", LEADS)
def test_dual_equals_dense(order: str, rank: int, lead: tuple[int, ...]) -> None:
    inner = (M1, N2) if order == "left" else (N1, M2)
    x, a, b, c, d = draw(*lead, IN), draw(rank, M1, N1), draw(rank, M2, N2), draw(rank, *inner), draw(OUT)
    got = kron_dual(x, a, b, torch.tanh, inner_bias=c, bias=d, order=order)  # type: ignore[arg-type]  # a parameter
    assert_same_values_and_gradients(got, dense_dual(x, a, b, c, d, order), [x, a, b, c, d])


@pytest.mark.parametrize("order", ["left", "right"])
def test_dual_without_activation_is_linear(order: str) -> None:
    x, a, b = draw(4, IN), draw(3, M1, N1), draw(3, M2, N2)
    got = kron_dual(x, a, b, lambda z: z, order=order)  # type: ignore[arg-type]  # a parameter
    torch.testing.assert_close(got, kron_linear(x, a, b))


def test_gradients_equal_finite_differences() -> None:
    x, a, b, c, d = draw(2, IN), draw(2, M1, N1), draw(2, M2, N2), draw(2, M1, N2), draw(OUT)
    assert torch.autograd.gradcheck(kron_linear, (x, a, b, d))
    left = partial(kron_dual, activation=torch.tanh)
    assert torch.autograd.gradcheck(lambda x, a, b, c, d: left(x, a, b, inner_bias=c, bias=d), (x, a, b, c, d))


@pytest.mark.parametrize(
    ("x", "a", "b", "message"),
    [
        ((4, 20), (1, 2, 3), (1, 5, 7), r"\(\*, 3 \* 7 = 21\), got \(4, 20\)"),
        ((), (1, 2, 3), (1, 5, 7), r"got \(\)"),
        ((4, 21), (1, 2, 3), (2, 5, 7), r"one rank r, got \(1, 2, 3\) and \(2, 5, 7\)"),
        ((4, 21), (2, 3), (5, 7), r"got \(2, 3\) and \(5, 7\)"),
    ],
)
def test_shapes_that_do_not_fit(x: tuple[int, ...], a: tuple[int, ...], b: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kron_linear(torch.zeros(x), torch.zeros(a), torch.zeros(b))


def test_dual_refuses_a_bias_of_the_other_order_and_an_unknown_order() -> None:
    x, a, b = torch.zeros(4, IN), torch.zeros(2, M1, N1), torch.zeros(2, M2, N2)
    with pytest.raises(ValueError, match=r"inner_bias must have shape \(2, 2, 7\), got \(2, 3, 5\)"):
        kron_dual(x, a, b, torch.tanh, inner_bias=torch.zeros(2, N1, M2))
    with pytest.raises(ValueError, match="'left' or 'right', got 'up'"):
        kron_dual(x, a, b, torch.tanh, order="up")  # type: ignore[arg-type]  # wrong on purpose
