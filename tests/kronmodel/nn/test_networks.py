"""Configurations and networks: ranks, kinds of layers, activations; the layers are tested in test_layers.py."""

import json
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kronmodel import ConvConfig, DenseConfig, KroneckerConfig, KroneckerDual, KroneckerLinear, Network, build
from kronmodel.cli import main as cli
from tests.kronmodel.nn.test_functional import assert_same_values_and_gradients

SHAPES: dict[str, Any] = {"in_shape": (4, 6), "hidden": ((5, 3), (7, 2)), "out_shape": (2, 5)}


def test_each_layer_has_its_rank() -> None:
    torch.manual_seed(0)
    config = KroneckerConfig(rank=(1, 2, 3), **SHAPES)
    network = build(config)
    assert [card["rank"] for card in network.layer_cards()] == [1, 2, 3]
    # Factors and inner biases of each branch, then the bias of the layer.
    weights = [1 * (20 + 18 + 30) + 15, 2 * (35 + 6 + 21) + 14, 3 * (14 + 10 + 4) + 10]
    assert [card["parameters"] for card in network.layer_cards()] == weights
    x, first = torch.randn(3, 24), network.layers
    gelu = torch.nn.functional.gelu
    torch.testing.assert_close(network(x), first[2](gelu(first[1](gelu(first[0](x))))))
    assert config.dense() == KroneckerConfig(rank=1, **SHAPES).dense()


def test_one_rank_is_that_of_every_layer() -> None:
    torch.manual_seed(0)
    one = build(KroneckerConfig(rank=2, **SHAPES)).state_dict()
    torch.manual_seed(0)
    each = build(KroneckerConfig(rank=(2, 2, 2), **SHAPES)).state_dict()
    assert all(torch.equal(each[name], tensor) for name, tensor in one.items())


