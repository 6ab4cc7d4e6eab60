"""An inference request: the body's bytes to arrays by input name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from app.engine import Tensor
from app.errors import BadRequest
from app.json_object import mentions_booleans, parse_object
from app.oip import bytes_tensor, json_tensor
from app.oip.datatypes import BINARY_ONLY, BOOL, BYTES, DTYPES, Array
from app.oip.parameters import Parameters, read_flag, read_parameters, read_timeout, refuse_shared_memory
from app.rows import name_of

MAX_ELEMENTS = 2**31
MAX_ID_LENGTH = 1024
NUMBER_BYTES = 12  # in JSON with its comma, give or take
FRAME_BYTES = 150  # of JSON around an output, and around all of them


@dataclass(frozen=True, slots=True)
class Signature:
    """What requests to one model have to fit.

    Args:
        inputs: by name.
        outputs: by name.
        batchable: the first axis of all of them is the batch.
        max_batch: most rows of a batch.
    """

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    batchable: bool
    max_batch: int

    def answers_briefly(self, rows: int, most: int) -> bool:
        """Whether all outputs of that many rows take fewer than about `most` bytes, in JSON too."""
        numbers = 0
        for tensor in self.outputs.values():
            sizes = tensor.shape[1:] if self.batchable else tensor.shape
            if tensor.datatype == BYTES or min(sizes, default=0) < 0:
                return False
            numbers += prod(sizes)
        return (rows if self.batchable else 1) * numbers * NUMBER_BYTES + FRAME_BYTES * (1 + len(self.outputs)) < most


@dataclass(slots=True)
class Wanted:
    """A requested output."""

    name: str
    datatype: str
    binary: bool
    classes: int = 0  # how many of the classification extension; 0 where the tensor itself is wanted


@dataclass(slots=True)
class InferRequest:
    """A request that fits its model; `rows` is the size of its batch, 1 where the model has no batch axis.

    With `receipt` the response says how it came about.
    """

    feeds: dict[str, Array]
    outputs: Sequence[Wanted]
    rows: int
    id: str | None = None
    timeout_s: float | None = None
    receipt: bool = False


def read_request(body: bytes, header_length: int | None, signature: Signature) -> InferRequest:
    """Read the body of an inference.

    Args:
        body: JSON, followed by the blobs of the binary tensors.
        header_length: how many bytes of it are JSON; None for all of them; 0 where the body is the only input's blob.
        signature: of the model.

    Raises:
        BadRequest: it is not a request, or not one that fits the model; no array is larger than what came in.
        NotSupported: it asks for shared memory, sequences or priorities.
    """
    if header_length == 0:
        return _raw(body, signature)
    if header_length is not None and not 0 < header_length <= len(body):
        raise BadRequest(
            f"Inference-Header-Content-Length: got {header_length}, expected 0 to {len(body)}, the length of the body"
        )
    end = len(body) if header_length is None else header_length
    document = parse_object(body if end == len(body) else body[:end])
    parameters = read_parameters(document, "request")
    feeds = _inputs(document, signature, body, end)
    request = InferRequest(feeds, _outputs(document, signature, parameters), _rows(feeds, signature), _id(document))
    if parameters:
        request.timeout_s = read_timeout(parameters)
        request.receipt = read_flag(parameters, "receipt", "request")
    return request


class _Blobs:
    """The binary part of the body, cut off input by input."""

    def __init__(self, body: bytes, start: int) -> None:
        self._data = memoryview(body)[start:]
        self._offset = 0

    def take(self, size: object, name: str) -> memoryview:
        """The next `size` bytes."""
        left = len(self._data) - self._offset
        if type(size) is not int or size < 0:
            raise BadRequest(f"input {name!r}: binary_data_size: got {size!r:.40}, expected a number of bytes")
        if size > left:
            raise BadRequest(f"input {name!r}: got {left} bytes of binary data, expected {size}")
        self._offset += size
        return self._data[self._offset - size : self._offset]

    def check_used(self) -> None:
        """Nothing may be left."""
        if left := len(self._data) - self._offset:
            raise BadRequest(f"body: got {left} bytes after the last input's binary data, expected none")


def _inputs(document: dict[str, Any], signature: Signature, body: bytes, end: int) -> dict[str, Array]:
    entries = document.get("inputs")
    if type(entries) is not list:
        raise BadRequest(f"inputs: got {name_of(entries)}, expected a list")
    blobs = _Blobs(body, end)
    booleans: bool | None = None  # whether the JSON may hold any; not known yet
    feeds: dict[str, Array] = {}
    for entry in entries:
        name = _name(entry, "inputs")
        tensor = signature.inputs.get(name)
        if tensor is None:
            raise BadRequest(f"inputs: got {name[:100]!r}, expected {_names(signature.inputs)}")
        if name in feeds:
            raise BadRequest(f"inputs: got {name!r} twice")
        if entry.get("datatype") != tensor.datatype:
            raise BadRequest(
                f"input {name!r}: datatype: got {entry.get('datatype')!r:.40}, expected {tensor.datatype!r}"
            )
        shape = _shape(entry.get("shape"), tensor)
        size = None
        if "parameters" in entry:
            parameters = read_parameters(entry, f"input {name!r}")
            refuse_shared_memory(parameters, f"input {name!r}")
            size = parameters.get("binary_data_size")
        if size is not None:
            if "data" in entry:
                raise BadRequest(f"input {name!r}: got data and binary_data_size, expected one of them")
            feeds[name] = read_blob(blobs.take(size, name), tensor.datatype, shape, name)
        elif "data" in entry:
            if booleans is None:
                booleans = mentions_booleans(body, end)
            feeds[name] = json_tensor.to_array(entry["data"], tensor.datatype, shape, name, may_hold_booleans=booleans)
        else:
            raise BadRequest(f"input {name!r}: got neither data nor binary_data_size, expected one of them")
    if len(feeds) < len(signature.inputs):
        missing = [name for name in signature.inputs if name not in feeds]
        raise BadRequest(f"inputs: {_names(missing)} missing")
    blobs.check_used()
    return feeds


def read_blob(data: memoryview, datatype: str, shape: tuple[int, ...], name: str) -> Array:
    """The array of an input's binary data.

    Raises:
        BadRequest: its size is not that of the shape, or it is not of the datatype.
    """
    count = prod(shape)
    if datatype == BYTES:
        return bytes_tensor.decode(data, count, name).reshape(shape)
    dtype = DTYPES[datatype]
    if len(data) != count * dtype.itemsize:
        raise BadRequest(
            f"input {name!r}: got {len(data)} bytes of binary data, expected {count * dtype.itemsize} "
            f"for {datatype} {list(shape)}"
        )
    values = np.frombuffer(data, dtype).reshape(shape)
    if datatype == BOOL and (values.view(np.uint8) > 1).any():
        raise BadRequest(f"input {name!r}: got a byte other than 0 and 1, expected booleans")
    # The blob begins where the JSON ends, which is anywhere.
    return values if values.flags.aligned else values.copy()


def _outputs(document: dict[str, Any], signature: Signature, parameters: Parameters) -> list[Wanted]:
    binary = read_flag(parameters, "binary_data_output", "request") if parameters else False
    entries = document.get("outputs")
    if entries is None or entries == []:
        wanted = [Wanted(tensor.name, tensor.datatype, binary) for tensor in signature.outputs.values()]
    elif type(entries) is not list:
        raise BadRequest(f"outputs: got {name_of(entries)}, expected a list")
    else:
        wanted = [_output(entry, signature, binary=binary) for entry in entries]
        if len(wanted) > 1 and len({output.name for output in wanted}) < len(wanted):
            raise BadRequest("outputs: got one of them twice")
    for output in wanted:
        if output.datatype in BINARY_ONLY and not output.binary and not output.classes:
            raise BadRequest(f"output {output.name!r}: {output.datatype} has no JSON form; ask for binary_data")
    return wanted


def _output(entry: Any, signature: Signature, *, binary: bool) -> Wanted:
    name = _name(entry, "outputs")
    tensor = signature.outputs.get(name)
    if tensor is None:
        raise BadRequest(f"outputs: got {name[:100]!r}, expected {_names(signature.outputs)}")
    wanted = Wanted(name, tensor.datatype, binary)
    if "parameters" in entry:
        parameters = read_parameters(entry, f"output {name!r}")
        refuse_shared_memory(parameters, f"output {name!r}")
        wanted.classes = _classes(parameters, tensor)
        if "binary_data" in parameters:
            wanted.binary = read_flag(parameters, "binary_data", f"output {name!r}")
    return wanted


def _classes(parameters: Parameters, tensor: Tensor) -> int:
    classes: object = parameters.get("classification", 0)
    if type(classes) is not int or not 0 <= classes < 2**31:
        raise BadRequest(f"output {tensor.name!r}: classification: got {classes!r:.40}, expected a number of classes")
    if classes and tensor.datatype in {BYTES, BOOL}:
        raise BadRequest(
            f"output {tensor.name!r}: classification: got {tensor.datatype}, expected an output of numbers"
        )
    return classes


def _raw(body: bytes, signature: Signature) -> InferRequest:
    """The whole body is the only input's blob, one row where there is a batch axis; all outputs are binary."""
    if len(signature.inputs) != 1:
        raise BadRequest(
            f"Inference-Header-Content-Length: got 0 for {len(signature.inputs)} inputs, expected one input"
        )
    name, tensor = next(iter(signature.inputs.items()))
    sizes = [1, *tensor.shape[1:]] if signature.batchable else list(tensor.shape)
    variable = [axis for axis, size in enumerate(sizes) if size < 0]
    known = prod(size for size in sizes if size >= 0)
    place = f"input {name!r}: Inference-Header-Content-Length: got 0"
    if len(variable) > 1:
        raise BadRequest(f"{place} for shape {list(tensor.shape)}, expected at most one dimension to infer")
    view = memoryview(body)
    if tensor.datatype == BYTES:
        if known != 1:
            raise BadRequest(f"{place} for BYTES of shape {list(tensor.shape)}, expected one element")
        values = np.empty(1, object)
        values[0] = bytes_tensor.text(view, 0, name)
        shape = tuple(1 if size < 0 else size for size in sizes)
        return InferRequest({name: values.reshape(shape)}, _all_binary(signature), 1)
    for axis in variable:
        sizes[axis] = len(body) // max(1, known * DTYPES[tensor.datatype].itemsize)
    return InferRequest({name: read_blob(view, tensor.datatype, tuple(sizes), name)}, _all_binary(signature), 1)


