"""Compression of a whole network: curves, importance and budget of its layers, then fits layer by layer in order."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

from kronmodel.compress.matrices.candidates import Candidate, unchanged
from kronmodel.compress.matrices.fitting import FRACTIONS, LayerData, curve_of
from kronmodel.compress.matrices.structures import KINDS, Kind
from kronmodel.compress.search.budget import BudgetError, Currency, cost_of, solve
from kronmodel.compress.search.importance import measured_importances
from kronmodel.compress.search.in_order import CompressedLayer, Options, fit_in_order, put
from kronmodel.compress.search.matrix_network import MatrixNetwork
from kronmodel.compress.search.permutation import (
    STRUCTURED,
    find_orders,
)

__all__ = [
    "compress_layers",
    "curves_of",
    "solve_and_fit",
    "total",
]

SMALL = 0.1  # fraction of the whole network's cost below which a layer is small
UNPROMISING = 3.0  # estimated error of a choice, relative to the least, above which it is not fitted
PERMUTED_FROM = 0.1  # error of a network from which an order of the hidden units is searched
NEAR_BEST = 1.25  # error, relative to the least one, up to which another structure may be the best after a training
NEAR_BUDGET = (3.0, 1.5, 0.8, 0.3)  # sizes of a curve, as multiples of the budget's fraction


def compress_layers(network: MatrixNetwork, options: Options) -> list[list[CompressedLayer]]:
    """Replace a network's layers by structured ones within a budget, with the least error of its outputs.

    Args:
        network: the network, with its original layers; afterwards with the replacements.
        options: budget, structures and callbacks.

    Returns:
        The results for all layers, as of :func:`solve_and_fit`.

    Raises:
        BudgetError: no choice of candidates meets the budget.
    """
    return solve_and_fit(network, curves_of(network, options), options)


def solve_and_fit(
    network: MatrixNetwork,
    curves: Sequence[Sequence[Candidate]],
    options: Options,
    weights: Sequence[Sequence[float]] | None = None,
) -> list[list[CompressedLayer]]:
    """Share the budget over the layers by their curves and their importance, and fit the chosen structures in order.

    A layer's error does not say everything about the network's: low rank and Kronecker products lose different things.
    So the best choice of all structures, those of each structure alone, and those without measured importance are all
    fitted, and judged by the change of the network's outputs on held-out samples. None is worse there than low rank
    alone within the same budget. The nearest before a training of all layers together need not be the nearest after
    it, which is why the best of each main structure is returned.

    Args:
        network: the network, with its original layers; afterwards with the replacements of the first result.
        curves: candidates of each layer.
        options: budget, structures and callbacks.
        weights: measured importances to share the budget by, each in turn; None measures them.

    Returns:
        The best fit of each main structure whose error is at most ``NEAR_BEST`` times the least, the least error first;
        without samples only the best by the sum of the layers' errors.

    Raises:
        BudgetError: no choice of candidates meets the budget.
    """
    if weights is None:
        weights = measured_importances(network, curves, _fraction(network, options), options.report)
    choices = _choices(curves, weights, options)
    best: dict[Kind, tuple[float, list[CompressedLayer]]] = {}  # results are as large as the network: few are kept
    for choice in choices:
        put(network, None)
        results = fit_in_order(network, choice, curves, options)
        error = network.output_error()
        if error is None:  # nothing to judge by
            return [results]
        kind = _main_kind(results)
        if kind not in best or error < best[kind][0]:
            best[kind] = error, results
        limit = NEAR_BEST * min(least for least, _ in best.values())
        best = {kind: each for kind, each in best.items() if not each[0] > limit}
    permuted = [_permuted(network, *each, curves, options) for each in best.values()]
    found = [results for _, results in sorted(permuted, key=lambda each: each[0])]
    put(network, found[0])
    return found


def _permuted(
    network: MatrixNetwork,
    error: float,
    results: list[CompressedLayer],
    curves: Sequence[Sequence[Candidate]],
    options: Options,
) -> tuple[float, list[CompressedLayer]]:
    """Permute the hidden units of a result and fit its structures again, if that lowers the network's error."""
    choice = [each.chosen for each in results]
    if error < PERMUTED_FROM or not any(each.structure.kind in STRUCTURED for each in choice):
        return error, results
    put(network, None)
    orders = find_orders(network, choice)
    if not orders:
        return error, results
    permuted = fit_in_order(network, choice, curves, options, orders)
    after = network.output_error()
    return (error, results) if after is None or after >= error else (after, permuted)


def _main_kind(results: Sequence[CompressedLayer]) -> Kind:
    """Return the kind of structure that replaces most weights."""
    weights: dict[Kind, int] = defaultdict(int)
    for each in results:
        weights[each.chosen.structure.kind] += each.layer.weight.size
    return max(weights, key=lambda kind: (kind != "dense", weights[kind]))


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


def total(candidates: Iterable[Candidate], currency: Currency = "bytes") -> float:
    """Add up the costs of candidates."""
    return sum(map(cost_of(currency), candidates))
