"""An ONNX model as a network of matrices: the moments of its layers on samples, and their replacement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kronmodel.compress.graphs.constants import Constants
from kronmodel.compress.graphs.emit import can_emit
from kronmodel.compress.graphs.layers import GraphLayer
from kronmodel.compress.graphs.rewrite import replace_layers
from kronmodel.compress.graphs.samples import Samples
from kronmodel.compress.graphs.scores import scores_of
from kronmodel.compress.graphs.segments import KEPT_BYTES, Progressive
from kronmodel.compress.graphs.taps import layer_inputs, row_count, tap, tap_names, tapped_rows
from kronmodel.compress.graphs.workspace import Workspace
from kronmodel.compress.matrices.candidates import Candidate, Fitted, MatrixLayer
from kronmodel.compress.matrices.fitting import HELD_OUT, LayerData
from kronmodel.compress.matrices.moments import MAX_GRAM_WIDTH, Moments
from kronmodel.compress.matrices.structures import KINDS, Kind, Structure

__all__ = ["GraphNetwork", "Progress"]

CHUNK_BYTES = 512 << 20  # moments that are gathered in one pass over the samples
LEAST_ROWS = 8192  # rows that a layer is fitted to, if the samples have so many

Progress = Callable[[str, int, int], None]
"""Function that receives the name of a step, and how much of it is done, of how much in all."""


class GraphNetwork:
    """ONNX model whose layers are replaced one by one: a :class:`.search.matrix_network.MatrixNetwork`.

    Args:
        workspace: holds the model.
        constants: constants of the model.
        graph_layers: its layers, in the order in which the model computes them.
        samples: inputs to fit to; None fits to the weights alone.
        example: inputs of a run with one sample; None if there are none that the model takes.
        progress: called as the work goes on.

    Attributes:
        layers: the layers as matrices.
        inputs: input of each layer for one sample, by the layer's title; empty without an example.
        unseen: layers in branches that no sample takes, as far as their moments were asked for.
    """

    def __init__(
        self,
        workspace: Workspace,
        constants: Constants,
        graph_layers: Sequence[GraphLayer],
        *,
        samples: Samples | None,
        example: Mapping[str, NDArray[Any]] | None,
        progress: Progress,
    ) -> None:
        self._workspace, self._constants = workspace, constants
        self._graph_layers = graph_layers
        self._samples = samples
        self._progress = progress
        self._replaced: dict[int, Fitted] = {}
        self._cached: dict[int, LayerData] = {}
        self._original = workspace.write(workspace.model, "original.onnx")
        self._original_runs, self._replaced_runs = (
            Progressive(workspace, f"{each}-part.onnx") for each in ("old", "new")
        )
        self._judging_runs = [Progressive(workspace, f"{each}-judged.onnx") for each in ("old", "new")]
        self._expected: list[list[Any]] = []  # outputs of the original on the held-out samples
        self._last = 0  # layer that was replaced or restored last
        self.inputs: dict[str, NDArray[Any]] = {}
        self.unseen: set[int] = set()
        if example is not None:
            path = workspace.write(tap(workspace.model, graph_layers), "tapped.onnx")
            found = layer_inputs(path, graph_layers, example)
            self.inputs = {layer.title: array for layer, array in zip(graph_layers, found, strict=True)}
        self.layers: Sequence[MatrixLayer] = [self._matrix_layer(layer) for layer in graph_layers]

    def data_of(self, index: int) -> LayerData | None:
        """Gather the moments of a layer: inputs as the replaced layers give them, outputs as in the original model."""
        if self._samples is None:
            return None
        if not self._replaced:
            if index not in self._cached:
                self._cached = self._gather(self._chunk(index))
            return self._cached[index]
        group = self._same_input(index)
        if not group <= self._cached.keys() or index == min(group):
            self._cached = self._gather(sorted(group))
        return self._cached[index]

    def replace(self, index: int, fitted: Fitted | None) -> None:
        """Replace a layer by a fitted one, or restore the original layer."""
        self._last = index
        if fitted is not None:
            self._replaced[index] = fitted
        else:
            self._replaced.pop(index, None)

    def output_error(self) -> float | None:
        """Measure the relative change of the model's outputs on the held-out samples; None without samples."""
        if self._samples is None:
            return None
        held_out = self._samples.part(HELD_OUT)
        names = [each.name for each in self._workspace.model.graph.output]
        place = _place(self._graph_layers[self._last])
        expected: Iterable[list[Any]] = self._expected
        if not self._expected:
            runs = self._judging_runs[0].runs(self._workspace.model, names, held_out.batches(), place=place)
            expected = self._kept(runs)
        with self._workspace.scratch():
            changes = self._changes()
            found = self._judging_runs[1].runs(self.model(), names, held_out.batches(), place=place, changes=changes)
            return scores_of("the compressed model", expected, found, held_out).relative_error

    def _kept(self, runs: Iterable[list[Any]]) -> Iterator[list[Any]]:
        """Keep the original's outputs for the next time, if they are small."""
        kept: list[list[Any]] | None = []
        size = 0
        for outputs in runs:
            size += sum(np.asarray(each).nbytes for each in outputs)
            kept = None if kept is None or size > KEPT_BYTES else [*kept, outputs]
            yield outputs
        self._expected = kept or []

    def model(self) -> onnx.ModelProto:
        """Build the model with the replacements made so far."""
        return self._replace_in(self._workspace.model)

    def size_of(self, choice: Sequence[Candidate]) -> int:
        """Compute the bytes of the file with structures in the layers' places, which need not be fitted yet."""
        pairs = [
            (layer, _unfitted(matrix, candidate))
            for layer, matrix, candidate in zip(self._graph_layers, self.layers, choice, strict=True)
            if candidate.structure.kind != "dense"
        ]
        with self._workspace.scratch():
            return self._workspace.size_of(
                replace_layers(self._workspace, self._workspace.model, self._constants, pairs)
            )

    def restore(self) -> None:
        """Restore all original layers."""
        self._replaced.clear()

    def _changes(self) -> list[tuple[int, object]]:
        """List the places of the replaced layers and the replacements."""
        return [(_place(self._graph_layers[index]), fitted) for index, fitted in self._replaced.items()]

    def _replace_in(self, model: onnx.ModelProto) -> onnx.ModelProto:
        pairs = [(self._graph_layers[index], fitted) for index, fitted in self._replaced.items()]
        return replace_layers(self._workspace, model, self._constants, pairs)

    def _matrix_layer(self, layer: GraphLayer) -> MatrixLayer:
        weight = np.asarray(layer.weight, np.float32)
        rows = [row_count(use, self.inputs[layer.title], layer.kernel) for use in layer.uses if self.inputs]
        return MatrixLayer(
            name=layer.title,
            weight=weight,
            bias=np.zeros(len(weight), np.float32) if self._samples is not None and layer.corrects_bias else None,
            applications=max(sum(rows), 1),
            itemsize=layer.new_dtype.itemsize,
            constant=layer.constant_bias,
            structures=_possible(layer),
        )

    def _chunk(self, first: int) -> list[int]:
        """Return layers from an index on whose moments fit into memory together."""
        chunk: list[int] = []
        size = 0
        for index in range(first, len(self.layers)):
            out, width = self.layers[index].weight.shape
            own = 16 * width * (width + out) if width <= MAX_GRAM_WIDTH else 0
            if chunk and size + own > CHUNK_BYTES:
                break
            chunk.append(index)
            size += own
        return chunk

    def _same_input(self, index: int) -> set[int]:
        """Return the layers with the same input, such as query, key and value, whose moments one pass gives."""
        place = [(use.path, use.x) for use in self._graph_layers[index].uses]
        same = (
            other
            for other, layer in enumerate(self._graph_layers)
            if [(use.path, use.x) for use in layer.uses] == place and other not in self._replaced
        )
        return {index, *same}

    def _gather(self, chosen: Sequence[int]) -> dict[int, LayerData]:
        layers = [self._graph_layers[index] for index in chosen]
        moments = [[Moments(*reversed(layer.weight.shape)) for _ in range(2)] for layer in layers]
        places = {id(layer): place for place, layer in enumerate(layers)}
        with self._workspace.scratch():
            for turn, layer, old, new in self._rows(layers):
                outputs = old.astype(np.float32) @ np.asarray(layer.weight, np.float32).T
                moments[places[id(layer)]][turn % HELD_OUT == HELD_OUT - 1].add(new.astype(np.float32), outputs)
        data = {}
        for index, (fit, held_out) in zip(chosen, moments, strict=True):
            if fit.count:
                data[index] = LayerData(fit, held_out if held_out.count else None)
            else:
                self.unseen.add(index)
                data[index] = LayerData.of_weights_alone(self.layers[index])
        return data

    def _rows(self, layers: Sequence[GraphLayer]) -> Iterator[tuple[int, GraphLayer, NDArray[Any], NDArray[Any]]]:
        """Yield the number of the run, and rows of a layer's inputs in the original and in the present model."""
        tapped, names = tap(self._workspace.model, layers), tap_names(layers)
        place = min(map(_place, layers))
        originals = self._original_runs.runs(tapped, names, self._batches(), place=place)
        first = tapped_rows(layers, originals, self._most_rows)
        if not self._replaced:
            for turn, layer, rows, _ in first:
                yield turn, layer, rows, rows
            return
        runs = self._replaced_runs.runs(
            self._replace_in(tapped), names, self._batches(), place=place, changes=self._changes()
        )
        second = tapped_rows(layers, runs, self._most_rows)
        for (turn, layer, old, count), (_, _, new, new_count) in zip(first, second, strict=True):
            if count == new_count:  # else a branch was taken, or a loop ended, in one of the models only
                yield turn, layer, old, new

    def _batches(self) -> Iterator[dict[str, NDArray[Any]]]:
        assert self._samples is not None
        for turn, batch in enumerate(self._samples.batches()):
            self._progress("running the model", turn, self._samples.runs)
            yield batch

    def _most_rows(self, layer: GraphLayer) -> int:
        """Return the most rows of a layer for one run of the model."""
        assert self._samples is not None
        return -(-max(LEAST_ROWS, 3 * int(layer.weight.shape[1])) // max(self._samples.runs, 1))


def _place(layer: GraphLayer) -> int:
    """Return the index of the first node of the main graph that uses a layer's weight, itself or in a subgraph."""
    return min(int(use.path[0].split(".")[0]) if use.path else use.index for use in layer.uses)


def _possible(layer: GraphLayer) -> tuple[Kind, ...]:
    """List the kinds of structures that all nodes of a layer can be replaced by."""
    return tuple(kind for kind in KINDS if all(can_emit(use, Structure(kind, (1, 1), (1, 1))) for use in layer.uses))


def _unfitted(layer: MatrixLayer, candidate: Candidate) -> Fitted:
    """Return a replacement of zeros, which takes as many bytes as a fitted one."""
    factors = tuple(np.zeros(shape, np.float32) for shape in candidate.structure.factor_shapes)
    return Fitted(candidate=candidate, factors=factors, bias=None if layer.bias is None else np.zeros_like(layer.bias))
