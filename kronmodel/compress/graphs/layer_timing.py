"""Run times of single layers before and after their replacement, as ONNX models of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from kronmodel.compress.graphs.emit import emit
from kronmodel.compress.graphs.layers import GraphLayer
from kronmodel.compress.graphs.timing import Group, Timing, measure
from kronmodel.compress.graphs.workspace import Workspace
from kronmodel.compress.matrices.structures import Structure

__all__ = ["measure_layers"]

SECONDS = 0.15
IR_VERSION = 8


def measure_layers(
    workspace: Workspace,
    pairs: Sequence[tuple[GraphLayer, Structure]],
    inputs: Mapping[str, NDArray[Any]],
    seconds: float = SECONDS,
) -> list[Timing]:
    """Measure layers in new structures, with random weights, against the layers as they are.

    Args:
        workspace: temporary folder.
        pairs: layers, and the structures to measure.
        inputs: input of each layer for one sample, by the layer's title.
        seconds: duration of each pair's measurement.

    Returns:
        Time of each new structure, with the ratio to the original layer.
    """
    groups = []
    for number, (layer, structure) in enumerate(pairs):
        x = inputs[layer.title]
        models = [_model(workspace, layer, each, x) for each in (None, structure)]
        paths = [workspace.write(model, f"layer-{number}.{turn}.onnx") for turn, model in enumerate(models)]
        groups.append(Group(paths, {"x": x}))
    return [timings[1] for timings in measure(groups, seconds)]


def _model(workspace: Workspace, layer: GraphLayer, structure: Structure | None, x: NDArray[Any]) -> onnx.ModelProto:
    """Build a model of one layer: with its weight, or with random factors of a structure."""
    use = layer.uses[0]
    node = onnx.NodeProto()
    node.CopyFrom(use.node)
    kind = layer.constant.array.dtype
    place = 0 if use.kind == "left MatMul" else 1
    node.input[1 - place] = "x"
    tensors: list[onnx.TensorProto] = []

    def add_constant(name: str, array: NDArray[Any]) -> str:
        tensors.append(workspace.tensor(name, array))
        return name

    if len(node.input) > 2 and node.input[2]:
        node.input[2] = add_constant("own bias", np.zeros(len(layer.weight), kind))
    own = type(use)(use.path, use.index, node, use.kind, "x", use.rank, use.bias)
    if structure is None:
        node.input[place] = add_constant("weight", np.asarray(layer.constant.array))
        nodes = [node]
    else:
        rng = np.random.default_rng(0)
        factors = [rng.standard_normal(shape).astype(kind) for shape in structure.factor_shapes]
        nodes = emit(own, structure, layer.kernel, factors, bias=None, add_constant=add_constant)
    kind_of = helper.np_dtype_to_tensor_dtype(kind)
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", kind_of, list(x.shape))],
        [helper.make_tensor_value_info(node.output[0], kind_of, None)],
        tensors,
    )
    imports = [entry for entry in workspace.model.opset_import if entry.domain in ("", "ai.onnx")]
    return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)
