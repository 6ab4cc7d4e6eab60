"""The table of `make bench-quality`: sizes of the baselines, rows, validation split, stored results and format."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from benchmarks.baselines import count_macs, low_rank, narrow, tensor_train
from benchmarks.quality import (
    GROUPS,
    RECIPE_NAMES,
    RunCache,
    RunResult,
    TableRow,
    format_row,
    table_rows,
    validation_split,
)
from kronmodel import KroneckerConfig, build
from kronmodel.data.dataset import Dataset
from kronmodel.data.registry import load
from kronmodel.training.config import TrainConfig

CONFIG = KroneckerConfig(in_shape=(28, 28), hidden=((28, 28), (20, 24)), out_shape=(2, 5), rank=2)
SILENT = Console(quiet=True)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("mnist-5k", lambda line: None)


@pytest.mark.parametrize("weights", [9_000, 24_000])
def test_baselines_have_about_the_requested_number_of_weights(weights: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 784)
    networks: list[nn.Module] = [low_rank(CONFIG, weights), build(narrow(CONFIG, weights))]
    if importlib.util.find_spec("tltorch") is not None:
        networks.append(tensor_train(CONFIG, weights))
    for network in networks:
        count = sum(each.numel() for each in network.parameters())
        assert count == pytest.approx(weights, rel=0.2)
        out = network(x)
        assert out.shape == (64, 10)
        assert 0.1 < out.std() < 10  # the signal neither vanishes nor explodes


def test_count_macs_of_a_low_rank_network() -> None:
    network = low_rank(CONFIG, 9_000)
    first = network.get_submodule("0")
    assert isinstance(first, nn.Linear)
    k = first.out_features
    assert count_macs(network) == k * (784 + 784 + 784 + 480 + 480 + 10)


def test_every_data_set_has_rows_of_every_group(digits: Dataset) -> None:
    for name, recipes in RECIPE_NAMES.items():
        rows = table_rows(replace(digits, name=name))
        # Rank 1 is a group of its own only where the recipe has one rank for all layers.
        assert {row.group for row in rows} | {"rank-1"} == set(GROUPS)
        assert len({row.name for row in rows}) == len(rows)
        assert sum(row.group == "recipe" for row in rows) == len(recipes)
        plain = next(row for row in rows if row.group == "dense-plain")
        assert not plain.training.augmentation


def test_the_validation_split_takes_samples_of_the_training_set_only(digits: Dataset) -> None:
    split = validation_split(digits, 0.25, seed=3)
    assert (len(split.x_train), len(split.x_test)) == (3_000, 1_000)
    both = np.concatenate([split.x_train, split.x_test])
    assert sorted(map(bytes, both)) == sorted(map(bytes, digits.x_train))
    assert validation_split(digits, 0.0, seed=3) is digits


def test_a_stored_run_is_not_repeated(digits: Dataset, tmp_path: Path) -> None:
    built = 0

    def make() -> nn.Module:
        nonlocal built
        built += 1
        return build(KroneckerConfig(in_shape=(28, 28), hidden=((4, 6),), out_shape=(2, 5)))

    row = TableRow("recipe", "toy", make, TrainConfig(epochs=2, batch_size=100, learning_rate=3e-2))
    path = tmp_path / "runs.jsonl"
    result = RunCache(path).get(row, digits, 0, 0.0, SILENT)
    assert (result.weights, built) == (416 + 60, 1)
    assert result.accuracy > 15
    assert RunCache(path).get(row, digits, 0, 0.0, SILENT) == result
    assert built == 1
    other = replace(row, training=replace(row.training, epochs=1))
    RunCache(path).get(other, digits, 0, 0.0, SILENT)
    assert built == 2
    assert len(path.read_text().splitlines()) == 2


def test_a_formatted_row_has_mean_and_standard_deviation(digits: Dataset) -> None:
    row = TableRow("recipe", "toy", nn.Identity, TrainConfig(epochs=3))
    results = [RunResult(11_490, 179_312, accuracy, 10.0, 12.0) for accuracy in (98.0, 98.5, 99.0)]
    text = format_row(digits, row, results)
    assert text == "| mnist-5k | toy | 11,490 | 179,312 | 3 | 98.50 ± 0.50 (98.00, 98.50, 99.00) | 10 | 12 |"
