"""Validated inference request: input arrays, requested outputs and options."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.inference.datatypes import Array


@dataclass(slots=True)
class RequestedOutput:
    """An output that a request asks for.

    Args:
        name: of the output.
        datatype: of the output.
        binary: send it as binary data instead of JSON.
        classes: number of classes of the classification extension; 0 for the tensor itself.
    """

    name: str
    datatype: str
    binary: bool
    classes: int = 0


@dataclass(slots=True)
class InferRequest:
    """An inference request that fits its model's signature.

    Args:
        feeds: arrays of all inputs by name.
        outputs: the requested outputs, in the order of the response.
        rows: size of the batch; 1 where the model has no batch axis.
        id: given by the client and returned in the response.
        timeout_s: the request's own time limit in seconds.
        provenance: the response's parameters say which model, device and batch the answer came from (`receipt`).
    """

    feeds: dict[str, Array]
    outputs: Sequence[RequestedOutput]
    rows: int
    id: str | None = None
    timeout_s: float | None = None
    provenance: bool = False
