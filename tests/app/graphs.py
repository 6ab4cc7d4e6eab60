"""Small ONNX models, and their outputs computed with numpy."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
LABELS = ["zero", "one", "two"]
CARD: dict[str, Any] = {
    "card_version": 1,
    "name": "small-kronecker",
    "twin": "small",
    "role": "kronecker",
    "task": "classification",
    "parameters": 77,
    "macs_per_sample": 66,
    "c": {"bits": 32, "weight_bytes": 1308, "scratch_bytes": 2416, "code_bytes": 4512, "compiler": "a compiler"},
    "input": {"kind": "image", "shape": [2, 3], "range": [0.0, 1.0]},
    "labels": LABELS,
    "test_metric": {"name": "accuracy", "value": 0.75, "samples": 8},
}


def weights(sizes: list[int], seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal((a, b)) / a**0.5).astype(np.float32) for a, b in itertools.pairwise(sizes)]


def forward(layers: list[Array], rows: Array) -> Array:
    """The logits of the network of `classifier` in float64."""
    hidden = rows.astype(np.float64)
    for index, layer in enumerate(layers):
        hidden = hidden @ layer
        if index < len(layers) - 1:
            hidden = np.maximum(hidden, 0)
    return hidden


def probabilities(layers: list[Array], rows: Array) -> Array:
    powers = np.exp(forward(layers, rows))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def classifier(
    layers: list[Array],
    *,
    batch: str | int = "batch",
    outputs: tuple[str, ...] = ("logits", "probabilities"),
    card: dict[str, Any] | str | None = None,
    padding_bytes: int = 0,
    datatype: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """MatMul, Relu, ..., MatMul, Softmax; with a table of `padding_bytes` of zeros that are added to the logits."""
    dtype = helper.tensor_dtype_to_np_dtype(datatype)
    nodes = []
    tensors = [numpy_helper.from_array(layer.astype(dtype), f"w{i}") for i, layer in enumerate(layers)]
    name = "input"
    for index in range(len(layers)):
        last = index == len(layers) - 1
        nodes.append(helper.make_node("MatMul", [name, f"w{index}"], ["sum" if last else f"m{index}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"m{index}"], [f"h{index}"]))
            name = f"h{index}"
    if padding_bytes:
        # The index depends on the input, so that onnxruntime does not fold the table to a constant.
        table = np.zeros((padding_bytes // 4, 1), np.float32)
        tensors += [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.zeros(1, np.float32), "factor"),
        ]
        nodes += [
            helper.make_node("ReduceMax", ["input"], ["largest"], keepdims=0),
            helper.make_node("Mul", ["largest", "factor"], ["zero"]),
            helper.make_node("Cast", ["zero"], ["index"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "index"], ["entry"]),
            helper.make_node("Add", ["sum", "entry"], ["logits"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["sum"], ["logits"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
    return model(
        nodes,
        helper.make_tensor_value_info("input", datatype, [batch, layers[0].shape[0]]),
        [helper.make_tensor_value_info(output, datatype, [batch, layers[-1].shape[1]]) for output in outputs],
        tensors,
        card,
    )


def heavy(width: int, products: int) -> onnx.ModelProto:
    """Many products with the identity matrix: slow, small on disk, and the outputs equal the inputs."""
    matrix = numpy_helper.from_array(np.eye(width, dtype=np.float32), "w")
    nodes = [
        helper.make_node("MatMul", ["input" if i == 0 else f"x{i}", "w"], [f"x{i + 1}" if i < products - 1 else "out"])
        for i in range(products)
    ]
    spec = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]) for name in ("input", "out")]
    return model(nodes, spec[0], [spec[1]], [matrix], None)


def model(
    nodes: list[onnx.NodeProto],
    graph_input: onnx.ValueInfoProto,
    outputs: list[onnx.ValueInfoProto],
    tensors: list[onnx.TensorProto],
    card: dict[str, Any] | str | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "graph", [graph_input], outputs, tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if card is not None:
        helper.set_model_props(made, {"kronmodel": card if isinstance(card, str) else json.dumps(card)})
    return made


def publish(folder: Path, name: str, made: onnx.ModelProto | bytes, version: int = 1) -> Path:
    """Write a model to `<folder>/<name>/<version>/model.onnx`."""
    path = folder / name / str(version) / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    return path
