"""An inference response: output arrays encoded as the body's bytes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from app.errors import BadRequest
from app.inference.datatypes import BYTES, Array
from app.oip.binary_data import encode_binary_tensor
from app.oip.classification import classify
from app.oip.infer_request import InferRequest, RequestedOutput
from app.oip.json_data import JsonWriter

LONG_ELEMENTS = 32 * 1024  # of the outputs that are written as text or strings
LONG_BYTES = 4 * 2**20  # of the outputs that are copied


def is_long_response(requested: Sequence[RequestedOutput], outputs: Mapping[str, Array]) -> bool:
    """Whether `write_response` takes so long that other work has to wait noticeably."""
    elements = size = 0
    for output in requested:
        values = outputs[output.name]
        if output.binary and not output.classes and output.datatype != BYTES:
            size += values.nbytes
        else:
            elements += values.size
    return elements > LONG_ELEMENTS or size > LONG_BYTES


def write_response(
    request: InferRequest,
    outputs: Mapping[str, Array],
    *,
    name: str,
    version: str,
    labels: Sequence[str] | None,
    batched: bool,
    parameters: Mapping[str, object] | None = None,
) -> tuple[bytes, int | None]:
    """Encode the response to a request.

    Args:
        request: the request.
        outputs: arrays by name, at least those that were requested.
        name: of the model.
        version: of the model.
        labels: of the model's classes.
        batched: the model has a batch axis.
        parameters: of the response.

    Returns:
        The body, and the number of bytes of its JSON; None if all of it is JSON.

    Raises:
        BadRequest: an output that was requested as JSON has values that are not finite.
    """
    entries: list[dict[str, Any]] = []
    binary: list[bytes] = []
    writer = JsonWriter()
    for output in request.outputs:
        values, datatype = outputs[output.name], output.datatype
        if output.classes:
            values, datatype = classify(values, output.classes, labels, batched=batched), BYTES
        entry: dict[str, Any] = {"name": output.name, "datatype": datatype, "shape": values.shape}
        if output.binary:
            binary.append(encode_binary_tensor(values, datatype))
            entry["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            entry["data"] = writer.add_tensor(values, datatype)
        entries.append(entry)
    document: dict[str, Any] = {"model_name": name, "model_version": version, "outputs": entries}
    if request.id is not None:
        document["id"] = request.id
    if parameters is not None:
        document["parameters"] = parameters
    head, has_null = writer.write(document)
    if has_null:  # orjson writes it for a number that is not finite, but it may also be part of a string
        _check_finite(request, outputs)
    return (b"".join((head, *binary)), len(head)) if binary else (head, None)


def _check_finite(request: InferRequest, outputs: Mapping[str, Array]) -> None:
    for output in request.outputs:
        values = outputs[output.name]
        if not output.binary and not output.classes and values.dtype.kind == "f" and not np.isfinite(values).all():
            raise BadRequest(
                f"output {output.name!r}: some values are not finite, which JSON cannot express; ask for binary_data"
            )
