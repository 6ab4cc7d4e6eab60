"""Accuracy, weights, multiply-adds and training time of our recipes and of other networks: `make bench-quality`.

Every network of a data set gets the same care: as many epochs as the Kronecker network and the same changes of the
images; dense the recipe's own learning rate, the others the Kronecker network's. They take turns, so that whatever else
the machine does falls on all of them. The seconds are without evaluations: of CPU time, which other processes disturb
less, and of wall time. With `--validation-share` the table is of a part of the training set, as it was when the recipes
were chosen; the test set then plays no part.

Tensor-train layers are those of tltorch, which wants an environment of its own; elsewhere their row is left out:

    python3 -m venv build/envs/quality
    build/envs/quality/bin/pip install -c constraints.txt -c benchmarks/others.txt -e '.[train]' tensorly-torch tensorly
    build/envs/quality/bin/python -m benchmarks.quality --rows tensor-train --runs runs.jsonl

With `--runs` each run is noted in a file as soon as it is done, and what stands there is not run again: a table can be
made row by row, by several environments, and printed at the end.
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

from benchmarks.peers import low_rank, macs, narrow, tensor_train
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

# The recipes that were chosen on each data set.
CHOSEN = {"mnist": ("default", "accurate"), "fashion-mnist": ("fashion-mnist",)}
USUAL = ("recipe", "rank-1", "low-rank", "narrow", "dense")  # half an hour with three seeds
ROWS = (*USUAL, "tensor-train", "dense-plain", "paper")  # all of them more than an hour
COLUMNS = ("data", "network", "weights", "multiply-adds", "epochs", "accuracy, %: mean ± spread (each)", "CPU s", "s")


@dataclass(frozen=True)
class Entry:
    row: str
    name: str
    make: Callable[[], nn.Module]
    training: TrainConfig


@dataclass(frozen=True)
class Run:
    weights: int
    macs: int
    accuracy: float
    cpu_seconds: float
    seconds: float


def entries(data: Dataset) -> list[Entry]:
    """Every row of a data set.

    The peers have the default recipe's widths, about as many weights as the Kronecker network of the data set's first
    recipe, and its training.
    """
    names = CHOSEN.get(data.name, ("default",))
    recipe, paper = RECIPES[names[0]], RECIPES["paper"]
    found = [_kronecker(data, f"recipe {name}", RECIPES[name], "recipe") for name in names]
    if isinstance(recipe.rank, int):
        found.append(_kronecker(data, f"recipe {names[0]}, rank 1", replace(recipe, rank=1), "rank-1"))
    chosen, usual = (_config(data, each) for each in (recipe, RECIPES["default"]))
    weights, training = build(chosen).parameter_count, found[0].training
    dense = partial(build, usual.dense())
    unchanged = replace(recipe.dense, shift=0.0, rotate=0.0, zoom=0.0, flip=False)
    return [
        *found,
        Entry("low-rank", "low-rank, as many weights", partial(low_rank, usual, weights), training),
        Entry("narrow", "dense but narrow, as many weights", partial(build, narrow(usual, weights)), training),
        Entry("tensor-train", "tensor-train, as many weights", partial(tensor_train, usual, weights), training),
        Entry("dense", "dense", dense, recipe.dense),
        Entry("dense-plain", "dense, images unchanged", dense, unchanged),
        *(_kronecker(data, f"the paper's, rank {rank}", replace(paper, rank=rank), "paper") for rank in (1, 2)),
        Entry("paper", "the paper's, dense", partial(build, _config(data, paper).dense()), paper.dense),
    ]


def _config(data: Dataset, recipe: Recipe) -> KroneckerConfig:
    config = make_members(data.name, data, "", recipe, {})["kronecker"].config
    assert isinstance(config, KroneckerConfig)
    return config


def _kronecker(data: Dataset, name: str, recipe: Recipe, row: str) -> Entry:
    member = make_members(data.name, data, name, recipe, {})["kronecker"]
    return Entry(row, f"Kronecker, {name}", partial(build, member.config), member.training)


def measure(entry: Entry, data: Dataset, seed: int, progress: Console) -> Run:
    """Train once, and only then look at the test set: neither clock counts an evaluation."""
    torch.manual_seed(seed)
    network, config = entry.make(), replace(entry.training, seed=seed)
    unseen = replace(data, x_test=data.x_test[:1], y_test=data.y_test[:1])
    began = time.process_time()
    with training_progress(progress, f"{entry.name}, seed {seed}", config.epochs) as report:
        result = train(network, unseen, config, lambda now: report(replace(now, test_score=None)))
    spent = time.process_time() - began
    score = task_of(data).score(network, torch.from_numpy(data.x_test), torch.from_numpy(data.y_test))
    weights = sum(each.numel() for each in network.parameters())
    products = network.macs_per_sample if isinstance(network, Network) else macs(network)
    return Run(weights, products, 100 * score, spent, result.train_seconds)


class Runs:
    """The runs that were done, kept in a file if there is one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self._known = {key: Run(**run) for key, run in (json.loads(each) for each in lines)}

    def get(self, entry: Entry, data: Dataset, seed: int, share: float, progress: Console) -> Run:
        """The run of an entry: a known one, or it is done now."""
        key = json.dumps([data.name, entry.name, asdict(entry.training), seed, share, torch.get_num_threads()])
        if key not in self._known:
            run = measure(entry, held_out(data, share, seed), seed, progress)
            progress.print(f"{data.name}, {entry.name}, seed {seed}: {run}", soft_wrap=True)
            self._known[key] = run
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(json.dumps([key, asdict(run)]) + "\n")
        return self._known[key]


