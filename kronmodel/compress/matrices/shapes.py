"""Choice of factor sizes and ranks of a layer's candidates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from kronmodel.compress.matrices.structures import Structure, monarch

__all__ = ["factor_pairs", "kronecker_shapes", "low_rank_ranks", "monarch_structures"]

Pair = tuple[int, int]
RANKS_BETWEEN = 16  # ranks of low rank for each step of the sizes; the errors of all follow from one solution


def factor_pairs(width: int) -> list[Pair]:
    """List all ways to write a width as a product of two sizes, the most balanced first."""
    pairs = [(size, width // size) for size in range(1, math.isqrt(width) + 1) if width % size == 0]
    both = {pair for size, other in pairs for pair in ((size, other), (other, size))}
    return sorted(both, key=lambda pair: (abs(math.log(pair[0] / pair[1])), pair))


def kronecker_shapes(
    in_features: int, out_features: int, count: int, image_shape: Pair | None = None, kernel: int = 1
) -> list[tuple[Pair, Pair]]:
    """List shapes of inputs and outputs for Kronecker products, those with the fewest weights a term first.

    Products of which a factor is a single number, or a row with a column (low rank), are left out.

    Args:
        in_features: number of inputs.
        out_features: number of outputs.
        count: most shapes to list.
        image_shape: factor sizes of the inputs to list first, with each of the output's shapes.
        kernel: number that the last input size must be a multiple of.
    """
    shapes = [
        (n, m)
        for n in factor_pairs(in_features)
        for m in factor_pairs(out_features)
        if n[1] % kernel == 0 and min(n[0] * m[0], n[1] * m[1]) > 1 and not (1 in n and 1 in m)
    ]

    def weights(shape: tuple[Pair, Pair]) -> tuple[bool, int, tuple[Pair, Pair]]:
        (n1, n2), (m1, m2) = shape
        return shape[0] != image_shape, n1 * m1 + n2 * m2, shape

    return sorted(shapes, key=weights)[:count]


def low_rank_ranks(in_features: int, out_features: int, fractions: Sequence[float]) -> list[int]:
    """List the ranks of low-rank candidates: a geometric series over the sizes, without those that save nothing."""
    most = (in_features * out_features - 1) // (in_features + out_features)
    low, high = (fraction * in_features * out_features / (in_features + out_features) for fraction in _ends(fractions))
    steps = RANKS_BETWEEN * max(len(fractions), 2)
    series = (round(low * (high / low) ** (step / (steps - 1))) for step in range(steps))
    return sorted({rank for rank in (max(each, 1) for each in series) if rank <= most})


def monarch_structures(in_features: int, out_features: int, fractions: Sequence[float]) -> Iterator[Structure]:
    """Yield Monarch structures near each size, with the most balanced numbers of blocks."""
    seen = set()
    for fraction in sorted(fractions):
        for n in factor_pairs(in_features)[:2]:
            for m in factor_pairs(out_features)[:2]:
                (n1, n2), (m1, t) = n, m
                rank = min(int(fraction * in_features * out_features) // (t * n1 * (m1 + n2)), m1 - 1, n2 - 1)
                structure = monarch(n, m, rank)
                if rank >= 1 and 1 not in (n1, t) and structure not in seen:
                    seen.add(structure)
                    yield structure


def _ends(fractions: Sequence[float]) -> tuple[float, float]:
    return min(fractions), max(fractions)
