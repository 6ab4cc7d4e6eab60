"""Time of a training step with the layers of other libraries, each in its own environment: `make bench-others`.

The network has the shapes of `make bench-train`: two hidden layers as wide as the input, with GELU. It is timed in
alternating blocks with a dense network in the same process, so that the ratios are comparable with those of that table.
tensorly-torch: FactorizedLinear as a block tensor train of rank r, the same linear map as KroneckerLinear of rank r.
pyfastkron: a layer of one Kronecker product and a bias.
"""

from __future__ import annotations

import argparse
import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.timing import format_ratio, random_batch, time_interleaved, training_step
from kronmodel.training.device import keep_freed_memory


class FastKronLinear(nn.Module):
    """Linear layer ``x @ (F1 ⊗ F2) + bias`` that pyfastkron computes."""

    def __init__(self, n: tuple[int, int], m: tuple[int, int]) -> None:
        super().__init__()
        sizes = zip(n, m, strict=True)
        self.factors = nn.ParameterList(torch.randn(rows, columns) / math.sqrt(rows) for rows, columns in sizes)
        self.bias = nn.Parameter(torch.zeros(math.prod(m)))

    def forward(self, x: Tensor) -> Tensor:
        from pyfastkron.fastkrontorch import gemkm  # type: ignore[import-not-found]

        # gemkm accepts plain tensors only, no instances of nn.Parameter.
        y: Tensor = gemkm(x, [factor.view_as(factor) for factor in self.factors])
        return y + self.bias


def library_linear(library: str, n: tuple[int, int], m: tuple[int, int], rank: int) -> nn.Module:
    """Linear layer of another library, from ``n1 * n2`` to ``m1 * m2`` features."""
    if library == "pyfastkron":
        return FastKronLinear(n, m)
    from tltorch import FactorizedLinear  # type: ignore[import-not-found]

    layer: nn.Module = FactorizedLinear(n, m, factorization="blocktt", rank=rank, implementation="factorized")
    return layer


def with_gelu(layers: list[nn.Module]) -> nn.Module:
    """Network of layers with GELU between them."""
    return nn.Sequential(*itertools.chain.from_iterable((layer, nn.GELU()) for layer in layers[:-1]), layers[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", choices=("tensorly-torch", "pyfastkron"))
    parser.add_argument("--batch", type=int, default=128, help="samples per training step")
    args = parser.parse_args()
    keep_freed_memory()  # as in make bench-train; it applies to the dense network, too
    torch.manual_seed(0)
    torch.set_num_threads(1)
    library = args.library
    print(f"{library}, torch {torch.__version__}, batch {args.batch}, one thread")
    print(f"| width | rank | dense, ms | {library}, ms | dense ÷ {library} |\n|---|---|---|---|---|")
    for side, ranks in ((28, (1, 2, 4)), (64, (1, 4))):
        shapes = ((side, side), (side, side), (side, side), (2, 5))
        pairs = list(itertools.pairwise(shapes))
        dense = with_gelu([nn.Linear(math.prod(n), math.prod(m)) for n, m in pairs])
        x, y = random_batch(side, args.batch)
        for rank in ranks if library == "tensorly-torch" else (1,):
            network = with_gelu([library_linear(library, n, m, rank) for n, m in pairs])
            times = time_interleaved({"dense": training_step(dense, x, y), library: training_step(network, x, y)})
            cells = [f"{1000 * np.median(each):.2f}" for each in times.values()]
            cells.append(format_ratio(times["dense"], times[library]))
            print(f"| {side * side} | {rank} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
