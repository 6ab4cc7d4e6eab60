"""Static checks of an ONNX file: its sizes, its metadata, and reasons to refuse it, without loading it for a run."""

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from app.errors import ModelError
from app.inference.external_data import MAX_FILES, ExternalDataError, check_range, count_bytes, find_file
from app.inference.onnx_file import ExternalTensor, OnnxFile
from app.models.row_independence.verdict import describe
from app.system.files import fingerprint

# The operator domains of onnxruntime itself.
BUILTIN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
MAX_ELEMENTS_PER_BYTE = 8  # of a serialized tensor, since no element is smaller than a bit
MAX_FILE_BYTES = 2**31 - 1  # protobuf's limit of a message
COMPILED_OPERATORS = frozenset({"EPContext"})  # hold or name a program for a device
# Of operators that onnxruntime's optimisers put in for the processor that they run on.
LAYOUT_DOMAINS = frozenset({"com.microsoft.nchwc", "com.ms.internal.nhwc"})


class _Kind(Enum):
    """Kind of a tensor in a model."""

    WEIGHT = "initializer of the main graph"
    INNER_WEIGHT = "initializer of a subgraph, or the values of a sparse one"
    OTHER = "attribute of a node, or indices"


def inspect_file(path: Path, *, max_card_chars: int, max_bytes: int) -> Mapping[str, Any]:
    """Read the sizes and metadata of an ONNX file and check its tensors, the files of their data, and its operators.

    Args:
        path: the file, without symbolic links.
        max_card_chars: length at which the card is cut; `Card.parse` refuses a longer one.
        max_bytes: most bytes of the file and of those that it keeps weights in, together.

    Returns:
        Fields of a `VerificationResult` but for its checksums; only `error` for a file that is refused.

    Raises:
        OSError: a file cannot be read.
        MemoryError: it needs more memory than this process may have.
    """
    try:
        return _inspect(path, max_card_chars, max_bytes)
    except (ModelError, ExternalDataError) as error:
        return {"error": str(error)}


def _inspect(path: Path, max_card_chars: int, max_bytes: int) -> Mapping[str, Any]:
    """As `inspect_file`.

    Raises:
        ModelError: the file is refused.
        ExternalDataError: one of the files of its data is refused.
    """
    file_bytes = path.stat().st_size
    if file_bytes > MAX_FILE_BYTES:
        raise ModelError(
            f"{path.name}: got {file_bytes} bytes, expected at most {MAX_FILE_BYTES}, protobuf's limit: export the "
            "model with its weights in a file beside it (external data)"
        )
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError):
        raise ModelError("not an ONNX file, or a truncated one: copy or export it again") from None
    if (reason := _find_error(model)) is not None:
        raise ModelError(reason)
    external = {tensor.name: tensor for tensor in OnnxFile.read(path).external}
    if sorted(external) != sorted(tensor.name for tensor in model.graph.initializer if _is_external(tensor)):
        raise ModelError("got tensors of one name in another file, expected a name for each: export the model again")
    data_files = _find_data_files(path, list(external.values()), max_bytes - file_bytes)
    size = elements = 0
    for tensor, kind in _tensors(model):
        if kind is not _Kind.OTHER:
            size += count_bytes(external[tensor.name]) if _is_external(tensor) else _count_bytes(tensor)
            elements += _count_elements(tensor.dims)
    cards = [entry.value for entry in model.metadata_props if entry.key == "kronmodel"]
    if not all(isinstance(card, str) for card in cards):  # protobuf returns bytes for text that is not UTF-8
        raise ModelError("the card is not UTF-8: write it again as JSON")
    return {
        "initializer_bytes": size,
        "initializer_elements": elements,
        "card": cards[0][:max_card_chars] if cards else None,
        "data_files": {name: fingerprint(path.parent / name) for name in data_files},
        **describe(model),
    }


