"""Accuracy, weights, multiply-adds and training time of the recipes and of baselines: `make bench-quality`.

All networks of a data set are trained for as many epochs as the Kronecker network, with the same augmentation of the
images. The dense network has the learning rate that the recipe gives it, the baselines that of the Kronecker network.
The networks are trained in turns, so that other load on the machine affects all of them alike. Training times exclude
evaluations; they are CPU time, which other processes disturb less, and wall time. With `--validation-share` accuracy is
measured on a fraction of the training set that is not trained on, and the test set is not used: the recipes were chosen
that way.

Tensor-train layers come from tltorch, which needs a separate environment; without it their row is omitted:

    python3 -m venv build/envs/quality
    build/envs/quality/bin/pip install -c constraints.txt -c benchmarks/others.txt -e '.[train]' tensorly-torch tensorly
    build/envs/quality/bin/python -m benchmarks.quality --rows tensor-train --runs runs.jsonl

With `--runs` each result is appended to a file as soon as it is available, and runs whose results are in the file are
not repeated: several calls, also from different environments, can add rows, and a last one prints the table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from benchmarks.baselines import count_macs, low_rank, narrow, tensor_train
from kronmodel.cli.console import training_progress
from kronmodel.data.dataset import Dataset
from kronmodel.data.registry import load
from kronmodel.nn.networks import KroneckerConfig, Network, build
from kronmodel.training.config import TrainConfig
from kronmodel.training.device import keep_freed_memory
from kronmodel.training.loop import hold_out, train
from kronmodel.training.members import make_members
from kronmodel.training.recipes import RECIPES, Recipe
from kronmodel.training.tasks import task_of

# The recipes of each data set.
RECIPE_NAMES = {"mnist": ("default", "accurate"), "fashion-mnist": ("fashion-mnist",)}
DEFAULT_GROUPS = ("recipe", "rank-1", "low-rank", "narrow", "dense")  # half an hour with three seeds
GROUPS = (*DEFAULT_GROUPS, "tensor-train", "dense-plain", "paper")  # more than an hour with three seeds
COLUMNS = (
    "data",
    "network",
    "weights",
    "multiply-adds",
    "epochs",
    "accuracy, %: mean ± standard deviation (each)",
    "CPU s",
    "s",
)


@dataclass(frozen=True)
class TableRow:
    """Network of the table and its training configuration."""

    group: str  # one of GROUPS; `--rows` selects by it
    name: str
    build_network: Callable[[], nn.Module]
    training: TrainConfig


@dataclass(frozen=True)
class RunResult:
    """Result of one training run."""

    weights: int
    macs: int  # per sample
    accuracy: float  # %
    cpu_seconds: float
    seconds: float  # wall time


def table_rows(data: Dataset) -> list[TableRow]:
    """Rows of all groups for a data set.

    The baselines have the widths of the default recipe. Their training, and about their number of weights, are those of
    the Kronecker network of the data set's first recipe.
    """
    names = RECIPE_NAMES.get(data.name, ("default",))
    recipe, paper = RECIPES[names[0]], RECIPES["paper"]
    recipe_rows = [_kronecker_row(data, f"recipe {name}", RECIPES[name], "recipe") for name in names]
    if isinstance(recipe.rank, int):
        recipe_rows.append(_kronecker_row(data, f"recipe {names[0]}, rank 1", replace(recipe, rank=1), "rank-1"))
    default = _kronecker_config(data, RECIPES["default"])
    weights, training = build(_kronecker_config(data, recipe)).parameter_count, recipe_rows[0].training
    dense = partial(build, default.dense())
    without_augmentation = replace(recipe.dense, shift=0.0, rotate=0.0, zoom=0.0, flip=False)
    return [
        *recipe_rows,
        TableRow("low-rank", "low-rank, as many weights", partial(low_rank, default, weights), training),
        TableRow("narrow", "dense but narrow, as many weights", partial(build, narrow(default, weights)), training),
        TableRow("tensor-train", "tensor-train, as many weights", partial(tensor_train, default, weights), training),
        TableRow("dense", "dense", dense, recipe.dense),
        TableRow("dense-plain", "dense, without augmentation", dense, without_augmentation),
        *(_kronecker_row(data, f"recipe paper, rank {rank}", replace(paper, rank=rank), "paper") for rank in (1, 2)),
        TableRow("paper", "dense, recipe paper", partial(build, _kronecker_config(data, paper).dense()), paper.dense),
    ]


def _kronecker_config(data: Dataset, recipe: Recipe) -> KroneckerConfig:
    config = make_members(data.name, data, "", recipe, {})["kronecker"].config
    assert isinstance(config, KroneckerConfig)
    return config


def _kronecker_row(data: Dataset, name: str, recipe: Recipe, group: str) -> TableRow:
    member = make_members(data.name, data, name, recipe, {})["kronecker"]
    return TableRow(group, f"Kronecker, {name}", partial(build, member.config), member.training)


def train_and_score(row: TableRow, data: Dataset, seed: int, progress: Console) -> RunResult:
    """Train a network once, then measure its accuracy on the test set, outside of the measured times."""
    torch.manual_seed(seed)
    network, config = row.build_network(), replace(row.training, seed=seed)
    # Training evaluates the test set after each epoch; one sample makes the time of that negligible.
    one_test_sample = replace(data, x_test=data.x_test[:1], y_test=data.y_test[:1])
    started = time.process_time()
    with training_progress(progress, f"{row.name}, seed {seed}", config.epochs) as report:
        result = train(network, one_test_sample, config, lambda now: report(replace(now, test_score=None)))
    cpu_seconds = time.process_time() - started
    score = task_of(data).score(network, torch.from_numpy(data.x_test), torch.from_numpy(data.y_test))
    weights = sum(each.numel() for each in network.parameters())
    macs = network.macs_per_sample if isinstance(network, Network) else count_macs(network)
    return RunResult(weights, macs, 100 * score, cpu_seconds, result.train_seconds)


class RunCache:
    """Results of runs, kept in a JSON Lines file if a path is given."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self._results = {key: RunResult(**result) for key, result in (json.loads(each) for each in lines)}

    def get(self, row: TableRow, data: Dataset, seed: int, validation_fraction: float, progress: Console) -> RunResult:
        """Return the stored result of a run, or train the network now and store its result."""
        threads = torch.get_num_threads()
        key = json.dumps([data.name, row.name, asdict(row.training), seed, validation_fraction, threads])
        if key not in self._results:
            result = train_and_score(row, validation_split(data, validation_fraction, seed), seed, progress)
            progress.print(f"{data.name}, {row.name}, seed {seed}: {result}", soft_wrap=True)
            self._results[key] = result
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(json.dumps([key, asdict(result)]) + "\n")
        return self._results[key]


