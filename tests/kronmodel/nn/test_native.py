"""Layers by the native kernel in torch: values, gradients and theirs against float64, where it applies, its uses."""

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from kronmodel import KroneckerConfig, KroneckerDual, KroneckerLinear, Network, build, kron_dual, kron_linear
from kronmodel.native.build import library
from kronmodel.nn import _native
from kronmodel.nn._composite import LayerForm
from kronmodel.nn.activations import ACTIVATIONS
from kronmodel.nn.functional import apply_layers, branches_by_order, inner_shapes
from kronmodel.shapes import Order
from tests.kronmodel.nn.test_functional import dense_dual, dense_linear

pytestmark = pytest.mark.skipif(library() is None, reason="no C compiler")

N, M, BATCH = (3, 7), (5, 2), 19
SIZES = (1, 2, 7, 13, 16, 28, 33, 64)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(4)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def is_native(y: Tensor) -> bool:
    """Tell whether this result was computed by the kernel."""
    step: Any = y.grad_fn
    while step is not None and step.name() in {"ViewBackward0", "UnsafeViewBackward0", "CloneBackward0"}:
        step = step.next_functions[0][0]
    return step is not None and "_Layers" in step.name()


def draw(*shape: int, scale: float = 1.0) -> Tensor:
    return (torch.randn(shape) * scale).requires_grad_()


def draw_layer(
    n: Any, m: Any, orders: list[Order], activation: Any, outer: Any = None, biased: bool = True
) -> LayerForm:
    """Draw the parameters of a layer; with an activation of None, it is a sum of Kronecker products."""
    rank, branches = len(orders), branches_by_order(orders)
    factors = [draw(rank, m[axis], n[axis], scale=n[axis] ** -0.5) for axis in (0, 1)]
    inner = {
        order: [draw(len(indices), *inner_shapes(n, m, order)[0])] if biased and activation is not None else []
        for order, indices in branches.items()
    }
    return LayerForm(factors, branches, activation, inner, draw(math.prod(m)) if biased else None, outer)


def tensors(layers: list[LayerForm]) -> list[Tensor]:
    return [each for layer in layers for each in _native._encode([layer])[1]]


def in_float64(x: Tensor, layers: list[LayerForm]) -> tuple[Tensor, list[Tensor]]:
    """Compute layers in float64, each branch by dense matrices; return the output and its inputs."""
    exact_x = x.detach().double().requires_grad_()
    y, inputs = exact_x, [exact_x]
    for layer in layers:
        spec, parameters = _native._encode([layer])
        exact = [each.detach().double().requires_grad_() for each in parameters]
        (copy,) = _native._decode(spec, exact)
        inputs += exact
        total: Any = 0
        for order, indices in copy.branches.items():
            factors = [factor[list(indices)] for factor in copy.factors]
            function = copy.activation or (lambda z: z)
            total = total + dense_dual(y, factors, (copy.inner or {}).get(order) or [], None, order, function)
        y = total if copy.bias is None else total + copy.bias
        y = y if layer.outer is None else layer.outer(y)
    return y, inputs


def assert_close(got: Tensor, want: Tensor) -> None:
    """Compare float32 with float64 values, relative to the largest one: they are sums of others."""
    assert got.shape == want.shape
    assert got.is_contiguous()
    if want.numel():
        error = (got.double() - want).abs().max() / want.abs().max().clamp_min(1e-3)
        assert error < 1e-5, f"a relative error of {error:.1e}"


def assert_equals_float64(x: Tensor, layers: list[LayerForm]) -> None:
    got = apply_layers(x, layers)
    assert is_native(got)
    want, inputs = in_float64(x, layers)
    assert_close(got, want)
    direction = torch.randn_like(got)
    found = torch.autograd.grad(got, [x, *tensors(layers)], direction)
    for each, exactly in zip(found, torch.autograd.grad(want, inputs, direction.double()), strict=True):
        assert_close(each, exactly)


def orders_of(name: str, rank: int) -> list[Order]:
    mixed: list[Order] = ["right", "left", "right", "left"]
    given: dict[str, list[Order]] = {"left": ["left"] * rank, "right": ["right"] * rank, "mixed": mixed[:rank]}
    return given[name]


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


def default_network(activation: str = "gelu", rank: int = 2) -> Network:
    return build(
        KroneckerConfig(
            in_shape=(28, 28), hidden=((28, 28), (28, 28)), out_shape=(2, 5), rank=rank, activation=activation
        )
    )


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


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients(context: Any) -> None:
    layer, x = KroneckerDual(N, M, 2), torch.randn(BATCH, math.prod(N))
    want = layer(x).detach()
    with context():
        y = layer(x)
    assert not y.requires_grad
    assert torch.equal(y, want)


