"""Inference requests: valid ones decoded, others refused with a reason."""

import contextlib
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import BadRequest, NotSupported, RequestError
from app.inference.datatypes import DTYPES
from app.oip.infer_request import RequestedOutput
from app.oip.json_data import mentions_booleans
from app.oip.request import read_request
from app.oip.signature import Signature
from tests.app.graphs import Array
from tests.app.oip_requests import SIGNATURE, document, one, read


def test_flat_and_nested_json_with_unknown_keys() -> None:
    for data in ([1.5, 2, 3, 4], [[1.5, 2], [3, 4]], [[[1.5], [2]], [[3], [4]]]):
        request = read(document(a={"data": data}, id="x", parameters={"mine": 1}))
        np.testing.assert_array_equal(request.feeds["a"], np.array([[1.5, 2], [3, 4]], np.float32))
        np.testing.assert_array_equal(request.feeds["b"], np.array([-5, 2**62]))
        assert [request.feeds[name].dtype.name for name in "ab"] == ["float32", "int64"]
        assert (request.rows, request.id, request.timeout_s) == (2, "x", None)
        assert request.outputs == [RequestedOutput("y", "FP32", binary=False)]


def test_binary_data_follows_the_json_in_the_order_of_the_binary_inputs() -> None:
    a, b = np.array([[1.5, 2], [3, 4]], "<f4"), np.array([7, -8], "<i8")
    size_a, size_b = {"binary_data_size": a.nbytes}, {"binary_data_size": b.nbytes}
    both = document(a={"data": ..., "parameters": size_a}, b={"data": ..., "parameters": size_b})
    request = read(both, a.tobytes() + b.tobytes())
    np.testing.assert_array_equal(request.feeds["a"], a)
    np.testing.assert_array_equal(request.feeds["b"], b)
    assert all(values.flags.aligned for values in request.feeds.values())
    request = read(document(b={"data": ..., "parameters": size_b}), b.tobytes())
    np.testing.assert_array_equal(request.feeds["b"], b)
    empty = document(
        a={"shape": [0, 2], "data": ..., "parameters": {"binary_data_size": 0}}, b={"shape": [0], "data": []}
    )
    assert read(empty, b"").feeds["a"].shape == (0, 2)
    assert read(empty).rows == 0