def validation_split(data: Dataset, fraction: float, seed: int) -> Dataset:
    """Replace the test set by a fraction of the training set, drawn with the seed; with 0 the data set is unchanged."""
    if not fraction:
        return data
    x, y, x_held, y_held = hold_out(torch.from_numpy(data.x_train), torch.from_numpy(data.y_train), fraction, seed)
    return replace(data, x_train=x.numpy(), y_train=y.numpy(), x_test=x_held.numpy(), y_test=y_held.numpy())


def format_row(data: Dataset, row: TableRow, results: list[RunResult]) -> str:
    """Markdown line of a network, with the mean over its runs."""
    scores = [result.accuracy for result in results]
    deviation = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
    each = ", ".join(f"{score:.2f}" for score in scores)
    cpu, wall = (
        statistics.mean(times)
        for times in zip(*((result.cpu_seconds, result.seconds) for result in results), strict=True)
    )
    return (
        f"| {data.name} | {row.name} | {results[0].weights:,} | {results[0].macs:,} | {row.training.epochs} | "
        f"{statistics.mean(scores):.2f}{deviation} ({each}) | {cpu:.0f} | {wall:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=list(RECIPE_NAMES), default=list(RECIPE_NAMES))
    parser.add_argument(
        "--rows", nargs="+", choices=GROUPS, default=list(DEFAULT_GROUPS), help=f"default: {' '.join(DEFAULT_GROUPS)}"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--epochs", type=int, help="override that of the recipes")
    parser.add_argument("--learning-rate", type=float, help="override that of the recipes")
    parser.add_argument(
        "--validation-share",
        type=float,
        default=0.0,
        metavar="FRACTION",
        help="measure accuracy on that fraction of the training set, held out",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--runs", type=Path, metavar="FILE.jsonl", help="store each result there, and do not repeat stored runs"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    # The first optimizer imports more of torch, which would add a second to the first run.
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
    progress = Console(stderr=True)
    overrides = {name: getattr(args, name) for name in ("epochs", "learning_rate") if getattr(args, name) is not None}
    cache = RunCache(args.runs)
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    for name in args.data:
        data = load(name, progress.print)
        rows = [row for row in table_rows(data) if row.group in args.rows]
        rows = [replace(row, training=replace(row.training, **overrides)) for row in rows]
        results: dict[str, list[RunResult]] = {row.name: [] for row in rows}
        for seed in args.seeds:
            for row in list(rows):
                try:
                    results[row.name].append(cache.get(row, data, seed, args.validation_share, progress))
                except ModuleNotFoundError as error:
                    progress.print(f"{row.name}: omitted, the module {error.name} is not installed; see --help")
                    rows.remove(row)
        for row in rows:
            print(format_row(data, row, results[row.name]), flush=True)


if __name__ == "__main__":
    main()
