"""Long requests, which are read and written in pieces: the same arrays, answers and errors as for short ones."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import json_arrays
from app.errors import BadRequest
from app.inference.datatypes import BYTES, DTYPES
from app.oip import json_data
from app.oip import request as reading
from app.oip.infer_request import InferRequest, RequestedOutput
from app.oip.request import MAX_STRINGS, read_request
from app.oip.response import is_long_response, write_response
from app.parsing import parse_with_arrays
from app.serving.rows import to_array
from tests.app.graphs import Array
from tests.app.oip_requests import one, read

ELEMENTS: dict[str, st.SearchStrategy[Any]] = {
    "FP32": st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-100, 100),
    "FP64": st.floats(allow_nan=False, allow_infinity=False),
    "INT8": st.integers(-128, 127),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "UINT64": st.integers(0, 2**64 - 1),
    "BOOL": st.booleans(),
    "BYTES": st.text('a,[]{}"\\\n é€', max_size=4),
}
WRONG: st.SearchStrategy[object] = st.sampled_from(
    [None, True, "1", '"],[', 1e39, 2**64, -1.5, [], [1], [[]], {}, {"a": [1]}]
)


@contextmanager
def all_requests_long(window: int) -> Iterator[None]:
    sizes = mock.patch.multiple(json_arrays, WINDOW_BYTES=window, FIRST_BYTES=window)
    with sizes, mock.patch.object(reading, "is_long", return_value=True):
        yield


def outcome(body: bytes, datatype: str, dimensions: int) -> object:
    """The array that is read, or the error's message."""
    signature = one(datatype, (-1,) * dimensions, batchable=False)
    try:
        return read_request(body, None, signature).feeds["x"]
    except BadRequest as error:
        return str(error)


@settings(max_examples=300)
@given(data=st.data(), datatype=st.sampled_from(sorted(ELEMENTS)), window=st.sampled_from([2, 5, 30, 200]))
def test_long_data_is_read_as_short_data_and_refused_for_the_same_reason(
    data: st.DataObject, datatype: str, window: int
) -> None:
    shape = data.draw(st.sampled_from([(0,), (1,), (7,), (3, 2), (2, 3, 2), (1, 1, 9), (2, 0)]))
    count = int(np.prod(shape))
    flat = data.draw(st.lists(ELEMENTS[datatype], min_size=count, max_size=count))
    values = np.array([*flat, None], object)[:-1].reshape(shape).tolist()
    if data.draw(st.booleans()) and count:
        values = flat
    mistake: list[object] = []
    if data.draw(st.booleans()):
        inner = values
        while inner and isinstance(inner[0], list) and data.draw(st.booleans()):
            inner = data.draw(st.sampled_from(inner))
        at = data.draw(st.integers(0, len(inner)))
        mistake = data.draw(st.lists(WRONG, max_size=1))
        inner[at : at + data.draw(st.integers(0, 1))] = mistake
    entry = {"name": "x", "shape": shape, "datatype": datatype, "data": values}
    body = json.dumps({"inputs": [entry]}, separators=data.draw(st.sampled_from([(",", ":"), (" , ", " :")]))).encode()
    expected = outcome(body, datatype, len(shape))
    with all_requests_long(window):
        got = outcome(body, datatype, len(shape))
    if any(isinstance(each, dict) for each in mistake):  # what follows an object is not counted
        assert "got an object" in str(got) or got == expected
    elif isinstance(expected, str):
        assert got == expected
    else:
        assert isinstance(got, np.ndarray)
        assert got.dtype == (object if datatype == BYTES else DTYPES[datatype])
        np.testing.assert_array_equal(got, expected)


