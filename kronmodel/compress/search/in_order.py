"""Fits of chosen structures in the order of a network's layers, and what they replace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kronmodel.compress.matrices.candidates import Candidate, Fitted, MatrixLayer, unchanged
from kronmodel.compress.matrices.fitting import LayerData, fit
from kronmodel.compress.matrices.structures import KINDS, Kind, Structure, dense
from kronmodel.compress.search.budget import Currency, pareto
from kronmodel.compress.search.matrix_network import MatrixNetwork
from kronmodel.compress.search.permutation import Order, permuted_data, permuted_dense, permuted_layer, with_constant

__all__ = ["CompressedLayer", "Options", "Solver", "fit_in_order", "put"]

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
            :func:`kronmodel.compress.search.budget.solve`.
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
        is_permuted: whether its inputs or outputs are in another order than in the original network.
    """

    layer: MatrixLayer
    fitted: Fitted | None
    curve: Sequence[Candidate]
    reason: str = ""
    is_permuted: bool = False
    chosen: Candidate = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "chosen", unchanged(self.layer) if self.fitted is None else self.fitted.candidate)

    @property
    def description(self) -> str:
        """Structure of the replacement, and whether its units are permuted."""
        is_refitted = self.fitted is not None and self.chosen.structure.kind == "dense"
        structure = "refitted" if is_refitted else str(self.chosen.structure)
        return f"{structure}, units permuted" if self.is_permuted else structure


def fit_in_order(
    network: MatrixNetwork,
    choice: Sequence[Candidate],
    curves: Sequence[Sequence[Candidate]],
    options: Options,
    orders: Mapping[int, Order] | None = None,
) -> list[CompressedLayer]:
    """Fit the chosen structures layer by layer, each on the inputs that its compressed predecessors give.

    A layer that stays dense behind compressed ones is refitted to its original outputs, if that lowers the error of the
    network's outputs on held-out samples.

    Args:
        network: the network, with its original layers; afterwards with the replacements.
        choice: structure of each layer.
        curves: candidates of each layer.
        options: callbacks.
        orders: orders of the outputs of layers, by index, which the layers behind them undo.
    """
    orders = orders or {}
    results = []
    changed = False
    for index, (original, candidate, curve) in enumerate(zip(network.layers, choice, curves, strict=True)):
        front = pareto(curve, options.currency)
        layer = permuted_layer(original, index, orders)
        is_permuted = layer is not original
        if candidate.structure.kind == "dense":
            fitted = permuted_dense(original, index, orders) if is_permuted else None
            network.replace(index, fitted)
            if changed and layer.is_refittable:
                fitted = _refitted(network, index, orders, fitted)
            reason = "the budget does not need it" if len(curve) > 1 else "no smaller structure is possible"
        else:
            options.report(layer.name, f"fit {candidate.structure}")
            fitted = _fitted(network, index, candidate.structure, orders)
            timed = replace(fitted.candidate, microseconds=candidate.microseconds)
            fitted, reason = replace(fitted, candidate=timed), ""
            network.replace(index, fitted)
        changed = changed or fitted is not None
        results.append(
            CompressedLayer(layer=original, fitted=fitted, curve=front, reason=reason, is_permuted=is_permuted)
        )
    return results


def _fitted(network: MatrixNetwork, index: int, structure: Structure, orders: Mapping[int, Order]) -> Fitted:
    """Fit a structure to a layer's outputs, in the order that the network has so far."""
    original = network.layers[index]
    data = network.data_of(index) or LayerData.of_weights_alone(original)
    layer = permuted_layer(original, index, orders)
    fitted = fit(layer, structure, permuted_data(data, outputs=orders.get(index)))
    return with_constant(fitted, original, orders.get(index))


def _refitted(network: MatrixNetwork, index: int, orders: Mapping[int, Order], before: Fitted | None) -> Fitted | None:
    """Refit a dense layer, and keep it if the network's outputs are nearer to the original's; else restore it."""
    error = network.output_error()
    if error is None:
        return before
    layer = network.layers[index]
    fitted = _fitted(network, index, dense(layer.in_features, layer.out_features), orders)
    network.replace(index, fitted)
    after = network.output_error()
    if after is not None and after < error:
        return fitted
    network.replace(index, before)
    return before


def put(network: MatrixNetwork, results: Sequence[CompressedLayer] | None) -> None:
    """Replace a network's layers by those of a result; None restores the original layers."""
    for index in range(len(network.layers)):
        network.replace(index, None if results is None else results[index].fitted)
