"""Compression of a whole network: curves, importance and budget of its layers, then fits layer by layer in order.

The network is behind a small protocol, so that torch modules and ONNX graphs are compressed by the same code.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from kronmodel.compress.budget import BudgetError, Currency, cost_of, pareto, solve
from kronmodel.compress.importance import MatrixNetwork, measured_importances
from kronmodel.compress.matrices.candidates import Candidate, Fitted, MatrixLayer, unchanged
from kronmodel.compress.matrices.fitting import FRACTIONS, LayerData, curve_of, fit, refit
from kronmodel.compress.matrices.structures import KINDS, Kind

__all__ = [
    "CompressedLayer",
    "Options",
    "Solver",
    "compress_layers",
    "curves_of",
    "fit_in_order",
    "solve_and_fit",
    "total",
]

SMALL = 0.1  # fraction of the whole network's cost below which a layer is small
UNPROMISING = 3.0  # estimated error of a choice, relative to the least, above which it is not fitted
NEAR_BUDGET = (3.0, 1.5, 0.8, 0.3)  # sizes of a curve, as multiples of the budget's fraction


Solver = Callable[[Sequence[Sequence[Candidate]], float, Sequence[float] | None], list[Candidate]]
"""Function that chooses a candidate of each curve: from the curves, a budget, and the importance of each layer."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a compression.

    Attributes:
        budget: largest sum of the layers' costs, in ``currency``.
        currency: cost that the budget bounds.
        structures: kinds of structures to consider, beside the unchanged layer.
        image_shape: factor sizes of the first layer's inputs that the samples suggest.
        allow: tells whether a layer may be replaced by a candidate, for example because it is faster by measurement.
        measured: returns a candidate with its measured time, for a budget of microseconds.
        solver: chooses a candidate of each curve within a budget by the layers' importance; None for
            :func:`kronmodel.compress.budget.solve`.
        report: called with each layer's name and what is done for it.
    """

    budget: float
    currency: Currency = "bytes"
    structures: tuple[Kind, ...] = KINDS
    image_shape: tuple[int, int] | None = None
    allow: Callable[[MatrixLayer, Candidate], bool] = lambda layer, candidate: True
    measured: Callable[[MatrixLayer, Candidate], Candidate] = lambda layer, candidate: candidate
    solver: Solver | None = None
    report: Callable[[str, str], None] = lambda layer, action: None


@dataclass(frozen=True, kw_only=True)
class CompressedLayer:
    """Result for one layer.

    Attributes:
        layer: the original layer.
        fitted: the replacement; None if the layer is unchanged.
        curve: candidates that the budget was shared by, without dominated ones.
        reason: why the layer is unchanged, else empty.
    """

    layer: MatrixLayer
    fitted: Fitted | None
    curve: Sequence[Candidate]
    reason: str = ""
    chosen: Candidate = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "chosen", unchanged(self.layer) if self.fitted is None else self.fitted.candidate)


def compress_layers(network: MatrixNetwork, options: Options) -> list[CompressedLayer]:
    """Replace a network's layers by structured ones within a budget, with the least error of its outputs.

    Args:
        network: the network, with its original layers; afterwards with the replacements.
        options: budget, structures and callbacks.

    Returns:
        The result for each layer.

    Raises:
        BudgetError: no choice of candidates meets the budget.
    """
    return solve_and_fit(network, curves_of(network, options), options)


def solve_and_fit(
    network: MatrixNetwork,
    curves: Sequence[Sequence[Candidate]],
    options: Options,
    weights: Sequence[Sequence[float]] | None = None,
) -> list[CompressedLayer]:
    """Share the budget over the layers by their curves and their importance, and fit the chosen structures in order.

    A layer's error does not say everything about the network's: low rank and Kronecker products lose different things.
    So the best choice of all structures, those of each structure alone, and those without measured importance are all
    fitted, and the one is kept that changes the network's outputs on held-out samples least. None is worse there than
    low rank alone within the same budget.

    Args:
        network: the network, with its original layers; afterwards with the replacements.
        curves: candidates of each layer.
        options: budget, structures and callbacks.
        weights: measured importances to share the budget by, each in turn; None measures them.

    Raises:
        BudgetError: no choice of candidates meets the budget.
    """
    if weights is None:
        weights = measured_importances(network, curves, _fraction(network, options), options.report)
    choices = _choices(curves, weights, options)
    best: tuple[float, int] = (math.inf, 0)
    results: list[list[CompressedLayer]] = []
    for number, choice in enumerate(choices):
        if number:
            for index in range(len(curves)):
                network.replace(index, None)
        results.append(fit_in_order(network, choice, curves, options))
        error = network.output_error() if len(choices) > 1 else None
        if error is None:  # nothing to judge by: the first is the best by the sum of the layers' errors
            return results[0]
        best = min(best, (error, number))
    if best[1] != len(choices) - 1:
        for index, result in enumerate(results[best[1]]):
            network.replace(index, result.fitted)
    return results[best[1]]


def _choices(
    curves: Sequence[Sequence[Candidate]], measured: Sequence[Sequence[float]], options: Options
) -> list[list[Candidate]]:
    """List the distinct choices to try, the best by the sum of all layers' errors first."""
    kinds: list[tuple[Kind, ...]] = [("dense", kind) for kind in options.structures if kind != "dense"]
    found: list[list[Candidate]] = []
    least = math.inf
    for importance, allowed in itertools.product([*measured, None], [KINDS, *kinds]):
        kept = [[each for each in curve if each.structure.kind in allowed] for curve in curves]
        try:
            if options.solver is None:
                choice = solve(kept, options.budget, currency=options.currency, importance=importance)
            else:
                choice = options.solver(kept, options.budget, importance)
        except BudgetError:
            if not found and len(allowed) == len(KINDS):
                raise
            continue
        error = _estimated_error(choice, measured[0])
        least = min(least, error)
        if choice not in found and (error <= UNPROMISING * least or "low-rank" in allowed):
            found.append(choice)
    return found


