"""ONNX models with their large weights in files of a temporary folder, which onnxruntime and numpy map into memory."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from kronmodel.errors import KronmodelError
from kronmodel.export.inspect import MAX_FILE_BYTES, read_model

__all__ = ["Workspace", "byte_size", "graphs_of"]

LARGE = 4096  # bytes from which weights are kept in a file
ALIGNMENT = 4096  # of each tensor in a file, as memory mapping asks for
EXTERNAL_KEYS = ("location", "offset", "length")
PACKED_BITS = {
    getattr(TensorProto, name): bits
    for bits, names in {
        2: ("INT2", "UINT2"),
        4: ("INT4", "UINT4", "FLOAT4E2M1"),
        6: ("FLOAT6E2M3", "FLOAT6E3M2"),
    }.items()
    for name in names
    if hasattr(TensorProto, name)
}  # bits of the values that are stored next to each other


class Workspace:
    """Temporary folder with one model's large weights; a context manager that removes the folder at the end.

    The models in the workspace are small: their large tensors refer to files of the folder. Copies of a model share
    these files, and each can be written to the folder and opened by onnxruntime.

    Args:
        source: path of the ONNX file.

    Attributes:
        folder: the temporary folder.
        model: the file's model; not to be changed.
        data_files: files beside ``source`` that hold weights of the model.

    Raises:
        KronmodelError: the file can't be read, is too large, is not ONNX, or a file of its weights is missing.
    """

    def __init__(self, source: Path) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="kronmodel-compress-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name)
        self.data_files: list[Path] = []
        self._count = 0
        try:
            self.model = self._read(source)
        except BaseException:
            self._temporary.cleanup()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._temporary.cleanup()

    def array(self, tensor: TensorProto) -> NDArray[Any]:
        """Return the values of a tensor; large ones are a read-only view of the mapped file."""
        if tensor.data_location != TensorProto.EXTERNAL:
            return numpy_helper.to_array(tensor)
        place = {entry.key: entry.value for entry in tensor.external_data}
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        if byte_size(tensor) != math.prod(tensor.dims) * np.dtype(dtype).itemsize:  # packed, such as int4
            return numpy_helper.to_array(self._embedded(tensor))
        return np.memmap(
            self.folder / place["location"],
            dtype=dtype,
            mode="r",
            offset=int(place["offset"]),
            shape=tuple(tensor.dims),
        )

    def tensor(self, name: str, array: NDArray[Any]) -> TensorProto:
        """Make a tensor of new values; large ones are written to a file of the folder."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
        if len(tensor.raw_data) < LARGE:
            return tensor
        self._count += 1
        location = f"new-{self._count}"
        (self.folder / location).write_bytes(tensor.raw_data)
        return _reference(tensor, location, 0, len(tensor.raw_data))

    def write(self, model: onnx.ModelProto, name: str) -> Path:
        """Write a model to the folder, beside the files that it refers to, and return its path."""
        path = self.folder / name
        path.write_bytes(model.SerializeToString())
        return path

    def size_of(self, model: onnx.ModelProto) -> int:
        """Compute the size of a model with all weights inside it, at most about 100 bytes a weight too large."""
        return model.ByteSize() + sum(byte_size(each) for each in _external(model))

    @contextmanager
    def scratch(self) -> Iterator[None]:
        """Delete the files of the tensors that are made meanwhile."""
        first = self._count
        try:
            yield
        finally:
            for number in range(first + 1, self._count + 1):
                (self.folder / f"new-{number}").unlink(missing_ok=True)

    def save(self, model: onnx.ModelProto, name: str) -> Path:
        """Write a model with all weights inside it to the folder, one by one, and return its path.

        Raises:
            KronmodelError: the file is larger than an ONNX file can be.
        """
        size = self.size_of(model)
        if size > MAX_FILE_BYTES:
            raise KronmodelError(
                f"the result has {size:,} bytes, expected at most {MAX_FILE_BYTES:,} for one ONNX file"
            )
        outer, path = onnx.ModelProto(), self.folder / name
        outer.CopyFrom(model)
        graph = onnx.GraphProto()
        graph.CopyFrom(outer.graph)
        outer.ClearField("graph")
        tensors = list(graph.initializer)
        graph.ClearField("initializer")
        for tensor in (tensor for inner in graphs_of(graph) for tensor in inner.initializer):
            if tensor.data_location == TensorProto.EXTERNAL:
                tensor.CopyFrom(self._embedded(tensor))
        heads = [_initializer(tensor) for tensor in tensors]
        lengths = [_length(each) for each in tensors]
        with path.open("wb") as file:
            file.write(outer.SerializeToString())
            whole = graph.SerializeToString()
            file.write(_field(onnx.ModelProto, "graph", len(whole) + sum(map(len, heads)) + sum(lengths)) + whole)
            for tensor, head, length in zip(tensors, heads, lengths, strict=True):
                file.write(head)
                if length:
                    file.write(self._content(tensor))
        return path

    def _content(self, tensor: TensorProto) -> bytes:
        place = {entry.key: entry.value for entry in tensor.external_data}
        with (self.folder / place["location"]).open("rb") as file:
            file.seek(int(place["offset"]))
            return file.read(int(place["length"]))

    def _embedded(self, tensor: TensorProto) -> TensorProto:
        copy = _bare(tensor)
        copy.raw_data = self._content(tensor)
        return copy

    def _read(self, source: Path) -> onnx.ModelProto:
        model = read_model(source)
        if not model.graph.node:
            raise KronmodelError(f"{source} is not an ONNX file: it holds no graph")
        with (self.folder / "weights").open("wb") as file:
            for graph in graphs_of(model.graph):
                for tensor in graph.initializer:
                    content = self._large_content(tensor, source)
                    if content is not None:
                        offset = -(-file.tell() // ALIGNMENT) * ALIGNMENT
                        file.seek(offset)
                        file.write(content)
                        tensor.CopyFrom(_reference(tensor, "weights", offset, len(content)))
        small = onnx.ModelProto()  # a copy, because protobuf frees the weights' memory only with the whole message
        small.CopyFrom(model)
        return small

    def _large_content(self, tensor: TensorProto, source: Path) -> bytes | None:
        """Read the bytes of a large or external tensor; None for one that stays in the model."""
        if tensor.data_location != TensorProto.EXTERNAL:
            return tensor.raw_data if len(tensor.raw_data) >= LARGE else None
        place = {entry.key: entry.value for entry in tensor.external_data}
        name = place.get("location", "")
        what = f"{source}: the weight {tensor.name!r} lies in {name!r}"
        try:
            path = (source.parent / name).resolve()
            if source.parent.resolve() not in path.parents:
                raise KronmodelError(f"{what}, outside of the model's folder")
            offset = int(place.get("offset", 0))
            length = int(place.get("length", path.stat().st_size - offset))
            if not 0 <= offset <= offset + length <= path.stat().st_size:
                raise KronmodelError(f"{what}, which has {path.stat().st_size:,} bytes, expected {offset + length:,}")
            with path.open("rb") as file:
                file.seek(offset)
                content = file.read(length)
        except (OSError, ValueError) as error:
            raise KronmodelError(f"{what}, which can't be read: {error}") from error
        if path not in self.data_files:
            self.data_files.append(path)
        if byte_size(tensor) not in (None, length) and all(tensor.dims):
            raise KronmodelError(f"{what}, as {length:,} bytes, expected {byte_size(tensor):,}")
        return content


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Iterate over a graph and the subgraphs of its nodes at any depth."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from graphs_of(inner)


def byte_size(tensor: TensorProto) -> int:
    """Return the number of bytes of a tensor's values, as a file stores them."""
    packed = PACKED_BITS.get(tensor.data_type)
    bits = packed or 8 * np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
    return -(-int(math.prod(list(tensor.dims))) * bits // 8)


def _external(model: onnx.ModelProto) -> list[TensorProto]:
    return [
        tensor
        for graph in graphs_of(model.graph)
        for tensor in graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
    ]


def _initializer(tensor: TensorProto) -> bytes:
    """Serialise a graph's initializer; of one with its values in a file, all but these, which follow."""
    if tensor.data_location != TensorProto.EXTERNAL:
        whole = tensor.SerializeToString()
        return _field(onnx.GraphProto, "initializer", len(whole)) + whole
    length = _length(tensor)
    head = _bare(tensor).SerializeToString() + _field(TensorProto, "raw_data", length)
    return _field(onnx.GraphProto, "initializer", len(head) + length) + head


def _length(tensor: TensorProto) -> int:
    """Return the number of bytes that a file holds of a tensor; 0 if the model holds it."""
    return next((int(entry.value) for entry in tensor.external_data if entry.key == "length"), 0)


def _field(message: Any, name: str, length: int) -> bytes:
    """Encode the start of a field of a protobuf message, of bytes or of a message of a length."""
    number = message.DESCRIPTOR.fields_by_name[name].number
    return _varint(number << 3 | 2) + _varint(length)


def _varint(value: int) -> bytes:
    """Encode a number as protobuf does: 7 bits a byte, the lowest ones first."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _bare(tensor: TensorProto) -> TensorProto:
    """Copy a tensor without its values."""
    copy = TensorProto(dims=tensor.dims)
    for field in ("name", "data_type", "doc_string"):
        if tensor.HasField(field):
            setattr(copy, field, getattr(tensor, field))
    copy.metadata_props.extend(tensor.metadata_props)
    return copy


def _reference(tensor: TensorProto, location: str, offset: int, length: int) -> TensorProto:
    """Copy a tensor without its values, with a reference to their place in a file."""
    copy = _bare(tensor)
    copy.data_location = TensorProto.EXTERNAL
    for key, value in zip(EXTERNAL_KEYS, (location, offset, length), strict=True):
        copy.external_data.add(key=key, value=str(value))
    return copy
