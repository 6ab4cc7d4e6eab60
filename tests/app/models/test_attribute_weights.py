"""Weights in node attributes, as scikit-learn's models and exports of constants have them, in the sizes of a model."""

import asyncio
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.models.scan import read_folder
from app.settings import Settings
from tests.app.graphs import publish

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 5])


def linear() -> onnx.ModelProto:
    """A regressor of two targets, as skl2onnx writes scikit-learn's."""
    node = helper.make_node(
        "LinearRegressor", ["x"], ["y"], domain="ai.onnx.ml", coefficients=[0.5] * 10, intercepts=[1.0, 2.0], targets=2
    )
    return whole([node], ["batch", 2])


def tree() -> onnx.ModelProto:
    """A regressor of one tree with two leaves."""
    node = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1,
        nodes_treeids=[0] * 3, nodes_nodeids=[0, 1, 2], nodes_featureids=[3, 0, 0], nodes_values=[0.5, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0],
        target_treeids=[0, 0], target_nodeids=[1, 2], target_ids=[0, 0], target_weights=[-1.5, 2.5],
    )  # fmt: skip
    return whole([node], ["batch", 1])


def constants() -> onnx.ModelProto:
    """A product with a constant in a node, as paddle2onnx writes weights; the axis of Softmax is no weight."""
    weight = numpy_helper.from_array(np.ones((5, 3), np.float16), "w")
    nodes = [
        helper.make_node("Constant", [], ["half"], value=weight),
        helper.make_node("Cast", ["half"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("Constant", [], ["bias"], value_floats=[1.0, 2.0, 3.0]),
        helper.make_node("Gemm", ["x", "w", "bias"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y"], axis=1),
    ]
    return whole(nodes, ["batch", 3])


def whole(nodes: list[onnx.NodeProto], shape: list[str | int]) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "graph", [X], [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)])
    domains = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=domains, ir_version=10)


@pytest.mark.parametrize(
    ("made", "elements", "size"),
    [
        (linear(), 12, 4 * 12),
        (tree(), 5 + 21, 4 * 5 + 8 * 21),  # thresholds and weights of leaves; seven lists of integers
        (constants(), 15 + 3, 2 * 15 + 4 * 3),
    ],
    ids=["linear", "tree", "constants"],
)
def test_weights_in_attributes_are_counted(tmp_path: Path, made: onnx.ModelProto, elements: int, size: int) -> None:
    publish(tmp_path, "m", made)
    artifact = asyncio.run(read_folder(Settings(models=tmp_path))).artifacts["m"]
    assert (artifact.parameters, artifact.initializer_bytes) == (elements, size)
