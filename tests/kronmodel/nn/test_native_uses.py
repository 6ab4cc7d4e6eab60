"""Layers by the native kernel in torch: where the kernel applies, and its uses by torch's transformations."""

import math
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from kronmodel import KroneckerDual, KroneckerLinear, kron_dual, kron_linear
from kronmodel.native.build import library
from kronmodel.nn import _native
from kronmodel.nn.activations import ACTIVATIONS
from tests.kronmodel.nn.native_layers import (
    BATCH,
    M,
    N,
    default_network,
    draw,
    draw_layer,
    is_native,
    orders_of,
)
from tests.kronmodel.nn.test_functional import dense_linear

pytestmark = pytest.mark.skipif(library() is None, reason="no C compiler")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(4)


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
