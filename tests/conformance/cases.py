"""Conformance cases: a model, the inputs of several requests to it, and the outputs that its authors expect."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Feeds: TypeAlias = Mapping[str, Array]

# Types of tensors that the Open Inference Protocol has, by their number in ONNX. Written here anew, not imported from
# the service, which is what is tested.
DATATYPES: Mapping[int, str] = {
    onnx.TensorProto.FLOAT: "FP32",
    onnx.TensorProto.DOUBLE: "FP64",
    onnx.TensorProto.FLOAT16: "FP16",
    onnx.TensorProto.BFLOAT16: "BF16",
    onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.INT16: "INT16",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.UINT16: "UINT16",
    onnx.TensorProto.UINT32: "UINT32",
    onnx.TensorProto.UINT64: "UINT64",
    onnx.TensorProto.BOOL: "BOOL",
    onnx.TensorProto.STRING: "BYTES",
}
NUMPY_TYPES: Mapping[str, Any] = {
    "FP32": np.float32, "FP64": np.float64, "FP16": np.float16, "BF16": np.float32, "BOOL": np.bool_, "BYTES": object,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
}  # fmt: skip
BINARY_ONLY = frozenset({"FP16", "BF16"})  # the protocol has no JSON form of them


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model to serve, and what to send to it.

    Args:
        name: of the model in the repository.
        category: the table row that counts it.
        model: the ONNX file, or its bytes.
        requests: inputs of each request by name; bfloat16 as float32. All are sent alone first, then at the same time.
        expected: outputs by name for the first request, from the source of the model; empty where it has none.
        rtol: relative tolerance of `expected`.
        atol: absolute tolerance of `expected`.
    """

    name: str
    category: str
    model: Path | bytes
    requests: Sequence[Feeds]
    expected: Mapping[str, Array]
    rtol: float = 1e-3
    atol: float = 1e-7

    def proto(self, *, weights: bool = True) -> onnx.ModelProto:
        """Parse the model; without `weights`, external data is not read."""
        if isinstance(self.model, bytes):
            return onnx.load_from_string(self.model)
        return onnx.load(self.model, load_external_data=weights)


def graph_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a request has to give: those without an initializer."""
    given = {tensor.name for tensor in graph.initializer} | {tensor.values.name for tensor in graph.sparse_initializer}
    return [value for value in graph.input if value.name not in given]


def datatype_of(value: onnx.ValueInfoProto) -> str | None:
    """The protocol's datatype of an input or output; None where it has none."""
    if value.type.WhichOneof("value") != "tensor_type":
        return None
    return DATATYPES.get(value.type.tensor_type.elem_type)


def type_name(value: onnx.ValueInfoProto) -> str:
    """The type of an input or output, as ONNX names it: `sequence`, `optional`, or an element type."""
    kind = value.type.WhichOneof("value") or "no type"
    if kind != "tensor_type":
        return kind.removesuffix("_type")
    return onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()


def with_free_rows(case: Case) -> Iterator[Case]:
    """The model with a free first axis, so that the service may join requests, and requests of different values.

    Yields:
        All inputs with the same free axis; and, of several inputs, only the first with it and the others constant, as
        weights are.
    """
    model = case.proto()
    inputs = graph_inputs(model.graph)
    if not inputs or any(datatype_of(value) is None for value in inputs):
        return
    feeds = case.requests[0]
    sizes = {value.name: feeds[value.name].shape[0] for value in inputs if feeds[value.name].ndim}
    if sizes:
        yield _freed(case, model, sizes, "rows")
    first = inputs[0].name
    if len(inputs) > 1 and first in sizes:
        yield _freed(_with_constants(case, model, inputs[1:]), model, {first: sizes[first]}, "rows-constants")


def _freed(case: Case, model: onnx.ModelProto, sizes: Mapping[str, int], suffix: str) -> Case:
    """Give inputs a free first axis.

    Args:
        case: the case.
        model: its model; it is not changed.
        sizes: the first size of each of those inputs. Those with the size of the first one, or with 1, which may
            broadcast, get the same axis; others an axis of their own, since a name stands for one size.
        suffix: of the new case's name.
    """
    free = onnx.ModelProto()
    free.CopyFrom(model)
    rows = next((size for size in sizes.values() if size != 1), 1)
    for value in free.graph.input:
        if value.name in sizes:
            size = sizes[value.name]
            _free_first_axis(value, "rows" if size in {1, rows} else f"rows_{size}")
    for value in free.graph.output:
        _free_first_axis(value, "rows")
    return replace(
        case,
        name=f"{case.name}.{suffix}",
        category=f"{case.category}, {'free first axis' if suffix == 'rows' else 'free first axis of one input'}",
        model=free.SerializeToString(),
        requests=different_requests(case.requests[0]),
        expected={},
    )


def _with_constants(case: Case, model: onnx.ModelProto, constants: Sequence[onnx.ValueInfoProto]) -> Case:
    """Make inputs constant, in `model` too."""
    names = {value.name: value.type.tensor_type.elem_type for value in constants}
    for name, number in names.items():
        values = case.requests[0][name]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(number)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(dtype), name))
    kept = [value for value in model.graph.input if value.name not in names]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.ir_version = max(4, model.ir_version)  # the first that allows initializers that are not inputs
    return replace(case, requests=[{k: v for k, v in case.requests[0].items() if k not in names}])


def _free_first_axis(value: onnx.ValueInfoProto, name: str) -> None:
    if value.type.WhichOneof("value") == "tensor_type" and value.type.tensor_type.shape.dim:
        axis = value.type.tensor_type.shape.dim[0]
        axis.Clear()
        axis.dim_param = name


def different_requests(feeds: Feeds) -> list[Feeds]:
    """Inputs of five requests: the given ones, and others of the same kind of values in other places and sizes.

    Integers and strings stay among those given, because they may be indices or keys. Floats are also negative and 300
    times as large, and one is not a number: a row must not change the answers of other rows.
    """
    requests = [
        feeds,
        {name: _moved(values, 1) for name, values in feeds.items()},
        {name: _scaled(_moved(values, 2), -3) for name, values in feeds.items()},
        {name: _scaled(_moved(values, 3), 300) for name, values in feeds.items()},
        {name: _with_nan(_moved(values, 4)) for name, values in feeds.items()},
    ]
    rows = {values.shape[0] if values.ndim else 0 for values in feeds.values()}
    if len(rows) == 1 and min(rows) > 1:  # requests of different numbers of rows
        requests[2] = {name: values[:1] for name, values in requests[2].items()}
    return requests


def _moved(values: Array, places: int) -> Array:
    return np.roll(values.reshape(-1), places).reshape(values.shape)


def _scaled(values: Array, factor: float) -> Array:
    if values.dtype.kind != "f":
        return values
    with np.errstate(over="ignore"):
        return np.asarray(values * values.dtype.type(factor), values.dtype)  # an array for a scalar, too


def _with_nan(values: Array) -> Array:
    if values.dtype.kind != "f" or not values.size:
        return values
    values = values.copy()
    values.reshape(-1)[0] = np.nan
    return values
