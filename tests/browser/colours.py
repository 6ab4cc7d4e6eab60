"""Two networks that classify red, green and blue pictures, one with channels first, one with channels last."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.app.graphs import model, publish

SIDE = 32
LABELS = ["red", "green", "blue"]
SAMPLE = np.array([0.2, 0.8, 0.4], np.float32)  # a greenish colour


def write(repository: Path) -> Path:
    """Publish the models `planes`, with values 0 to 1, and `pixels`, with values -1 to 1 in a flat row."""
    planes = np.broadcast_to(SAMPLE[:, None, None], (3, SIDE, SIDE))
    pixels = np.broadcast_to(2 * SAMPLE - 1, (SIDE, SIDE, 3)).reshape(-1)
    _publish(repository, "planes", [3, SIDE, SIDE], [3, SIDE, SIDE], [0.0, 1.0], [2, 3], planes)
    _publish(repository, "pixels", [3 * SIDE * SIDE], [SIDE, SIDE, 3], [-1.0, 1.0], [1], pixels)
    return repository


def _publish(
    repository: Path,
    name: str,
    taken: list[int],
    shape: list[int],
    values: list[float],
    axes: list[int],
    sample: NDArray[np.float32],
) -> None:
    card: dict[str, Any] = {
        "card_version": 1,
        "name": name,
        "task": "classification",
        "input": {"kind": "image", "shape": shape, "range": values},
        "labels": LABELS,
    }
    tensors = [
        numpy_helper.from_array(np.array([0, -1, 3] if len(taken) == 1 else [0, *taken], np.int64), "shape"),
        numpy_helper.from_array(np.array(axes, np.int64), "axes"),
        numpy_helper.from_array(np.array(9, np.float32), "sharpness"),
    ]
    nodes = [
        helper.make_node("Reshape", ["input", "shape"], ["image"]),
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "sharpness"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph_input = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *taken])
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])
    path = publish(repository, name, model(nodes, graph_input, [output], tensors, card))
    np.savez_compressed(path.parent / "samples.npz", inputs=sample[None], labels=np.array([1]))
