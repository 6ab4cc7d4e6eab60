"""Times of nodes by onnxruntime's profile, measured by a real measuring process."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from app.measure import nodes
from app.measure.children import quality as quality_child
from app.measure.inputs.arrays import InputArrays
from app.measure.inputs.interface import GraphTensor, Interface
from app.processes.parent import run_measuring_process
from tests.app.graphs import model, publish

WIDTH = 300


def chain(sizes: list[int]) -> onnx.ModelProto:
    """Make a graph of products with matrices of these widths, which onnxruntime cannot fuse."""
    names = ["input", *(f"x{index}" for index in range(len(sizes) - 2)), "out"]
    steps = []
    for index, (a, b) in enumerate(itertools.pairwise(names)):
        steps += [
            helper.make_node("MatMul", [a, f"w{index}"], [f"{b}_product"], name=f"product {index}"),
            helper.make_node("Tanh", [f"{b}_product"], [b], name=f"tanh {index}"),
        ]
    tensors = [
        numpy_helper.from_array(np.full((a, b), 0.01, np.float32), f"w{index}")
        for index, (a, b) in enumerate(itertools.pairwise(sizes))
    ]
    specs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
        for name, width in (("input", sizes[0]), ("out", sizes[-1]))
    ]
    return model(steps, specs[0], [specs[1]], tensors, None)


def measured(folder: Path, made: onnx.ModelProto, batch_sizes: list[int]) -> Any:
    interface = Interface((GraphTensor("input", "FP32", ("batch", WIDTH)),), ())
    InputArrays({"input": np.ones((9, WIDTH), np.float32)}, interface.batch_axes).save(folder / "inputs", None)
    path = publish(folder, "chain", made)
    job = {
        "device": "cpu",
        "threads": 1,
        "batch_sizes": batch_sizes,
        "inputs": str(folder / "inputs"),
        "source": {"source": "generated", "name": ""},
        "models": [{"name": "chain", "path": str(path), "samples": "", "card": None}],
        "nodes": True,
    }
    return asyncio.run(run_measuring_process(quality_child.__name__, job))["nodes"]


def test_every_node_has_its_time_in_the_order_of_the_graph(tmp_path: Path) -> None:
    (found,) = measured(tmp_path, chain([WIDTH, 4, 900, 900, 3]), [1, 64])
    assert (found["model"], found["batch_size"]) == ("chain", 64)
    assert 1 <= found["runs"] <= nodes.RUNS
    assert [node["name"] for node in found["nodes"]] == [
        f"{kind} {index}" for index in range(4) for kind in ("product", "tanh")
    ]
    assert [node["op"] for node in found["nodes"]] == ["MatMul", "Tanh"] * 4
    slowest = max(found["nodes"], key=lambda node: node["us"])
    assert slowest["name"] == "product 2"  # 900 x 900; the others have at most 3,600 weights
    assert abs(found["us"] - sum(node["us"] for node in found["nodes"])) < 0.1  # each is rounded
    assert not list(tmp_path.glob("profile*"))


def test_many_nodes_are_listed_in_part(tmp_path: Path) -> None:
    (found,) = measured(tmp_path, chain([WIDTH, *[8] * 50]), [2])
    assert len(found["nodes"]) == nodes.MOST + 1
    assert found["nodes"][-1]["name"] == "40 others"
    assert abs(found["us"] - sum(node["us"] for node in found["nodes"])) < 0.5
