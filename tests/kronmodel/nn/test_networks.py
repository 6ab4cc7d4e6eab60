"""Networks whose layers differ in rank; the layers themselves are tested in test_layers.py."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kronmodel import KroneckerConfig, build
from kronmodel.cli import main as cli

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
        ((2, 0, 2), r"rank must be between 1 and 6 for \(5, 3\) -> \(7, 2\), got 0"),
        ((2, 2, 11), r"rank must be between 1 and 10 for \(7, 2\) -> \(2, 5\), got 11"),
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
