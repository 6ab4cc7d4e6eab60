"""Compression of a whole network: curves, importance and budget of its layers, then fits layer by layer in order.

The network is behind a small protocol, so that torch modules and ONNX graphs are compressed by the same code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from kronmodel.compress.budget import Currency, cost_of, pareto, solve
from kronmodel.compress.candidates import Candidate, Fitted, MatrixLayer, unchanged
from kronmodel.compress.fitting import FRACTIONS, LayerData, curve_of, fit, refit
from kronmodel.compress.structures import KINDS, Kind

__all__ = ["CompressedLayer", "MatrixNetwork", "Options", "compress_layers", "curves_of", "fit_in_order", "importances"]

NEAR_BUDGET = (4.0, 2.5, 1.6, 1.25, 1.0, 0.8, 0.6, 0.4, 0.25)  # sizes of a curve, as multiples of the budget's fraction


class MatrixNetwork(Protocol):
    """Protocol of a network whose layers are replaced: implemented for torch modules and for ONNX graphs.

    Attributes:
        layers: layers that may be replaced, in the order in which the network computes them.
    """

    layers: Sequence[MatrixLayer]

    def data_of(self, index: int) -> LayerData | None:
        """Collect the moments of a layer: inputs as the network computes them with the replacements made so far.

        Targets are the layer's outputs in the original network. The samples are run in batches, and only the moments
        are kept.

        Returns:
            The moments of the samples to fit and of held-out ones; None if there are no samples.
        """
        ...

    def replace(self, index: int, fitted: Fitted | None) -> None:
        """Replace a layer by a fitted one, or restore the original layer."""
        ...

    def output_error(self) -> float | None:
        """Measure the root mean square of the change of the network's outputs on held-out samples, relative to them.

        Returns:
            The error with the replacements made so far; None if there are no samples.
        """
        ...


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
        report: called with each layer's name and what is done for it.
    """

    budget: float
    currency: Currency = "bytes"
    structures: tuple[Kind, ...] = KINDS
    image_shape: tuple[int, int] | None = None
    allow: Callable[[MatrixLayer, Candidate], bool] = lambda layer, candidate: True
    measured: Callable[[MatrixLayer, Candidate], Candidate] = lambda layer, candidate: candidate
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
    curves = curves_of(network, options)
    weights = importances(network, curves)
    choice = solve(curves, options.budget, currency=options.currency, importance=weights)
    return fit_in_order(network, choice, curves, options)


def curves_of(network: MatrixNetwork, options: Options) -> list[list[Candidate]]:
    """Estimate the candidates of each layer of a network with its original layers.

    The sizes are near the budget's fraction of the whole, since a curve over all sizes takes longer.
    """
    cost = cost_of(options.currency)
    curves = []
    whole = sum(layer.macs_of(unchanged(layer).structure) for layer in network.layers)
    if options.currency == "bytes":
        whole = sum(unchanged(layer).bytes for layer in network.layers)
    fraction = min(options.budget / max(whole, 1), 1.0)
    near = [each * fraction for each in NEAR_BUDGET if each * fraction < 1]
    fractions = near if options.currency == "bytes" and len(near) >= 3 else FRACTIONS
    for index, layer in enumerate(network.layers):
        options.report(layer.name, "curve")
        data = network.data_of(index) or LayerData.of_weights_alone(layer)
        shape = options.image_shape
        shape = shape if shape is not None and math.prod(shape) == layer.in_features else None
        curve = curve_of(layer, data, structures=options.structures, fractions=fractions, image_shape=shape)
        measured = [options.measured(layer, each) for each in curve]
        kept = [each for each in measured if each.structure.kind == "dense" or options.allow(layer, each)]
        curves.append([each for each in kept if each is kept[0] or cost(each) < cost(kept[0])])
    return curves


def importances(network: MatrixNetwork, curves: Sequence[Sequence[Candidate]]) -> list[float]:
    """Measure how much the squared error of each layer's outputs changes the network's outputs.

    Each layer is replaced alone by a low-rank candidate of a moderate error, and the network is run on held-out
    samples. Without samples, or where that is not possible, a layer's importance is its own.
    """
    found = []
    for index, (layer, curve) in enumerate(zip(network.layers, curves, strict=True)):
        probe = min(
            (each for each in curve if each.structure.kind == "low-rank" and each.output_error > 0),
            key=lambda each: abs(math.log(each.output_error / 0.3)),
            default=None,
        )
        data = None if probe is None else network.data_of(index)
        if probe is None or data is None:
            found.append(layer.importance)
            continue
        fitted = fit(layer, probe.structure, data)
        network.replace(index, fitted)
        error = network.output_error()
        network.replace(index, None)
        own = fitted.candidate.output_error
        found.append(layer.importance if error is None or not own else max((error / own) ** 2, 1e-12))
    return found


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
            fitted = _refitted(network, index) if changed else None
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
