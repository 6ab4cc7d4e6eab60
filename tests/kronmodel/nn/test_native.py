"""Layers by the native kernel in torch: values, gradients and theirs against float64."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from kronmodel import KroneckerDual, KroneckerLinear
from kronmodel.native.build import library
from kronmodel.nn import _native
from kronmodel.nn._composite import LayerForm
from kronmodel.nn.activations import ACTIVATIONS
from kronmodel.nn.functional import apply_layers
from tests.kronmodel.nn.native_layers import (
    BATCH,
    M,
    N,
    assert_close,
    default_network,
    draw,
    draw_layer,
    in_float64,
    is_native,
    orders_of,
    tensors,
)
from tests.kronmodel.nn.test_functional import dense_linear

pytestmark = pytest.mark.skipif(library() is None, reason="no C compiler")
SIZES = (1, 2, 7, 13, 16, 28, 33, 64)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(4)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def assert_equals_float64(x: Tensor, layers: list[LayerForm]) -> None:
    got = apply_layers(x, layers)
    assert is_native(got)
    want, inputs = in_float64(x, layers)
    assert_close(got, want)
    direction = torch.randn_like(got)
    found = torch.autograd.grad(got, [x, *tensors(layers)], direction)
    for each, exactly in zip(found, torch.autograd.grad(want, inputs, direction.double()), strict=True):
        assert_close(each, exactly)


@pytest.mark.parametrize("activation", [*ACTIVATIONS.values(), None], ids=[*ACTIVATIONS, "linear"])
@pytest.mark.parametrize("order", ["left", "right", "mixed"])
@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("biased", [True, False])
def test_values_and_gradients_equal_those_in_float64(activation: Any, order: str, rank: int, biased: bool) -> None:
    layer = draw_layer((13, 28), (33, 7), orders_of(order, rank), activation, biased=biased)
    assert_equals_float64(draw(BATCH, 13 * 28), [layer])


smooth = st.sampled_from([ACTIVATIONS["gelu"], ACTIVATIONS["tanh"], None])
shape = st.tuples(st.sampled_from(SIZES), st.sampled_from(SIZES))
branch_orders = st.lists(st.sampled_from(["left", "right"]), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None)
@given(
    shapes=st.lists(shape, min_size=2, max_size=4),
    drawn=st.lists(st.tuples(branch_orders, smooth, smooth, st.booleans()), min_size=3, max_size=3),
    batch=st.sampled_from([0, 1, 2, 5, 17, 40]),
    count=st.integers(1, 5),
)
def test_any_shapes_of_consecutive_layers(shapes: Any, drawn: Any, batch: int, count: int) -> None:
    before = torch.get_num_threads()
    layers = [
        draw_layer(n, m, orders, activation, outer, biased)
        for n, m, (orders, activation, outer, biased) in zip(shapes, shapes[1:], drawn, strict=False)
    ]
    try:
        torch.set_num_threads(count)
        assert_equals_float64(draw(batch, math.prod(shapes[0])), layers)
    finally:
        torch.set_num_threads(before)


def test_all_layers_of_a_network_are_one_node_of_the_graph() -> None:
    network = default_network()
    logits = network(torch.rand(3, 784))
    assert is_native(logits)
    assert {step.name() for step, _ in logits.grad_fn.next_functions if step} == {"torch::autograd::AccumulateGrad"}


def test_hooks_and_other_layers_split_a_network() -> None:
    network = default_network()
    x = torch.rand(3, 784)
    want = network(x)
    seen: list[Any] = []
    second = network.layers[1]
    handle = second.register_forward_hook(lambda _, __, y: seen.append(tuple(y.shape)))
    torch.testing.assert_close(network(x), want)
    assert seen == [(3, 784)]
    handle.remove()
    with register_module_forward_hook(lambda module, _, __: seen.append(type(module).__name__)):
        network(x)
    assert seen.count("KroneckerDual") == 3


@pytest.mark.parametrize("activation", ["gelu", "relu", "tanh"])
def test_runs_are_bit_identical_for_a_number_of_threads_and_close_for_others(activation: str, threads: Any) -> None:
    network, x = default_network(activation), torch.rand(70, 784)
    labels = torch.randint(0, 10, (70,))

    def gradients() -> list[Tensor]:
        network.zero_grad()
        nn.functional.cross_entropy(network(x), labels).backward()
        return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]

    runs = {}
    for count in (1, 2, 3):
        threads(count)
        runs[count] = gradients()
        for _ in range(3):
            assert all(map(torch.equal, gradients(), runs[count]))
    for count in (2, 3):
        for got, want in zip(runs[count], runs[1], strict=True):
            assert_close(got, want.double())


def test_values_computed_again_give_the_same_gradients_as_kept_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = default_network(), torch.rand(50, 784, requires_grad=True)
    direction = torch.randn(50, 10)
    kept = torch.autograd.grad(network(x), [x, *network.parameters()], direction)
    monkeypatch.setattr(_native, "KEPT_BYTES", 0)
    again = torch.autograd.grad(network(x), [x, *network.parameters()], direction)
    assert all(map(torch.equal, kept, again))


@pytest.mark.parametrize("order", ["left", "right", "mixed"])
def test_gradients_of_gradients(order: str) -> None:
    layers = [draw_layer(N, M, orders_of(order, 2), torch.tanh, torch.tanh)]
    x = draw(BATCH, math.prod(N))
    exact, exact_inputs = in_float64(x, layers)

    def second(y: Tensor, inputs: list[Tensor]) -> list[Tensor]:
        first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        return list(torch.autograd.grad(sum(each.square().sum() for each in first), inputs))  # type: ignore[arg-type]

    y = apply_layers(x, layers)
    assert is_native(y)
    for got, want in zip(second(y, [x, *tensors(layers)]), second(exact, exact_inputs), strict=True):
        assert_close(got.contiguous(), want)


@pytest.mark.parametrize(
    "arrange",
    [
        lambda x: x.t().contiguous().t(),
        lambda x: torch.stack([x, x], 1)[:, 0],
        lambda x: x[:1].expand(len(x), -1),
        lambda x: x[:12].reshape(3, 4, -1),
        lambda x: x[0],
        lambda x: x[:0],
    ],
    ids=["columns", "strided", "expanded", "three axes", "one axis", "empty"],
)
def test_inputs_of_any_strides_and_axes(arrange: Callable[[Tensor], Tensor]) -> None:
    x, layer = draw(BATCH, math.prod(N)), KroneckerLinear(N, M, 2)
    with torch.no_grad():
        layer.factors[0].set_(layer.factors[0].transpose(1, 2).contiguous().transpose(1, 2))
    assert not layer.factors[0].is_contiguous()
    y = layer(arrange(x))
    assert is_native(y)
    exact = x.detach().double().requires_grad_()
    assert layer.bias is not None
    parameters = [*layer.factors, layer.bias]
    weights = [each.detach().double().contiguous().requires_grad_() for each in parameters]
    want = dense_linear(arrange(exact), weights[:2], weights[2])
    assert_close(y, want)
    direction = torch.randn_like(y)
    found = torch.autograd.grad(y, [x, *parameters], direction)
    for got, exactly in zip(found, torch.autograd.grad(want, [exact, *weights], direction.double()), strict=True):
        assert_close(got.contiguous(), exactly)


def test_frozen_parameters_get_no_gradient_and_others_keep_theirs() -> None:
    layer, x = KroneckerDual(N, M, 2), torch.randn(BATCH, math.prod(N))
    layer(x).square().sum().backward()
    want = [None if parameter.grad is None else parameter.grad.clone() for parameter in layer.parameters()]
    layer.zero_grad()
    layer.factors[1].requires_grad_(False)
    layer(x).square().sum().backward()
    for name, parameter, gradient in zip(dict(layer.named_parameters()), layer.parameters(), want, strict=True):
        if name == "factors.1":
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=0)


def test_outputs_may_be_changed_in_place_and_a_backward_pass_repeated() -> None:
    layer, x = KroneckerLinear(N, M, 2), torch.randn(BATCH, math.prod(N))
    (direct,) = torch.autograd.grad(torch.relu(layer(x) * 2).sum(), [layer.factors[0]])
    changed = torch.relu_(layer(x).mul_(2)).sum()
    for _ in range(2):
        torch.testing.assert_close(torch.autograd.grad(changed, [layer.factors[0]], retain_graph=True)[0], direct)


def test_a_weight_changed_between_the_passes_is_an_error() -> None:
    layer = KroneckerLinear(N, M)
    loss = layer(torch.randn(BATCH, math.prod(N))).sum()
    with torch.no_grad():
        layer.factors[0].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
