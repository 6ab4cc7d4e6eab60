"""The modules: parameters, costs and initialisation; their algebra is compared with dense matrices."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kronmodel import KroneckerDual, KroneckerLinear
from kronmodel.nn.activations import ACTIVATIONS, activation_moments
from tests.kronmodel.nn.test_functional import dense_dual, dense_linear

N1, N2, M1, M2 = 3, 7, 2, 5
IN = N1 * N2
ORDERS: list[Any] = ["left", "right", ("right", "left", "left")]


def dual(**options: Any) -> KroneckerDual:
    layer = KroneckerDual((N1, N2), (M1, M2), 3, activation="tanh", dtype=torch.float64, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()  # biases too: zeros would hide where they are added
    return layer


def test_linear_layer_is_the_dense_layer() -> None:
    layer = KroneckerLinear((N1, N2), (M1, M2), rank=3, dtype=torch.float64)
    nn.init.normal_(layer.bias)  # type: ignore[arg-type]  # it has one
    x = torch.randn(4, IN, dtype=torch.float64)
    torch.testing.assert_close(layer(x), dense_linear(x, list(layer.factors), layer.bias))


@pytest.mark.parametrize("order", ORDERS)
def test_dual_layer_is_the_two_layer_dense_network(order: Any) -> None:
    layer = dual(order=order)
    x = torch.randn(4, IN, dtype=torch.float64)
    lefts = layer.order.count("left")
    left, right = ([factor[part] for factor in layer.factors] for part in (slice(lefts), slice(lefts, None)))
    want = dense_dual(x, left, list(layer.left_biases), layer.bias, "left")
    want = want + dense_dual(x, right, list(layer.right_biases), None, "right")
    torch.testing.assert_close(layer(x), want)


@pytest.mark.parametrize("order", ORDERS)
def test_every_parameter_of_a_dual_layer_is_trained(order: Any) -> None:
    layer = dual(order=order)
    layer(torch.randn(4, IN, dtype=torch.float64)).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().min() > 0, name


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["linear", "dual"])
def test_multiply_adds_are_what_torch_counts(order: Any, kind: str) -> None:
    layer = dual(order=order) if kind == "dual" else KroneckerLinear((N1, N2), (M1, M2), 3, dtype=torch.float64)
    counter = FlopCounterMode(display=False)
    with counter:
        layer(torch.randn(11, IN, dtype=torch.float64))
    assert counter.get_total_flops() == 2 * 11 * layer.macs_per_sample


def test_parameter_counts_follow_the_formula() -> None:
    for rank in (1, 2, 5):
        layer = KroneckerDual((N1, N2), (M1, M2), rank)
        expected = rank * (M1 * N1 + M2 * N2 + M1 * N2) + M1 * M2
        assert sum(parameter.numel() for parameter in layer.parameters()) == expected
        bare = KroneckerLinear((N1, N2), (M1, M2), rank, bias=False)
        assert sum(parameter.numel() for parameter in bare.parameters()) == rank * (M1 * N1 + M2 * N2)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rank", [1, 2, 8])
@pytest.mark.parametrize("order", ["left", "right", "mixed"])
def test_initialisation_keeps_the_variance_level_through_depth(activation: str, rank: int, order: str) -> None:
    """Mean square of the pre-activations behind each of 11 layers of different shapes; no single draw drifts by 2."""
    torch.manual_seed(0)
    shapes = [(24, 30), (20, 36), (40, 18), (32, 24)] * 3
    phi = ACTIVATIONS[activation]
    levels = torch.zeros(3, len(shapes) - 1)
    with torch.no_grad():
        for draw in range(len(levels)):
            # The input has the second moment that the activation gives.
            z = torch.randn(128, 24 * 30)
            for depth, (n, m) in enumerate(pairwise(shapes)):
                orders: Any = ["left" if k % 2 else "right" for k in range(rank)] if order == "mixed" else order
                layer = KroneckerDual(n, m, rank, order=orders, activation=activation)
                z = layer(phi(z))
                levels[draw, depth] = z.square().mean()
    assert levels.min() > 1 / 2, levels
    assert levels.max() < 2, levels


def test_linear_initialisation_has_the_variance_it_promises_whatever_the_rank() -> None:
    torch.manual_seed(0)
    for rank in (1, 4, 16):
        layer = KroneckerLinear((24, 30), (20, 36), rank, bias=False)
        outputs = []
        for _ in range(20):
            layer.reset_parameters(gain=3.0)
            outputs.append(layer(torch.randn(64, 720)).square().mean())
        assert torch.stack(outputs).mean().item() == pytest.approx(9.0, rel=0.15)


def test_moments_of_relu_are_the_known_ones() -> None:
    mean, std = activation_moments("relu")
    assert mean == pytest.approx((2 * math.pi) ** -0.5, rel=1e-2)
    assert std == pytest.approx((0.5 - 0.5 / math.pi) ** 0.5, rel=1e-2)


def test_glorot_bounds_and_unknown_initialisation() -> None:
    layer = KroneckerDual((N1, N2), (M1, M2), 2)
    layer.reset_parameters("glorot")
    assert layer.factors[0].abs().max() <= (6 / (N1 + M1)) ** 0.5
    assert layer.factors[1].abs().max() <= (6 / (N2 + M2)) ** 0.5
    with pytest.raises(ValueError, match="level, glorot, got 'zero'"):
        layer.reset_parameters("zero")  # type: ignore[arg-type]  # wrong on purpose


def test_state_dict_round_trip() -> None:
    first, second = dual(order=("left", "right", "left")), dual(order=("left", "left", "right"))
    x = torch.randn(4, IN, dtype=torch.float64)
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(first(x), second(x), rtol=0, atol=0)


def test_repr_says_what_the_layer_is() -> None:
    assert "(3, 7) -> (2, 5), rank=3, order='left', activation='tanh', bias=True" in repr(dual())
    assert "(3, 7) -> (2, 5), rank=2, bias=False" in repr(KroneckerLinear((3, 7), (2, 5), 2, bias=False))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, r"rank must be between 1 and 6 for \(3, 7\) -> \(2, 5\), got 0"),
        ({"rank": 7}, "between 1 and 6"),
        ({"rank": 1.0}, "got 1.0"),
        ({"in_shape": (0, 7)}, "in_shape must have sizes of at least 1, got"),
        ({"out_shape": (2,)}, "out_shape must be 2 to 12 whole numbers"),
        ({"rank": 2, "order": ["left"]}, "for each of 2 branches"),
        ({"order": "up"}, "order must be 'left', 'right'"),
        ({"activation": "softplus"}, "one of gelu, relu, tanh, got 'softplus'"),
    ],
)
def test_errors_say_got_and_expected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KroneckerDual(**{"in_shape": (N1, N2), "out_shape": (M1, M2), **options})
