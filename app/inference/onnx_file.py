"""ONNX files, where onnxruntime needs help with them: weights in other files, and classifiers that end in ZipMap.

Reads the file without the `onnx` package, which neither the service nor the measuring processes load.
"""

import mmap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.inference.wire_format import (
    BYTES,
    Buffer,
    Field,
    MalformedMessage,
    read_fields,
    read_integers,
    write_field,
    write_varint,
)

# Numbers of fields in onnx.proto.
_MODEL_GRAPH, _MODEL_OPSET, _MODEL_METADATA = 7, 8, 14
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_ATTRIBUTE_NAME, _ATTRIBUTE_GRAPH, _ATTRIBUTE_INTS, _ATTRIBUTE_STRINGS, _ATTRIBUTE_GRAPHS = 1, 6, 8, 9, 11
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 2, 8, 13, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR, _TYPE_ELEMENT, _TYPE_SHAPE, _SHAPE_DIM, _DIM_VALUE = 1, 1, 2, 1, 1
_EXTERNAL = 1  # of TensorProto.DataLocation
_FLOAT = 1  # of TensorProto.DataType
_IDENTITY_OPSET = 13  # any that has Identity would do
_SMALL_ENTRY = 100  # bytes; a model card is longer
_FOLDED_WEIGHTS = ("kronmodel.folded_weights", "1")  # metadata of files whose DequantizeLinear nodes may be folded


@dataclass(frozen=True, slots=True)
class ExternalTensor:
    """Initializer of the main graph that is kept in another file.

    Args:
        name: of the initializer.
        data_type: number of its datatype in ONNX.
        dims: its shape.
        location: path of the file, relative to the folder of the ONNX file; not checked.
        offset: of the first byte in that file.
        length: number of bytes; None where the file does not say.
    """

    name: str
    data_type: int
    dims: tuple[int, ...]
    location: str
    offset: int
    length: int | None


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """An ONNX file, as far as opening a session needs to know it.

    A classifier of scikit-learn or LightGBM is exported with ZipMap as its last node, which turns probabilities into a
    sequence of maps. `content` has an Identity in its place, so that the output is the tensor of probabilities.

    Args:
        path: of the file.
        external: initializers that are kept in other files.
        unused: names of those that no node uses; onnxruntime has removed them before it is given their values.
        class_labels: names of the classes, ZipMap's keys, by the name of each output that ended in ZipMap.
        edits: replacements of bytes, by their start and stop, in ascending order.
        folded_weights: whether quantised weights are to be made floats when the session is opened: the file says so for
            a network that is so small that making them in every run takes longer than the run.
    """

    path: Path
    external: Sequence[ExternalTensor] = ()
    unused: Collection[str] = ()
    class_labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    edits: Sequence[tuple[int, int, bytes]] = ()
    folded_weights: bool = False

    @classmethod
    def read(cls, path: Path) -> "OnnxFile":
        """Read a file. Only its small parts are read, so that it takes no memory to speak of.

        Nothing is found in a file that is no ONNX file; onnxruntime refuses it.

        Raises:
            OSError: it cannot be read.
        """
        with path.open("rb") as file:
            if not file.seek(0, 2):
                return cls(path)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                try:
                    return cls._parse(path, data)
                except MalformedMessage:
                    return cls(path)

    @classmethod
    def _parse(cls, path: Path, data: mmap.mmap) -> "OnnxFile":
        external: list[ExternalTensor] = []
        edits: list[tuple[int, int, bytes]] = []
        labels: dict[str, Sequence[str]] = {}
        for graph in _fields(data, 0, len(data), _MODEL_GRAPH):
            fields = list(read_fields(data, graph.start, graph.stop))
            tensors = (_external_tensor(data, each) for each in fields if each.number == _GRAPH_INITIALIZER)
            external += (tensor for tensor in tensors if tensor is not None)
            zip_maps = _find_zip_maps(data, fields)
            if zip_maps:
                inner = sorted([*_free_labels(data, fields), *(edit for each in zip_maps for edit in each.edits)])
                length = graph.stop - graph.start + sum(len(new) - (stop - start) for start, stop, new in inner)
                head = write_varint(_MODEL_GRAPH << 3 | BYTES) + write_varint(length)
                edits += [(graph.begin, graph.start, head), *inner]
                labels |= {zip_map.output: zip_map.labels for zip_map in zip_maps}
        if labels and not _imports_default_domain(data):
            opset = write_field(_OPSET_DOMAIN, b"") + write_field(_OPSET_VERSION, _IDENTITY_OPSET)
            edits.append((len(data), len(data), write_field(_MODEL_OPSET, opset)))
        unused = {tensor.name for tensor in external} - _used_names(data) if external else ()
        metadata = _fields(data, 0, len(data), _MODEL_METADATA)
        folded = any(
            _entry(data, each) == _FOLDED_WEIGHTS for each in metadata if each.stop - each.start < _SMALL_ENTRY
        )
        return cls(path, external, unused, labels, edits, folded)

    @property
    def content(self) -> str | bytes:
        """The model for onnxruntime: the path of the file, or its bytes where some of them are replaced."""
        if not self.edits:
            return str(self.path)
        parts: list[bytes] = []
        position = 0
        with self.path.open("rb") as file:
            for start, stop, new in self.edits:
                parts += [file.read(start - position), new]
                position = file.seek(stop)
            parts.append(file.read())
        return b"".join(parts)