def _all_binary(signature: Signature) -> list[Wanted]:
    return [Wanted(tensor.name, tensor.datatype, binary=True) for tensor in signature.outputs.values()]


def _shape(shape: Any, tensor: Tensor) -> tuple[int, ...]:
    if type(shape) is not list or len(shape) != len(tensor.shape):
        raise BadRequest(f"input {tensor.name!r}: shape: got {shape!r:.100}, expected {list(tensor.shape)}")
    elements = 1
    for size, expected in zip(shape, tensor.shape, strict=True):
        if type(size) is not int or (size != expected if expected >= 0 else size < 0):
            raise BadRequest(f"input {tensor.name!r}: shape: got {shape!r:.100}, expected {list(tensor.shape)}")
        elements *= size or 1  # sizes of 0 left out: numpy multiplies the others all the same
    if elements > MAX_ELEMENTS:
        raise BadRequest(f"input {tensor.name!r}: shape: got {shape!r:.100}, expected at most {MAX_ELEMENTS} elements")
    return tuple(shape)


def _rows(feeds: Mapping[str, Array], signature: Signature) -> int:
    if not signature.batchable:
        return 1
    sizes = [values.shape[0] for values in feeds.values()]
    if len(sizes) > 1 and sizes.count(sizes[0]) < len(sizes):
        raise BadRequest(f"inputs: got batches of {', '.join(map(str, sizes))} rows, expected equal ones")
    if sizes[0] > signature.max_batch:
        raise BadRequest(f"inputs: got {sizes[0]} rows, expected at most {signature.max_batch} (KRON_MAX_BATCH)")
    return sizes[0]


def _id(document: dict[str, Any]) -> str | None:
    value = document.get("id")
    if value is not None and (type(value) is not str or len(value) > MAX_ID_LENGTH):
        raise BadRequest(f"id: got {value!r:.40}, expected a string of at most {MAX_ID_LENGTH} characters")
    return value


def _name(entry: Any, place: str) -> str:
    if type(entry) is not dict:
        raise BadRequest(f"{place}: got {name_of(entry)} in the list, expected objects")
    name = entry.get("name")
    if type(name) is not str:
        raise BadRequest(f"{place}: name: got {name_of(name)}, expected a string")
    return name


def _names(names: Sequence[str] | Mapping[str, object]) -> str:
    return ", ".join(repr(name) for name in names)[:500]
