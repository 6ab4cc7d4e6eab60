"""Choice of a structure for each layer of an ONNX model: within a size, without layers that would run slower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from kronmodel.compress.graphs.layer_timing import measure_layers
from kronmodel.compress.graphs.layers import GraphLayer
from kronmodel.compress.graphs.timing import Timing
from kronmodel.compress.graphs.workspace import Workspace
from kronmodel.compress.matrices.candidates import Candidate
from kronmodel.compress.matrices.structures import Structure
from kronmodel.compress.search.budget import solve

__all__ = ["Planner"]

ROUNDS = 12  # of measuring and choosing again


@dataclass(eq=False)
class Planner:
    """Chooses a structure for each layer.

    Attributes:
        workspace: temporary folder.
        layers: layers of the model.
        curves: candidates of each layer, the unchanged one first.
        inputs: input of each layer for one sample, by title; a layer without is not measured.
        allow_slower: also choose structures that are measured to be slower than the layer.
        timings: measured time of each structure that was chosen once, by title and structure.
    """

    workspace: Workspace
    layers: Sequence[GraphLayer]
    curves: Sequence[Sequence[Candidate]]
    inputs: Mapping[str, NDArray[Any]]
    allow_slower: bool
    timings: dict[tuple[str, Structure], Timing] = field(default_factory=dict)

    def choose(
        self, curves: Sequence[Sequence[Candidate]], budget: float, importance: Sequence[float] | None
    ) -> list[Candidate]:
        """Choose one candidate for each layer, with the least error within a budget of bytes.

        The structures that are chosen are measured, and of those that are slower another choice is made without.

        Args:
            curves: candidates of each layer.
            budget: bytes of all layers.
            importance: factor of each layer's squared error in the model's; 1 by default.

        Raises:
            BudgetError: no choice meets the budget, or only one with slower layers.
        """
        for _ in range(ROUNDS):
            chosen = solve(self._allowed(curves), budget, importance=importance)
            pairs = [(layer, each.structure) for layer, each in zip(self.layers, chosen, strict=True)]
            changed = [pair for pair in pairs if pair[1].kind != "dense"]
            self._measure(changed)
            if self.allow_slower or not any(self._is_slower(*pair) for pair in changed):
                break
        return [self._timed(layer, candidate) for layer, candidate in zip(self.layers, chosen, strict=True)]

    def slowdown(self, layer: GraphLayer) -> float | None:
        """Return the least time ratio among the structures of a layer that are not allowed; None if there are none."""
        ratios = [
            timing.ratio for (title, _), timing in self.timings.items() if title == layer.title and timing.low > 1
        ]
        return None if self.allow_slower else min(ratios, default=None)

    def slow_layers(self, budget: float) -> str:
        """Say which layers keep the model above a budget because their structures are slower; empty if none do."""
        least = sum(min(each.bytes for each in curve) for curve in self.curves)
        slow = [layer.title for layer in self.layers if self.slowdown(layer) is not None]
        if least > budget or not slow:
            return ""
        return f"; smaller structures of {', '.join(slow)} were measured to be slower: --allow-slower takes them"

    def _allowed(self, curves: Sequence[Sequence[Candidate]]) -> list[list[Candidate]]:
        if self.allow_slower:
            return [list(curve) for curve in curves]
        return [
            [each for each in curve if not self._is_slower(layer, each.structure)]
            for layer, curve in zip(self.layers, curves, strict=True)
        ]

    def _is_slower(self, layer: GraphLayer, structure: Structure) -> bool:
        """Tell whether a structure, or one of the same kind that needs no more work, was measured to be slower."""
        return any(
            title == layer.title
            and timing.low > 1
            and measured.kind == structure.kind
            and measured.macs <= structure.macs
            for (title, measured), timing in self.timings.items()
        )

    def _measure(self, pairs: Sequence[tuple[GraphLayer, Structure]]) -> None:
        new = [
            (layer, structure)
            for layer, structure in pairs
            if (layer.title, structure) not in self.timings
            and layer.title in self.inputs
            and self.inputs[layer.title].size
        ]
        if not new:
            return
        for (layer, structure), timing in zip(new, measure_layers(self.workspace, new, self.inputs), strict=True):
            self.timings[layer.title, structure] = timing

    def _timed(self, layer: GraphLayer, candidate: Candidate) -> Candidate:
        timing = self.timings.get((layer.title, candidate.structure))
        return candidate if timing is None else replace(candidate, microseconds=timing.microseconds)