def _used_names(data: Buffer) -> set[str]:
    """The names of all values that nodes use or that graphs give, those of subgraphs included."""
    names: set[str] = set()
    graphs = list(_fields(data, 0, len(data), _MODEL_GRAPH))
    while graphs:
        graph = graphs.pop()
        for each in read_fields(data, graph.start, graph.stop):
            if each.number == _GRAPH_OUTPUT:
                names.update(_text(data, name) for name in _name(data, each))
            elif each.number == _GRAPH_NODE:
                for part in read_fields(data, each.start, each.stop):
                    if part.number == _NODE_INPUT:
                        names.add(_text(data, part))
                    elif part.number == _NODE_ATTRIBUTE:
                        attributes = read_fields(data, part.start, part.stop)
                        graphs += (one for one in attributes if one.number in {_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS})
    return names


@dataclass(frozen=True, slots=True)
class _ZipMap:
    """ZipMap node that gives an output of the graph, its labels, and the edits that put an Identity in its place."""

    output: str
    labels: Sequence[str]
    edits: Sequence[tuple[int, int, bytes]]


def _find_zip_maps(data: mmap.mmap, fields: Sequence[Field]) -> list[_ZipMap]:
    """Find the ZipMap nodes of a graph whose outputs are outputs of the graph, and of nothing else."""
    nodes = [each for each in fields if each.number == _GRAPH_NODE]
    candidates = [node for node in nodes if data.find(b"ZipMap", node.start, node.stop) >= 0]
    if not candidates:
        return []
    outputs = {_text(data, name): each for each in fields if each.number == _GRAPH_OUTPUT for name in _name(data, each)}
    used = {_text(data, each) for node in nodes for each in _fields(data, node.start, node.stop, _NODE_INPUT)}
    found = []
    for node in candidates:
        parts = list(read_fields(data, node.start, node.stop))
        inputs, results, types, domains = (
            [_text(data, part) for part in parts if part.number == number]
            for number in (_NODE_INPUT, _NODE_OUTPUT, _NODE_TYPE, _NODE_DOMAIN)
        )
        labels = _class_labels(data, [part for part in parts if part.number == _NODE_ATTRIBUTE])
        if types != ["ZipMap"] or domains != ["ai.onnx.ml"] or len(inputs) != 1 or len(results) != 1 or not labels:
            continue
        output = outputs.get(results[0])
        if output is None or results[0] in used:
            continue
        name = results[0].encode()
        identity = (
            write_field(_NODE_INPUT, inputs[0].encode())
            + write_field(_NODE_OUTPUT, name)
            + write_field(_NODE_TYPE, b"Identity")
        )
        value = write_field(_VALUE_NAME, name) + write_field(_VALUE_TYPE, _tensor_type(_FLOAT, [None, len(labels)]))
        edits = [
            (node.begin, node.stop, write_field(_GRAPH_NODE, identity)),
            (output.begin, output.stop, write_field(_GRAPH_OUTPUT, value)),
        ]
        found.append(_ZipMap(results[0], labels, edits))
    return found


def _class_labels(data: Buffer, attributes: Sequence[Field]) -> list[str]:
    """The keys of a ZipMap node as text."""
    labels: list[str] = []
    for attribute in attributes:
        fields = list(read_fields(data, attribute.start, attribute.stop))
        name = [_text(data, each) for each in fields if each.number == _ATTRIBUTE_NAME]
        if name == ["classlabels_int64s"]:
            integers = (each for each in fields if each.number == _ATTRIBUTE_INTS)
            labels += (str(value) for each in integers for value in read_integers(data, each))
        elif name == ["classlabels_strings"]:
            labels += (_text(data, each) for each in fields if each.number == _ATTRIBUTE_STRINGS)
    return labels


