"""What is inside an ONNX file, without running it: sizes, metadata, and what speaks against serving it."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

# What onnxruntime has built in.
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
MAX_ELEMENTS_PER_BYTE = 8
COMPILED_ELSEWHERE = frozenset({"EPContext"})


def examine(path: Path, *, max_card: int) -> Mapping[str, object]:
    """The fields of its `Inspection`.

    Args:
        path: the file.
        max_card: characters of the card; one far too long is cut here, and refused for its length by whoever reads it.

    Raises:
        OSError, MemoryError: it cannot be read.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError):
        return {"error": "not an ONNX file, or a truncated one"}
    if (reason := _refusal(model)) is not None:
        return {"error": reason}
    size = elements = 0
    for tensor, is_initializer in _tensors(model):
        if is_initializer:
            size += _bytes(tensor)
            elements += _elements(tensor.dims)
    cards = [entry.value for entry in model.metadata_props if entry.key == "kronmodel"]
    if not all(isinstance(card, str) for card in cards):  # protobuf hands on as bytes what is not UTF-8
        return {"error": "the card is not UTF-8"}
    card = cards[0][:max_card] if cards else None
    return {"initializer_bytes": size, "initializer_elements": elements, "card": card, "sha256": _sha256(path)}


def _refusal(model: onnx.ModelProto) -> str | None:
    """What is wrong with it: no graph, tensors in other files or truncated ones, operators from elsewhere."""
    if not model.graph.node:
        return "not an ONNX file: the graph is empty"
    for tensor, _ in _tensors(model):
        name = tensor.name[:100]
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            return f"tensor {name!r} is kept in another file, expected one self-contained file"
        expected = _raw_bytes(tensor)
        if expected is not None and expected != len(tensor.raw_data):
            return f"tensor {name!r} is truncated: got {len(tensor.raw_data)} bytes, expected {expected}"
        elements = _elements(tensor.dims)
        if elements > max(1, MAX_ELEMENTS_PER_BYTE * tensor.ByteSize()):
            # onnxruntime lets pass what nothing uses, and the sizes that are told would be without bound.
            return f"tensor {name!r} is truncated: got {tensor.ByteSize()} bytes, expected {elements} elements"
    return _foreign_operator(model)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _foreign_operator(model: onnx.ModelProto) -> str | None:
    """The first operator that neither ONNX nor onnxruntime nor the file itself defines: it would need a library."""
    known = DOMAINS | {function.domain for function in model.functions}
    for node in _nodes(model):
        if node.domain not in known:
            expected = ", ".join(sorted(domain or "ai.onnx" for domain in DOMAINS))
            return (
                f"operator {node.op_type[:100]!r} is of the domain {node.domain[:100]!r}, expected one of {expected}: "
                "libraries of custom operators are not loaded"
            )
        if node.op_type in COMPILED_ELSEWHERE:
            return f"operator {node.op_type!r} holds or names a program that was compiled elsewhere, expected a graph"
    return None


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node; subgraphs and functions included."""
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while nodes:
        node = nodes.pop()
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                nodes.extend(graph.node)


def _tensors(model: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, bool]]:
    """Every tensor of the model with whether it is an initializer; subgraphs and functions included."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from ((tensor, True) for tensor in graph.initializer)
            for sparse in graph.sparse_initializer:
                yield sparse.values, True
                yield sparse.indices, False
            nodes.extend(graph.node)
            continue
        for attribute in nodes.pop().attribute:
            yield from ((tensor, False) for tensor in (attribute.t, *attribute.tensors))
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from ((sparse.values, False), (sparse.indices, False))
            graphs.extend(graph for graph in (attribute.g, *attribute.graphs) if graph.ByteSize())


def _raw_bytes(tensor: onnx.TensorProto) -> int | None:
    """How many bytes of raw data the tensor needs; None where it has none, or is of a type that shares bytes."""
    if not tensor.raw_data:
        return None
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, TypeError):
        return None
    return _elements(tensor.dims) * dtype.itemsize if dtype.isbuiltin == 1 and dtype.kind != "O" else None


def _bytes(tensor: onnx.TensorProto) -> int:
    if tensor.raw_data:
        return len(tensor.raw_data)
    try:
        return _elements(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, TypeError):
        return tensor.ByteSize()  # strings, or a type newer than this onnx


def _elements(dims: Sequence[int]) -> int:
    elements = 1
    for dim in dims:
        elements *= max(0, dim)
    return min(elements, 2**62)