@settings(max_examples=200)
@given(data=st.data(), window=st.sampled_from([2, 5, 30, 200]))
def test_long_rows_are_read_as_short_rows_and_refused_for_the_same_reason(data: st.DataObject, window: int) -> None:
    rows: list[Any] = np.round(np.random.default_rng(1).random((data.draw(st.integers(1, 5)), 2, 3)), 3).tolist()
    if data.draw(st.booleans()):
        rows = [[value for line in row for value in line] for row in rows]
    if data.draw(st.booleans()):  # one mistake
        inner = rows
        while isinstance(inner[0], list) and data.draw(st.booleans()):
            inner = data.draw(st.sampled_from(inner))
        at = data.draw(st.integers(0, len(inner)))
        inner[at : at + data.draw(st.integers(0, 1))] = data.draw(st.lists(WRONG, max_size=1))
    body = json.dumps({"inputs": rows}).encode()

    def outcome(inputs: object) -> object:
        try:
            return to_array(inputs, [(6,), (2, 3)], max_rows=4)
        except BadRequest as error:
            return str(error)

    expected = outcome(orjson.loads(body)["inputs"])
    with all_requests_long(window):
        got = outcome(parse_with_arrays(body, "inputs", lambda document: [document])["inputs"])
    if b"{}" in body or b'{"a"' in body:  # what follows an object is not counted
        assert "got an object" in str(got) or got == expected
    else:
        np.testing.assert_array_equal(np.asarray(got), np.asarray(expected))


def test_numbers_are_counted_before_they_are_parsed() -> None:
    body = b'{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[%b]}]}'
    for data, got in (
        (b"0," * 300_000 + b"0", "300001 elements"),
        (b"[]," * 100_000 + b"0", "elements and empty lists"),
    ):
        with mock.patch.object(orjson, "loads", wraps=orjson.loads) as loads:
            message = outcome(body % data, "FP32", 1)
        assert f"{got}, expected 2 for shape [2]" in str(message)
        assert sum(len(call.args[0]) for call in loads.call_args_list) < 1000


def test_most_strings_of_a_request() -> None:
    entry: dict[str, Any] = {"name": "x", "datatype": "BYTES", "shape": [MAX_STRINGS], "data": ["a"] * MAX_STRINGS}
    assert read({"inputs": [entry]}, signature=one("BYTES", (-1,), batchable=False)).feeds["x"].size == MAX_STRINGS
    entry = {"name": "x", "datatype": "BYTES", "shape": [MAX_STRINGS + 1], "parameters": {"binary_data_size": 8}}
    with pytest.raises(BadRequest, match=f"got {MAX_STRINGS + 1} strings, expected at most {MAX_STRINGS}"):
        read({"inputs": [entry]}, b"12345678", one("BYTES", (-1,), batchable=False))


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<i8", "?", "O"])
@pytest.mark.parametrize("size", [1, 10, 11, 25])
def test_long_answers_are_written_as_short_ones(dtype: str, size: int) -> None:
    values: Array = np.arange(2 * size).reshape(2, size).astype(dtype)[:, ::-1]
    if dtype == "O":
        values = np.array([[f"a,]{value}" for value in row] for row in values], object)
    datatype = {"<f4": "FP32", "<f8": "FP64", "<i8": "INT64", "?": "BOOL", "O": BYTES}[dtype]
    request = InferRequest({}, [RequestedOutput("y", datatype, binary=False)], 2)

    def written() -> bytes:
        return write_response(request, {"y": values}, name="m", version="1", labels=None, batched=True)[0]

    expected = written()
    assert orjson.loads(expected)["outputs"][0]["data"] == values.ravel().tolist()
    with mock.patch.object(json_data, "_PIECE_ELEMENTS", 10):
        assert written() == expected


def test_an_answer_is_long_by_its_elements_as_text_or_its_bytes() -> None:
    def is_long(count: int, datatype: str, *, binary: bool, classes: int = 0) -> bool:
        values: Array = np.zeros(count, DTYPES.get(datatype, np.dtype(object)))
        return is_long_response([RequestedOutput("y", datatype, binary, classes)], {"y": values})

    assert not is_long(30_000, "FP32", binary=False)
    assert is_long(40_000, "FP32", binary=False)
    assert not is_long(1_000_000, "FP32", binary=True)
    assert is_long(2_000_000, "FP32", binary=True)
    assert is_long(40_000, "FP32", binary=True, classes=1)
    assert is_long(40_000, BYTES, binary=True)
