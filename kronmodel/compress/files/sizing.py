"""Layers of an ONNX model, replaced so that the file reaches a size or keeps a quality."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from kronmodel.compress.files.report import LayerRow
from kronmodel.compress.files.target import Settings
from kronmodel.compress.gradients.tuning import SECONDS, Pair, with_weights
from kronmodel.compress.graphs.constants import Constants
from kronmodel.compress.graphs.emit import can_emit
from kronmodel.compress.graphs.layers import GraphLayer, Kept, find_layers
from kronmodel.compress.graphs.network import GraphNetwork
from kronmodel.compress.graphs.planning import Planner
from kronmodel.compress.graphs.samples import Samples
from kronmodel.compress.graphs.scores import compare
from kronmodel.compress.graphs.session import release_memory
from kronmodel.compress.graphs.workspace import Workspace
from kronmodel.compress.matrices.candidates import Candidate, MatrixLayer, unchanged
from kronmodel.compress.matrices.fitting import HELD_OUT
from kronmodel.compress.report import curve_points
from kronmodel.compress.search.budget import BudgetError
from kronmodel.compress.search.importance import measured_importances
from kronmodel.compress.search.in_order import CompressedLayer, Options, put
from kronmodel.compress.search.sequential import (
    curves_of,
    solve_and_fit,
)
from kronmodel.errors import Argument, KronmodelError, Message

__all__ = ["Sizer"]

SIZE_ROUNDS = 4  # of fitting again for a smaller budget, if the nodes that are added exceed the target
CHOICE_ROUNDS = 12  # of choosing again without fits: nodes of different structures take different numbers of bytes
SEARCHED = 0.1  # size at which the layers' importance is measured if the size is searched
MAX_TUNED_BYTES = 256 << 20  # size of a model up to which the weights of its result are tuned together
DROP_ROUNDS = 7  # of halving the interval of sizes for a greatest drop


@dataclass(frozen=True)
class _Fit:
    """A model with replaced layers, in the workspace, and what replaces each layer."""

    path: Path
    layers: list[CompressedLayer]


class Sizer:
    """Replaces layers of one model until its file has a size, or a quality.

    Args:
        workspace: holds the model.
        source: path of the model's file, for messages.
        size: its size in bytes, with the files of its weights.
        samples: samples to fit to, and those to measure on; None fits to the weights alone.
        example: inputs of a run with one sample.
        fraction: size of the result as a fraction of the original's; None if it is searched.
        image_shape: height and width of the images that a flat input holds; None if there are none.
        settings: structures and callbacks.

    Attributes:
        notes: what the report has to say.

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
        fraction: float | None,
        image_shape: tuple[int, int] | None = None,
        settings: Settings,
    ) -> None:
        self._workspace, self._size, self._settings, self._image_shape = workspace, size, settings, image_shape
        self._fitting = None if samples is None else samples[0]
        self._test = None if samples is None else samples[1]
        constants = Constants(workspace)
        self._layers, self._kept = find_layers(workspace.model, constants)
        if not self._layers:
            raise KronmodelError(_no_layer(source, self._kept))
        self._original = workspace.write(workspace.model, "original.onnx")
        self._network = GraphNetwork(
            workspace, constants, self._layers, samples=self._fitting, example=example, progress=settings.progress
        )
        release_memory()
        self._numbers = {matrix.name: index for index, matrix in enumerate(self._network.layers)}
        curves = self._curves(fraction)
        self._fixed = size - sum(curve[0].bytes for curve in curves)  # bytes of the file that are not of layers
        self._planner = Planner(workspace, self._layers, curves, self._network.inputs, settings.allow_slower)
        self._importances = measured_importances(
            self._network,
            curves,
            min(fraction or SEARCHED, 1.0) * self._stored_fraction(),
            lambda name, action: settings.progress("importance of the layers", self._numbers[name], len(self._numbers)),
        )
        self._fitted: list[CompressedLayer] = []
        self.notes: list[str] = []

    def reach_size(self, budget: int) -> Path:
        """Replace layers until the whole file, with the nodes that are added, has at most so many bytes.

        Returns:
            Path of the result in the workspace.

        Raises:
            KronmodelError: the size can't be reached.
        """
        reserve = 0
        for _ in range(SIZE_ROUNDS):
            fits = self._fit(budget - reserve)
            fitting = [each for each in fits if each.path.stat().st_size <= budget]
            if fitting:
                best = self._tuned(fitting)
                self._fitted = best.layers
                return best.path
            reserve += fits[0].path.stat().st_size - budget
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
        best: _Fit | None = None
        for turn in range(DROP_ROUNDS):
            self._settings.progress("searching the size", turn, DROP_ROUNDS)
            middle = (low + high) / 2
            fit = self._try(int(math.exp(middle)))
            if fit is not None and self._drop(fit.path) <= most and fit.path.stat().st_size < self._size:
                best, high = replace(fit, path=fit.path.rename(fit.path.with_name("best.onnx"))), middle
            else:
                low = middle
        if best is None:
            raise KronmodelError(
                f"every smaller model that was tried loses more than {most} percentage points{self._quantised()}"
            )
        self._fitted = best.layers
        tuned = self._tuned([best]).path
        return tuned if self._drop(tuned) <= most else best.path

    def rows(self) -> list[LayerRow]:
        """Describe all layers of the last result, and the nodes that can't be compressed."""
        rows = []
        for layer, result in zip(self._layers, self._fitted, strict=True):
            chosen, kept = result.chosen, result.fitted is None
            timing = self._planner.timings.get((layer.title, chosen.structure))
            row = LayerRow(
                layer=layer.title,
                shape=layer.weight.shape,
                bytes=(
                    layer.constant.bytes,
                    layer.constant.bytes if kept else result.layer.itemsize * chosen.structure.weights,
                ),
                macs=(result.layer.applications * layer.weight.size, chosen.macs),
                kind=chosen.structure.kind,
                curve=curve_points(result.curve),
                time_ratio=None if timing is None else timing.ratio,
            )
            if kept:
                rows.append(replace(row, reason=self._reason(layer, result)))
            else:
                rows.append(replace(row, structure=result.description, error=chosen.output_error))
        rows += [
            LayerRow(layer=each.title, shape=each.shape, bytes=(each.bytes, each.bytes), reason=each.reason)
            for each in self._kept
        ]
        return rows

    def _curves(self, fraction: float | None) -> list[list[Candidate]]:
        """Compute each layer's candidates: unchanged, and those that all its nodes can take and that save bytes."""
        by_name = self._numbers

        def allow(matrix: MatrixLayer, candidate: Candidate) -> bool:
            index = by_name[matrix.name]
            # The error of a layer that no sample reaches would count nothing, however wrong it gives.
            return index not in self._network.unseen and all(
                can_emit(use, candidate.structure) for use in self._layers[index].uses
            )

        whole = sum(unchanged(matrix).bytes for matrix in self._network.layers)
        options = Options(
            budget=math.inf if fraction is None else fraction * whole * self._stored_fraction(),
            structures=self._settings.structures,
            image_shape=self._image_shape,
            allow=allow,
            report=lambda name, action: self._settings.progress("error curves", by_name[name], len(by_name)),
        )
        curves = []
        for (first, *others), layer in zip(curves_of(self._network, options), self._layers, strict=True):
            # An unchanged weight stays in the type that it is stored in.
            stored = layer.constant.bytes - first.structure.weights * layer.new_dtype.itemsize
            dense = replace(first, bytes=first.bytes + stored)
            curves.append([dense, *(each for each in others if each.bytes < dense.bytes)])
        return curves

    def _stored_fraction(self) -> float:
        """Compute the bytes of the layers' weights as a fraction of those in the type of new weights."""
        new = sum(layer.weight.size * layer.new_dtype.itemsize for layer in self._layers)
        return sum(layer.constant.bytes for layer in self._layers) / new

    def _quantised(self) -> str:
        """Say that layers are quantised, if they are, which hardly leaves anything to save."""
        if self._stored_fraction() >= 1:
            return ""
        return (
            "; its weights are quantised already, and new ones are stored as floats: compress the model that it was "
            "quantised from, and quantise the result"
        )

    def _try(self, budget: int) -> _Fit | None:
        """Fit for a size of the file; None if it can't be reached."""
        try:
            return self._fit(budget)[0]
        except BudgetError:
            return None

    def _fit(self, budget: int) -> list[_Fit]:
        """Choose structures for a size of the file, fit them in the model's order, and write the models, best first."""
        report = self._settings.progress
        options = Options(
            budget=budget - self._fixed,
            structures=self._settings.structures,
            solver=self._choose,
            report=lambda layer, action: report(f"{action}: {layer}", self._numbers[layer], len(self._numbers)),
        )
        self._network.restore()
        try:
            found = solve_and_fit(self._network, self._planner.curves, options, self._importances)
        except BudgetError as error:
            least = self._fixed + int(error.least)
            raise BudgetError(
                f"{budget:,} bytes can't be reached: the smallest file has about {least:,}, of which {self._fixed:,} "
                f"are outside of the layers that can be compressed"
                f"{self._planner.slow_layers(budget - self._fixed)}{self._quantised()}",
                error.least,
            ) from error
        fits = []
        release_memory()
        for number, layers in enumerate(found):
            put(self._network, layers)
            path = self._workspace.save(self._network.model(), f"compressed-{number}.onnx")
            fits.append(_Fit(path, layers))
        return fits

    def _choose(
        self, curves: Sequence[Sequence[Candidate]], budget: float, importance: Sequence[float] | None
    ) -> list[Candidate]:
        """Choose structures so that the file, with the nodes that are added, keeps the budget; nothing is fitted yet.

        Raises:
            BudgetError: no choice does.
        """
        reserve = 0.0
        for _ in range(CHOICE_ROUNDS):
            chosen = self._planner.choose(curves, budget - reserve, importance)
            excess = self._network.size_of(chosen) - self._fixed - budget
            if excess <= 0:
                break
            reserve += excess
        return chosen

    def _tuned(self, fits: Sequence[_Fit]) -> _Fit:
        """Train the new weights of each model together on the samples, if its operators allow that, and if it helps.

        Returns:
            The model whose outputs on held-out samples are nearest to the original's.
        """
        if self._fitting is None or not self._settings.tune_steps:
            return fits[0]
        tried = list(fits)
        try:
            for place, each in enumerate(fits, 1):
                tried.append(self._trained(each, f"tuning {place} of {len(fits)}", SECONDS / len(fits)))
        except KronmodelError as error:  # the layers stay as they were fitted one by one
            self.notes.append(f"the new weights are not tuned together: {error}")
            self._settings.report(self.notes[-1])
            return fits[0]
        paths = {"original": self._original, **{each.path.name: each.path for each in tried}}
        scores = compare(paths, self._fitting.part(HELD_OUT))
        return min(tried, key=lambda each: scores[each.path.name].relative_error)

    def _trained(self, fit: _Fit, step: str, seconds: float) -> _Fit:
        """Train the new weights of a model on the samples, for at most so many seconds of computing.

        Raises:
            KronmodelError: that is not possible.
        """
        assert self._fitting is not None
        if self._size > MAX_TUNED_BYTES:
            raise KronmodelError(f"the model has {self._size:,} bytes, expected at most {MAX_TUNED_BYTES:,}")
        model = onnx.load(fit.path)
        pair = Pair(self._workspace, model, self._fitting)
        if not pair.tune(self._settings.tune_steps, partial(self._settings.progress, step), seconds=seconds):
            return fit
        weights = with_weights(self._workspace, model, pair.student.weights)
        return replace(fit, path=self._workspace.save(weights, f"tuned-{fit.path.name}"))

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
        if self._network.layers.index(result.layer) in self._network.unseen:
            return "no sample reaches it"
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
