"""Requests of which only the tensors' data is new: clients send the same JSON around it each time.

What is remembered has passed every check. With other data in the same place it means the same, and only the data has to
be looked at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from app.inference.datatypes import BINARY_ONLY, BYTES, Array, Tensor
from app.oip import json_data
from app.oip.binary_data import read_blob
from app.oip.infer_request import InferRequest, RequestedOutput
from app.parsing import mentions_booleans

MOST = 64  # that are remembered for a model
MAX_BYTES = 2048  # of JSON around the data


@dataclass(frozen=True, slots=True)
class _Template:
    """What the JSON of a request says but for the data; of each input name, datatype, shape and bytes."""

    tensors: Sequence[tuple[str, str, tuple[int, ...], int]]
    outputs: Sequence[RequestedOutput]
    rows: int
    timeout_s: float | None
    receipt: bool

    def request(self, feeds: dict[str, Array]) -> InferRequest:
        return InferRequest(feeds, self.outputs, self.rows, None, self.timeout_s, self.receipt)


class RequestTemplateCache:
    """What is remembered of the requests to one model.

    Args:
        inputs: of the model, by name.
    """

    def __init__(self, inputs: Mapping[str, Tensor]) -> None:
        self._inputs = inputs
        self._found: dict[tuple[bytes, bytes], _Template] = {}

    def __len__(self) -> int:
        return len(self._found)

    def binary(self, body: bytes, header_length: int) -> InferRequest | None:
        """The request whose inputs are all in the blobs; None if its JSON is not known, or they are of other lengths.

        Raises:
            BadRequest: a blob is not of its datatype.
        """
        known = self._found.get((body[:header_length], b""))
        if known is None or sum(size for _, _, _, size in known.tensors) != len(body) - header_length:
            return None
        view = memoryview(body)
        feeds = {}
        start = header_length
        for name, datatype, shape, size in known.tensors:
            feeds[name] = read_blob(view[start : start + size], datatype, shape, name)
            start += size
        return known.request(feeds)

    def json(self, body: bytes) -> InferRequest | None:
        """The request whose only input is a flat list of numbers; None if that is not so, or the JSON is not known.

        Raises:
            BadRequest: the list is not what the input takes.
        """
        start, end = _list(body)
        if not 0 <= start <= MAX_BYTES or len(body) - end > MAX_BYTES:
            return None
        known = self._found.get((body[:start], body[end:]))
        if known is None:
            return None
        data = body[start:end]
        try:
            values = orjson.loads(data)
        except orjson.JSONDecodeError:
            return None
        name, datatype, shape, _ = known.tensors[0]
        booleans = mentions_booleans(data, len(data))
        return known.request({name: json_data.to_array(values, datatype, shape, name, may_hold_booleans=booleans)})

    def remember_binary(self, body: bytes, header_length: int, request: InferRequest) -> None:
        """Keep what the JSON of a request means, if its inputs are all in the blobs."""
        tensors = self._tensors(request)
        blobs = len(body) - header_length
        if any(datatype == BYTES for _, datatype, _, _ in tensors) or sum(tensor[3] for tensor in tensors) != blobs:
            return
        self._keep(body[:header_length], b"", tensors, request)

    def remember_json(self, body: bytes, request: InferRequest) -> None:
        """Keep what the JSON of a request means, if its only input is a flat list of numbers."""
        tensors = self._tensors(request)
        start, end = _list(body)
        if len(tensors) != 1 or tensors[0][1] in {BYTES, *BINARY_ONLY}:
            return
        if not 0 <= start <= MAX_BYTES or len(body) - end > MAX_BYTES:
            return
        head, tail = body[:start], body[end:]
        if _is_data(head, tail):
            self._keep(head, tail, tensors, request)

    def _tensors(self, request: InferRequest) -> list[tuple[str, str, tuple[int, ...], int]]:
        inputs = request.feeds.items()
        return [(name, self._inputs[name].datatype, values.shape, values.nbytes) for name, values in inputs]

    def _keep(self, head: bytes, tail: bytes, tensors: Sequence[Any], request: InferRequest) -> None:
        if request.id is not None or len(head) > MAX_BYTES:  # an id is another one each time
            return
        if len(self._found) >= MOST:
            self._found.clear()
        self._found[head, tail] = _Template(tensors, request.outputs, request.rows, request.timeout_s, request.receipt)


def _list(body: bytes) -> tuple[int, int]:
    """Where the first list after the first `"data"` is, if it has no list in it."""
    start = body.find(b"[", body.find(b'"data"'))
    return start, body.find(b"]", start) + 1


def _is_data(head: bytes, tail: bytes) -> bool:
    """Whether a value between them is the data of the only input, and not part of something else."""
    try:
        document = orjson.loads(b"%bnull%b" % (head, tail))
    except orjson.JSONDecodeError:
        return False
    (entry,) = document["inputs"]
    return entry.get("data", False) is None
