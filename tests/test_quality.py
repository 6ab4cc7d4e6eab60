"""The quality table's own arithmetic: networks of as many weights, splits, and runs that are not done twice."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from benchmarks.peers import low_rank, macs, narrow, tensor_train
from benchmarks.quality import CHOSEN, ROWS, Entry, Run, Runs, entries, held_out, line
from kronmodel import KroneckerConfig, build
from kronmodel.data.dataset import Dataset
from kronmodel.data.registry import load
from kronmodel.training.config import TrainConfig

CONFIG = KroneckerConfig(in_shape=(28, 28), hidden=((28, 28), (20, 24)), out_shape=(2, 5), rank=2)
NOWHERE = Console(quiet=True)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("mnist-5k", lambda line: None)


@pytest.mark.parametrize("weights", [9_000, 24_000])
def test_peers_have_about_as_many_weights(weights: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 784)
    peers: list[nn.Module] = [low_rank(CONFIG, weights), build(narrow(CONFIG, weights))]
    if importlib.util.find_spec("tltorch") is not None:
        peers.append(tensor_train(CONFIG, weights))
    for network in peers:
        count = sum(each.numel() for each in network.parameters())
        assert count == pytest.approx(weights, rel=0.2)
        out = network(x)
        assert out.shape == (64, 10)
        assert 0.1 < out.std() < 10  # the signal neither vanishes nor explodes


def test_multiply_adds_of_low_rank() -> None:
    network = low_rank(CONFIG, 9_000)
    first = network.get_submodule("0")
    assert isinstance(first, nn.Linear)
    k = first.out_features
    assert macs(network) == k * (784 + 784 + 784 + 480 + 480 + 10)


def test_rows_of_each_data_set(digits: Dataset) -> None:
    for name, recipes in CHOSEN.items():
        rows = entries(replace(digits, name=name))
        assert {entry.row for entry in rows} | {"rank-1"} == set(ROWS)
        assert len({entry.name for entry in rows}) == len(rows)
        assert sum(entry.row == "recipe" for entry in rows) == len(recipes)
        plain = next(entry for entry in rows if entry.row == "dense-plain")
        assert not plain.training.augmentation


def test_a_split_is_of_the_training_set_alone(digits: Dataset) -> None:
    split = held_out(digits, 0.25, seed=3)
    assert (len(split.x_train), len(split.x_test)) == (3_000, 1_000)
    both = np.concatenate([split.x_train, split.x_test])
    assert sorted(map(bytes, both)) == sorted(map(bytes, digits.x_train))
    assert held_out(digits, 0.0, seed=3) is digits


def test_a_run_is_done_once_and_noted(digits: Dataset, tmp_path: Path) -> None:
    built = 0

    def make() -> nn.Module:
        nonlocal built
        built += 1
        return build(KroneckerConfig(in_shape=(28, 28), hidden=((4, 6),), out_shape=(2, 5)))

    entry = Entry("recipe", "toy", make, TrainConfig(epochs=2, batch_size=100, learning_rate=3e-2))
    path = tmp_path / "runs.jsonl"
    run = Runs(path).get(entry, digits, 0, 0.0, NOWHERE)
    assert (run.weights, built) == (416 + 60, 1)
    assert run.accuracy > 15
    assert Runs(path).get(entry, digits, 0, 0.0, NOWHERE) == run
    assert built == 1
    other = replace(entry, training=replace(entry.training, epochs=1))
    Runs(path).get(other, digits, 0, 0.0, NOWHERE)
    assert built == 2
    assert len(path.read_text().splitlines()) == 2


def test_a_line_has_mean_and_spread(digits: Dataset) -> None:
    entry = Entry("recipe", "toy", nn.Identity, TrainConfig(epochs=3))
    runs = [Run(11_490, 179_312, accuracy, 10.0, 12.0) for accuracy in (98.0, 98.5, 99.0)]
    text = line(digits, entry, runs)
    assert text == "| mnist-5k | toy | 11,490 | 179,312 | 3 | 98.50 ± 0.50 (98.00, 98.50, 99.00) | 10 | 12 |"
