"""Accuracy, weights, multiply-adds and training time of several networks: `make bench-quality`, about ten minutes.

Every network gets the default recipe's training (dense a lower learning rate, which suits it) with several seeds; they
take turns, so that whatever else the machine does falls on all of them.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from rich.console import Console
from torch import nn

from benchmarks.peers import low_rank
from kronmodel.data import Dataset, load
from kronmodel.display import training_progress
from kronmodel.models import KroneckerConfig, Network, build
from kronmodel.recipes import RECIPES
from kronmodel.train import TrainConfig, train
from kronmodel.twin import plan


@dataclass(frozen=True)
class Entry:
    name: str
    make: Callable[[], nn.Module]
    training: TrainConfig


def entries(data: Dataset) -> list[Entry]:
    recipe = RECIPES["default"]
    found = []
    for rank in (1, 2, 4):
        members = plan(data.name, data, "default", replace(recipe, rank=rank), {})
        kronecker, dense = members["kronecker"], members["dense"]
        found.append(Entry(f"Kronecker, rank {rank}", partial(build, kronecker.config), kronecker.training))
        if rank == recipe.rank:
            config = kronecker.config
            assert isinstance(config, KroneckerConfig)
            weights = build(config).parameter_count
            found.append(Entry("low-rank, as many weights", partial(low_rank, config, weights), kronecker.training))
            found.append(Entry("dense", partial(build, dense.config), dense.training))
    return found


def macs(network: nn.Module) -> int:
    if isinstance(network, Network):
        return network.macs_per_sample
    return sum(each.in_features * each.out_features for each in network.modules() if isinstance(each, nn.Linear))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["mnist", "fashion-mnist"])
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    progress = Console(stderr=True)
    print("| data | network | weights | multiply-adds | test accuracy: mean (each) | training, s |")
    print("|---|---|---|---|---|---|")
    for name in args.data:
        data = load(name, progress.print)
        rows = entries(data)
        scores: dict[str, list[float]] = {row.name: [] for row in rows}
        seconds: dict[str, list[float]] = {row.name: [] for row in rows}
        for seed in range(args.seeds):
            for row in rows:
                torch.manual_seed(seed)
                config = replace(row.training, seed=seed)
                with training_progress(progress, f"{row.name}, seed {seed}", config.epochs) as report:
                    result = train(row.make(), data, config, report)
                scores[row.name].append(100 * result.test_score)
                seconds[row.name].append(result.train_seconds)
        for row in rows:
            network = row.make()
            weights = sum(each.numel() for each in network.parameters())
            each = ", ".join(f"{score:.2f}" for score in scores[row.name])
            print(
                f"| {data.name} | {row.name} | {weights:,} | {macs(network):,} | "
                f"{statistics.mean(scores[row.name]):.2f} % ({each}) | {statistics.median(seconds[row.name]):.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
