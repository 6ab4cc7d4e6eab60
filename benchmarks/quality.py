"""Accuracy, weights, multiply-adds and training time of our recipes and of other networks: `make bench-quality`.

Every network of a data set gets the same care: as many epochs, the same changes of the images, and the learning rate
that did best on a validation split of the training set. They take turns, so that whatever else the machine does falls
on all of them. With `--validation-share` the table is of such a split, as it was when the recipes were chosen; the
test set then plays no part.

Tensor-train layers are those of tltorch, which wants an environment of its own; without it their row is left out:

    python3 -m venv .venv-tltorch
    .venv-tltorch/bin/pip install -c constraints.txt -e '.[train]' tensorly-torch==0.5.0 tensorly==0.10.0
    .venv-tltorch/bin/python -m benchmarks.quality --rows tensor-train
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from rich.console import Console
from torch import nn

from benchmarks.peers import low_rank, macs, narrow, tensor_train
from kronmodel.batches import hold_out
from kronmodel.data import Dataset, load
from kronmodel.display import training_progress
from kronmodel.models import KroneckerConfig, Network, build
from kronmodel.recipes import RECIPES, Recipe
from kronmodel.tasks import task_of
from kronmodel.train import TrainConfig, train
from kronmodel.twin import plan

# The recipes that were chosen on each data set.
CHOSEN = {"mnist": ("default", "accurate"), "fashion-mnist": ("fashion-mnist",)}
ROWS = ("recipe", "rank-1", "low-rank", "narrow", "tensor-train", "dense", "dense-plain", "paper")
COLUMNS = ("data", "network", "weights", "multiply-adds", "epochs", "accuracy, %: mean ± spread (each)", "CPU s", "s")


@dataclass(frozen=True)
class Entry:
    row: str
    name: str
    make: Callable[[], nn.Module]
    training: TrainConfig


@dataclass(frozen=True)
class Run:
    accuracy: float
    cpu_seconds: float
    seconds: float


def entries(data: Dataset) -> list[Entry]:
    """Every row of a data set; the peers have about as many weights as the first recipe's Kronecker network."""
    names = CHOSEN.get(data.name, ("default",))
    recipe, paper = RECIPES[names[0]], RECIPES["paper"]
    found = [_kronecker(data, f"recipe {name}", RECIPES[name], "recipe") for name in names]
    found.append(_kronecker(data, f"recipe {names[0]}, rank 1", replace(recipe, rank=1), "rank-1"))
    members = plan(data.name, data, names[0], recipe, {})
    config, dense, training = members["kronecker"].config, members["dense"], found[0].training
    assert isinstance(config, KroneckerConfig)
    weights = build(config).parameter_count
    unchanged = replace(dense.training, shift=0.0, rotate=0.0, zoom=0.0, flip=False)
    return [
        *found,
        Entry("low-rank", "low-rank, as many weights", partial(low_rank, config, weights), training),
        Entry("narrow", "dense but narrow, as many weights", partial(build, narrow(config, weights)), training),
        Entry("tensor-train", "tensor-train, as many weights", partial(tensor_train, config, weights), training),
        Entry("dense", "dense", partial(build, dense.config), dense.training),
        Entry("dense-plain", "dense, images unchanged", partial(build, dense.config), unchanged),
        *(_kronecker(data, f"the paper's, rank {rank}", replace(paper, rank=rank), "paper") for rank in (1, 2)),
        Entry("paper", "the paper's, dense", partial(build, config.dense()), paper.dense),
    ]


def _kronecker(data: Dataset, name: str, recipe: Recipe, row: str) -> Entry:
    member = plan(data.name, data, name, recipe, {})["kronecker"]
    return Entry(row, f"Kronecker, {name}", partial(build, member.config), member.training)


def measure(entry: Entry, data: Dataset, seed: int, progress: Console) -> Run:
    """Train once, and only then look at the test set: neither clock counts an evaluation."""
    torch.manual_seed(seed)
    network, config = entry.make(), replace(entry.training, seed=seed)
    unseen = replace(data, x_test=data.x_test[:1], y_test=data.y_test[:1])
    began = time.process_time()
    with training_progress(progress, f"{entry.name}, seed {seed}", config.epochs) as report:
        result = train(network, unseen, config, report)
    spent = time.process_time() - began
    score = task_of(data).score(network, torch.from_numpy(data.x_test), torch.from_numpy(data.y_test))
    return Run(100 * score, spent, result.train_seconds)


def held_out(data: Dataset, share: float, seed: int) -> Dataset:
    """A share of the training set, drawn by the seed, in the place of the test set."""
    if not share:
        return data
    x, y, x_held, y_held = hold_out(torch.from_numpy(data.x_train), torch.from_numpy(data.y_train), share, seed)
    return replace(data, x_train=x.numpy(), y_train=y.numpy(), x_test=x_held.numpy(), y_test=y_held.numpy())


def line(data: Dataset, entry: Entry, runs: list[Run]) -> str:
    network = entry.make()
    weights = sum(each.numel() for each in network.parameters())
    products = network.macs_per_sample if isinstance(network, Network) else macs(network)
    scores = [run.accuracy for run in runs]
    spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
    each = ", ".join(f"{score:.2f}" for score in scores)
    cpu, wall = (
        statistics.mean(times) for times in zip(*((run.cpu_seconds, run.seconds) for run in runs), strict=True)
    )
    return (
        f"| {data.name} | {entry.name} | {weights:,} | {products:,} | {entry.training.epochs} | "
        f"{statistics.mean(scores):.2f} ± {spread:.2f} ({each}) | {cpu:.0f} | {wall:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=list(CHOSEN), default=list(CHOSEN))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--epochs", type=int, help="instead of the recipes'")
    parser.add_argument("--learning-rate", type=float, help="instead of the recipes'")
    parser.add_argument("--validation-share", type=float, default=0.0, metavar="X", help="judge by that share instead")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    progress = Console(stderr=True)
    instead = {name: getattr(args, name) for name in ("epochs", "learning_rate") if getattr(args, name) is not None}
    if "tensor-train" in args.rows and importlib.util.find_spec("tltorch") is None:
        args.rows.remove("tensor-train")
        progress.print("no tensor-train row: tltorch is not installed here, see --help")
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    for name in args.data:
        whole = load(name, progress.print)
        rows = [entry for entry in entries(whole) if entry.row in args.rows]
        rows = [replace(entry, training=replace(entry.training, **instead)) for entry in rows]
        runs: dict[str, list[Run]] = {entry.name: [] for entry in rows}
        for seed in args.seeds:
            data = held_out(whole, args.validation_share, seed)
            for entry in rows:
                run = measure(entry, data, seed, progress)
                runs[entry.name].append(run)
                progress.print(f"{name}, {entry.name}, seed {seed}: {run}", soft_wrap=True)
        for entry in rows:
            print(line(whole, entry, runs[entry.name]), flush=True)


if __name__ == "__main__":
    main()
