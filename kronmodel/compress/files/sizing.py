"""Layers of an ONNX model, replaced so that the file reaches a size or keeps a quality."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from kronmodel.compress.budget import BudgetError
from kronmodel.compress.candidates import Candidate
from kronmodel.compress.files.report import LayerRow
from kronmodel.compress.files.target import Settings
from kronmodel.compress.fitting import FRACTIONS, LayerData, curve_of
from kronmodel.compress.graphs.constants import Constants
from kronmodel.compress.graphs.emit import can_emit
from kronmodel.compress.graphs.layers import GraphLayer, Kept, find_layers
from kronmodel.compress.graphs.network import GraphNetwork
from kronmodel.compress.graphs.planning import Planner
from kronmodel.compress.graphs.samples import Samples
from kronmodel.compress.graphs.scores import compare
from kronmodel.compress.graphs.workspace import Workspace
from kronmodel.compress.sequential import CompressedLayer, Options, fit_in_order, importances
from kronmodel.errors import Argument, KronmodelError, Message

__all__ = ["Sizer"]

SIZE_ROUNDS = 4  # of fitting again for a smaller budget, if the nodes that are added exceed the target
DROP_ROUNDS = 7  # of halving the interval of sizes for a greatest drop


class Sizer:
    """Replaces layers of one model until its file has a size, or a quality.

    Args:
        workspace: holds the model.
        source: path of the model's file, for messages.
        size: its size in bytes, with the files of its weights.
        samples: samples to fit to, and those to measure on; None fits to the weights alone.
        example: inputs of a run with one sample.
        settings: structures and callbacks.

    Raises:
        KronmodelError: the model has no layer that can be compressed.
    """

    def __init__(
        self,
        workspace: Workspace,
        source: Path,
        size: int,
        *,
        samples: tuple[Samples, Samples] | None,
        example: Mapping[str, NDArray[Any]],
        settings: Settings,
    ) -> None:
        self._workspace, self._size, self._settings = workspace, size, settings
        fitting = None if samples is None else samples[0]
        self._test = None if samples is None else samples[1]
        constants = Constants(workspace)
        self._layers, self._kept = find_layers(workspace.model, constants)
        if not self._layers:
            raise KronmodelError(_no_layer(source, self._kept))
        self._original = workspace.write(workspace.model, "original.onnx")
        self._network = GraphNetwork(
            workspace, constants, self._layers, samples=fitting, example=example, progress=settings.progress
        )
        curves = [self._curve(index) for index in range(len(self._layers))]
        self._fixed = size - sum(curve[0].bytes for curve in curves)  # bytes of the file that are not of layers
        self._planner = Planner(workspace, self._layers, curves, self._network.inputs, settings.allow_slower)
        self._importance = importances(self._network, curves)
        self._fitted: list[CompressedLayer] = []

    def reach_size(self, budget: int) -> Path:
        """Replace layers until the whole file, with the nodes that are added, has at most so many bytes.

        Returns:
            Path of the result in the workspace.

        Raises:
            KronmodelError: the size can't be reached.
        """
        reserve = 0
        for _ in range(SIZE_ROUNDS):
            path = self._fit(budget - reserve)
            excess = path.stat().st_size - budget
            if excess <= 0:
                return path
            reserve += excess
        raise KronmodelError(
            f"{budget:,} bytes can't be reached: the nodes that are added take {reserve:,} bytes more than are saved"
        )

    def keep_quality(self, most: float) -> Path:
        """Find the smallest file that loses at most so many percentage points, by halving an interval of sizes.

        Returns:
            Path of the result in the workspace.

        Raises:
            KronmodelError: there are no samples to measure the loss on, or every smaller model loses more.
        """
        if self._test is None:
            raise KronmodelError(Message(Argument("max_drop"), " needs samples to measure the loss on: give --data"))
        least = self._fixed + sum(min(each.bytes for each in curve) for curve in self._planner.curves)
        low, high = math.log(max(least, 1)), math.log(self._size)
        best: tuple[Path, list[CompressedLayer]] | None = None
        for turn in range(DROP_ROUNDS):
            self._settings.progress("searching the size", turn, DROP_ROUNDS)
            middle = (low + high) / 2
            path = self._try(int(math.exp(middle)))
            if path is not None and self._drop(path) <= most and path.stat().st_size < self._size:
                best, high = (path.rename(path.with_name("best.onnx")), self._fitted), middle
            else:
                low = middle
        if best is None:
            raise KronmodelError(f"every smaller model that was tried loses more than {most} percentage points")
        path, self._fitted = best
        return path

    def rows(self) -> list[LayerRow]:
        """Describe all layers of the last result, and the nodes that can't be compressed."""
        rows = []
        for layer, result in zip(self._layers, self._fitted, strict=True):
            chosen, kept = result.chosen, result.fitted is None
            timing = self._planner.timings.get((layer.title, chosen.structure))
            row = LayerRow(
                layer=layer.title,
                shape=layer.weight.shape,
                bytes=(layer.constant.bytes, layer.constant.bytes if kept else chosen.bytes),
                macs=(result.layer.applications * layer.weight.size, chosen.macs),
                time_ratio=None if timing is None else timing.ratio,
            )
            if kept:
                rows.append(replace(row, reason=self._reason(layer, result)))
            else:
                structure = "refitted" if chosen.structure.kind == "dense" else str(chosen.structure)
                rows.append(replace(row, structure=structure, error=chosen.output_error))
        rows += [
            LayerRow(layer=each.title, shape=each.shape, bytes=(each.bytes, each.bytes), reason=each.reason)
            for each in self._kept
        ]
        return rows

    def _curve(self, index: int) -> list[Candidate]:
        """Compute a layer's candidates: unchanged, and those that all its nodes can take and that save bytes."""
        self._settings.progress("error curves", index, len(self._layers))
        layer, matrix = self._layers[index], self._network.layers[index]
        data = self._network.data_of(index) or LayerData.of_weights_alone(matrix)
        unchanged, *others = curve_of(matrix, data, structures=self._settings.structures, fractions=FRACTIONS)
        bias = 0 if matrix.bias is None else matrix.itemsize * len(matrix.weight)
        unchanged = replace(unchanged, bytes=layer.constant.bytes + bias)
        possible = [each for each in others if all(can_emit(use, each.structure) for use in layer.uses)]
        return [unchanged, *(each for each in possible if each.bytes < unchanged.bytes)]

    def _try(self, budget: int) -> Path | None:
        """Fit for a size of the file; None if it can't be reached."""
        try:
            return self._fit(budget)
        except BudgetError:
            return None

    def _fit(self, budget: int) -> Path:
        """Choose structures for a size of the file, fit them in the model's order, and write the model."""
        self._network.restore()
        try:
            chosen = self._planner.choose(budget - self._fixed, self._importance)
        except BudgetError as error:
            least = self._fixed + int(error.least)
            raise BudgetError(
                f"{budget:,} bytes can't be reached: the smallest file has about {least:,}, of which {self._fixed:,} "
                f"are outside of the layers that can be compressed{self._planner.slow_layers(budget - self._fixed)}",
                error.least,
            ) from error
        options = Options(
            budget=budget, report=lambda layer, action: self._settings.progress(f"{action}: {layer}", 0, 0)
        )
        self._fitted = fit_in_order(self._network, chosen, self._planner.curves, options)
        return self._workspace.write(self._workspace.assemble(self._network.model()), "compressed.onnx")

    def _drop(self, path: Path) -> float:
        """Measure the loss of a model against the original in percentage points."""
        assert self._test is not None
        scores = compare({"original": self._original, "compressed": path}, self._test)
        drop = scores["compressed"].drop(scores["original"])
        if drop is None:
            raise KronmodelError(
                Message(Argument("max_drop"), " needs labels, or outputs that are scores or probabilities")
            )
        return drop

    def _reason(self, layer: GraphLayer, result: CompressedLayer) -> str:
        """Say why a layer stays as it is."""
        slower = self._planner.slowdown(layer)
        if slower is not None:
            return f"a smaller structure takes {slower:.2f} times as long, measured"
        return result.reason


def _no_layer(path: Path, kept: Sequence[Kept]) -> str:
    """Say why no layer of a model can be compressed, naming the largest nodes."""
    if not kept:
        return f"{path} has no Gemm, MatMul or Conv with constant weights, so there is nothing to compress"
    largest = sorted(kept, key=lambda each: -each.bytes)[:3]
    reasons = "; ".join(f"{each.title}: {each.reason}" for each in largest)
    more = f"; and {len(kept) - len(largest)} more" if len(kept) > len(largest) else ""
    return f"{path} has no layer that can be compressed: {reasons}{more}"