def _estimated_error(choice: Sequence[Candidate], importance: Sequence[float]) -> float:
    """Estimate the error of a network's outputs from the errors of its layers."""
    return math.sqrt(sum(factor * each.output_error**2 for factor, each in zip(importance, choice, strict=True)))


def curves_of(network: MatrixNetwork, options: Options) -> list[list[Candidate]]:
    """Estimate the candidates of each layer of a network with its original layers.

    The sizes are near the budget's fraction of the whole, since a curve over all sizes takes longer.
    """
    cost = cost_of(options.currency)
    whole = _whole(network, options)
    curves = []
    fraction = _fraction(network, options)
    near = [each * fraction for each in NEAR_BUDGET if each * fraction < 1]
    fractions = near if fraction < 1 and len(near) >= 3 else FRACTIONS
    for index, layer in enumerate(network.layers):
        options.report(layer.name, "curve")
        data = network.data_of(index) or LayerData.of_weights_alone(layer)
        shape = options.image_shape
        shape = shape if shape is not None and math.prod(shape) == layer.in_features else None
        # A layer that is small beside the others may need far more of its own size than they do.
        is_small = cost(options.measured(layer, unchanged(layer))) < SMALL * whole
        sizes = sorted({*fractions, *FRACTIONS}) if is_small else fractions
        curve = curve_of(layer, data, structures=options.structures, fractions=sizes, image_shape=shape)
        measured = [options.measured(layer, each) for each in curve]
        kept = [each for each in measured if each.structure.kind == "dense" or options.allow(layer, each)]
        curves.append([each for each in kept if each is kept[0] or cost(each) < cost(kept[0])])
    return curves


def _fraction(network: MatrixNetwork, options: Options) -> float:
    """Return the budget as a fraction of the unchanged layers' cost, at most 1."""
    return min(options.budget / max(_whole(network, options), 1), 1.0)


def _whole(network: MatrixNetwork, options: Options) -> float:
    """Return the cost of all unchanged layers."""
    cost = cost_of(options.currency)
    return sum(cost(options.measured(layer, unchanged(layer))) for layer in network.layers)


def fit_in_order(
    network: MatrixNetwork,
    choice: Sequence[Candidate],
    curves: Sequence[Sequence[Candidate]],
    options: Options,
) -> list[CompressedLayer]:
    """Fit the chosen structures layer by layer, each on the inputs that its compressed predecessors give.

    A layer that stays dense behind compressed ones is refitted to its original outputs, if that lowers the error of the
    network's outputs on held-out samples.
    """
    results = []
    changed = False
    for index, (layer, candidate, curve) in enumerate(zip(network.layers, choice, curves, strict=True)):
        front = pareto(curve, options.currency)
        if candidate.structure.kind == "dense":
            fitted = _refitted(network, index) if changed and layer.is_refittable else None
            reason = "the budget does not need it" if len(curve) > 1 else "no smaller structure is possible"
            results.append(CompressedLayer(layer=layer, fitted=fitted, curve=front, reason=reason))
            continue
        options.report(layer.name, f"fit {candidate.structure}")
        data = network.data_of(index) or LayerData.of_weights_alone(layer)
        fitted = fit(layer, candidate.structure, data)
        timed = replace(fitted.candidate, microseconds=candidate.microseconds)
        fitted = replace(fitted, candidate=timed)
        network.replace(index, fitted)
        changed = True
        results.append(CompressedLayer(layer=layer, fitted=fitted, curve=front))
    return results


def _refitted(network: MatrixNetwork, index: int) -> Fitted | None:
    """Refit a dense layer, and keep it if the network's outputs are nearer to the original's; else restore it."""
    data = network.data_of(index)
    before = network.output_error()
    if data is None or before is None:
        return None
    fitted = refit(network.layers[index], data)
    network.replace(index, fitted)
    after = network.output_error()
    if after is not None and after < before:
        return fitted
    network.replace(index, None)
    return None


def total(candidates: Iterable[Candidate], currency: Currency = "bytes") -> float:
    """Add up the costs of candidates."""
    return sum(map(cost_of(currency), candidates))
