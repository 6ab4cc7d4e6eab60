"""An inference response: arrays by output name to the body's bytes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from app.errors import BadRequest
from app.inference.datatypes import BYTES, DTYPES, Array
from app.oip import bytes_data, json_data
from app.oip.classification import classify
from app.oip.infer_request import InferRequest


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
    """The body, and how many bytes of it are JSON; None where all of them are.

    Args:
        request: that is answered.
        outputs: of the model, at least those that were asked for.
        name: of the model.
        version: of the model.
        labels: of the model's classes.
        batched: the model has a batch axis.
        parameters: of the response.

    Raises:
        BadRequest: an output has values that JSON cannot say.
    """
    entries: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for wanted in request.outputs:
        values, datatype = outputs[wanted.name], wanted.datatype
        if wanted.classes:
            values, datatype = classify(values, wanted.classes, labels, batched=batched), BYTES
        entry: dict[str, Any] = {"name": wanted.name, "datatype": datatype, "shape": values.shape}
        if wanted.binary:
            blobs.append(_blob(values, datatype))
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = json_data.to_json(values, datatype)
        entries.append(entry)
    document: dict[str, Any] = {"model_name": name, "model_version": version, "outputs": entries}
    if request.id is not None:
        document["id"] = request.id
    if parameters is not None:
        document["parameters"] = parameters
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if b"null" in head:  # what orjson makes of numbers that are not finite, unless it is part of a name or a string
        _check_finite(request, outputs)
    return (b"".join((head, *blobs)), len(head)) if blobs else (head, None)


def _blob(values: Array, datatype: str) -> bytes:
    if datatype == BYTES:
        return bytes_data.encode(values)
    dtype = DTYPES[datatype]
    return (values if values.dtype == dtype else values.astype(dtype)).tobytes()


def _check_finite(request: InferRequest, outputs: Mapping[str, Array]) -> None:
    for wanted in request.outputs:
        values = outputs[wanted.name]
        if not wanted.binary and not wanted.classes and values.dtype.kind == "f" and not np.isfinite(values).all():
            raise BadRequest(
                f"output {wanted.name!r}: some values are not finite, which JSON cannot say; ask for binary_data"
            )
