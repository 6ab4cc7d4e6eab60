"""The named recipes: what they promise, and which one a data set begins with."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes

from kronmodel import DenseConfig, build
from kronmodel.cli import main as cli
from kronmodel.cli.options import network_arguments
from kronmodel.data.dataset import Dataset
from kronmodel.data.registry import load
from kronmodel.data.user_file import FileOptions
from kronmodel.quantization.network import QuantizedNetwork
from kronmodel.training.members import make_members
from kronmodel.training.recipes import RECIPES, recommended


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bunch = load_diabetes(scaled=False)
    path = tmp_path_factory.mktemp("diabetes") / "diabetes.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*bunch.feature_names, "progression"])
        writer.writerows([*x, y] for x, y in zip(bunch.data.tolist(), bunch.target.tolist(), strict=True))
    return path


@pytest.mark.parametrize(
    ("name", "weights", "macs"),
    [("default", 11_490, 179_312), ("accurate", 22_410, 437_120), ("fashion-mnist", 22_410, 510_272)],
)
def test_weights_and_multiply_adds_on_28x28_pixels(name: str, weights: int, macs: int, digits: Dataset) -> None:
    members = make_members("twin", digits, name, RECIPES[name], {})
    network = build(members["kronecker"].config)
    assert build(members["dense"].config).parameter_count == 1_238_730
    assert (network.parameter_count, network.macs_per_sample) == (weights, macs)
    for field in ("epochs", "batch_size", "shift", "rotate", "zoom", "flip"):  # the twins get the same care
        assert getattr(members["dense"].training, field) == getattr(members["kronecker"].training, field), field
    assert members["kronecker"].training.augmentation


@pytest.mark.parametrize(
    ("name", "size", "macs"),
    [("tiny-8k", 3_936, 388_032), ("tiny", 5_370, 550_272), ("tiny-fashion-mnist", 13_432, 1_212_144)],
)
def test_bytes_of_the_recipes_of_a_few_kilobytes(name: str, size: int, macs: int, digits: Dataset) -> None:
    member = make_members("twin", digits, name, RECIPES[name], {})["kronecker"]
    assert member.training.quantization is not None
    with torch.device("meta"):
        network = QuantizedNetwork.of_shapes(build(member.config), member.training.quantization)
    assert (network.weight_bytes, network.macs_per_sample) == (size, macs)
    dense = make_members("twin", digits, "accurate", RECIPES["accurate"], {})["dense"]
    assert macs < build(dense.config).macs_per_sample


def test_other_hidden_shapes_are_the_dense_twins_too(digits: Dataset) -> None:
    for options, widths in (([], (784, 784)), (["--hidden", "4x6,5x3", "--rank", "2"], (24, 15))):
        args = cli.parser().parse_args(["train", "--recipe", "accurate", *options])
        dense = make_members("t", digits, "accurate", RECIPES["accurate"].with_network(network_arguments(args)), {})[
            "dense"
        ].config
        assert isinstance(dense, DenseConfig)
        assert dense.hidden == widths


@pytest.mark.parametrize("images", [False, True], ids=["table", "8x8 pixels"])
def test_recipes_change_no_tables_and_no_tiny_images_unless_told_to(images: bool, diabetes: Path) -> None:
    table = load(str(diabetes), lambda line: None, FileOptions(target="progression"))
    data = load("digits", lambda line: None) if images else table
    assert not any(
        member.training.augmentation for member in make_members("t", data, "default", RECIPES["default"], {}).values()
    )
    member = make_members("t", data, "default", RECIPES["default"], {"shift": 2.0})["dense"]
    assert member.training.augmentation


def test_which_recipe_to_begin_with(digits: Dataset, diabetes: Path) -> None:
    table = load(str(diabetes), lambda line: None, FileOptions(target="progression"))
    assert recommended(digits) == "default"
    assert recommended(replace(digits, x_train=digits.x_train[:100])) == "default"
    assert recommended(table) == "small-table"
    assert recommended(replace(table, x_train=np.zeros((5_000, 10), np.float32))) == "default"


def test_a_few_hundred_rows_by_themselves(diabetes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A linear regression reaches 53 on this split, the default recipe 72."""
    arguments = ["train", "--data", str(diabetes), "--target", "progression", "--kind", "kronecker", "--json"]
    assert cli.main([*arguments, "--threads", "1", "--out", str(tmp_path)]) == 0
    model = json.loads(capsys.readouterr().out)["models"]["kronecker"]
    assert model["test_metric"]["value"] < 56
    assert cli.main(["info", model["path"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["card"]["training"]["recipe"] == "small-table"
