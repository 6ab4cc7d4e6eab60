"""The backend tests of the package onnx as conformance cases."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx.backend.test import loader

from tests.conformance.cases import Array, Case, graph_inputs

FILE_KINDS = ("simple", "pytorch-converted", "pytorch-operator")


def node_cases() -> Iterator[Case]:
    """One model for each test of an operator; the package generates them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of generating values out of range
        tests = loader.load_model_tests(kind="node")
    for test in sorted(tests, key=lambda test: test.name):
        assert test.model is not None
        assert test.data_sets is not None
        graph = test.model.graph
        inputs, outputs = test.data_sets[0]
        yield Case(
            name=test.name,
            category="node",
            model=test.model.SerializeToString(),
            requests=[
                {
                    value.name: array
                    for value, tensor in zip(graph_inputs(graph), inputs, strict=False)
                    if (array := _to_array(tensor)) is not None
                }
            ],
            expected={
                value.name: array
                for value, tensor in zip(graph.output, outputs, strict=False)
                if (array := _to_array(tensor)) is not None
            },
            rtol=test.rtol,
            atol=test.atol,
        )


def file_cases(kind: str) -> Iterator[Case]:
    """The models of a folder of the package's data."""
    for test in sorted(loader.load_model_tests(kind=kind), key=lambda test: test.name):
        assert test.model_dir is not None
        folder = Path(test.model_dir)
        graph = onnx.load(folder / "model.onnx").graph
        data = folder / "test_data_set_0"
        inputs = {value.name: data / f"input_{index}.pb" for index, value in enumerate(graph.input)}
        outputs = {value.name: data / f"output_{index}.pb" for index, value in enumerate(graph.output)}
        names = {value.name for value in graph_inputs(graph)}
        types = {value.name: value.type.WhichOneof("value") for value in (*graph.input, *graph.output)}
        yield Case(
            name=test.name,
            category=kind,
            model=(folder / "model.onnx").read_bytes(),
            requests=[
                {
                    name: _read(path)
                    for name, path in inputs.items()
                    if name in names and types[name] == "tensor_type" and path.exists()
                }
            ],
            expected={
                name: _read(path) for name, path in outputs.items() if types[name] == "tensor_type" and path.exists()
            },
            rtol=test.rtol,
            atol=test.atol,
        )


def light_cases() -> Iterator[Case]:
    """Well-known networks whose weights the graph computes, so that their files are small."""
    for path in sorted((Path(loader.DATA_DIR) / "light").glob("*.onnx")):
        graph = onnx.load(path).graph
        (value,) = graph_inputs(graph)
        shape = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        size = int(np.prod(shape))
        yield Case(
            name=path.stem,
            category="networks",
            model=path.read_bytes(),
            requests=[{value.name: (np.arange(size).reshape(shape) / size).astype(np.float32)}],
            expected={graph.output[0].name: _read(path.with_name(f"{path.stem}_output_0.pb"))},
        )


def _to_array(tensor: object) -> Array | None:
    """The array of a test's value, with bfloat16 as float32; None for sequences, maps and missing values."""
    if isinstance(tensor, onnx.TensorProto):
        tensor = onnx.numpy_helper.to_array(tensor)
    if isinstance(tensor, np.generic):
        tensor = np.asarray(tensor)
    if not isinstance(tensor, np.ndarray):
        return None
    if tensor.dtype.name == "bfloat16":
        return tensor.astype(np.float32)
    return tensor.astype(object) if tensor.dtype.kind in "US" else tensor


def _read(path: Path) -> Array:
    array = _to_array(onnx.load_tensor(path))
    assert array is not None
    return array
