"""Networks that the page computes itself: their ONNX files, and drivers that run them in Node.js and in the browser."""

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from playwright.sync_api import Page
from torch import Tensor, nn

from kronmodel import ConvConfig, DenseConfig, KroneckerConfig, build, to_onnx

Array: TypeAlias = NDArray[np.float32]
MODULE = Path(__file__).parents[2] / "static" / "js" / "onnx" / "network.js"
FEATURES = 28
# Reads {file, rows}, the bytes of both as base64; writes the outputs of all rows by name, or the error.
RUN = """(Network, { file, rows }) => {
    const decode = (text) => Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
    try {
        const network = new Network(decode(file));
        const values = new Float32Array(decode(rows).buffer);
        const width = network.input.length;
        const outputs = {};
        for (let at = 0; at < values.length; at += width) {
            const found = network.run(values.subarray(at, at + width));
            for (const [name, { data }] of found) (outputs[name] ??= []).push([...data]);
        }
        return { outputs };
    } catch (error) {
        return { error: `${error.name}: ${error.message}` };
    }
}"""


class Everything(nn.Module):
    """Networks of every activation, order and layer on the same row, with convolutions and without; an output each."""

    def __init__(self) -> None:
        super().__init__()
        shapes: dict[str, Any] = {"in_shape": (7, 4), "hidden": ((5, 6), (3, 8)), "out_shape": (2, 5)}
        features = ConvConfig(image_shape=(1, 4, 7), channels=(3,))
        of_features = {"in_features": features.out_features, "features": features}
        configs: dict[str, KroneckerConfig | DenseConfig] = {
            "left": KroneckerConfig(**shapes, rank=1),
            "right": KroneckerConfig(**shapes, rank=2, order="right"),
            "dense": DenseConfig(in_features=FEATURES, hidden=(9, 6), out_features=3),
            "convolution": DenseConfig(**of_features, hidden=(5,), out_features=3, activation="relu"),
        }
        for activation in ("gelu", "relu", "tanh"):
            both = KroneckerConfig(**shapes, rank=3, order=("left", "right", "left"), activation=activation)
            linear = KroneckerConfig(**shapes, rank=2, layer="linear", activation=activation)
            configs |= {f"both_{activation}": both, f"linear_{activation}": linear}
        self.networks = nn.ModuleDict({name: build(config) for name, config in configs.items()})
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if "bias" in name:
                    parameter.normal_(0, 0.5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: network(x).softmax(-1) for name, network in self.networks.items()}


def every_network() -> bytes:
    """Export all networks into one file, which takes as long as one."""
    torch.manual_seed(1)
    return to_onnx(Everything(), torch.rand(3, FEATURES)).SerializeToString()


def reference(model: bytes, rows: Array) -> dict[str, Array]:
    """Compute the outputs by onnxruntime, row by row."""
    options = ort.SessionOptions()
    if b"DequantizeLinear" in model:  # optimised, products with quantised weights quantise the other operand, too
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    single = [session.run(names, {session.get_inputs()[0].name: row[None]}) for row in rows]
    return {name: np.concatenate([each[i] for each in single]) for i, name in enumerate(names)}


class Engine:
    """Runs the page's module in Node.js, or in a page if there is one.

    Args:
        page: a page of the service; None for Node.js.
    """

    def __init__(self, page: Page | None) -> None:
        self.page = page
        self.node = shutil.which("node")
        if page is None and self.node is None:
            pytest.skip("Node.js is not installed")

    def run(self, model: bytes, rows: Array) -> dict[str, Array]:
        """Compute the outputs, each of the shape (rows, values)."""
        answer = self._ask(model, rows)
        assert "error" not in answer, answer["error"]
        return {name: np.array(values, np.float32) for name, values in answer["outputs"].items()}

    def error(self, model: bytes, rows: Array) -> str:
        """Return the error that the module throws."""
        answer = self._ask(model, rows)
        assert "error" in answer
        return str(answer["error"])

    def _ask(self, model: bytes, rows: Array) -> dict[str, Any]:
        given = {"file": _base64(model), "rows": _base64(rows.tobytes())}
        if self.page is not None:
            load = f"""async (given) => ({RUN})((await import("/static/js/onnx/network.js")).Network, given)"""
            found: dict[str, Any] = self.page.evaluate(load, given)
            return found
        script = f"""import {{ Network }} from "{MODULE.as_uri()}"; import {{ readFileSync }} from "node:fs";
            console.log(JSON.stringify(({RUN})(Network, JSON.parse(readFileSync(0, "utf8")))));"""
        done = subprocess.run(
            [str(self.node), "--no-warnings", "--input-type=module", "--eval", script],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


def graph(nodes: list[onnx.NodeProto], shape: list[int], weights: dict[str, NDArray[Any]], outputs: int = 1) -> bytes:
    """Make a model of these nodes, from the input `x` of one sample to the output `y`."""
    made = onnx.helper.make_graph(
        nodes,
        "graph",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", *shape])],
        [onnx.helper.make_tensor_value_info(f"y{i or ''}", onnx.TensorProto.FLOAT, None) for i in range(outputs)],
        [onnx.numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    return model.SerializeToString()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