def _find_data_files(path: Path, tensors: Sequence[ExternalTensor], max_bytes: int) -> list[str]:
    """Find the files that tensors are kept in: their paths relative to the folder of the ONNX file, in order.

    Raises:
        ExternalDataError: a file is not one that may be read, or too small for its tensors; or all are too large.
    """
    files: dict[str, Path] = {}
    sizes: dict[Path, int] = {}
    for tensor in tensors:
        data = files[tensor.location] = files.get(tensor.location) or find_file(path.parent, tensor)
        if data not in sizes:
            sizes[data] = data.stat().st_size
        check_range(tensor, sizes[data])
    total = sum(size for data, size in sizes.items() if data != path)
    if total > max_bytes:
        raise ExternalDataError(
            f"got {total} bytes of weights in other files, expected at most {max_bytes} (KRON_MAX_MODEL_BYTES)"
        )
    if len(files) > MAX_FILES:
        raise ExternalDataError(f"got weights in {len(files)} other files, expected at most {MAX_FILES}")
    return sorted(files)


def _find_error(model: onnx.ModelProto) -> str | None:
    """Find a reason to refuse a model: no outputs, misplaced or truncated tensors, operators that are not built in."""
    if not model.graph.output:
        return "not an ONNX file: the graph has no outputs"
    for tensor, kind in _tensors(model):
        name = tensor.name[:100]
        if _is_external(tensor) and kind is _Kind.WEIGHT:
            continue
        if _is_external(tensor) or tensor.external_data:
            return (
                f"tensor {name!r} is kept in another file, expected that only of initializers of the main graph: save "
                "the model as one file, with onnx.save(onnx.load(path), path)"
            )
        expected = _expected_raw_bytes(tensor)
        if expected is not None and expected != len(tensor.raw_data):
            return f"tensor {name!r} is truncated: got {len(tensor.raw_data)} bytes, expected {expected}: copy it again"
        elements = _count_elements(tensor.dims)
        if elements > max(1, MAX_ELEMENTS_PER_BYTE * tensor.ByteSize()):
            # onnxruntime accepts such a tensor if no operator uses it, and the sizes in the API would be without bound.
            size = tensor.ByteSize()
            return f"tensor {name!r} is truncated: got {size} bytes, expected {elements} elements: export it again"
    return _check_operators(model)


def _check_operators(model: onnx.ModelProto) -> str | None:
    """Refuse an operator that is defined neither by ONNX, onnxruntime nor the file itself, or is compiled."""
    known = BUILTIN_DOMAINS | {function.domain for function in model.functions}
    for node in _nodes(model):
        if node.domain in LAYOUT_DOMAINS - known:
            return (
                f"onnxruntime has optimised it for the processor of another machine: operator {node.op_type[:100]!r} "
                f"is of the domain {node.domain!r}, expected a portable graph: export the model again, or save it with "
                "graph_optimization_level ORT_ENABLE_BASIC or ORT_ENABLE_EXTENDED"
            )
        if node.domain not in known:
            expected = ", ".join(sorted(domain or "ai.onnx" for domain in BUILTIN_DOMAINS))
            return (
                f"operator {node.op_type[:100]!r} is of the domain {node.domain[:100]!r}, expected one of {expected}: "
                "libraries of custom operators are not loaded; export the model without it"
            )
        if node.op_type in COMPILED_OPERATORS:
            return (
                f"operator {node.op_type!r} holds or names a compiled program, expected operators of a graph: export "
                "the model without compiling it"
            )
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


def _tensors(model: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, _Kind]]:
    """Iterate over all tensors of a model, with those of subgraphs and functions."""
    yield from ((tensor, _Kind.WEIGHT) for tensor in model.graph.initializer)
    main = model.graph
    graphs = [main]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            if graph is not main:
                yield from ((tensor, _Kind.INNER_WEIGHT) for tensor in graph.initializer)
            for sparse in graph.sparse_initializer:
                yield sparse.values, _Kind.INNER_WEIGHT
                yield sparse.indices, _Kind.OTHER
            nodes.extend(graph.node)
            continue
        for attribute in nodes.pop().attribute:
            yield from ((tensor, _Kind.OTHER) for tensor in (attribute.t, *attribute.tensors))
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from ((sparse.values, _Kind.OTHER), (sparse.indices, _Kind.OTHER))
            graphs.extend(graph for graph in (attribute.g, *attribute.graphs) if graph.ByteSize())


def _is_external(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor is kept in another file."""
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


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
