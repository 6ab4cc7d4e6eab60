"""Layers for tests of the native kernel in torch, and their values in float64 by dense matrices."""

import math
from typing import Any

import torch
from torch import Tensor

from kronmodel import KroneckerConfig, Network, build
from kronmodel.nn import _native
from kronmodel.nn._composite import LayerForm
from kronmodel.nn.functional import branches_by_order, inner_shapes
from kronmodel.shapes import Order
from tests.kronmodel.nn.test_functional import dense_dual

N, M, BATCH = (3, 7), (5, 2), 19


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


def orders_of(name: str, rank: int) -> list[Order]:
    mixed: list[Order] = ["right", "left", "right", "left"]
    given: dict[str, list[Order]] = {"left": ["left"] * rank, "right": ["right"] * rank, "mixed": mixed[:rank]}
    return given[name]


def default_network(activation: str = "gelu", rank: int = 2) -> Network:
    return build(
        KroneckerConfig(
            in_shape=(28, 28), hidden=((28, 28), (28, 28)), out_shape=(2, 5), rank=rank, activation=activation
        )
    )
