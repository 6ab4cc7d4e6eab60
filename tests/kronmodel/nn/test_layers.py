"""Layers: parameters, costs, initialisation, arguments; their outputs are compared with dense matrices."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kronmodel import KroneckerDual, KroneckerLinear
from kronmodel.nn.activations import ACTIVATIONS, activation_moments
from kronmodel.shapes import PrimeWidthError
from tests.kronmodel.nn.test_functional import assert_same_values_and_gradients, dense_dual, dense_linear

N1, N2, M1, M2 = 3, 7, 2, 5
IN = N1 * N2
ORDERS: list[Any] = ["left", "right", ("right", "left", "left")]


def dual(**options: Any) -> KroneckerDual:
    layer = KroneckerDual((N1, N2), (M1, M2), 3, activation="tanh", dtype=torch.float64, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()  # biases too: zeros would hide where they are added
    return layer


def branch_by_branch(layer: KroneckerDual, x: Tensor) -> Tensor:
    """Compute branch k by dense matrices, from index k of the factors and the next inner bias of its order."""
    assert layer.bias is not None
    biases = {"left": list(zip(*layer.left_biases, strict=True)), "right": list(zip(*layer.right_biases, strict=True))}
    total: Tensor = layer.bias
    for k, order in enumerate(layer.order):
        inner = [bias[None] for bias in biases[order].pop(0)]
        total = total + dense_dual(x, [factor[k : k + 1] for factor in layer.factors], inner, None, order)
    return total


def test_linear_layer_is_the_dense_layer() -> None:
    layer = KroneckerLinear((N1, N2), (M1, M2), rank=3, dtype=torch.float64)
    nn.init.normal_(layer.bias)  # type: ignore[arg-type]  # it has one
    x = torch.randn(4, IN, dtype=torch.float64)
    torch.testing.assert_close(layer(x), dense_linear(x, list(layer.factors), layer.bias))


@pytest.mark.parametrize("order", ORDERS)
def test_dual_layer_is_the_two_layer_dense_network(order: Any) -> None:
    layer = dual(order=order)
    x = torch.randn(4, IN, dtype=torch.float64)
    assert_same_values_and_gradients(layer(x), branch_by_branch(layer, x), list(layer.parameters()))


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
    for rank in (1, 2, 5, 7):  # 7 exceeds min(m1*n1, m2*n2) = 6, which binds linear layers only
        layer = KroneckerDual((N1, N2), (M1, M2), rank)
        expected = rank * (M1 * N1 + M2 * N2 + M1 * N2) + M1 * M2
        assert sum(parameter.numel() for parameter in layer.parameters()) == expected
        bare = KroneckerLinear((N1, N2), (M1, M2), min(rank, 6), bias=False)
        assert sum(parameter.numel() for parameter in bare.parameters()) == min(rank, 6) * (M1 * N1 + M2 * N2)


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


def test_linear_initialisation_has_the_documented_variance_whatever_the_rank() -> None:
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
    first, second = dual(order=("left", "right", "left")), dual(order=("left", "right", "left"))
    x = torch.randn(4, IN, dtype=torch.float64)
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(first(x), second(x), rtol=0, atol=0)


def test_the_sequence_of_branches_is_the_callers() -> None:
    layer, other = dual(order=["right", "left", "right"]), dual(order=["left", "right", "right"])
    assert layer.order == ("right", "left", "right")
    with torch.no_grad():
        for mine, theirs in zip(layer.factors, other.factors, strict=True):
            theirs.copy_(mine[[1, 0, 2]])
    state = {name: tensor for name, tensor in layer.state_dict().items() if "factors" not in name}
    other.load_state_dict(state, strict=False)
    x = torch.randn(4, IN, dtype=torch.float64)
    torch.testing.assert_close(other(x), layer(x))
    torch.testing.assert_close(layer(x), branch_by_branch(layer, x))


def test_repr_says_what_the_layer_is() -> None:
    assert "(3, 7) -> (2, 5), rank=3, order='left', activation='tanh', bias=True" in repr(dual())
    assert "(3, 7) -> (2, 5), rank=2, bias=False" in repr(KroneckerLinear((3, 7), (2, 5), 2, bias=False))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank must be a whole number between 1 and 65,536, got 0"),
        ({"rank": True}, "got True"),
        ({"rank": 1 << 17}, "got 131072"),
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


@pytest.mark.parametrize("rank", [0, 7, 1.0, True])
def test_ranks_of_a_linear_layer_end_where_any_matrix_is_reached(rank: Any) -> None:
    with pytest.raises(ValueError, match=rf"rank must be between 1 and 6 for \(3, 7\) -> \(2, 5\), got {rank}"):
        KroneckerLinear((N1, N2), (M1, M2), rank)


def test_a_dual_layer_of_more_branches_than_a_linear_one_could_use_computes_and_learns() -> None:
    order: Any = ["left", "right"] * 3 + ["left"]
    layer = KroneckerDual((N1, N2), (M1, M2), 7, order=order, dtype=torch.float64)
    x = torch.randn(19, IN, dtype=torch.float64)
    assert_same_values_and_gradients(layer(x), branch_by_branch(layer, x), list(layer.parameters()))


def test_integers_of_numpy_are_sizes_ranks_and_features() -> None:
    sizes: Any = np.array([N1, N2]), (np.int64(M1), np.int32(M2))
    kinds: list[Any] = [KroneckerLinear, KroneckerDual]
    for kind in kinds:
        layer = kind(*sizes, np.int64(2), in_features=np.uint8(20), out_features=np.int16(9), pad=True)
        assert layer(torch.zeros(3, 20)).shape == (3, 9)
        described = (*layer.in_shape, *layer.out_shape, layer.rank, layer.in_features, layer.out_features)
        assert described == (N1, N2, M1, M2, 2, 20, 9)
        assert {type(each) for each in described} == {int}
        assert type(layer.macs_per_sample) is int
    for bad in (np.bool_(True), True, np.float64(3.0), "3"):
        with pytest.raises(ValueError, match="in_shape must be 2 to 12 whole numbers"):
            KroneckerLinear((bad, 7), (M1, M2))  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match=r"in_features must be a whole number between 1 and 21, got 20.5"):
        KroneckerLinear((N1, N2), (M1, M2), in_features=20.5, pad=True)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("kind", [KroneckerLinear, KroneckerDual])
def test_a_layer_from_widths_alone(kind: Any) -> None:
    layer = kind.from_features(np.int64(768), 3072, rank=4, bias=False)
    assert (layer.in_shape, layer.out_shape, layer.rank, layer.bias) == ((24, 32), (48, 64), 4, None)
    assert kind.from_features(784, 60, factors=3).in_shape == (7, 8, 14)
    with pytest.raises(ValueError, match=r"in_features: a width of 13 is prime.*padding \(pad=True\) to \(3, 5\)"):
        kind.from_features(13, 8)
    with pytest.raises(ValueError, match="out_features: a width of 7 is prime"):
        kind.from_features(12, 7)
    padded = kind.from_features(13, 7, pad=True)
    assert padded(torch.randn(5, 13)).shape == (5, 7)
    assert (padded.in_shape, padded.out_shape) == ((3, 5), (2, 4))


@pytest.mark.parametrize("kind", [KroneckerLinear, KroneckerDual])
def test_numbers_of_features_become_balanced_shapes(kind: Any) -> None:
    layer = kind(784, np.int64(512), 2)
    assert (layer.in_shape, layer.out_shape, layer.rank) == ((28, 28), (16, 32), 2)
    assert layer(torch.zeros(3, 784)).shape == (3, 512)
    assert kind((3, 4, 5), 30).out_shape == (2, 3, 5)
    assert kind(60, (5, 2)).in_shape == (6, 10)
    padded = kind(7, 10, pad=True)
    assert (padded.in_shape, padded.out_shape) == ((2, 4), (3, 4))
    assert padded(torch.zeros(2, 7)).shape == (2, 10)
    with pytest.raises(PrimeWidthError, match="out_features: a width of 7 is prime"):
        kind(6, 7)
    with pytest.raises(ValueError, match="in_shape must be 2 to 12 whole numbers"):
        kind(True, 4)
    with pytest.raises(ValueError, match="between 1 and 16,777,216, got 0"):
        kind(4, 0)


@pytest.mark.parametrize("batch", [15, 16, 40])
@pytest.mark.parametrize("options", [{}, {"in_features": 20, "out_features": 9, "pad": True}])
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_are_contiguous_whatever_the_batch(batch: int, options: dict[str, Any], bias: bool) -> None:
    order: Any = ["right", "left"]
    for layer in (
        KroneckerLinear((N1, N2), (M1, M2), 2, bias=bias, **options),
        KroneckerDual((N1, N2), (M1, M2), 2, bias=bias, **options),
        KroneckerDual((N1, N2), (M1, M2), 2, bias=bias, order=order, **options),
    ):
        x = torch.randn(batch, layer.in_features, requires_grad=True)
        y = layer(x)
        assert y.is_contiguous()
        assert y.view(batch * layer.out_features).shape == (batch * layer.out_features,)
        y.square().sum().backward()
        assert all(each.grad is not None and each.grad.is_contiguous() for each in (x, *layer.parameters()))