def test_binary_outputs_by_request_or_by_output() -> None:
    def wanted(**changes: Any) -> list[tuple[str, bool]]:
        return [(output.name, output.binary) for output in read(document(**changes)).outputs]

    binary = {"binary_data_output": True}
    assert wanted(outputs=[{"name": "s"}]) == [("s", False)]
    assert wanted(outputs=[{"name": "h"}, {"name": "y"}], parameters=binary) == [("h", True), ("y", True)]
    assert wanted(outputs=[{"name": "y", "parameters": {"binary_data": False}}], parameters=binary) == [("y", False)]
    everything = [("y", True), ("h", True), ("s", True)]
    assert wanted(outputs=None, parameters=binary) == wanted(outputs=[], parameters=binary) == everything
    classes = read(document(outputs=[{"name": "h", "parameters": {"classification": 2}}])).outputs[0]
    assert (classes.classes, classes.binary) == (2, False)  # classes are strings, so they need no binary data
    assert read(document(parameters={"timeout": 1500})).timeout_s == 0.0015


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": ...}, "inputs: got null, expected a list"),
        ({"inputs": {}}, "inputs: got an object, expected a list"),
        ({"inputs": [3]}, "inputs: got a number in the list, expected objects"),
        ({"inputs": [{}]}, "inputs: name: got null, expected a string"),
        ({"inputs": []}, "inputs: 'a', 'b' missing"),
        ({"a": {"name": "z"}}, "inputs: got 'z', expected 'a', 'b'"),
        ({"a": {"name": "b", "datatype": "INT64", "shape": [2], "data": [1, 2]}}, "inputs: got 'b' twice"),
        ({"a": {"datatype": "FP64"}}, "input 'a': datatype: got 'FP64', expected 'FP32'"),
        ({"a": {"datatype": ...}}, "input 'a': datatype: got None, expected 'FP32'"),
        ({"a": {"shape": [4]}}, "input 'a': shape: got [4], expected [-1, 2]"),
        ({"a": {"shape": [2, 3]}}, "input 'a': shape: got [2, 3], expected [-1, 2]"),
        ({"a": {"shape": [-2, 2]}}, "input 'a': shape: got -2 in [-2, 2], expected whole numbers from 0 on"),
        ({"a": {"shape": [2.0, 2]}}, "input 'a': shape: got 2.0 in [2.0, 2]"),
        ({"a": {"shape": [True, 2]}}, "input 'a': shape: got True in [True, 2]"),
        ({"a": {"shape": "2,2"}}, "input 'a': shape: got '2,2'"),
        ({"a": {"shape": [2**63, 2]}}, "expected at most 2147483648 elements"),
        ({"a": {"shape": [2**31, 2]}}, "expected at most 2147483648 elements"),
        ({"a": {"shape": [10**6, 2]}}, "data: got 4 elements, expected 2000000 for shape [1000000, 2]"),
        ({"a": {"data": [1, 2, 3]}}, "input 'a': data: got 3 elements, expected 4"),
        ({"a": {"data": [[1, 2], 3]}}, "input 'a': data: element 1: got 3, expected a list"),
        ({"a": {"data": [1, [2, 3], 4, 5]}}, "input 'a': data: element 1: got a list, expected a number"),
        ({"a": {"data": [1, "2", 3, 4]}}, "input 'a': data: element 1: got a string, expected a number"),
        ({"a": {"data": [1, True, 3, 4]}}, "input 'a': data: element 1: got a boolean, expected a number"),
        ({"a": {"data": [1, None, 3, 4]}}, "input 'a': data: element 1: got null, expected a number"),
        (
            {"a": {"data": [1, 2, 1e39, 4]}},
            "input 'a': data: element 2: got 1e+39, expected a finite number that fits in FP32",
        ),
        ({"a": {"data": "abcd"}}, "input 'a': data: got a string, expected a list"),
        ({"a": {"data": ...}}, "input 'a': got neither data nor binary_data_size"),
        ({"b": {"data": [1.5, 2]}}, "input 'b': data: element 0: got 1.5, expected an integer"),
        ({"b": {"data": [2**63, 2]}}, "input 'b': data: got a value out of the range of INT64"),
        ({"b": {"data": [2**64, 2]}}, "input 'b': data: element 0: got 1.8446744073709552e+19, expected an integer"),
        ({"a": {"parameters": {"binary_data_size": 16}}}, "got data and binary_data_size, expected one of them"),
        ({"a": {"parameters": [1]}}, "input 'a': parameters: got a list, expected an object"),
        (
            {"a": {"parameters": {"x": {}}}},
            "input 'a': parameter 'x': got an object, expected a string, number or boolean",
        ),
        ({"parameters": {"binary_data_output": 1}}, "request: binary_data_output: got 1, expected true or false"),
        ({"parameters": {"timeout": -1}}, "request: timeout: got -1, expected a number of microseconds"),
        ({"parameters": {"timeout": "1"}}, "request: timeout: got '1'"),
        ({"parameters": {"triton_x": 1}}, "names that start with triton_ are reserved"),
        ({"id": 7}, "id: got 7, expected a string"),
        ({"outputs": {}}, "outputs: got an object, expected a list"),
        ({"outputs": [{"name": "z"}]}, "outputs: got 'z', expected 'y', 'h', 's'"),
        ({"outputs": [{"name": "y"}, {"name": "y"}]}, "outputs: got a name twice"),
        ({"outputs": [{"name": "h"}]}, "output 'h': FP16 has no JSON form; ask for binary_data"),
        ({"outputs": None}, "output 'h': FP16 has no JSON form"),
        ({"outputs": [{"name": "y", "parameters": {"classification": -1}}]}, "classification: got -1"),
        ({"outputs": [{"name": "y", "parameters": {"classification": True}}]}, "classification: got True"),
        ({"outputs": [{"name": "s", "parameters": {"classification": 1}}]}, "got BYTES, expected an output of numbers"),
        ({"outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]}, "binary_data: got 'yes'"),
    ],
)
def test_requests_that_do_not_fit_are_refused_with_the_place(changes: dict[str, Any], message: str) -> None:
    value = {key: entry for key, entry in document(**changes).items() if entry is not ...}
    with pytest.raises(BadRequest) as caught:
        read(value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"a": {"data": ..., "parameters": {"shared_memory_region": "r"}}},
            "input 'a': shared memory is not supported",
        ),
        ({"outputs": [{"name": "y", "parameters": {"shared_memory_byte_size": 3}}]}, "output 'y': shared memory"),
        ({"parameters": {"sequence_id": 4}}, "sequences are not supported"),
        ({"parameters": {"sequence_id": "four"}}, "sequences are not supported"),
        ({"parameters": {"priority": 1}}, "priorities are not supported"),
    ],
)
def test_unsupported_features_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NotSupported, match=message):
        read(document(**changes))


