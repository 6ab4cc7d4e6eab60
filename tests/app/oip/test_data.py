"""The protocol's codec by itself: what goes in comes out, and nothing that is wrong goes in."""

import contextlib
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.errors import BadRequest, RequestError
from app.inference.datatypes import BINARY_ONLY, DTYPES
from app.oip.binary_data import decode_bytes_elements, encode_bytes_elements
from app.oip.infer_request import InferRequest, RequestedOutput
from app.oip.request import read_request
from app.oip.response import write_response
from app.oip.signature import Signature
from tests.app.graphs import Array
from tests.app.oip_requests import SIGNATURE, one


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "got 0 bytes, expected 2 elements with their lengths"),
        (b"\1\0\0\0a\1\0", "got 7 bytes, expected 2 elements with their lengths"),
        (b"\2\0\0\0ab\1\0", "the data ends before element 1, expected 2 elements"),
        (b"\1\0\0\0a\5\0\0\0bc", "element 1: got 2 bytes, expected 5"),
        (b"\xff\xff\xff\xffabcd", "element 0: got 4 bytes, expected 4294967295"),
        (b"\1\0\0\0a\1\0\0\0bc", "got 1 bytes after the last of 2 elements, expected none"),
        (b"\1\0\0\0a\1\0\0\0\xff", "element 1 is not UTF-8"),
    ],
)
def test_bytes_that_are_truncated_or_lie(data: bytes, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode_bytes_elements(memoryview(data), 2, "x")
    assert message in str(caught.value)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_bytes_there_and_back(texts: list[str]) -> None:
    values = np.empty(len(texts), object)
    values[:] = texts
    wire = encode_bytes_elements(values)
    expected = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)
    assert wire == expected
    assert decode_bytes_elements(memoryview(wire), len(texts), "x").tolist() == texts


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, Array]:
    name = draw(st.sampled_from(sorted({*DTYPES, "BF16"})))
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    if name == "BF16":  # which hypothesis does not know
        return name, draw(arrays.arrays(np.int16, shape)).astype(DTYPES[name])
    elements = arrays.from_dtype(DTYPES[name], allow_nan=False, allow_infinity=False)
    return name, draw(arrays.arrays(DTYPES[name], shape, elements=elements))


@settings(max_examples=200)
@given(tensors(), st.booleans())
def test_every_datatype_there_and_back(tensor: tuple[str, Array], binary: bool) -> None:
    """A response read as a request gives the same array, by binary data and, but for half precision, by JSON."""
    datatype, values = tensor
    request = InferRequest({}, [RequestedOutput("x", datatype, binary or datatype in BINARY_ONLY)], rows=1, id="7")
    body, length = write_response(request, {"x": values}, name="m", version="3", labels=None, batched=False)
    head = json.loads(body[:length])
    assert (head["model_name"], head["model_version"], head["id"]) == ("m", "3", "7")
    assert head["outputs"][0]["shape"] == list(values.shape)
    assert (length is None) == (not request.outputs[0].binary)
    again = json.dumps({"inputs": head["outputs"], "parameters": {"binary_data_output": True}}).encode()
    signature = one(datatype, (-1,) * values.ndim, batchable=False)
    back = read_request(again + body[length or len(body) :], len(again), signature).feeds["x"]
    assert back.dtype == values.dtype
    np.testing.assert_array_equal(back, values)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300)
@given(
    st.sampled_from(sorted({*DTYPES, "BF16", "BYTES"})), json_values, json_values, json_values, st.binary(max_size=40)
)
def test_nonsense_is_only_ever_a_request_error(
    datatype: str, data: Any, shape: Any, parameters: Any, blob: bytes
) -> None:
    entry = {"name": "x", "datatype": datatype, "shape": shape, "data": data, "parameters": parameters}
    candidates = [
        {"inputs": [entry | {"parameters": {}}]},
        {"inputs": [entry | {"shape": [1, 2]}], "parameters": parameters},
        {"inputs": [entry], "outputs": data},
        {"inputs": [{**entry, "shape": [1, 2], "data": None, "parameters": {"binary_data_size": len(blob)}}]},
        data,
    ]
    for value in candidates:
        head = json.dumps(value, allow_nan=False).encode() if _is_json(value) else b"[NaN]"
        for length in (None, 0, len(head), len(blob)):
            with contextlib.suppress(RequestError):
                read_request(head + blob, length, one(datatype, (-1, 2)))


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False).encode()
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    ("datatype", "shape", "batchable", "body", "expected"),
    [
        ("FP32", (-1, 3), True, np.array([1, 2, 3], "<f4"), (1, 3)),
        ("FP32", (-1, -1), True, np.arange(5, dtype="<f4"), (1, 5)),
        ("INT16", (-1, 2), False, np.arange(6, dtype="<i2"), (3, 2)),
        ("FP64", (2, 2), False, np.arange(4, dtype="<f8"), (2, 2)),
        ("FP32", (-1, 3), False, np.empty(0, "<f4"), (0, 3)),
    ],
)
def test_raw(datatype: str, shape: tuple[int, ...], batchable: bool, body: Array, expected: tuple[int, ...]) -> None:
    request = read_request(body.tobytes(), 0, one(datatype, shape, batchable=batchable))
    np.testing.assert_array_equal(request.feeds["x"], body.reshape(expected))
    assert request.outputs == [RequestedOutput("x", datatype, binary=True)]
    assert request.rows == 1


def test_raw_text_is_the_element_itself() -> None:
    for shape, expected in (((1,), ["grün"]), ((-1, 1), [["grün"]])):
        feeds = read_request("grün".encode(), 0, one("BYTES", shape, batchable=len(shape) > 1)).feeds
        assert feeds["x"].tolist() == expected


@pytest.mark.parametrize(
    ("signature", "body", "message"),
    [
        (SIGNATURE, b"", "got 0 for 2 inputs, expected one"),
        (one("FP32", (-1, -1, -1)), b"\0" * 8, "expected at most one dimension to infer"),
        (one("FP32", (-1, 3)), b"\0" * 8, r"got 8 bytes of binary data, expected 12 for FP32 \[1, 3\]"),
        (one("FP32", (-1, -1)), b"\0" * 7, r"got 7 bytes of binary data, expected 4 for FP32 \[1, 1\]"),
        (one("BYTES", (-1, 2)), b"a", "expected one element"),
        (one("BYTES", (-1,)), b"\xff", "element 0 is not UTF-8"),
        (one("BOOL", (-1, 2)), b"\0\2", "got a byte other than 0 and 1"),
    ],
)
def test_raw_that_cannot_be(signature: Signature, body: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        read_request(body, 0, signature)


def test_values_that_json_cannot_say() -> None:
    def answer(values: Array) -> None:
        request = InferRequest({}, [RequestedOutput("y", "FP32", binary=False)], 1)
        write_response(request, {"y": values}, name="m", version="1", labels=None, batched=True)

    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(BadRequest, match="output 'y': some values are not finite, which JSON cannot express"):
            answer(np.array([1, value], np.float32))


def test_null_in_a_name_or_a_string_is_no_value() -> None:
    request = InferRequest(
        {}, [RequestedOutput("null", "FP32", binary=False), RequestedOutput("s", "BYTES", binary=False)], 1, id="null"
    )
    outputs = {"null": np.array([1.5], np.float32), "s": np.array(["null"], object)}
    body, _ = write_response(request, outputs, name="m", version="1", labels=None, batched=True)
    document = json.loads(body)
    assert (document["id"], [output["data"] for output in document["outputs"]]) == ("null", [[1.5], ["null"]])
