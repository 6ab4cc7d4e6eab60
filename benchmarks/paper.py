"""Reproduce the MNIST table of arXiv 2204.04273: `make bench-paper`, about four minutes per seed.

Each network is trained in the authors' configuration (`--recipe paper`) with several seeds. The networks are trained in
turns, so that other load on the machine affects all of them alike. `--epochs` shortens the trainings, for times only.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass, replace

from rich.console import Console

from kronmodel.cli.console import training_progress
from kronmodel.data.registry import load
from kronmodel.nn.networks import build
from kronmodel.training.device import keep_freed_memory
from kronmodel.training.members import Member, make_members, train_member
from kronmodel.training.recipes import RECIPES


@dataclass(frozen=True)
class PublishedRow:
    """Row of the published table, and the model that reproduces it."""

    name: str
    member: Member
    weights: int
    accuracy: float  # %
    ms_per_step: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument(
        "--epochs", type=int, help="epochs of each training, instead of the authors' 20: for times only"
    )
    args = parser.parse_args()
    seeds: int = args.seeds
    keep_freed_memory()  # as `kronmodel train` does
    progress = Console(stderr=True)
    data = load("mnist", progress.print)
    if data.name != "mnist":
        parser.error(
            f"got the data set {data.name}, expected the full MNIST: it is neither on this machine nor could it be "
            "downloaded; put its four files into $KRONMODEL_DATA/mnist"
        )
    paper = RECIPES["paper"]
    options = {} if args.epochs is None else {"epochs": args.epochs}
    rank_1, rank_2 = (make_members("mnist", data, "paper", replace(paper, rank=rank), options) for rank in (1, 2))
    rows = (
        PublishedRow("dense 784-784-784-10", rank_1["dense"], 1_238_730, 97.72, 19),
        PublishedRow("Kronecker dual, rank 1", rank_1["kronecker"], 6_534, 96.94, 13),
        PublishedRow("Kronecker dual, rank 2", rank_2["kronecker"], 13_068, 97.36, 17),
    )
    accuracies: dict[str, list[float]] = {row.name: [] for row in rows}
    steps: dict[str, list[float]] = {row.name: [] for row in rows}
    for seed in range(seeds):
        for row in rows:
            member = replace(row.member, training=replace(row.member.training, seed=seed))
            with training_progress(progress, f"{row.name}, seed {seed}", member.training.epochs) as report:
                _, result = train_member(member, data, report)
            accuracies[row.name].append(100 * result.test_score)
            steps[row.name].append(result.ms_per_step)

    print(
        "| network | weights (published) | published accuracy | measured accuracy: mean of seeds (each) "
        "| published ms/step | measured ms/step |"
    )
    print("|---|---|---|---|---|---|")
    for row in rows:
        measured = accuracies[row.name]
        each = ", ".join(f"{value:.2f}" for value in measured)
        weights = build(row.member.config).parameter_count
        print(
            f"| {row.name} | {weights:,} ({row.weights:,}) | {row.accuracy:.2f} % | "
            f"{statistics.mean(measured):.2f} % ({each}) | {row.ms_per_step} | "
            f"{statistics.median(steps[row.name]):.2f} |"
        )


if __name__ == "__main__":
    main()
