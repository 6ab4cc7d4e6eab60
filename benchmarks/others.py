"""Time of a training step with the layers of other libraries, each in its own environment: `make bench-others`.

The network is that of `make bench-train`, with two hidden layers of the input's width and GELU. It takes turns with a
dense one in the same process, so that the ratios can be compared with those of our table.
tensorly-torch: FactorizedLinear as a block tensor train of rank r, the same linear map as KroneckerLinear of rank r.
pyfastkron: one Kronecker product for each layer, and a bias.
"""

from __future__ import annotations

import argparse
import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.steps import data, measure, ratio, stepper
from kronmodel.training.device import keep_freed_memory


class FastKron(nn.Module):
    """``x @ (F1 ⊗ F2) + bias`` by pyfastkron."""

    def __init__(self, n: tuple[int, int], m: tuple[int, int]) -> None:
        super().__init__()
        sizes = zip(n, m, strict=True)
        self.factors = nn.ParameterList(torch.randn(rows, columns) / math.sqrt(rows) for rows, columns in sizes)
        self.bias = nn.Parameter(torch.zeros(math.prod(m)))

    def forward(self, x: Tensor) -> Tensor:
        from pyfastkron.fastkrontorch import gemkm  # type: ignore[import-not-found]

        # It takes plain tensors only, and parameters are not.
        y: Tensor = gemkm(x, [factor.view_as(factor) for factor in self.factors])
        return y + self.bias


def layer(library: str, n: tuple[int, int], m: tuple[int, int], rank: int) -> nn.Module:
    if library == "pyfastkron":
        return FastKron(n, m)
    from tltorch import FactorizedLinear  # type: ignore[import-not-found]

    made: nn.Module = FactorizedLinear(n, m, factorization="blocktt", rank=rank, implementation="factorized")
    return made


def network(make: list[nn.Module]) -> nn.Module:
    return nn.Sequential(*itertools.chain.from_iterable((each, nn.GELU()) for each in make[:-1]), make[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", choices=("tensorly-torch", "pyfastkron"))
    parser.add_argument("--batch", type=int, default=128)
    args = parser.parse_args()
    keep_freed_memory()  # for all alike
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print(f"{args.library}, torch {torch.__version__}, batch {args.batch}, one thread")
    print("| width | rank | dense, ms | it, ms | dense ÷ it |\n|---|---|---|---|---|")
    for side, ranks in ((28, (1, 2, 4)), (64, (1, 4))):
        shapes = ((side, side), (side, side), (side, side), (2, 5))
        pairs = list(itertools.pairwise(shapes))
        dense = network([nn.Linear(math.prod(n), math.prod(m)) for n, m in pairs])
        x, y = data(side, args.batch)
        for rank in ranks if args.library == "tensorly-torch" else (1,):
            it = network([layer(args.library, n, m, rank) for n, m in pairs])
            times = measure({"dense": stepper(dense, x, y), "it": stepper(it, x, y)})
            cells = [f"{1000 * np.median(times[name]):.2f}" for name in ("dense", "it")]
            print(
                f"| {side * side} | {rank} | {' | '.join(cells)} | {ratio(times['dense'], times['it'])} |", flush=True
            )


if __name__ == "__main__":
    main()
