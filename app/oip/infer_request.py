"""A request that fits its model."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.inference.datatypes import Array


@dataclass(slots=True)
class RequestedOutput:
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
    outputs: Sequence[RequestedOutput]
    rows: int
    id: str | None = None
    timeout_s: float | None = None
    receipt: bool = False
