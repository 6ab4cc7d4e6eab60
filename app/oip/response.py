"""An inference response: arrays by output name to the body's bytes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from app.oip import bytes_tensor, json_tensor
from app.oip.classification import classify
from app.oip.datatypes import BYTES, DTYPES, Array
from app.oip.request import InferRequest


def write_response(
    request: InferRequest,
    outputs: Mapping[str, Array],
    *,
    name: str,
    version: str,
    labels: Sequence[str] | None,
    batched: bool,
) -> tuple[bytes, int | None]:
    """The body, and how many bytes of it are JSON; None where all of them are.

    Args:
        request: that is answered.
        outputs: of the model, at least those that were asked for.
        name: of the model.
        version: of the model.
        labels: of the model's classes.
        batched: the model has a batch axis.

    Raises:
        BadRequest: an output has values that JSON cannot say.
    """
    entries: list[dict[str, Any]] = []
    blobs: list[bytes | memoryview] = []
    for wanted in request.outputs:
        values, datatype = outputs[wanted.name], wanted.datatype
        if wanted.classes:
            values, datatype = classify(values, wanted.classes, labels, batched=batched), BYTES
        entry: dict[str, Any] = {"name": wanted.name, "datatype": datatype, "shape": values.shape}
        if wanted.binary:
            blob, size = _blob(values, datatype)
            blobs.append(blob)
            entry["parameters"] = {"binary_data_size": size}
        else:
            entry["data"] = json_tensor.to_json(values, datatype, wanted.name)
        entries.append(entry)
    document: dict[str, Any] = {"model_name": name, "model_version": version, "outputs": entries}
    if request.id is not None:
        document["id"] = request.id
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join((head, *blobs)), len(head)) if blobs else (head, None)


def _blob(values: Array, datatype: str) -> tuple[bytes | memoryview, int]:
    """The bytes of a tensor, as what holds them, and how many they are."""
    if datatype == BYTES:
        encoded = bytes_tensor.encode(values)
        return encoded, len(encoded)
    wire = np.ascontiguousarray(values, DTYPES[datatype])
    return wire.reshape(-1).view(np.uint8).data, wire.nbytes
