"""Initialisation whatever the default type and device, and for activations that have no name."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kronmodel import ConvConfig, KroneckerConfig, KroneckerDual, KroneckerLinear, build
from kronmodel.nn.activations import ACTIVATIONS, activation_moments

SIZES: Any = ((3, 7), (2, 5))
CONV = ConvConfig(image_shape=(1, 6, 8), channels=(2,))


@pytest.fixture
def _bfloat16() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    yield
    torch.set_default_dtype(before)


def made(**options: Any) -> list[nn.Module]:
    """One of each kind of layer and initialisation, from one seed."""
    layers: list[nn.Module] = []
    kinds: list[Any] = [KroneckerDual, KroneckerLinear]
    for kind in kinds:
        for init in ("level", "glorot"):
            orders: dict[str, Any] = {"order": ["right", "left"]} if kind is KroneckerDual else {}
            layer: Any = kind(*SIZES, 2, **orders, **options)
            torch.manual_seed(7)
            layer.reset_parameters(init=init)
            layers.append(layer)
    return layers


@pytest.mark.usefixtures("_bfloat16")
def test_bfloat16_as_the_default_type() -> None:
    for index, (low, single) in enumerate(zip(made(), made(dtype=torch.float32), strict=True)):
        for name, parameter in low.named_parameters():
            assert parameter.dtype == torch.bfloat16
            if index % 2 == 0:  # orthogonal factors are drawn in single precision whatever the type
                assert torch.equal(parameter, dict(single.named_parameters())[name].bfloat16())
            elif "factors" in name:
                assert 0 < float(parameter.detach().abs().max()) < 2
        assert low(torch.randn(4, 21)).isfinite().all()
    for layer in ("dual", "linear"):
        config: Any = KroneckerConfig(in_shape=(4, 6), hidden=((3, 5),), out_shape=(2, 5), features=CONV, layer=layer)
        for each in (config, config.dense()):
            assert build(each)(torch.randn(3, 48)).dtype == torch.bfloat16


def drawn(layer: Any, init: str) -> Any:
    torch.manual_seed(7)
    layer.reset_parameters(init=init)
    return layer


@pytest.mark.parametrize("init", ["level", "glorot"])
@pytest.mark.parametrize("kind", [KroneckerDual, KroneckerLinear])
@pytest.mark.parametrize("activation", ["gelu", torch.sin])
def test_from_the_meta_device_to_real_values(init: str, kind: Any, activation: Any) -> None:
    options: Any = {"activation": activation, "order": ("right", "left")} if kind is KroneckerDual else {}
    want = drawn(kind(*SIZES, 2, **options), init)
    by_argument = kind(*SIZES, 2, device="meta", **options)
    with torch.device("meta"):
        by_context = kind(*SIZES, 2, **options)
        real = kind(*SIZES, 2, device="cpu", **options)  # an explicit device goes before the context's
    for layer in (by_argument, by_context):
        assert all(parameter.is_meta for parameter in layer.parameters())
        layer.reset_parameters(init=init)
        assert layer(torch.empty(4, 21, device="meta")).shape == (4, 10)
        filled = drawn(layer.to_empty(device="cpu"), init)
        for name, parameter in filled.named_parameters():
            torch.testing.assert_close(parameter, dict(want.named_parameters())[name], rtol=0, atol=0)
    assert real(torch.ones(4, 21)).isfinite().all()
    assert all(factor.abs().max() > 0 for factor in real.factors)


def test_a_network_with_convolutions_on_the_meta_device() -> None:
    config = KroneckerConfig(in_shape=(4, 6), hidden=(), out_shape=(2, 5), features=CONV)
    with torch.device("meta"):
        network = build(config)
    network.to_empty(device="cpu")
    assert network.features is not None
    want = build(config)
    for each in (network, want):
        torch.manual_seed(0)
        modules: list[Any] = [each.features, *each.layers]
        for module in modules:
            module.reset_parameters()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter, dict(want.named_parameters())[name], rtol=0, atol=0)


def test_moments_of_functions_are_those_of_large_samples() -> None:
    z = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prelu = nn.PReLU(init=0.3)
    functions: list[Any] = [torch.sin, nn.SiLU(), lambda z: z.clamp(-1, 2), torch.exp]
    for function in functions:
        mean, std = activation_moments(function)
        values = function(z)
        assert (mean, std) == pytest.approx((float(values.mean()), float(values.std())), abs=0.02)
    mean, std = activation_moments(prelu, prelu.weight)  # it refuses other types than its own
    assert (mean, std) == pytest.approx((0.7 * 0.3989, math.sqrt(0.5 * (1 + 0.09) - (0.7 * 0.3989) ** 2)), abs=0.01)
    for name, function in ACTIVATIONS.items():
        assert activation_moments(name) == pytest.approx(activation_moments(function), rel=1e-6)


@pytest.mark.parametrize("activation", [torch.sin, nn.SiLU(), nn.PReLU(), lambda z: F.leaky_relu(z, 0.2)])
@pytest.mark.parametrize("order", ["left", ("right", "left")])
def test_variance_stays_level_with_any_activation(activation: Any, order: Any) -> None:
    torch.manual_seed(0)
    shapes = [(24, 30), (20, 36), (40, 18), (32, 24)] * 2
    z = torch.randn(128, 720)
    with torch.no_grad():
        for n, m in pairwise(shapes):
            z = KroneckerDual(n, m, 2, order=order, activation=activation)(activation(z))
            assert 1 / 2 < z.square().mean() < 2


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rank", [1, 2, 8])
def test_variance_stays_level_through_linear_layers(activation: str, rank: int) -> None:
    torch.manual_seed(0)
    shapes = [(24, 30), (20, 36), (40, 18), (32, 24)] * 3
    phi = ACTIVATIONS[activation]
    config = KroneckerConfig(
        in_shape=shapes[0],
        hidden=tuple(shapes[1:-1]),
        out_shape=shapes[-1],
        rank=rank,
        layer="linear",
        activation=activation,
    )
    for _ in range(3):
        z = torch.randn(128, 24 * 30)
        with torch.no_grad():
            for layer in build(config).layers:
                z = layer(phi(z))
                assert 1 / 2 < z.square().mean() < 2


def test_glorot_gives_a_linear_layers_weight_the_variance_of_a_dense_one() -> None:
    torch.manual_seed(0)
    squares = []
    for _ in range(20):
        layer = KroneckerLinear((24, 30), (10, 16), 4)
        layer.reset_parameters(init="glorot")
        squares.append(layer.weight.square().mean())
    assert torch.stack(squares).mean().item() == pytest.approx(2 / (720 + 160), rel=0.15)


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        (lambda z: z[:3], r"activation must be elementwise: expected shape \(\d+,\), got \(3,\)"),
        (torch.ones_like, "must not be constant, which ones_like is"),
        (lambda z: z / 0, "finite values for inputs up to 9.5, <lambda> has others"),
    ],
)
def test_activations_that_no_layer_can_use(activation: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KroneckerDual(*SIZES, activation=activation)
