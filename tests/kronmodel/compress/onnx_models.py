"""ONNX models for the tests of the compression, built node by node."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from kronmodel.compress.graphs.constants import Constants
from kronmodel.compress.graphs.layers import GraphLayer, Kept, find_layers
from kronmodel.compress.graphs.rewrite import replace_layers
from kronmodel.compress.graphs.workspace import Workspace
from kronmodel.compress.matrices.candidates import Candidate, Fitted
from kronmodel.compress.matrices.structures import Structure

Array = NDArray[Any]
LISTED_INPUTS_UNTIL = 3  # version of the format up to which each initializer is an input, too


def make_model(
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, Array],
    x: Sequence[int | str],
    *,
    opset: int = 17,
    ir: int = 8,
    kind: int = TensorProto.FLOAT,
    rank: int | None = None,
) -> onnx.ModelProto:
    """A model with the input ``x`` and the output ``y``, which has as many axes as ``x`` unless ``rank`` says so."""
    inputs = [helper.make_tensor_value_info("x", kind, list(x))]
    tensors = [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()]
    if ir <= LISTED_INPUTS_UNTIL:
        inputs += [helper.make_tensor_value_info(each.name, each.data_type, list(each.dims)) for each in tensors]
    outputs = [helper.make_tensor_value_info("y", kind, [None] * (len(x) if rank is None else rank))]
    graph = helper.make_graph(list(nodes), "graph", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def save(model: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    onnx.save(model, path)
    return path


def run(model: onnx.ModelProto | Path, **feeds: Array) -> list[Any]:
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    outputs: list[Any] = session.run(None, feeds)
    return outputs


def random_fit(structure: Structure, bias: Array | None = None, seed: int = 0) -> Fitted:
    """A replacement with random factors."""
    rng = np.random.default_rng(seed)
    factors = tuple(rng.standard_normal(shape) / 3 for shape in structure.factor_shapes)
    candidate = Candidate(structure=structure, bytes=0, macs=0, weight_error=0.0, output_error=0.0)
    return Fitted(candidate=candidate, factors=factors, bias=bias)


def layers_of(workspace: Workspace) -> tuple[Constants, list[GraphLayer], list[Kept]]:
    constants = Constants(workspace)
    return constants, *find_layers(workspace.model, constants)


def replaced(path: Path, fits: Mapping[str, Fitted] | Fitted) -> onnx.ModelProto:
    """The model of a file with its layers replaced: all by the same fit, or by the fit of their title."""
    with Workspace(path) as workspace:
        constants, layers, _ = layers_of(workspace)
        chosen = fits if isinstance(fits, Mapping) else {layer.title: fits for layer in layers}
        pairs = [(layer, chosen[layer.title]) for layer in layers if layer.title in chosen]
        return onnx.load(workspace.save(replace_layers(workspace, workspace.model, constants, pairs), "replaced.onnx"))