def held_out(data: Dataset, share: float, seed: int) -> Dataset:
    """A share of the training set, drawn by the seed, in the place of the test set."""
    if not share:
        return data
    x, y, x_held, y_held = hold_out(torch.from_numpy(data.x_train), torch.from_numpy(data.y_train), share, seed)
    return replace(data, x_train=x.numpy(), y_train=y.numpy(), x_test=x_held.numpy(), y_test=y_held.numpy())


def line(data: Dataset, entry: Entry, runs: list[Run]) -> str:
    scores = [run.accuracy for run in runs]
    spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
    each = ", ".join(f"{score:.2f}" for score in scores)
    cpu, wall = (
        statistics.mean(times) for times in zip(*((run.cpu_seconds, run.seconds) for run in runs), strict=True)
    )
    return (
        f"| {data.name} | {entry.name} | {runs[0].weights:,} | {runs[0].macs:,} | {entry.training.epochs} | "
        f"{statistics.mean(scores):.2f}{spread} ({each}) | {cpu:.0f} | {wall:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=list(CHOSEN), default=list(CHOSEN))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(USUAL), help=f"default: {' '.join(USUAL)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--epochs", type=int, help="instead of the recipes'")
    parser.add_argument("--learning-rate", type=float, help="instead of the recipes'")
    parser.add_argument("--validation-share", type=float, default=0.0, metavar="X", help="judge by that share instead")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=Path, metavar="FILE.jsonl", help="note each run there, and don't repeat those")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # the first one imports a second's worth of torch
    progress = Console(stderr=True)
    instead = {name: getattr(args, name) for name in ("epochs", "learning_rate") if getattr(args, name) is not None}
    runs = Runs(args.runs)
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    for name in args.data:
        data = load(name, progress.print)
        rows = [entry for entry in entries(data) if entry.row in args.rows]
        rows = [replace(entry, training=replace(entry.training, **instead)) for entry in rows]
        done: dict[str, list[Run]] = {entry.name: [] for entry in rows}
        for seed in args.seeds:
            for entry in list(rows):
                try:
                    done[entry.name].append(runs.get(entry, data, seed, args.validation_share, progress))
                except ModuleNotFoundError as error:
                    progress.print(f"{entry.name}: left out, {error.name} is not installed here; see --help")
                    rows.remove(entry)
        for entry in rows:
            print(line(data, entry, done[entry.name]), flush=True)


if __name__ == "__main__":
    main()
