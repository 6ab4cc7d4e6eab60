"""Static checks of an ONNX file: its sizes, its metadata, and reasons to refuse it, without loading it for a run."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from app.models.attribute_weights import attribute_weights

# The operator domains of onnxruntime itself.
BUILTIN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
MAX_ELEMENTS_PER_BYTE = 8  # of a serialized tensor, since no element is smaller than a bit
COMPILED_OPERATORS = frozenset({"EPContext"})  # hold or name a program for a device


def inspect_file(path: Path, *, max_card_chars: int) -> Mapping[str, object]:
    """Read the sizes and metadata of an ONNX file and check its tensors and operators.

    Args:
        path: the file.
        max_card_chars: length at which the card is cut; `Card.parse` refuses a longer one.

    Returns:
        Fields of a `VerificationResult`; only `error` for a file that is refused.

    Raises:
        OSError: the file cannot be read.
        MemoryError: it needs more memory than this process may have.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError):
        return {"error": "not an ONNX file, or a truncated one"}
    if (reason := _find_error(model)) is not None:
        return {"error": reason}
    size = elements = 0
    for tensor, is_initializer in _tensors(model):
        if is_initializer:
            size += _count_bytes(tensor)
            elements += _count_elements(tensor.dims)
    constants, list_elements, list_bytes = attribute_weights(_nodes(model))
    size += list_bytes + sum(map(_count_bytes, constants))
    elements += list_elements + sum(_count_elements(tensor.dims) for tensor in constants)
    cards = [entry.value for entry in model.metadata_props if entry.key == "kronmodel"]
    if not all(isinstance(card, str) for card in cards):  # protobuf returns bytes for text that is not UTF-8
        return {"error": "the card is not UTF-8"}
    card = cards[0][:max_card_chars] if cards else None
    return {"initializer_bytes": size, "initializer_elements": elements, "card": card, "sha256": _sha256(path)}


def _find_error(model: onnx.ModelProto) -> str | None:
    """Find a reason to refuse a model: no graph, external or truncated tensors, operators that are not built in."""
    if not model.graph.node:
        return "not an ONNX file: the graph is empty"
    for tensor, _ in _tensors(model):
        name = tensor.name[:100]
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            return f"tensor {name!r} is kept in another file, expected one self-contained file"
        expected = _expected_raw_bytes(tensor)
        if expected is not None and expected != len(tensor.raw_data):
            return f"tensor {name!r} is truncated: got {len(tensor.raw_data)} bytes, expected {expected}"
        elements = _count_elements(tensor.dims)
        if elements > max(1, MAX_ELEMENTS_PER_BYTE * tensor.ByteSize()):
            # onnxruntime accepts such a tensor if no operator uses it, and the sizes in the API would be without bound.
            return f"tensor {name!r} is truncated: got {tensor.ByteSize()} bytes, expected {elements} elements"
    return _check_operators(model)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_operators(model: onnx.ModelProto) -> str | None:
    """Refuse an operator that is defined neither by ONNX, onnxruntime nor the file itself, or is compiled."""
    known = BUILTIN_DOMAINS | {function.domain for function in model.functions}
    for node in _nodes(model):
        if node.domain not in known:
            expected = ", ".join(sorted(domain or "ai.onnx" for domain in BUILTIN_DOMAINS))
            return (
                f"operator {node.op_type[:100]!r} is of the domain {node.domain[:100]!r}, expected one of {expected}: "
                "libraries of custom operators are not loaded"
            )
        if node.op_type in COMPILED_OPERATORS:
            return f"operator {node.op_type!r} holds or names a compiled program, expected operators of a graph"
    return None


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Iterate over all nodes of a model, including those of its subgraphs and functions."""
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while nodes:
        node = nodes.pop()
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                nodes.extend(graph.node)


def _tensors(model: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, bool]]:
    """Iterate over all tensors of a model, with subgraphs and functions, each with whether it is an initializer."""
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


def _expected_raw_bytes(tensor: onnx.TensorProto) -> int | None:
    """Number of bytes that a tensor's raw data must have; None without raw data, or for a type that numpy lacks."""
    if not tensor.raw_data:
        return None
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, TypeError):
        return None
    return _count_elements(tensor.dims) * dtype.itemsize if dtype.isbuiltin == 1 and dtype.kind != "O" else None


def _count_bytes(tensor: onnx.TensorProto) -> int:
    if tensor.raw_data:
        return len(tensor.raw_data)
    try:
        return _count_elements(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, TypeError):
        return tensor.ByteSize()  # strings, or a type newer than this onnx


def _count_elements(dims: Sequence[int]) -> int:
    elements = 1
    for dim in dims:
        elements *= max(0, dim)
    return min(elements, 2**62)
