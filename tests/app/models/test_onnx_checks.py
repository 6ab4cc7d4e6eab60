"""Hostile files are refused with a reason, while good files of the same folder are served."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.app.graphs import classifier, publish
from tests.app.oip_models import graph
from tests.app.versions import CURE, ROW, layers_of, repository_of


def model_with_operator(domain: str) -> onnx.ModelProto:
    made = graph(
        [helper.make_node("Gadget", ["x"], ["y"], domain=domain)],
        [("x", TensorProto.FLOAT, ["batch", 2])],
        [("y", TensorProto.FLOAT, ["batch", 2])],
    )
    made.opset_import.append(helper.make_opsetid(domain, 1))
    return made


def hidden_operator() -> onnx.ModelProto:
    """A foreign operator in the branch of an `If`."""
    out = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Gadget", ["x"], ["z"], domain="evil.ops")], "branch", [], [out])
    nodes = [helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)]
    return graph(
        nodes,
        [("x", TensorProto.FLOAT, ["batch", 2])],
        [("y", TensorProto.FLOAT, ["batch", 2])],
        {"yes": np.array(True)},
    )


def operator_as_function() -> onnx.ModelProto:
    """An operator that the file itself defines, which needs no library."""
    made = model_with_operator("mine")
    body = [helper.make_node("Neg", ["a"], ["b"])]
    made.functions.append(helper.make_function("mine", "Gadget", ["a"], ["b"], body, [helper.make_opsetid("", 20)]))
    return made


def short_tensor() -> onnx.ModelProto:
    made = classifier(layers_of(1))
    made.graph.initializer[0].raw_data = made.graph.initializer[0].raw_data[:-4]
    return made


def unused_empty_initializer() -> onnx.ModelProto:
    """An unused initializer without the elements of its shape, which onnxruntime accepts."""
    made = classifier(layers_of(1))
    made.graph.initializer.append(onnx.TensorProto(name="unused", data_type=TensorProto.FLOAT, dims=(2**31, 2**30)))
    return made


def optimised() -> onnx.ModelProto:
    """What onnxruntime saves with all optimisations on a processor that has AVX-512."""
    made = model_with_operator("com.microsoft.nchwc")
    made.graph.node[0].op_type = "Conv"
    return made


def compiled() -> onnx.ModelProto:
    made = model_with_operator("com.microsoft")
    made.graph.node[0].op_type = "EPContext"
    return made


def sequence_input() -> onnx.ModelProto:
    spec = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
    made = graph([helper.make_node("SequenceAt", ["x", "first"], ["y"])], [], [("y", TensorProto.FLOAT, ["n"])])
    made.graph.initializer.append(numpy_helper.from_array(np.array(0), "first"))
    made.graph.input.append(spec)
    return made


HOSTILE: dict[str, tuple[onnx.ModelProto, str]] = {
    "library": (
        model_with_operator("evil.ops"),
        "operator 'Gadget' is of the domain 'evil.ops', expected one of ai.onnx, ",
    ),
    "hidden": (hidden_operator(), "operator 'Gadget' is of the domain 'evil.ops'"),
    "short": (short_tensor(), "tensor 'w0' is truncated: got 68 bytes, expected 72"),
    "unused": (
        unused_empty_initializer(),
        "tensor 'unused' is truncated: got 22 bytes, expected 2305843009213693952 elements",
    ),
    "optimised": (
        optimised(),
        "onnxruntime has optimised it for the processor of another machine: operator 'Conv' is of the domain "
        "'com.microsoft.nchwc', expected a portable graph: export the model again, or save it with "
        "graph_optimization_level ORT_ENABLE_BASIC or ORT_ENABLE_EXTENDED",
    ),
    "compiled": (compiled(), "operator 'EPContext' holds or names a compiled program"),
    "sequence": (sequence_input(), "input 'x': got seq(tensor(float)), expected one of: tensor(float), "),
}


def test_hostile_files_are_refused_with_their_reasons(tmp_path: Path) -> None:
    for name, (made, _) in HOSTILE.items():
        publish(tmp_path, name, made)
    publish(tmp_path, "function", operator_as_function())
    repository = repository_of(tmp_path)
    assert list(repository.models) == ["function"]
    np.testing.assert_array_equal(repository.get("function").engine.run({"x": ROW[:, :2]})["y"], -ROW[:, :2])
    assert repository.failures.keys() == HOSTILE.keys()
    for name, (_, message) in HOSTILE.items():
        assert message in repository.failures[name]
        assert CURE.search(repository.failures[name]), repository.failures[name]