def _free_labels(data: Buffer, fields: Sequence[Field]) -> Iterator[tuple[int, int, bytes]]:
    """The edits that leave the number of a classifier's labels open, which LightGBM's converter declares as 1."""
    inputs = [_tensor_shape(data, each)[1] for each in fields if each.number == _GRAPH_INPUT]
    if not any(shape[:1] == [None] for shape in inputs):
        return
    for output in fields:
        if output.number == _GRAPH_OUTPUT:
            element, shape = _tensor_shape(data, output)
            if shape == [1]:
                name = b"".join(data[each.start : each.stop] for each in _name(data, output))
                value = write_field(_VALUE_NAME, name) + write_field(_VALUE_TYPE, _tensor_type(element, [None]))
                yield output.begin, output.stop, write_field(_GRAPH_OUTPUT, value)


def _tensor_shape(data: Buffer, value: Field) -> tuple[int, list[int | None]]:
    """The datatype and shape of a graph's input or output; 0 and an empty shape for what is no tensor."""
    element, shape = 0, list[int | None]()
    for kind in _fields(data, value.start, value.stop, _VALUE_TYPE):
        for tensor in _fields(data, kind.start, kind.stop, _TYPE_TENSOR):
            for part in read_fields(data, tensor.start, tensor.stop):
                if part.number == _TYPE_ELEMENT:
                    element = part.value
                elif part.number == _TYPE_SHAPE:
                    for dim in _fields(data, part.start, part.stop, _SHAPE_DIM):
                        sizes = [size.value for size in _fields(data, dim.start, dim.stop, _DIM_VALUE)]
                        shape.append(sizes[-1] if sizes else None)
    return element, shape


def _tensor_type(element: int, shape: Sequence[int | None]) -> bytes:
    """A serialized `TypeProto` of a tensor; None in the shape is a dimension of any size."""
    dims = (b"" if size is None else write_field(_DIM_VALUE, size) for size in shape)
    sizes = b"".join(write_field(_SHAPE_DIM, dim) for dim in dims)
    return write_field(_TYPE_TENSOR, write_field(_TYPE_ELEMENT, element) + write_field(_TYPE_SHAPE, sizes))


def _external_tensor(data: Buffer, tensor: Field) -> ExternalTensor | None:
    """Read an initializer; None if its values are in this file."""
    fields = [each for each in read_fields(data, tensor.start, tensor.stop) if each.number <= _TENSOR_LOCATION]
    if [each.value for each in fields if each.number == _TENSOR_LOCATION][-1:] != [_EXTERNAL]:
        return None
    entries = dict(_entry(data, each) for each in fields if each.number == _TENSOR_EXTERNAL)
    length = entries.get("length")
    return ExternalTensor(
        name="".join([_text(data, each) for each in fields if each.number == _TENSOR_NAME][-1:]),
        data_type=sum([each.value for each in fields if each.number == _TENSOR_TYPE][-1:]),
        dims=tuple(value for each in fields if each.number == _TENSOR_DIMS for value in read_integers(data, each)),
        location=entries.get("location", ""),
        offset=_size(entries.get("offset") or "0"),
        length=None if not length else _size(length),
    )


def _entry(data: Buffer, entry: Field) -> tuple[str, str]:
    texts = {each.number: _text(data, each) for each in read_fields(data, entry.start, entry.stop)}
    return texts.get(_ENTRY_KEY, ""), texts.get(_ENTRY_VALUE, "")


def _size(text: str) -> int:
    """The number of an offset or length; -1 for any other text, which no file satisfies."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1


def _imports_default_domain(data: Buffer) -> bool:
    """Whether the model imports ONNX's own operators."""
    for opset in _fields(data, 0, len(data), _MODEL_OPSET):
        domain = [_text(data, each) for each in _fields(data, opset.start, opset.stop, _OPSET_DOMAIN)]
        if domain in ([], [""], ["ai.onnx"]):
            return True
    return False


def _fields(data: Buffer, start: int, stop: int, number: int) -> Iterator[Field]:
    return (each for each in read_fields(data, start, stop) if each.number == number)


def _name(data: Buffer, value: Field) -> list[Field]:
    """The field of a value's name, in a list."""
    return [*_fields(data, value.start, value.stop, _VALUE_NAME)][-1:]


def _text(data: Buffer, each: Field) -> str:
    try:
        return data[each.start : each.stop].decode()
    except UnicodeDecodeError:
        raise MalformedMessage("got text that is not UTF-8") from None
