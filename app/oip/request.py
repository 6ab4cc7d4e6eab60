"""An inference request: the body's bytes to arrays by input name."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from app.errors import BadRequest
from app.inference.datatypes import BINARY_ONLY, BOOL, BYTES, DTYPES, Array, Tensor
from app.oip import bytes_data, json_data
from app.oip.binary_data import BinarySection, read_blob
from app.oip.infer_request import InferRequest, RequestedOutput
from app.oip.parameters import Parameters, read_flag, read_parameters, read_timeout, refuse_shared_memory
from app.oip.signature import Signature
from app.parsing import mentions_booleans, name_of, parse_object

MAX_ELEMENTS = 2**31
MAX_ID_LENGTH = 1024


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
    known = signature.known
    if header_length is None:
        request = known.json(body)
        if request is None:
            request = _read(body, body, signature)
            known.remember_json(body, request)
    else:
        request = known.binary(body, header_length)
        if request is None:
            request = _read(body[:header_length], body, signature)
            known.remember_binary(body, header_length, request)
    return request


def _read(head: bytes, body: bytes, signature: Signature) -> InferRequest:
    document = parse_object(head)
    parameters = read_parameters(document, "request")
    feeds = _inputs(document, signature, body, len(head))
    request = InferRequest(feeds, _outputs(document, signature, parameters), _rows(feeds, signature), _id(document))
    if parameters:
        request.timeout_s = read_timeout(parameters)
        request.receipt = read_flag(parameters, "receipt", "request")
    return request


def _inputs(document: dict[str, Any], signature: Signature, body: bytes, end: int) -> dict[str, Array]:
    entries = document.get("inputs")
    if type(entries) is not list:
        raise BadRequest(f"inputs: got {name_of(entries)}, expected a list")
    blobs = BinarySection(body, end)
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
            feeds[name] = json_data.to_array(entry["data"], tensor.datatype, shape, name, may_hold_booleans=booleans)
        else:
            raise BadRequest(f"input {name!r}: got neither data nor binary_data_size, expected one of them")
    if len(feeds) < len(signature.inputs):
        missing = [name for name in signature.inputs if name not in feeds]
        raise BadRequest(f"inputs: {_names(missing)} missing")
    blobs.check_used()
    return feeds


def _outputs(document: dict[str, Any], signature: Signature, parameters: Parameters) -> list[RequestedOutput]:
    binary = read_flag(parameters, "binary_data_output", "request") if parameters else False
    entries = document.get("outputs")
    if entries is None or entries == []:
        wanted = [RequestedOutput(tensor.name, tensor.datatype, binary) for tensor in signature.outputs.values()]
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


def _output(entry: Any, signature: Signature, *, binary: bool) -> RequestedOutput:
    name = _name(entry, "outputs")
    tensor = signature.outputs.get(name)
    if tensor is None:
        raise BadRequest(f"outputs: got {name[:100]!r}, expected {_names(signature.outputs)}")
    wanted = RequestedOutput(name, tensor.datatype, binary)
    if "parameters" in entry:
        parameters = read_parameters(entry, f"output {name!r}")
        refuse_shared_memory(parameters, f"output {name!r}")
        wanted.classes = _classes(parameters, tensor)
        if "binary_data" in parameters:
            wanted.binary = read_flag(parameters, "binary_data", f"output {name!r}")
    return wanted


def _classes(parameters: Parameters, tensor: Tensor) -> int:
    classes: object = parameters.get("classification", 0)
    if not isinstance(classes, int) or isinstance(classes, bool) or not 0 <= classes < 2**31:
        raise BadRequest(f"output {tensor.name!r}: classification: got {classes!r:.40}, expected a number of classes")
    if classes and tensor.datatype in {BYTES, BOOL}:
        raise BadRequest(
            f"output {tensor.name!r}: classification: got {tensor.datatype}, expected an output of numbers"
        )
    return int(classes)


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
        values[0] = bytes_data.text(view, 0, name)
        shape = tuple(1 if size < 0 else size for size in sizes)
        return InferRequest({name: values.reshape(shape)}, _all_binary(signature), 1)
    for axis in variable:
        sizes[axis] = len(body) // max(1, known * DTYPES[tensor.datatype].itemsize)
    return InferRequest({name: read_blob(view, tensor.datatype, tuple(sizes), name)}, _all_binary(signature), 1)


def _all_binary(signature: Signature) -> list[RequestedOutput]:
    return [RequestedOutput(tensor.name, tensor.datatype, binary=True) for tensor in signature.outputs.values()]


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
    sizes: list[int] = [values.shape[0] for values in feeds.values()]
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