def test_more_rows_than_the_limit_are_refused() -> None:
    nine = document(a={"shape": [9, 2], "data": [0] * 18}, b={"shape": [9], "data": [0] * 9})
    with pytest.raises(BadRequest, match=r"inputs: got 9 rows, expected at most 8 \(KRON_MAX_BATCH, or max_batch_size"):
        read(nine)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"inputs": [{"datatype": "FP32", "data": [1.5e3, -2]}]}', False),
        (b"[1, true]", True),
        (b"[false]", True),
        (b"[1]true", False),  # after the end
        (b"r" * 200, True),  # too many of these letters to search
        (b"l" * 200, True),
    ],
)
def test_mentions_booleans(text: bytes, expected: bool) -> None:
    assert mentions_booleans(text, len(text) - 4 * text.endswith(b"]true")) == expected


@pytest.mark.parametrize("length", [-1, 1, 5, 10**9])
def test_a_header_length_inside_the_json_or_beyond_the_body_is_refused(length: int) -> None:
    body = json.dumps(document()).encode()
    with pytest.raises(BadRequest, match=r"Inference-Header-Content-Length: got|expected a JSON object"):
        read_request(body, length, SIGNATURE)


@pytest.mark.parametrize(
    ("size", "blob", "message"),
    [
        (16, b"\0" * 15, "input 'a': got 15 bytes of binary data, expected 16"),
        (16, b"\0" * 17, "body: got 1 bytes after the last input's binary data, expected none"),
        (12, b"\0" * 12, r"input 'a': got 12 bytes of binary data, expected 16 for FP32 \[2, 2\]"),
        (2**63, b"\0" * 16, "got 16 bytes of binary data, expected 9223372036854775808"),
        (-1, b"\0" * 16, "binary_data_size: got -1, expected a number of bytes"),
        (16.0, b"\0" * 16, "binary_data_size: got 16.0"),
        (True, b"\0", "binary_data_size: got True"),
        ("16", b"\0" * 16, "binary_data_size: got '16'"),
    ],
)
def test_wrong_binary_data_sizes_are_refused(size: Any, blob: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        read(document(a={"data": ..., "parameters": {"binary_data_size": size}}), blob)


def test_a_wrong_shape_allocates_no_array() -> None:
    huge = document(a={"shape": [2**30, 2], "data": ..., "parameters": {"binary_data_size": 16}})
    text = {"inputs": [{"name": "x", "shape": [2**18], "datatype": "BYTES", "parameters": {"binary_data_size": 4}}]}
    tracemalloc.start()
    for value, blob, signature in ((huge, b"\0" * 16, SIGNATURE), (text, b"\0" * 4, one("BYTES", (-1,)))):
        with pytest.raises(BadRequest, match="bytes"):
            read(value, blob, signature)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300)
@given(
    st.sampled_from(sorted({*DTYPES, "BF16", "BYTES"})), json_values, json_values, json_values, st.binary(max_size=40)
)
def test_any_input_is_read_or_raises_a_request_error(
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
def test_raw_binary_request(
    datatype: str, shape: tuple[int, ...], batchable: bool, body: Array, expected: tuple[int, ...]
) -> None:
    request = read_request(body.tobytes(), 0, one(datatype, shape, batchable=batchable))
    np.testing.assert_array_equal(request.feeds["x"], body.reshape(expected))
    assert request.outputs == [RequestedOutput("x", datatype, binary=True)]
    assert request.rows == 1


def test_raw_binary_request_of_a_string() -> None:
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
def test_raw_binary_requests_that_do_not_fit_are_refused(signature: Signature, body: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        read_request(body, 0, signature)
