"""An inference request: the body's bytes decoded to arrays by input name, and checked against a signature."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from app.errors import BadRequest
from app.inference.datatypes import BINARY_ONLY, BOOL, BYTES, DATATYPES, Array, Tensor
from app.oip.binary_data import BinarySection, decode_binary_tensor, decode_utf8
from app.oip.infer_request import InferRequest, RequestedOutput
from app.oip.json_data import decode_json_tensor, mentions_booleans
from app.oip.parameters import Parameters, read_flag, read_parameters, read_timeout, refuse_shared_memory
from app.oip.signature import Signature
from app.parsing import LONG_BYTES, Object, is_long, name_of, parse_object, parse_with_arrays

MAX_ELEMENTS = 2**31
MAX_RANK = 64  # of a tensor of any rank, the most that numpy has
MAX_STRINGS = 2**18  # of all inputs; onnxruntime copies them one by one, while no other thread can run
MAX_ID_LENGTH = 1024


def read_request(body: bytes, header_length: int | None, signature: Signature) -> InferRequest:
    """Read the body of an inference request. Memory is bounded by the body's size, whatever shapes it states.

    Args:
        body: JSON, followed by the binary data of the inputs.
        header_length: number of bytes of the JSON; None for the whole body; 0 if the body is one input's binary data.
        signature: of the model.

    Raises:
        BadRequest: it is not a valid request, or does not fit the model.
        NotSupported: it asks for shared memory, a sequence or a priority.
    """
    if header_length == 0:
        return _read_raw(body, signature)
    if header_length is not None and not 0 < header_length <= len(body):
        raise BadRequest(
            f"Inference-Header-Content-Length: got {header_length}, expected 0 to {len(body)}, the length of the body"
        )
    cache = signature.request_cache
    request: InferRequest | None
    if header_length is None and is_long(body):
        request = _parse_request(body, body, signature, long=True)
    elif header_length is None:
        request = cache.read_json(body)
        if request is None:
            request = _parse_request(body, body, signature, long=False)
            cache.add_json(body, request)
    else:
        request = cache.read_binary(body, header_length)
        if request is None:
            header = body[:header_length]
            request = _parse_request(header, body, signature, long=is_long(header))
            cache.add_binary(body, header_length, request)
    return request


def _parse_request(header: bytes, body: bytes, signature: Signature, *, long: bool) -> InferRequest:
    document = _parse_long(header) if long else parse_object(header, max_bytes=LONG_BYTES)
    parameters = read_parameters(document, "request")
    feeds = _read_inputs(document, signature, body, len(header))
    outputs = _read_outputs(document, signature, parameters)
    request = InferRequest(feeds, outputs, _count_rows(feeds, signature), _read_id(document))
    if parameters:
        request.timeout_s = read_timeout(parameters)
        request.provenance = read_flag(parameters, "receipt", "request")
    return request


def _parse_long(header: bytes) -> Object:
    """Parse all JSON but the data of the inputs."""
    return parse_with_arrays(header, "data", _input_entries)


def _input_entries(document: Object) -> list[Object]:
    entries = document.get("inputs")
    return [entry for entry in entries if type(entry) is dict] if type(entries) is list else []


def _read_inputs(document: dict[str, Any], signature: Signature, body: bytes, end: int) -> dict[str, Array]:
    entries = document.get("inputs", [] if not signature.inputs else None)
    if type(entries) is not list:
        raise BadRequest(f"inputs: got {name_of(entries)}, expected a list")
    binary = BinarySection(body, end)
    strings = 0
    booleans: bool | None = None  # whether the JSON may have any; found out for the first input in JSON
    feeds: dict[str, Array] = {}
    for entry in entries:
        name = _read_name(entry, "inputs")
        tensor = signature.inputs.get(name)
        if tensor is None:
            raise BadRequest(f"inputs: got {name[:100]!r}, expected {_quoted(signature.inputs)}")
        if name in feeds:
            raise BadRequest(f"inputs: got {name!r} twice, expected each name once")
        if entry.get("datatype") != tensor.datatype:
            raise BadRequest(
                f"input {name!r}: datatype: got {entry.get('datatype')!r:.40}, expected {tensor.datatype!r}"
            )
        shape = _read_shape(entry.get("shape"), tensor)
        strings += _count_strings(shape, tensor, strings)
        size = None
        if "parameters" in entry:
            parameters = read_parameters(entry, f"input {name!r}")
            refuse_shared_memory(parameters, f"input {name!r}")
            size = parameters.get("binary_data_size")
        if size is not None:
            if "data" in entry:
                raise BadRequest(f"input {name!r}: got data and binary_data_size, expected one of them")
            feeds[name] = decode_binary_tensor(binary.take(size, name), tensor.datatype, shape, name)
        elif "data" in entry:
            if booleans is None:
                booleans = mentions_booleans(body, end)
            feeds[name] = decode_json_tensor(entry["data"], tensor.datatype, shape, name, may_have_booleans=booleans)
        else:
            raise BadRequest(f"input {name!r}: got neither data nor binary_data_size, expected one of them")
    if len(feeds) < len(signature.inputs):
        missing = [name for name in signature.inputs if name not in feeds]
        raise BadRequest(f"inputs: {_quoted(missing)} missing")
    binary.check_all_read()
    return feeds


def _read_outputs(document: dict[str, Any], signature: Signature, parameters: Parameters) -> list[RequestedOutput]:
    binary = read_flag(parameters, "binary_data_output", "request") if parameters else False
    entries = document.get("outputs")
    if entries is None or entries == []:
        outputs = [RequestedOutput(tensor.name, tensor.datatype, binary) for tensor in signature.outputs.values()]
    elif type(entries) is not list:
        raise BadRequest(f"outputs: got {name_of(entries)}, expected a list")
    else:
        outputs = [_read_output(entry, signature, binary=binary) for entry in entries]
        if len(outputs) > 1 and len({output.name for output in outputs}) < len(outputs):
            raise BadRequest("outputs: got a name twice, expected each name once")
    for output in outputs:
        if output.datatype in BINARY_ONLY and not output.binary and not output.classes:
            raise BadRequest(f"output {output.name!r}: {output.datatype} has no JSON form; ask for binary_data")
    return outputs


def _read_output(entry: Any, signature: Signature, *, binary: bool) -> RequestedOutput:
    name = _read_name(entry, "outputs")
    tensor = signature.outputs.get(name)
    if tensor is None:
        kind = signature.unserved.get(name)
        why = "" if kind is None else f", a {kind} that the protocol has no datatype for"
        raise BadRequest(f"outputs: got {name[:100]!r}{why}, expected {_quoted(signature.outputs)}")
    output = RequestedOutput(name, tensor.datatype, binary)
    if "parameters" in entry:
        parameters = read_parameters(entry, f"output {name!r}")
        refuse_shared_memory(parameters, f"output {name!r}")
        output.classes = _read_classes(parameters, tensor)
        if "binary_data" in parameters:
            output.binary = read_flag(parameters, "binary_data", f"output {name!r}")
    return output


def _read_classes(parameters: Parameters, tensor: Tensor) -> int:
    classes: object = parameters.get("classification", 0)
    if not isinstance(classes, int) or isinstance(classes, bool) or not 0 <= classes < 2**31:
        raise BadRequest(f"output {tensor.name!r}: classification: got {classes!r:.40}, expected a number of classes")
    if classes and tensor.datatype in {BYTES, BOOL}:
        raise BadRequest(
            f"output {tensor.name!r}: classification: got {tensor.datatype}, expected an output of numbers"
        )
    return int(classes)


def _read_raw(body: bytes, signature: Signature) -> InferRequest:
    """Read a body that is the binary data of the only input, one row if it has a batch axis; all outputs are binary."""
    if len(signature.inputs) != 1:
        raise BadRequest(
            f"Inference-Header-Content-Length: got 0 for {len(signature.inputs)} inputs, expected one input"
        )
    name, tensor = next(iter(signature.inputs.items()))
    sizes = [1, *tensor.shape[1:]] if signature.batchable else list(tensor.shape)
    variable = [axis for axis, size in enumerate(sizes) if size < 0]
    fixed = prod(size for size in sizes if size >= 0)
    place = f"input {name!r}: Inference-Header-Content-Length: got 0"
    if len(variable) > 1:
        raise BadRequest(f"{place} for shape {list(tensor.shape)}, expected at most one dimension to infer")
    view = memoryview(body)
    if tensor.datatype == BYTES:
        if fixed != 1:
            raise BadRequest(f"{place} for BYTES of shape {list(tensor.shape)}, expected one element")
        values = np.empty(1, object)
        values[0] = decode_utf8(view, 0, name)
        shape = tuple(1 if size < 0 else size for size in sizes)
        return InferRequest({name: values.reshape(shape)}, _all_binary(signature), 1)
    for axis in variable:
        sizes[axis] = len(body) // max(1, fixed * DATATYPES[tensor.datatype].item_bytes)
    return InferRequest(
        {name: decode_binary_tensor(view, tensor.datatype, tuple(sizes), name)}, _all_binary(signature), 1
    )


def _all_binary(signature: Signature) -> list[RequestedOutput]:
    return [RequestedOutput(tensor.name, tensor.datatype, binary=True) for tensor in signature.outputs.values()]


def _read_shape(shape: Any, tensor: Tensor) -> tuple[int, ...]:
    if tensor.any_rank and type(shape) is list and len(shape) <= MAX_RANK:
        expected_shape: Sequence[int] = [-1] * len(shape)
    else:
        expected_shape = tensor.shape
    if type(shape) is not list or len(shape) != len(expected_shape):
        raise BadRequest(f"input {tensor.name!r}: shape: got {shape!r:.100}, expected {list(tensor.shape)}")
    elements = 1
    for size, expected in zip(shape, expected_shape, strict=True):
        if type(size) is not int or size < 0:
            raise BadRequest(
                f"input {tensor.name!r}: shape: got {size!r:.40} in {shape!r:.100}, expected whole numbers from 0 on"
            )
        if size != expected >= 0:
            raise BadRequest(f"input {tensor.name!r}: shape: got {shape!r:.100}, expected {list(tensor.shape)}")
        elements *= size or 1  # numpy checks the product of the other sizes even if one is 0
    if elements > MAX_ELEMENTS:
        raise BadRequest(f"input {tensor.name!r}: shape: got {shape!r:.100}, expected at most {MAX_ELEMENTS} elements")
    return tuple(shape)


def _count_strings(shape: tuple[int, ...], tensor: Tensor, others: int) -> int:
    """Number of strings in an input; refuse too many, together with those of other inputs."""
    count = prod(shape) if tensor.datatype == BYTES else 0
    if others + count > MAX_STRINGS:
        raise BadRequest(
            f"input {tensor.name!r}: got {others + count} strings, expected at most {MAX_STRINGS} in a request"
        )
    return count


def _count_rows(feeds: Mapping[str, Array], signature: Signature) -> int:
    if not signature.batchable:
        return 1
    # Inputs may have different numbers of rows, which the model broadcasts or refuses; such a request runs alone.
    rows: int = max([values.shape[0] for values in feeds.values()])
    if signature.limited and rows > signature.max_batch:
        raise BadRequest(
            f"inputs: got {rows} rows, expected at most {signature.max_batch} (KRON_MAX_BATCH, or max_batch_size in "
            "config.pbtxt)"
        )
    return rows


def _read_id(document: dict[str, Any]) -> str | None:
    value = document.get("id")
    if value is not None and (type(value) is not str or len(value) > MAX_ID_LENGTH):
        raise BadRequest(f"id: got {value!r:.40}, expected a string of at most {MAX_ID_LENGTH} characters")
    return value


def _read_name(entry: Any, place: str) -> str:
    if type(entry) is not dict:
        raise BadRequest(f"{place}: got {name_of(entry)} in the list, expected objects")
    name = entry.get("name")
    if type(name) is not str:
        raise BadRequest(f"{place}: name: got {name_of(name)}, expected a string")
    return name


def _quoted(names: Sequence[str] | Mapping[str, object]) -> str:
    return ", ".join(repr(name) for name in names)[:500]
