"""Fit of one layer: a given structure to the layer's outputs, and the curve of candidates over many sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from kronmodel.compress.matrices import kronecker as kron
from kronmodel.compress.matrices import monarch as mon
from kronmodel.compress.matrices.candidates import Candidate, Fitted, MatrixLayer, matrix_of, unchanged
from kronmodel.compress.matrices.low_rank import LowRank, solve_low_rank
from kronmodel.compress.matrices.moments import Array, Moments, System
from kronmodel.compress.matrices.shapes import kronecker_shapes, low_rank_ranks, monarch_structures
from kronmodel.compress.matrices.structures import KINDS, Kind, Structure, kronecker, low_rank

__all__ = ["FRACTIONS", "HELD_OUT", "LayerData", "curve_of", "fit"]

FRACTIONS = (1 / 2, 1 / 3, 1 / 5, 1 / 8, 1 / 13, 1 / 20, 1 / 32, 1 / 50, 1 / 80, 1 / 128)
"""Sizes of a curve's candidates, as fractions of the dense matrix's weights."""

HELD_OUT = 8  # one of so many samples is never fitted, but judges the fits
RIDGES = (1e-2, 1e-1)  # strengths of the regularisation that a fit chooses from by the held-out samples
CURVE_RIDGE = 3e-2
TINY = float(np.finfo(np.float32).tiny)
SCREENED = 8  # shapes of Kronecker products that are tried at one size
SMALL_MATRIX, SCREENED_SMALL = 1 << 15, 32  # weights of a matrix of which more shapes are tried, and how many
MOST_BETWEEN = 12  # interpolated ranks between two fitted ones
KEPT = 2  # shapes that are continued over all sizes
SCREEN_SWEEPS, CURVE_SWEEPS, WARM_SWEEPS = 2, 4, 5


@dataclass(frozen=True, eq=False)
class LayerData:
    """Moments of a layer for its fit, and those of held-out samples by which fits are judged.

    Attributes:
        fit: moments of the samples that are fitted.
        held_out: moments of other samples; None judges by the fitted ones.
    """

    fit: Moments
    held_out: Moments | None = None

    @classmethod
    def of_weights_alone(cls, layer: MatrixLayer) -> LayerData:
        """Return the data of a fit without samples: uncorrelated inputs of variance 1."""
        return cls(Moments.of_weights_alone(layer.weight))


def fit(layer: MatrixLayer, structure: Structure, data: LayerData, *, sweeps: int = 20) -> Fitted:
    """Fit a structure to a layer's outputs.

    The strength of the regularisation is chosen by the held-out samples. They are never fitted, so that they can judge
    which of several fitted networks is the best. A structure of kind ``"dense"`` refits the whole matrix and the bias
    to the targets, which pays behind compressed layers.

    Args:
        layer: the layer.
        structure: structure of the replacement, of the layer's size.
        data: moments of the layer's inputs and targets.
        sweeps: most sweeps of the alternating least squares of a Kronecker sum.

    Raises:
        ValueError: the structure's size is not the layer's.
    """
    if (structure.out_features, structure.in_features) != layer.weight.shape:
        raise ValueError(f"{structure} doesn't have the layer's shape {layer.weight.shape} (out, in)")
    bias = layer.bias is not None
    if data.held_out is None:
        # Uncorrelated inputs need no regularisation.
        ridge = 0.0 if data.fit.diagonal else min(RIDGES)
        system = data.fit.system(layer.weight, bias=bias, ridge=ridge)
        factors = _fit_factors(system, structure, sweeps)
        return _fitted(layer, structure, factors, system, system)
    judge = data.held_out.system(layer.weight, bias=bias)
    tried: list[tuple[Array, ...]] = []
    systems: list[System] = []
    for ridge in RIDGES:
        system = data.fit.system(layer.weight, bias=bias, ridge=ridge)
        systems.append(system)
        # The next strength is a small change, so that the factors before are near the solution.
        tried.append(_fit_factors(system, structure, WARM_SWEEPS if tried else sweeps, tried[-1] if tried else None))
    errors = [judge.relative_error(matrix_of(structure, factors)) for factors in tried]
    best = int(np.argmin(errors))
    return _fitted(layer, structure, tried[best], systems[best], judge)


def _fit_factors(
    system: System, structure: Structure, sweeps: int, start: tuple[Array, ...] | None = None
) -> tuple[Array, ...]:
    if structure.kind == "dense":
        return (system.target,)
    if structure.kind == "low-rank":
        return solve_low_rank(system).factors(structure.rank)
    if structure.kind == "kronecker":
        return kron.fit_kronecker(system, structure, sweeps=sweeps, start=start)[0]
    return mon.fit_monarch(system, structure)[0]


def _fitted(
    layer: MatrixLayer, structure: Structure, factors: tuple[Array, ...], system: System, judge: System
) -> Fitted:
    matrix = matrix_of(structure, factors)
    return Fitted(
        candidate=_candidate(layer, structure, matrix, judge.relative_error(matrix)),
        factors=tuple(factor.astype(layer.weight.dtype, copy=False) for factor in factors),
        bias=None if layer.bias is None else _bias(layer.bias, system, matrix),
    )


def _bias(original: Array, system: System, matrix: Array) -> Array:
    """Return the best bias; without data, which have no means, the original one."""
    if not (system.in_mean.any() or system.out_mean.any()):
        return original
    return system.bias(matrix)


def _candidate(layer: MatrixLayer, structure: Structure, matrix: Array, output_error: float) -> Candidate:
    norm = max(float(np.linalg.norm(layer.weight)), TINY)
    return Candidate(
        structure=structure,
        bytes=layer.bytes_of(structure),
        macs=layer.macs_of(structure),
        weight_error=float(np.linalg.norm(matrix - layer.weight)) / norm,
        output_error=output_error,
    )


def curve_of(
    layer: MatrixLayer,
    data: LayerData,
    *,
    structures: Iterable[Kind] = KINDS,
    fractions: Sequence[float] = FRACTIONS,
    image_shape: tuple[int, int] | None = None,
) -> list[Candidate]:
    """Estimate the errors of a layer's candidates over many sizes.

    Low rank is solved for every rank at once. Kronecker sums are tried with several shapes at one size; the best are
    continued over all sizes with a few steps each, so that a final fit is better than its estimate.

    Args:
        layer: the layer.
        data: moments of the layer's inputs and targets.
        structures: kinds of structures to consider, beside the unchanged layer.
        fractions: sizes to consider, as fractions of the dense matrix's weights.
        image_shape: factor sizes of the inputs that the samples suggest, which are tried first.

    Returns:
        The candidates, the unchanged layer first; none is larger than that.
    """
    bias = layer.bias is not None
    system = data.fit.system(layer.weight, bias=bias, ridge=CURVE_RIDGE)
    judge = system if data.held_out is None else data.held_out.system(layer.weight, bias=bias)
    system, judge = system.single(), judge.single()
    kinds = set(structures) & set(layer.structures)
    found = [unchanged(layer)]
    if "low-rank" in kinds:
        found += _low_rank_curve(layer, solve_low_rank(system), judge, fractions)
    if "kronecker" in kinds:
        found += _kronecker_curve(layer, system, judge, fractions, image_shape)
    if "monarch" in kinds:
        for structure in monarch_structures(layer.in_features, layer.out_features, fractions):
            if mon.is_affordable(structure):
                factors, _ = mon.fit_monarch(system, structure, sweeps=1)
                matrix = matrix_of(structure, factors)
                found.append(_candidate(layer, structure, matrix, judge.relative_error(matrix)))
    return [each for each in found if each is found[0] or each.bytes < found[0].bytes]


def _low_rank_curve(
    layer: MatrixLayer, solution: LowRank, judge: System, fractions: Sequence[float]
) -> Iterator[Candidate]:
    """Yield a candidate for each rank of a geometric series; only those of the curve's sizes are judged by matrices."""
    weight, directions, projected = layer.weight, solution.directions, solution.projected
    # |W - D_r P_r|² for each r, and the judge's error of the same matrices, from sums over the directions.
    own = (np.einsum("ki,ki->k", directions.T @ weight, projected), np.einsum("ki,ki->k", projected, projected))
    square = float(np.vdot(weight, weight)) + np.cumsum(own[1] - 2 * own[0])
    weighted = judge.weighted(projected)
    # Directions are orthonormal: tr(M G Mᵀ) for M = D_r P_r is the sum of the rows' own terms.
    cross = np.einsum("ki,ki->k", directions.T @ judge.target, weighted)
    energy = np.einsum("ki,ki->k", projected, weighted)
    errors = np.sqrt(np.maximum(judge.zero_error + np.cumsum(energy - 2 * cross), 0) / max(judge.energy, 1e-300))
    norm = max(float(np.vdot(weight, weight)), TINY)
    for rank in low_rank_ranks(layer.in_features, layer.out_features, fractions):
        structure = low_rank(layer.in_features, layer.out_features, rank)
        yield Candidate(
            structure=structure,
            bytes=layer.bytes_of(structure),
            macs=layer.macs_of(structure),
            weight_error=float(np.sqrt(max(square[rank - 1], 0) / norm)),
            output_error=float(errors[rank - 1]),
        )