def test_not_a_number_and_infinities_reach_the_output() -> None:
    for activation in ACTIVATIONS:
        layer = KroneckerDual(N, M, activation=activation)
        for value in (math.nan, math.inf):
            x = torch.zeros(2, math.prod(N))
            x[1, 3] = value
            y = layer(x)
            assert y[0].isfinite().all()
            assert not y[1].isfinite().all() or activation == "tanh"
            assert value is math.inf or y[1].isnan().any()


def test_what_the_kernel_does_not_compute_takes_the_composite_path() -> None:
    x, layer = draw(BATCH, math.prod(N)), KroneckerDual(N, M, 2)
    factors = list(layer.factors)
    assert is_native(layer(x))
    assert not is_native(layer.double()(x.double()))
    layer.float()
    assert not is_native(kron_dual(x, factors, torch.sigmoid))
    assert not is_native(kron_linear(draw(3, 12), [draw(1, size, size) for size in (2, 3, 2)]))
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_native(layer(x))
        assert KroneckerLinear(N, M, bias=False)(x).dtype == torch.bfloat16  # as that of an nn.Linear
    with FlopCounterMode(display=False) as counter:
        layer(x)
    assert counter.get_total_flops() == 2 * BATCH * layer.macs_per_sample
    want = torch.stack([layer(row) for row in x])
    torch.testing.assert_close(torch.func.vmap(layer)(x), want)


def test_without_a_library_the_composite_path_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = default_network(), torch.rand(5, 784)
    want = network(x)
    monkeypatch.setattr(_native, "has_library", lambda: False)
    y = network(x)
    assert not is_native(y)
    torch.testing.assert_close(y, want)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch's own, of its own
def test_forward_mode_differentiation() -> None:
    x, factors = torch.randn(BATCH, math.prod(N)), [each.detach() for each in KroneckerLinear(N, M, 2).factors]
    with forward_ad.dual_level():
        y = kron_linear(forward_ad.make_dual(x, torch.ones_like(x)), factors)
        tangent = forward_ad.unpack_dual(y).tangent
    torch.testing.assert_close(tangent, dense_linear(torch.ones_like(x), factors))


def test_the_operators_meet_torchs_rules() -> None:
    spec, parameters = _native._encode([draw_layer(N, M, orders_of("mixed", 3), torch.tanh, torch.tanh)])
    x = draw(BATCH, math.prod(N))
    for keep in (True, False):
        torch.library.opcheck(torch.ops.kronmodel.layers.default, (x, parameters, spec, keep))
    y, kept = torch.ops.kronmodel.layers(x.detach(), parameters, spec, True)
    plain = [each.detach() for each in parameters]
    for x_needed in (True, False):
        arguments = (torch.randn_like(y), x.detach(), plain, kept.detach(), spec, x_needed)
        torch.library.opcheck(torch.ops.kronmodel.layers_backward.default, arguments)


@pytest.mark.parametrize("dynamic", [False, True])
def test_torch_compile_keeps_the_kernel_as_one_operator(dynamic: bool) -> None:
    network = default_network(rank=1)
    operators: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        operators.extend(str(node.target) for node in graph.graph.nodes if "kronmodel" in str(node.target))
        return graph

    inspected = torch.compile(network, fullgraph=True, backend=backend, dynamic=dynamic)
    inspected(torch.rand(6, 784))
    assert operators == ["kronmodel.layers"]
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for batch in (6, 9):
        x, direction = torch.rand(batch, 784, requires_grad=True), torch.randn(batch, 10)
        inputs = [x, *network.parameters()]
        want = torch.autograd.grad(network(x), inputs, direction)
        got = torch.autograd.grad(compiled(x), inputs, direction)
        for each, expected in zip(got, want, strict=True):
            torch.testing.assert_close(each, expected)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing(reentrant: bool) -> None:
    network, x = default_network(), torch.rand(6, 784, requires_grad=True)
    direction = torch.randn(6, 10)
    (want,) = torch.autograd.grad(network(x), [x], direction)
    y = checkpoint(network, x, use_reentrant=reentrant)
    y.backward(direction)
    assert torch.equal(x.grad, want)  # type: ignore[arg-type]


FORK = """
import os, torch
from kronmodel import KroneckerDual
torch.set_num_threads(2)
layer, x = KroneckerDual((28, 28), (28, 28), 2), torch.rand(64, 784)
with torch.no_grad():
    want = layer(x).numpy()
    child = os.fork()
    if not child:  # numpy compares, since torch's own threads are gone in this process
        os._exit(0 if (layer(x).numpy() == want).all() else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_computes_the_same() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], timeout=60, check=False, env=os.environ)
    assert done.returncode == 0
