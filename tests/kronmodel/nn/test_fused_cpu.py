"""The fused CPU path: values, gradients and their gradients against dense matrices, where it applies, its products."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from kronmodel import KroneckerDual, KroneckerLinear, kron_dual, kron_linear
from kronmodel.nn import _fused_cpu
from kronmodel.nn._fused_cpu import MIN_BATCH
from kronmodel.nn.activations import ACTIVATIONS
from kronmodel.nn.functional import inner_shapes
from tests.kronmodel.nn.test_functional import (
    Sizes,
    assert_same_values_and_gradients,
    dense_dual,
    dense_linear,
    draw,
    draw_factors,
)

N, M, BATCH = (3, 7), (5, 2), MIN_BATCH + 3


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(4)


def is_fused(y: Tensor) -> bool:
    """Tell whether this result was computed by the fused path."""
    step: Any = y.grad_fn
    views = ("TBackward0", "CloneBackward0", "ViewBackward0", "UnsafeViewBackward0", "AddBackward0")
    while step is not None and step.name() in views:
        step = step.next_functions[0][0]
    return step is not None and "_Dual" in step.name()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("order", ["left", "right"])
@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("biased", [True, False])
def test_equals_dense(activation: str, order: Any, rank: int, biased: bool) -> None:
    x, factors = draw(BATCH, math.prod(N)), draw_factors(rank, N, M)
    inner = [draw(rank, *shape) for shape in inner_shapes(N, M, order)] if biased else []
    bias = draw(math.prod(M)) if biased else None
    function = ACTIVATIONS[activation]
    got = kron_dual(x, factors, function, inner_biases=inner or None, bias=bias, order=order)
    want = dense_dual(x, factors, inner, bias, order, function)
    assert is_fused(got)
    assert got.is_contiguous()
    inputs = [x, *factors, *inner, *([] if bias is None else [bias])]
    assert_same_values_and_gradients(got, want, inputs)
    assert_same_values_and_gradients(
        kron_linear(x, factors, bias), dense_linear(x, factors, bias), [x, *factors, *([] if bias is None else [bias])]
    )


@pytest.mark.parametrize("order", ["left", "right"])
@pytest.mark.parametrize("rank", [1, 2])
def test_single_precision_at_the_size_of_real_layers(order: Any, rank: int) -> None:
    """Large enough for the products to go through oneDNN."""
    n, m = (24, 30), (26, 22)
    x = torch.randn(96, math.prod(n), requires_grad=True)
    layer = KroneckerDual(n, m, rank, order=order, activation="gelu")
    exact = KroneckerDual(n, m, rank, order=order, activation="gelu", dtype=torch.float64)
    with torch.no_grad():
        for parameter, other in zip(layer.parameters(), exact.parameters(), strict=True):
            other.copy_(parameter.normal_(std=0.2))
    y, x_exact = layer(x), x.detach().double().requires_grad_()
    inner = [*exact.left_biases, *exact.right_biases]
    want = dense_dual(x_exact, list(exact.factors), inner, exact.bias, order, ACTIVATIONS["gelu"])
    direction = torch.randn_like(y)
    got_gradients = torch.autograd.grad(y, [x, *layer.parameters()], direction)
    want_gradients = torch.autograd.grad(want, [x_exact, *exact.parameters()], direction.double())
    for got, exactly in zip((y, *got_gradients), (want, *want_gradients), strict=True):
        torch.testing.assert_close(got.double(), exactly, rtol=1e-4, atol=1e-5 * exactly.detach().std().item())


@pytest.mark.parametrize("order", ["left", "right"])
def test_gradients_of_gradients(order: Any) -> None:
    n, m = (2, 3), (1, 2)
    x, factors, bias = draw(MIN_BATCH, 6), draw_factors(2, n, m), draw(2)
    inner = draw(2, *inner_shapes(n, m, order)[0])
    dual = partial(kron_dual, activation=torch.tanh, order=order)

    def function(x: Tensor, inner: Tensor, bias: Tensor, *factors: Tensor) -> Tensor:
        return dual(x, factors, inner_biases=[inner], bias=bias)

    assert is_fused(function(x, inner, bias, *factors))
    assert torch.autograd.gradcheck(function, (x, inner, bias, *factors))
    assert torch.autograd.gradgradcheck(function, (x, inner, bias, *factors))


@pytest.mark.parametrize(
    "arrange",
    [
        lambda x: x.t().contiguous().t(),
        lambda x: x[:, torch.arange(x.shape[1])],
        lambda x: torch.stack([x, x], 1)[:, 0],
        lambda x: x[:1].expand(len(x), -1),
    ],
    ids=["columns", "rows", "strided", "expanded"],
)
def test_inputs_of_any_strides(arrange: Callable[[Tensor], Tensor]) -> None:
    x, factors = draw(BATCH, math.prod(N)), draw_factors(2, N, M)
    y = kron_linear(arrange(x), factors)
    assert is_fused(y)
    assert_same_values_and_gradients(y, dense_linear(arrange(x), factors), [x, *factors])


def test_frozen_parameters_get_no_gradient_and_others_keep_theirs() -> None:
    layer = KroneckerDual(N, M, 2, dtype=torch.float64)
    x = torch.randn(BATCH, math.prod(N), dtype=torch.float64)
    layer(x).square().sum().backward()
    want = [None if parameter.grad is None else parameter.grad.clone() for parameter in layer.parameters()]
    layer.zero_grad()
    layer.factors[1].requires_grad_(False)
    layer(x).square().sum().backward()
    for name, parameter, gradient in zip(dict(layer.named_parameters()), layer.parameters(), want, strict=True):
        if name == "factors.1":
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, gradient)


def test_outputs_may_be_changed_in_place() -> None:
    layer = KroneckerLinear(N, M, 2, dtype=torch.float64)
    x = torch.randn(BATCH, math.prod(N), dtype=torch.float64)
    (direct,) = torch.autograd.grad(torch.relu(layer(x) * 2).sum(), [layer.factors[0]])
    (changed,) = torch.autograd.grad(torch.relu_(layer(x).mul_(2)).sum(), [layer.factors[0]])
    torch.testing.assert_close(changed, direct)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients(context: Any) -> None:
    x, factors = draw(BATCH, math.prod(N)), draw_factors(2, N, M)
    with context():
        y = kron_linear(x, factors)
    torch.testing.assert_close(y.clone(), dense_linear(x, factors).detach())


def test_a_backward_pass_may_be_repeated() -> None:
    x, factors = draw(BATCH, math.prod(N)), draw_factors(2, N, M)
    loss = kron_dual(x, factors, torch.relu).square().sum()  # torch.relu has no fused path, F.relu has
    fused = kron_dual(x, factors, ACTIVATIONS["relu"]).square().sum()
    for _ in range(2):
        want = torch.autograd.grad(loss, factors, retain_graph=True)
        torch.testing.assert_close(torch.autograd.grad(fused, factors, retain_graph=True), want)


def test_few_samples_other_activations_and_more_factors_take_the_composite_path() -> None:
    x, factors = draw(BATCH, math.prod(N)), draw_factors(2, N, M)
    assert is_fused(kron_linear(x, factors))
    assert not is_fused(kron_linear(x[: MIN_BATCH - 1], factors))
    assert not is_fused(kron_dual(x, factors, torch.sigmoid))
    sizes: Sizes = (2, 3, 2)
    assert not is_fused(kron_linear(draw(BATCH, 12), draw_factors(1, sizes, sizes)))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch's own, of its own
def test_forward_mode_differentiation() -> None:
    x, factors = draw(BATCH, math.prod(N)).detach(), [factor.detach() for factor in draw_factors(2, N, M)]
    with forward_ad.dual_level():
        y = kron_linear(forward_ad.make_dual(x, torch.ones_like(x)), factors)
        tangent = forward_ad.unpack_dual(y).tangent
    torch.testing.assert_close(tangent, dense_linear(torch.ones_like(x), factors))


@pytest.mark.parametrize("library", ["the fastest", "torch's own"])
@pytest.mark.parametrize("sizes", [(3, 5, 2), (24, 30, 2048)], ids=["small", "large"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matrix_products_equal_numpys(
    library: str, sizes: tuple[int, int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if library == "torch's own":
        monkeypatch.setattr(_fused_cpu, "mkldnn_linear", None)
    n, k, m = sizes
    a, b = torch.randn(n, k, dtype=torch.float64), torch.randn(k, m, dtype=torch.float64)
    want = torch.from_numpy(a.numpy() @ b.numpy())
    for left in (a, a.t().contiguous().t()):
        for right in (b, b.t().contiguous().t()):
            got = _fused_cpu.matmul(left.to(dtype), right.to(dtype))
            assert got.dtype == dtype
            torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", ["left", "right"])
def test_the_gradient_of_the_input_has_the_layout_of_the_input(order: Any) -> None:
    factors = draw_factors(2, N, M)
    rows = draw(BATCH, math.prod(N))
    columns = draw(math.prod(N), BATCH).t()
    for x, strides in ((rows, (math.prod(N), 1)), (columns, (1, BATCH))):
        y = kron_dual(x, factors, torch.tanh, order=order)
        assert is_fused(y)
        (gradient,) = torch.autograd.grad(y.square().sum(), [x])
        assert gradient.stride() == strides
        (want,) = torch.autograd.grad(dense_dual(x, factors, [], None, order).square().sum(), [x])
        torch.testing.assert_close(gradient, want)