def _kronecker_curve(
    layer: MatrixLayer,
    system: System,
    judge: System,
    fractions: Sequence[float],
    image_shape: tuple[int, int] | None,
) -> Iterator[Candidate]:
    total = layer.weight.size
    count = SCREENED if total > SMALL_MATRIX else SCREENED_SMALL
    shapes = kronecker_shapes(layer.in_features, layer.out_features, count, image_shape, layer.kernel)
    middle = sorted(fractions)[len(fractions) // 2]

    def of_size(shape: tuple[tuple[int, int], tuple[int, int]], fraction: float) -> Structure | None:
        term = kronecker(*shape, 1)
        rank = min(int(fraction * total) // term.weights, *(m * n for n, m in zip(*shape, strict=True)))
        structure = replace(term, rank=rank)
        return structure if rank >= 1 and kron.is_affordable(structure) else None

    screened = []
    for shape in shapes:
        structure = of_size(shape, middle) or of_size(shape, max(fractions))
        if structure is not None:
            factors, _ = kron.fit_kronecker(system, structure, sweeps=SCREEN_SWEEPS)
            error = judge.relative_error(matrix_of(structure, factors))
            screened.append((error, shape))
    for _, shape in sorted(screened, key=lambda each: each[0])[:KEPT]:
        start, before = None, 0
        points: list[Candidate] = []
        for fraction in sorted(fractions):
            structure = of_size(shape, fraction)
            if structure is None or structure.rank == before:
                continue
            factors, _ = kron.fit_kronecker(system, structure, sweeps=CURVE_SWEEPS, start=start)
            start, before = factors, structure.rank
            matrix = matrix_of(structure, factors)
            points.append(_candidate(layer, structure, matrix, judge.relative_error(matrix)))
        yield from points
        for low, high in pairwise(points):
            yield from _between(layer, low, high)


def _between(layer: MatrixLayer, low: Candidate, high: Candidate) -> Iterator[Candidate]:
    """Yield candidates of the ranks between two fitted ones, with interpolated errors."""
    gap = high.structure.rank - low.structure.rank
    for rank in range(low.structure.rank + 1, high.structure.rank, max(gap // MOST_BETWEEN, 1)):
        structure = replace(low.structure, rank=rank)
        part = (rank - low.structure.rank) / gap
        yield Candidate(
            structure=structure,
            bytes=layer.bytes_of(structure),
            macs=layer.macs_of(structure),
            weight_error=(1 - part) * low.weight_error + part * high.weight_error,
            output_error=(1 - part) * low.output_error + part * high.output_error,
        )
