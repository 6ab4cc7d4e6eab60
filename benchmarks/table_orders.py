"""Orders of the encoded columns of real tables, which a Kronecker product folds into a matrix.

    python -m benchmarks.table_orders

Trains the Kronecker network of each table with the file's order, with correlated columns side by side (as neighbours in
a row of the matrix, or in a column), and with a random order; prints the test scores, which docs/data.md sums up. Needs
the environment that `make bench-tables` makes.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from benchmarks.tables import TABLES, Table, file_of
from kronmodel.data.dataset import Dataset, prepared
from kronmodel.data.file_options import FileOptions
from kronmodel.data.registry import load
from kronmodel.nn.networks import KroneckerConfig
from kronmodel.training.members import Member, make_members, train_member
from kronmodel.training.recipes import RECIPES, recommended

SLOW = ("airports", "sf-temps")  # 3,364 rows of 50 classes; a single column

Order = NDArray[np.intp]


def clustered(x: NDArray[np.float32]) -> Order:
    """Order columns by hierarchical clustering, with optimal order of the leaves, by their absolute correlation."""
    if x.shape[1] < 3:
        return np.arange(x.shape[1])
    centred = x.astype(np.float64) - x.mean(0)
    norms = np.linalg.norm(centred, axis=0)
    centred /= np.where(norms > 0, norms, 1)
    distance = np.clip(1 - np.abs(centred.T @ centred), 0, 1)
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform((distance + distance.T) / 2, checks=False), "average", optimal_ordering=True)
    found: Order = leaves_list(tree).astype(np.intp)
    return found


def orders(data: Dataset, config: KroneckerConfig, seed: int) -> dict[str, Order]:
    """Orders of the columns of a table, with those that pad it."""
    width = int(np.prod(config.in_shape))
    padding = np.arange(data.features, width)
    beside = np.concatenate([clustered(prepared(data, data.features).x_train), padding])
    return {
        "file": np.arange(width),
        "rows": beside,
        "columns": beside.reshape(config.in_shape[::-1]).T.ravel(),
        "random": np.concatenate([np.random.default_rng(seed).permutation(data.features), padding]),
    }


def kronecker(table: Table, data: Dataset, seed: int) -> Member:
    """Kronecker network of a table as `kronmodel train` makes it, padded where its width is prime."""
    recipe = recommended(data)
    prime = data.features > 3 and all(data.features % each for each in range(2, data.features))
    name = table.name.rpartition("/")[2]
    return make_members(name, data, recipe, RECIPES[recipe], {"seed": seed}, pad=prime)["kronecker"]


def measure(table: Table, folder: Path, seed: int) -> dict[str, Any]:
    """Test score with each order, for one seed of split and weights."""
    options = FileOptions(
        target=table.target,
        seed=seed,
        skip_bad_rows="--skip-bad-rows" in table.options,
        task="regression" if "regression" in table.options else None,
    )
    data = load(str(file_of(table, folder)), lambda line: None, options)
    member = kronecker(table, data, seed)
    assert isinstance(member.config, KroneckerConfig)
    ready = prepared(data, int(np.prod(member.config.in_shape)))
    found: dict[str, Any] = {"table": table.name, "seed": seed}
    for name, order in orders(data, member.config, seed).items():
        x_train, x_test = (np.ascontiguousarray(x[:, order]) for x in (ready.x_train, ready.x_test))
        moved = replace(data, x_train=x_train, x_test=x_test, scaling=None, encoding=None, test_rows=None)
        found[name] = train_member(member, moved)[1].test_score
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/tables"))
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for table in TABLES:
        if table.name not in SLOW:
            for seed in range(args.seeds):
                print(json.dumps(measure(table, args.out, seed)), flush=True)


if __name__ == "__main__":
    main()
