"""What is inside an ONNX file, without running it.

Parsing happens in a short-lived child process (`python -m app.inspection`): a hostile file cannot hurt the service,
and the service does not carry the memory of `onnx` and of a parsed model.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app import child

if TYPE_CHECKING:
    import onnx


# What onnxruntime has built in.
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
COMPILED_ELSEWHERE = frozenset({"EPContext"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """Sizes and metadata of one file; `error` says why it is refused, and then the rest is empty."""

    initializer_bytes: int = 0
    initializer_elements: int = 0
    sha256: str = ""
    card: str | None = None
    error: str | None = None


async def inspect(paths: Sequence[Path], *, timeout: float) -> dict[Path, Inspection]:
    """Inspect all files in one child process, or in a few where a file kills it.

    A file that ends the process, or that is being read when `timeout` seconds are over, is reported as an error.
    """
    # Here, so that the child, which runs this very module, does not load asyncio and orjson for nothing.
    import asyncio

    from app.children import ChildError, run_child

    results: dict[Path, Inspection] = {}
    deadline = asyncio.get_running_loop().time() + timeout
    while remaining := [path for path in paths if path not in results]:
        try:
            async with asyncio.timeout_at(deadline):
                await run_child(
                    "app.inspection",
                    {"paths": [str(path) for path in remaining]},
                    lambda message: results.update({Path(message.pop("path")): Inspection(**message)}),
                )
        except ChildError as error:
            reason = f"reading it failed: {error}"
        except TimeoutError:
            reason = f"not read within {timeout:g} s"
        else:
            continue
        culprit = next((path for path in paths if path not in results), None)
        if culprit is not None:
            results[culprit] = Inspection(error=reason)
    return results


def main() -> None:
    """Inspect the files of the job, one message per file."""
    job = child.receive()
    for path in job["paths"]:
        _limit_memory(Path(path).stat().st_size)
        child.send(path=path, **_examine(Path(path)))


def _examine(path: Path) -> Mapping[str, object]:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError):
        return {"error": "not an ONNX file, or a truncated one"}
    except (MemoryError, OSError) as error:
        return {"error": f"cannot be read: {error or 'not enough memory'}"}
    if (reason := _refusal(model)) is not None:
        return {"error": reason}
    size = elements = 0
    for tensor, is_initializer in _tensors(model):
        if is_initializer:
            size += _bytes(tensor)
            elements += _elements(tensor.dims)
    cards = [entry.value for entry in model.metadata_props if entry.key == "kronmodel"]
    # A card far too long is cut here, and refused for its length by whoever reads it.
    card = cards[0][: 2**20] if cards else None
    return {"initializer_bytes": size, "initializer_elements": elements, "card": card, "sha256": _sha256(path)}


def _refusal(model: "onnx.ModelProto") -> str | None:
    """What is wrong with it: no graph, tensors in other files or truncated ones, operators from elsewhere."""
    import onnx

    if not model.graph.node:
        return "not an ONNX file: the graph is empty"
    for tensor, _ in _tensors(model):
        name = tensor.name[:100]
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            return f"tensor {name!r} is kept in another file, expected one self-contained file"
        expected = _raw_bytes(tensor)
        if expected is not None and expected != len(tensor.raw_data):
            return f"tensor {name!r} is truncated: got {len(tensor.raw_data)} bytes, expected {expected}"
    return _foreign_operator(model)


def _sha256(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _foreign_operator(model: "onnx.ModelProto") -> str | None:
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


def _nodes(model: "onnx.ModelProto") -> Iterator["onnx.NodeProto"]:
    """Every node; subgraphs and functions included."""
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while nodes:
        node = nodes.pop()
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                nodes.extend(graph.node)


def _tensors(model: "onnx.ModelProto") -> Iterator[tuple["onnx.TensorProto", bool]]:
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


def _raw_bytes(tensor: "onnx.TensorProto") -> int | None:
    """How many bytes of raw data the tensor needs; None where it has none, or is of a type that shares bytes."""
    import onnx

    if not tensor.raw_data:
        return None
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, TypeError):
        return None
    return _elements(tensor.dims) * dtype.itemsize if dtype.isbuiltin == 1 and dtype.kind != "O" else None


def _bytes(tensor: "onnx.TensorProto") -> int:
    import onnx

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


def _limit_memory(file_bytes: int) -> None:
    """A protobuf may ask for far more memory than it has bytes; this process shall not be able to get it."""
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = 4 * 2**30 + 6 * file_bytes
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


if __name__ == "__main__":
    main()
