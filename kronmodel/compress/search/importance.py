"""Importance of a network's layers: how much the error of each changes the network's outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from kronmodel.compress.matrices.candidates import Candidate
from kronmodel.compress.matrices.fitting import fit
from kronmodel.compress.search.matrix_network import MatrixNetwork

__all__ = ["importances", "measured_importances"]

MODERATE = 0.15  # fraction of a network at which the importance of its layers is measured, too


def measured_importances(
    network: MatrixNetwork,
    curves: Sequence[Sequence[Candidate]],
    fraction: float,
    report: Callable[[str, str], None] = lambda layer, action: None,
) -> list[list[float]]:
    """Measure the importance of the layers at a size, and at a moderate one: it depends on how much of them is lost.

    Args:
        network: the network, with its original layers.
        curves: candidates of each layer.
        fraction: size of the compressed network as a fraction of the original's.
        report: called with each layer's name and what is done for it.
    """
    sizes = (fraction, MODERATE) if fraction < MODERATE else (fraction,)
    return [importances(network, curves, size, report) for size in sizes]


def importances(
    network: MatrixNetwork,
    curves: Sequence[Sequence[Candidate]],
    fraction: float = 0.1,
    report: Callable[[str, str], None] = lambda layer, action: None,
) -> list[float]:
    """Measure how much the squared error of each layer's outputs changes the network's outputs.

    Each layer is replaced alone by a low-rank candidate of an error as the budget will leave, and the network is run on
    held-out samples. Without samples, or where that is not possible, a layer's importance is its own.

    Args:
        network: the network, with its original layers.
        curves: candidates of each layer.
        fraction: size of the compressed network as a fraction of the original's.
        report: called with each layer's name and what is done for it.
    """
    found = []
    for index, (layer, curve) in enumerate(zip(network.layers, curves, strict=True)):
        report(layer.name, "importance")
        probe = _probe(curve, fraction)
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


def _probe(curve: Sequence[Candidate], fraction: float) -> Candidate | None:
    """Return the low-rank candidate whose error is nearest to the least one at a fraction of the unchanged layer."""
    tried = [each for each in curve if each.structure.kind == "low-rank" and each.output_error > 0]
    limit = max(fraction * max(each.bytes for each in curve), min(each.bytes for each in curve))
    typical = max(min(each.output_error for each in curve if each.bytes <= limit), 1e-6)
    return min(tried, key=lambda each: abs(math.log(each.output_error / typical)), default=None)
