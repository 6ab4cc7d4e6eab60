"""A cache of parsed inference requests: clients send the same JSON around the tensors' data each time.

A template is made of a request that passed every check. Another request with equal bytes around its data means the
same, so only its data is decoded and checked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import orjson

from app.inference.datatypes import BINARY_ONLY, BYTES, Array, Tensor
from app.oip.binary_data import decode_binary_tensor
from app.oip.infer_request import InferRequest, RequestedOutput
from app.oip.json_data import decode_json_tensor, mentions_booleans

MAX_TEMPLATES = 64  # per model; all are dropped when one more would be added
MAX_JSON_BYTES = 2048  # before and after the data

_Input: TypeAlias = tuple[str, str, tuple[int, ...], int]  # name, datatype, shape, and size in bytes


@dataclass(frozen=True, slots=True)
class _Template:
    """Parsed request without its tensors' data; `size` is the number of bytes of binary data."""

    inputs: Sequence[_Input]
    size: int
    outputs: Sequence[RequestedOutput]
    rows: int
    timeout_s: float | None
    provenance: bool

    def fill(self, feeds: dict[str, Array]) -> InferRequest:
        """Build a request from the template and input arrays."""
        return InferRequest(feeds, self.outputs, self.rows, None, self.timeout_s, self.provenance)


class RequestTemplateCache:
    """The request templates of one model, by the JSON before and after the data.

    Args:
        inputs: of the model, by name.
    """

    def __init__(self, inputs: Mapping[str, Tensor]) -> None:
        self._inputs = inputs
        self._templates: dict[tuple[bytes, bytes], _Template] = {}

    def __len__(self) -> int:
        return len(self._templates)

    def read_binary(self, body: bytes, header_length: int) -> InferRequest | None:
        """Read a request whose inputs are all binary data; None without a template, or if the data's size differs.

        Raises:
            BadRequest: an input's data is not of its datatype.
        """
        template = self._templates.get((body[:header_length], b"")) if header_length <= MAX_JSON_BYTES else None
        if template is None or template.size != len(body) - header_length:
            return None
        view = memoryview(body)
        feeds = {}
        start = header_length
        for name, datatype, shape, size in template.inputs:
            feeds[name] = decode_binary_tensor(view[start : start + size], datatype, shape, name)
            start += size
        return template.fill(feeds)

    def read_json(self, body: bytes) -> InferRequest | None:
        """Read a request whose only input is a flat JSON list of numbers; None for any other, or without a template.

        Raises:
            BadRequest: the list does not fit the input.
        """
        start, end = _find_data(body)
        if not 0 <= start <= MAX_JSON_BYTES or len(body) - end > MAX_JSON_BYTES:
            return None
        template = self._templates.get((body[:start], body[end:]))
        if template is None:
            return None
        data = body[start:end]
        try:
            values = orjson.loads(data)
        except orjson.JSONDecodeError:
            return None
        name, datatype, shape, _ = template.inputs[0]
        booleans = mentions_booleans(data, len(data))
        return template.fill({name: decode_json_tensor(values, datatype, shape, name, may_have_booleans=booleans)})

    def add_binary(self, body: bytes, header_length: int, request: InferRequest) -> None:
        """Keep a template of a request whose inputs are all binary data of fixed size."""
        inputs = self._template_inputs(request)
        total = len(body) - header_length
        if any(datatype == BYTES for _, datatype, _, _ in inputs) or sum(size for _, _, _, size in inputs) != total:
            return
        self._add(body[:header_length], b"", inputs, request)

    def add_json(self, body: bytes, request: InferRequest) -> None:
        """Keep a template of a request whose only input is a flat JSON list of numbers."""
        inputs = self._template_inputs(request)
        start, end = _find_data(body)
        if len(inputs) != 1 or inputs[0][1] in {BYTES, *BINARY_ONLY}:
            return
        if not 0 <= start <= MAX_JSON_BYTES or len(body) - end > MAX_JSON_BYTES:
            return
        before, after = body[:start], body[end:]
        if _surrounds_data(before, after):
            self._add(before, after, inputs, request)

    def _template_inputs(self, request: InferRequest) -> list[_Input]:
        feeds = request.feeds.items()
        return [(name, self._inputs[name].datatype, values.shape, values.nbytes) for name, values in feeds]

    def _add(self, before: bytes, after: bytes, inputs: Sequence[_Input], request: InferRequest) -> None:
        if request.id is not None or len(before) > MAX_JSON_BYTES:  # every request has another id
            return
        if len(self._templates) >= MAX_TEMPLATES:
            self._templates.clear()
        size = sum(size for _, _, _, size in inputs)
        self._templates[before, after] = _Template(
            inputs, size, request.outputs, request.rows, request.timeout_s, request.provenance
        )


def _find_data(body: bytes) -> tuple[int, int]:
    """Start and end of the first list after the first `"data"`, if it holds no other list."""
    start = body.find(b"[", body.find(b'"data"'))
    return start, body.find(b"]", start) + 1


def _surrounds_data(before: bytes, after: bytes) -> bool:
    """Whether a JSON value between two parts of a request's JSON is the data of the only input."""
    try:
        document = orjson.loads(b"%bnull%b" % (before, after))
    except orjson.JSONDecodeError:
        return False
    (entry,) = document["inputs"]
    return entry.get("data", False) is None
