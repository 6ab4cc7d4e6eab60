"""Inputs of layers while onnxruntime runs an ONNX model on samples: extra outputs, read batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from kronmodel.compress.graphs.layers import GraphLayer, Use
from kronmodel.compress.graphs.patches import patches
from kronmodel.compress.graphs.session import open_session, run

__all__ = ["layer_inputs", "row_count", "tap", "tap_names", "tapped_rows"]

PREFIX = "kronmodel.tap"


def tap(model: onnx.ModelProto, layers: Sequence[GraphLayer]) -> onnx.ModelProto:
    """Copy a model with the inputs of layers as its only outputs, also of layers in subgraphs.

    Nodes are only added behind the others, so that all layers keep their places.
    """
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    for index, layer in enumerate(layers):
        kind = helper.np_dtype_to_tensor_dtype(layer.constant.array.dtype)
        for number, use in enumerate(layer.uses):
            _expose(tapped.graph, list(use.path), use.x, _output(index, number), kind)
    return tapped


def _output(index: int, number: int) -> str:
    return f"{PREFIX}.{index}.{number}"


def _expose(graph: onnx.GraphProto, path: list[str], name: str, output: str, kind: int) -> None:
    """Add an output to a graph with a value of it, or of the subgraph at a path."""
    info = helper.make_tensor_value_info(output, kind, None)
    inner = name
    if path:
        owner, attribute = path[0].split(".", 1)
        node = graph.node[int(owner)]
        inner = f"{output}.{len(path)}"
        for each in node.attribute:
            if each.HasField("g") and each.name == attribute:
                _expose(each.g, path[1:], name, inner, kind)
            elif each.HasField("g"):  # the branch that isn't taken gives nothing
                nothing = helper.make_tensor("nothing", kind, [0], b"", raw=True)
                each.g.node.append(helper.make_node("Constant", [], [f"{inner}.none"], value=nothing))
                each.g.output.append(helper.make_tensor_value_info(f"{inner}.none", kind, None))
            elif each.name in ("scan_output_axes", "scan_output_directions"):
                each.ints.append(0)
        node.output.append(inner)
    graph.node.append(helper.make_node("Identity", [inner], [output], f"{output}.node"))
    graph.output.append(info)


def tap_names(layers: Sequence[GraphLayer]) -> list[str]:
    """List the outputs that :func:`tap` adds for layers."""
    return [_output(index, number) for index, layer in enumerate(layers) for number in range(len(layer.uses))]


def tapped_rows(
    layers: Sequence[GraphLayer],
    runs: Iterable[Sequence[NDArray[Any]]],
    most_rows: Callable[[GraphLayer], int],
) -> Iterator[tuple[int, GraphLayer, NDArray[Any], int]]:
    """Arrange the inputs of layers, as runs of a tapped model give them, as the rows that each layer is applied to.

    Args:
        layers: the layers that the model was tapped at.
        runs: values of :func:`tap_names` for each run.
        most_rows: most rows of a layer for one run; of more, random ones are drawn, the same in each call.

    Yields:
        Number of the run, the layer, rows ``(n, in)``, and the number of rows before the draw, which may be 0.
    """
    places = [(index, number) for index, layer in enumerate(layers) for number in range(len(layer.uses))]
    for turn, arrays in enumerate(runs):
        for (index, number), array in zip(places, arrays, strict=True):
            layer = layers[index]
            rng = np.random.default_rng((turn, index, number))
            yield turn, layer, *_rows(layer.uses[number], layer, array, most_rows(layer), rng)


def layer_inputs(path: Path, layers: Sequence[GraphLayer], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Run a tapped model once, and return the input of the first node of each layer."""
    names = [_output(index, 0) for index in range(len(layers))]
    arrays: list[NDArray[Any]] = run(open_session(path), feeds, "the model", names)
    return arrays


def row_count(use: Use, array: NDArray[Any], kernel: tuple[int, ...]) -> int:
    """Count the rows that a node's weight, as a matrix, is applied to for an input."""
    if array.size == 0:
        return 0
    if use.kind == "Conv":
        return patches(array, use, kernel, 1, np.random.default_rng(0))[1]
    side = array.shape[-2] if use.kind == "left MatMul" or use.attribute("transA", 0) else array.shape[-1]
    return int(array.size // max(side, 1))


def _rows(
    use: Use, layer: GraphLayer, array: NDArray[Any], most: int, rng: np.random.Generator
) -> tuple[NDArray[Any], int]:
    """Arrange a node's input as the rows that its weight, as a matrix, is applied to, of which some are drawn.

    Returns:
        Rows ``(n, in)``, and their number before the draw.
    """
    if array.size == 0:
        return np.empty((0, layer.weight.shape[1]), array.dtype), 0
    if use.kind == "Conv":
        return patches(array, use, layer.kernel, most, rng)
    if use.kind == "left MatMul":
        array = np.moveaxis(array, -2, -1) if array.ndim > 1 else array
    elif use.kind == "Gemm" and use.attribute("transA", 0):
        array = array.T
    rows = array.reshape(-1, array.shape[-1])
    count = len(rows)
    if count > most:
        rows = rows[np.sort(rng.choice(count, most, replace=False))]
    return rows, count