@pytest.mark.parametrize(
    ("rank", "message"),
    [
        ((2, 2), r"rank must be one number, or one for each of 3 layers, got \(2, 2\)"),
        ((2, 0, 2), "rank must be a whole number between 1 and 65,536, got 0"),
        ((2, 2, True), "got True"),
    ],
)
def test_ranks_that_do_not_fit(rank: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KroneckerConfig(rank=rank, **SHAPES)


def test_orders_are_for_one_rank() -> None:
    with pytest.raises(ValueError, match="for each of 3 branches, got"):
        KroneckerConfig(rank=(2, 2, 3), order=("left", "right"), **SHAPES)


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--hidden", "4x6,5x3", "--rank", "1,2,4", "--kind", "kronecker", "--epochs", "1", "--json"]
    assert cli.main(["train", "--data", "digits", *options, "--out", str(tmp_path)]) == 0
    path = json.loads(capsys.readouterr().out)["models"]["kronecker"]["path"]
    assert cli.main(["info", path, "--json"]) == 0
    assert [each["rank"] for each in json.loads(capsys.readouterr().out)["card"]["layers"]] == [1, 2, 4]


def linear_config(**changes: Any) -> KroneckerConfig:
    return KroneckerConfig(**{"rank": (1, 2, 3), "layer": "linear", "activation": "tanh", **SHAPES, **changes})


@pytest.mark.parametrize("batch", [5, 20])
def test_a_network_of_linear_layers_is_one_of_the_dense_weights_that_they_imply(batch: int) -> None:
    torch.manual_seed(0)
    network = build(linear_config()).double()
    assert [type(layer) for layer in network.layers] == [KroneckerLinear] * 3
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
    x = torch.randn(batch, 24, dtype=torch.float64, requires_grad=True)
    want: Tensor = x
    layers: list[Any] = list(network.layers)
    for index, layer in enumerate(layers):
        weights = [reduce(torch.kron, term) for term in zip(*layer.factors, strict=True)]
        want = nn.functional.linear(want, torch.stack(weights).sum(0), layer.bias)
        want = want if index == 2 else want.tanh()
    assert_same_values_and_gradients(network(x), want, [x, *network.parameters()])


def test_cards_parameters_and_multiply_adds_of_linear_layers() -> None:
    network = build(linear_config())
    cards = network.layer_cards()
    assert cards[1] == {
        "kind": "KroneckerLinear",
        "in_shape": [5, 3],
        "out_shape": [7, 2],
        "rank": 2,
        "parameters": 2 * (35 + 6) + 14,
        "macs_per_sample": 2 * min(7 * 5 * 3 + 7 * 3 * 2, 5 * 3 * 2 + 7 * 5 * 2),
    }
    assert sum(card["parameters"] for card in cards) == network.parameter_count
    assert network.parameter_count_with_branch_biases == network.parameter_count
    counter = FlopCounterMode(display=False)
    with counter:
        network(torch.randn(11, 24))
    assert counter.get_total_flops() == 2 * 11 * network.macs_per_sample
    assert network.in_features == 24
    assert json.loads(json.dumps(asdict(linear_config())))["layer"] == "linear"
    assert linear_config().dense() == KroneckerConfig(activation="tanh", **SHAPES).dense()
    dual = build(KroneckerConfig(**SHAPES))
    assert [card["kind"] for card in dual.layer_cards()] == ["KroneckerDual"] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": "triple"}, "layer must be one of dual, linear, got 'triple'"),
        ({"order": "right"}, "order is for dual layers, .*, got 'right' for linear ones"),
        ({"rank": (2, 2, 11)}, r"rank must be between 1 and 10 for \(7, 2\) -> \(2, 5\), got 11"),
        ({"rank": (2, 7, 2)}, r"rank must be between 1 and 6 for \(5, 3\) -> \(7, 2\), got 7"),
    ],
)
def test_linear_layers_that_are_impossible(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        linear_config(**changes)


def test_ranks_of_dual_layers_may_exceed_those_of_linear_ones() -> None:
    network = build(KroneckerConfig(rank=(2, 2, 11), **SHAPES))
    assert network(torch.randn(3, 24)).shape == (3, 10)


def test_configurations_hold_plain_integers_and_tuples_whatever_they_are_given() -> None:
    given: Any = {"in_shape": np.array([4, 6]), "hidden": [[np.int64(5), 3], (7, 2)], "out_shape": [2, 5]}
    config = KroneckerConfig(rank=np.array([1, 2, 3]), **given)  # type: ignore[arg-type]
    assert config == KroneckerConfig(rank=(1, 2, 3), **SHAPES)
    assert hash(config) == hash(KroneckerConfig(rank=(1, 2, 3), **SHAPES))
    assert json.loads(json.dumps(asdict(config)))["rank"] == [1, 2, 3]
    dense = DenseConfig(in_features=np.int64(24), hidden=[np.int32(15), 14], out_features=10)  # type: ignore[arg-type]
    assert dense == config.dense()
    conv: Any = {"image_shape": [np.int64(1), 8, 8], "channels": [np.int64(2)]}
    assert ConvConfig(**conv) == ConvConfig(image_shape=(1, 8, 8), channels=(2,))
    json.dumps(asdict(ConvConfig(**conv)))
    one: Any = KroneckerConfig(rank=np.int64(2), **SHAPES)  # type: ignore[arg-type]
    assert (type(one.rank), one.ranks) == (int, (2, 2, 2))


@pytest.mark.parametrize("activation", [torch.sin, nn.SiLU(), 3])
def test_configurations_take_activations_by_name_only(activation: Any) -> None:
    with pytest.raises(ValueError, match="of a configuration must be one of the names gelu, relu, tanh"):
        KroneckerConfig(activation=activation, **SHAPES)
    with pytest.raises(ValueError, match="layers and Network take functions"):
        DenseConfig(in_features=4, hidden=(), out_features=2, activation=activation)
    with pytest.raises(ValueError, match=r"activation must be one of gelu, relu, tanh, got 'softplus'$"):
        KroneckerConfig(activation="softplus", **SHAPES)


def test_a_network_takes_any_function_and_trains_a_modules_parameters() -> None:
    torch.manual_seed(0)
    prelu = nn.PReLU()
    layers: list[Any] = [KroneckerDual((4, 6), (5, 3), 2, activation=prelu), KroneckerLinear((5, 3), (2, 5))]
    network = Network(layers, prelu)
    assert sum(parameter is prelu.weight for parameter in network.parameters()) == 1
    assert network.parameter_count == 2 * (20 + 18 + 30) + 15 + (10 + 15) + 10 + 1
    x = torch.randn(20, 24)
    got = network(x)
    want = layers[1](prelu(layers[0](x)))
    torch.testing.assert_close(got, want)
    got.square().sum().backward()
    assert prelu.weight.grad is not None
    assert prelu.weight.grad.abs() > 0
    assert network.layer_cards()[0]["activation"] == "PReLU"
    assert "activation='PReLU'" in repr(network)
    for activation, name in ((torch.sin, "sin"), (lambda z: z.view(-1).cos().view(z.shape), "<lambda>")):
        dual = KroneckerDual((4, 6), (4, 6), activation=activation)
        other = Network([dual, KroneckerDual((4, 6), (2, 5))], activation)
        torch.testing.assert_close(other(x), other.layers[1](activation(dual(x))))
        assert other.layer_cards()[0]["activation"] == name
        assert f"activation='{name}'" in repr(dual)


def test_networks_that_are_impossible() -> None:
    with pytest.raises(ValueError, match="at least one layer, got none"):
        Network([], "gelu")
    with pytest.raises(TypeError, match="KroneckerDual, KroneckerLinear or Linear, got Conv2d"):
        Network([nn.Conv2d(1, 1, 1)], "gelu")  # type: ignore[list-item]  # wrong on purpose
    with pytest.raises(ValueError, match="one of gelu, relu, tanh, got 'softplus'"):
        Network([KroneckerLinear((2, 3), (2, 2))], "softplus")


@pytest.mark.parametrize("activation", ["gelu", torch.sin])
def test_networks_of_both_kinds_of_layers_are_exported_with_a_batch_of_any_size(activation: Any) -> None:
    torch.manual_seed(0)
    first = KroneckerDual((4, 6), (5, 3), 3, order=["right", "left", "right"], activation=activation)
    network = Network([first, KroneckerLinear((5, 3), (7, 2), 2), nn.Linear(14, 3)], activation)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(network, (torch.randn(20, 24),), dynamic_shapes={"x": {0: batch}})
    for size in (3, 33):
        x = torch.randn(size, 24)
        torch.testing.assert_close(program.module()(x), network(x))
