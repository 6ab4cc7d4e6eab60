"""Search for the rank at which a Kronecker network is not worse than its dense twin."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kronmodel.data.dataset import Dataset
from kronmodel.data.file_options import FileOptions
from kronmodel.data.user_file import from_arrays
from kronmodel.nn.networks import build
from kronmodel.training.config import TrainConfig
from kronmodel.training.members import Member, make_members
from kronmodel.training.ranks import is_worse, search_ranks
from kronmodel.training.recipes import RECIPES


@pytest.fixture(scope="module")
def data() -> Dataset:
    """A regression whose exact solution needs a weight of Kronecker rank 2: x[0] picks row 0, x[5] row 1."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 6)).astype(np.float32)
    y = x[:, :1] - 2 * x[:, 5:]
    return from_arrays({"x": x, "y": y}, lambda line: None, FileOptions(), name="a", origin="a")


def member(data: Dataset, rank: int = 1) -> Member:
    recipe = replace(RECIPES["small-table"], hidden=(), layer="linear", rank=rank)
    training = {"epochs": 15, "batch_size": 32, "learning_rate": 0.05, "weight_decay": 0.0}
    found = make_members("a", data, "own", recipe, training)["kronecker"]
    assert isinstance(found.training, TrainConfig)
    return found


def test_the_rank_that_suffices_is_named(data: Dataset) -> None:
    lines: list[str] = []
    mine = member(data)
    search = search_ranks(mine, data, metric="rmse", score=1.0, dense=0.1, dense_parameters=10**6, report=lines.append)
    assert search is not None
    assert [each.rank for each in search.trials] == [2]
    assert search.trials[0].score < 0.1
    wider = build(replace(mine.config, rank=2))  # type: ignore[arg-type]
    assert search.trials[0].parameters == wider.parameter_count
    assert search.trials[0].weight_bytes == 4 * wider.parameter_count
    assert search.text.startswith(
        "the Kronecker network is worse than its twin on these test rows (RMSE 1, the dense network's 0.1); "
        "with rank 2 it is not (RMSE "
    )
    assert search.text.endswith(f"it is not (RMSE {search.trials[0].score:.4g})")
    assert lines == ["training a Kronecker network of rank 2 for comparison ..."]


def test_no_rank_suffices(data: Dataset) -> None:
    search = search_ranks(member(data), data, metric="rmse", score=1.0, dense=0.0, dense_parameters=10**6)
    assert search is not None
    assert [each.rank for each in search.trials] == [2]  # rank 4 is above the useful maximum
    assert search.text.endswith("the dense network's 0), and so are those of rank 2")


def test_the_search_ends_at_the_size_of_the_dense_network(data: Dataset) -> None:
    search = search_ranks(member(data), data, metric="rmse", score=1.0, dense=0.1, dense_parameters=7)
    assert search is not None
    assert not search.trials
    assert search.text.endswith("a higher rank needs as many parameters as the dense network has")


def test_the_search_is_bounded_in_time(data: Dataset) -> None:
    mine = member(data)
    dual = replace(mine, config=replace(mine.config, layer="dual"))  # type: ignore[arg-type]
    limits: Any = {"metric": "rmse", "score": 1.0, "dense": 0.0, "dense_parameters": 10**6}
    assert len(search_ranks(dual, data, seconds=0.0, **limits).trials) == 1  # type: ignore[union-attr]
    assert [each.rank for each in search_ranks(dual, data, **limits).trials] == [2, 4, 8, 16]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("metric", "score", "dense", "worse"),
    [
        ("accuracy", 0.944, 0.991, True),
        ("accuracy", 0.985, 0.991, False),
        ("accuracy", 0.991, 0.944, False),
        ("rmse", 1.04, 1.0, True),
        ("rmse", 1.02, 1.0, False),
        ("rmse", 1.0, 1.04, False),
    ],
)
def test_what_counts_as_worse(data: Dataset, metric: str, score: float, dense: float, worse: bool) -> None:
    assert is_worse(metric, score, dense) == worse
    if not worse:
        assert search_ranks(member(data), data, metric=metric, score=score, dense=dense, dense_parameters=9) is None
