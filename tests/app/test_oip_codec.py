"""The protocol's codec by itself: what goes in comes out, and nothing that is wrong goes in."""

import contextlib
import gzip
import json
import struct
import tracemalloc
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.engine import Tensor
from app.errors import BadRequest, NotSupported, RequestError, TooLarge, UnsupportedEncoding
from app.json_object import mentions_booleans
from app.oip import bytes_tensor, encoding
from app.oip.classification import classify
from app.oip.datatypes import BINARY_ONLY, DTYPES
from app.oip.infer_request import InferRequest, Wanted
from app.oip.known import MOST
from app.oip.request import read_request
from app.oip.response import write_response
from app.oip.signature import Signature
from tests.app.graphs import Array

# The same examples each time, on however busy a machine.
settings.register_profile("quiet", deadline=None, database=None, derandomize=True)
settings.load_profile("quiet")

SIGNATURE = Signature(
    inputs={"a": Tensor("a", "FP32", (-1, 2)), "b": Tensor("b", "INT64", (-1,))},
    outputs={"y": Tensor("y", "FP32", (-1, 3)), "h": Tensor("h", "FP16", (-1,)), "s": Tensor("s", "BYTES", (-1,))},
    batchable=True,
    max_batch=8,
)


def one(datatype: str, shape: tuple[int, ...], *, batchable: bool = True) -> Signature:
    tensor = {"x": Tensor("x", datatype, shape)}
    return Signature(inputs=tensor, outputs=tensor, batchable=batchable, max_batch=100)


def document(**changes: Any) -> dict[str, Any]:
    """A request that fits `SIGNATURE`; an input's changes are under its name."""
    inputs = [
        {"name": "a", "shape": [2, 2], "datatype": "FP32", "data": [1.5, 2, 3, 4]} | changes.pop("a", {}),
        {"name": "b", "shape": [2], "datatype": "INT64", "data": [-5, 2**62]} | changes.pop("b", {}),
    ]
    inputs = [{key: value for key, value in entry.items() if value is not ...} for entry in inputs]
    return {"inputs": inputs, "outputs": [{"name": "y"}], "model_name": "whatever", **changes}


def read(value: Any, blob: bytes = b"", signature: Signature = SIGNATURE) -> InferRequest:
    head = json.dumps(value).encode()
    return read_request(head + blob, len(head) if blob else None, signature)


def test_json_with_unknown_keys_flat_and_nested() -> None:
    for data in ([1.5, 2, 3, 4], [[1.5, 2], [3, 4]], [[[1.5], [2]], [[3], [4]]]):
        request = read(document(a={"data": data}, id="x", parameters={"mine": 1}))
        np.testing.assert_array_equal(request.feeds["a"], np.array([[1.5, 2], [3, 4]], np.float32))
        np.testing.assert_array_equal(request.feeds["b"], np.array([-5, 2**62]))
        assert [request.feeds[name].dtype.name for name in "ab"] == ["float32", "int64"]
        assert (request.rows, request.id, request.timeout_s) == (2, "x", None)
        assert request.outputs == [Wanted("y", "FP32", binary=False)]


def test_blobs_follow_the_json_in_the_order_of_the_inputs_and_json_ones_have_none() -> None:
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


def test_outputs_binary_by_request_or_by_output() -> None:
    def wanted(**changes: Any) -> list[tuple[str, bool]]:
        return [(output.name, output.binary) for output in read(document(**changes)).outputs]

    binary = {"binary_data_output": True}
    assert wanted(outputs=[{"name": "s"}]) == [("s", False)]
    assert wanted(outputs=[{"name": "h"}, {"name": "y"}], parameters=binary) == [("h", True), ("y", True)]
    assert wanted(outputs=[{"name": "y", "parameters": {"binary_data": False}}], parameters=binary) == [("y", False)]
    everything = [("y", True), ("h", True), ("s", True)]
    assert wanted(outputs=None, parameters=binary) == wanted(outputs=[], parameters=binary) == everything
    classes = read(document(outputs=[{"name": "h", "parameters": {"classification": 2}}])).outputs[0]
    assert (classes.classes, classes.binary) == (2, False)  # a class is text, whatever the type of its value
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
        ({"a": {"shape": [-2, 2]}}, "input 'a': shape: got [-2, 2], expected [-1, 2]"),
        ({"a": {"shape": [2.0, 2]}}, "input 'a': shape: got [2.0, 2]"),
        ({"a": {"shape": [True, 2]}}, "input 'a': shape: got [True, 2]"),
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
        ({"b": {"data": [2**63, 2]}}, "input 'b': data: got a value beyond INT64"),
        ({"b": {"data": [2**64, 2]}}, "input 'b': data: element 0: got 1.8446744073709552e+19, expected an integer"),
        ({"b": {"shape": [3], "data": [1, 2, 3]}}, "inputs: got batches of 2, 3 rows, expected equal ones"),
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
        ({"outputs": [{"name": "y"}, {"name": "y"}]}, "outputs: got one of them twice"),
        ({"outputs": [{"name": "h"}]}, "output 'h': FP16 has no JSON form; ask for binary_data"),
        ({"outputs": None}, "output 'h': FP16 has no JSON form"),
        ({"outputs": [{"name": "y", "parameters": {"classification": -1}}]}, "classification: got -1"),
        ({"outputs": [{"name": "y", "parameters": {"classification": True}}]}, "classification: got True"),
        ({"outputs": [{"name": "s", "parameters": {"classification": 1}}]}, "got BYTES, expected an output of numbers"),
        ({"outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]}, "binary_data: got 'yes'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
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
def test_what_is_not_supported_says_so(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NotSupported, match=message):
        read(document(**changes))


def test_more_rows_than_allowed() -> None:
    nine = document(a={"shape": [9, 2], "data": [0] * 18}, b={"shape": [9], "data": [0] * 9})
    with pytest.raises(BadRequest, match=r"inputs: got 9 rows, expected at most 8 \(KRON_MAX_BATCH\)"):
        read(nine)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"inputs": [{"datatype": "FP32", "data": [1.5e3, -2]}]}', False),
        (b"[1, true]", True),
        (b"[false]", True),
        (b"[1]true", False),  # behind the end
        (b"r" * 200, True),  # too many letters to be sure
        (b"l" * 200, True),
    ],
)
def test_where_booleans_may_hide(text: bytes, expected: bool) -> None:
    assert mentions_booleans(text, len(text) - 4 * text.endswith(b"]true")) == expected


@pytest.mark.parametrize("length", [-1, 1, 5, 10**9])
def test_a_header_length_that_cuts_the_json_or_leads_beyond_the_body(length: int) -> None:
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
def test_sizes_that_lie(size: Any, blob: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        read(document(a={"data": ..., "parameters": {"binary_data_size": size}}), blob)


def test_a_lie_about_the_shape_allocates_nothing() -> None:
    huge = document(a={"shape": [2**30, 2], "data": ..., "parameters": {"binary_data_size": 16}})
    text = {"inputs": [{"name": "x", "shape": [2**31], "datatype": "BYTES", "parameters": {"binary_data_size": 4}}]}
    tracemalloc.start()
    for value, blob, signature in ((huge, b"\0" * 16, SIGNATURE), (text, b"\0" * 4, one("BYTES", (-1,)))):
        with pytest.raises(BadRequest, match="bytes"):
            read(value, blob, signature)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


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
        bytes_tensor.decode(memoryview(data), 2, "x")
    assert message in str(caught.value)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_bytes_there_and_back(texts: list[str]) -> None:
    values = np.empty(len(texts), object)
    values[:] = texts
    wire = bytes_tensor.encode(values)
    expected = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)
    assert wire == expected
    assert bytes_tensor.decode(memoryview(wire), len(texts), "x").tolist() == texts


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
    request = InferRequest({}, [Wanted("x", datatype, binary or datatype in BINARY_ONLY)], rows=1, id="7")
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
    assert request.outputs == [Wanted("x", datatype, binary=True)]
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
        request = InferRequest({}, [Wanted("y", "FP32", binary=False)], 1)
        write_response(request, {"y": values}, name="m", version="1", labels=None, batched=True)

    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(BadRequest, match="output 'y': some values are not finite, which JSON cannot say"):
            answer(np.array([1, value], np.float32))


def test_null_in_a_name_or_a_string_is_no_value() -> None:
    request = InferRequest({}, [Wanted("null", "FP32", binary=False), Wanted("s", "BYTES", binary=False)], 1, id="null")
    outputs = {"null": np.array([1.5], np.float32), "s": np.array(["null"], object)}
    body, _ = write_response(request, outputs, name="m", version="1", labels=None, batched=True)
    document = json.loads(body)
    assert (document["id"], [output["data"] for output in document["outputs"]]) == ("null", [[1.5], ["null"]])


def test_json_that_was_seen_before_means_the_same_with_other_blobs() -> None:
    signature = replace(SIGNATURE)
    a, b = np.array([[1.5, -2], [0, 3]], np.float32), np.array([7, 8], np.int64)
    size_a, size_b = {"binary_data_size": a.nbytes}, {"binary_data_size": b.nbytes}
    value = document(
        a={"shape": [2, 2], "data": ..., "parameters": size_a}, b={"shape": [2], "data": ..., "parameters": size_b}
    ) | {"parameters": {"timeout": 5_000_000, "receipt": True}}
    for factor in (1, 2, 3):
        request = read(value, (a * factor).tobytes() + (b * factor).tobytes(), signature)
        assert (request.feeds["a"] == a * factor).all()
        assert (request.feeds["b"] == b * factor).all()
        assert (request.rows, request.timeout_s, request.receipt, request.id) == (2, 5.0, True, None)
        assert len(signature.known) == 1
    for blob, message in (
        (a.tobytes(), "input 'b': got 0 bytes of binary data, expected 16"),
        (a.tobytes() + b.tobytes() + b"x", "got 1 bytes after the last input's binary data"),
    ):
        with pytest.raises(BadRequest, match=message):
            read(value, blob, signature)
    read(value | {"id": "mine"}, a.tobytes() + b.tobytes(), signature)
    assert len(signature.known) == 1  # an id is another one each time
    for timeout in range(2 * MOST):
        read(value | {"parameters": {"timeout": timeout}}, a.tobytes() + b.tobytes(), signature)
        assert len(signature.known) <= MOST


@settings(max_examples=200)
@given(
    st.lists(
        st.one_of(
            st.floats(allow_nan=False, allow_infinity=False),
            st.integers(),
            st.booleans(),
            st.none(),
            st.text(max_size=2),
        ),
        max_size=3,
    ),
    st.sampled_from([[2], [1, 2], [2, 1], [0, 2], "x"]),
    st.sampled_from(["{}", '{"id": "i"}', '{"note": "\\"data\\": [1, 2]"}', '{"inputs": []}', '{"data": [3, 4]}']),
    st.sampled_from([",", ", ", " ,\n"]),
)
def test_json_around_data_that_was_seen_before_changes_nothing(
    data: list[Any], shape: Any, more: str, comma: str
) -> None:
    """Every request twice, and between strangers: what is remembered gives what reading it anew gives."""
    entry = {"name": "x", "datatype": "FP32", "shape": shape, "data": data}
    parts = [
        *(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in {"inputs": [entry]}.items()),
        more.strip("{}"),
    ]
    body = ("{" + comma.join(part for part in parts if part) + "}").encode()
    other = (
        "{" + comma.join(part for part in [parts[0].replace(json.dumps(data), "[5, 6]"), *parts[1:]] if part) + "}"
    ).encode()

    def outcome(signature: Signature) -> Any:
        try:
            request = read_request(body, None, signature)
        except BadRequest as error:
            return str(error)
        return request.feeds["x"].tolist(), request.rows, request.id, request.outputs

    anew = outcome(one("FP32", (-1, 2)))
    used = one("FP32", (-1, 2))
    with contextlib.suppress(BadRequest):
        read_request(other, None, used)
    assert outcome(used) == anew
    assert outcome(used) == anew


def test_bytes_and_booleans_of_json_that_was_seen_before_are_checked() -> None:
    for datatype, size, good, bad in (("BOOL", 2, b"\0\1", b"\0\2"), ("BYTES", 6, b"\2\0\0\0ab", b"\\9\0\0\0ab")):
        signature = one(datatype, (-1,))
        value = {
            "inputs": [
                {
                    "name": "x",
                    "shape": [2 if datatype == "BOOL" else 1],
                    "datatype": datatype,
                    "parameters": {"binary_data_size": size},
                }
            ]
        }
        for _ in range(2):
            read(value, good, signature)
            with pytest.raises(BadRequest):
                read(value, bad, signature)


@settings(max_examples=100)
@given(
    arrays.arrays(
        st.sampled_from(["f4", "f8", "i8", "u1", "f2"]),
        arrays.array_shapes(min_dims=2, max_dims=3, max_side=5),
        elements=st.integers(0, 5),  # few values, so that there are equal ones
    ),
    st.integers(1, 40),
)
def test_classification_agrees_with_sorting_in_python(values: Array, count: int) -> None:
    rows = values.reshape(len(values), -1)
    labels = [f"l{index}" for index in range(rows.shape[1])]
    expected = []
    for row in rows:
        best = sorted(range(len(row)), key=lambda index: (-float(row[index]), index))[:count]
        expected.append([f"{row[index]!s}:{index}:l{index}" for index in best])
    assert classify(values, count, labels, batched=True).tolist() == expected
    flat = values.ravel()
    best = sorted(range(flat.size), key=lambda index: (-float(flat[index]), index))[:count]
    assert classify(values, count, None, batched=False).tolist() == [f"{flat[index]!s}:{index}" for index in best]


def test_classification_of_odd_values() -> None:
    values = np.array([[np.nan, -np.inf, 0.1], [np.inf, 1e-9, -2]], np.float32)
    expected = [["0.1:2", "nan:0", "-inf:1"], ["inf:0", "1e-09:1", "-2.0:2"]]
    assert classify(values, 9, ["too", "few"], batched=True).tolist() == expected
    assert classify(np.empty((0, 3), np.float32), 2, None, batched=True).shape == (0, 2)


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_inflating(name: str) -> None:
    body = b"0123456789" * 1000
    assert encoding.decode(encoding.encode(body, name), name, max_bytes=10_000) == body
    with pytest.raises(TooLarge, match="got more than 9999 bytes once inflated"):
        encoding.decode(encoding.encode(body, name), name, max_bytes=9_999)
    for damaged in (b"", b"nothing", encoding.encode(body, name)[:-5], encoding.encode(body, name) + b"more"):
        with pytest.raises(BadRequest, match="body: "):
            encoding.decode(damaged, name, max_bytes=10_000)


def test_deflate_without_a_header_and_gzip_in_pieces() -> None:
    raw = zlib.compressobj(wbits=-15)
    assert encoding.decode(raw.compress(b"abc") + raw.flush(), "deflate", max_bytes=10) == b"abc"
    assert encoding.decode(gzip.compress(b"abc") + gzip.compress(b"de"), "gzip", max_bytes=5) == b"abcde"
    with pytest.raises(TooLarge):
        encoding.decode(gzip.compress(b"abc") + gzip.compress(b"def"), "gzip", max_bytes=5)
    with pytest.raises(BadRequest, match="more than 64 gzip members"):
        encoding.decode(gzip.compress(b"") * 100, "gzip", max_bytes=5)
    with pytest.raises(UnsupportedEncoding, match="got 'br', expected gzip, deflate or identity"):
        encoding.decode(b"", "br", max_bytes=10)


def test_a_bomb_is_not_held() -> None:
    bomb = gzip.compress(bytes(200 * 2**20), 9)
    tracemalloc.start()
    with pytest.raises(TooLarge):
        encoding.decode(bomb, "gzip", max_bytes=2**20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", "identity"),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("deflate, gzip", "gzip"),
        ("gzip;q=0.2, deflate;q=0.5", "deflate"),
        ("gzip;q=0", "identity"),
        ("identity", "identity"),
        ("identity;q=1, gzip;q=0.5", "identity"),
        ("gzip;q=much, br", "identity"),
        ("GZIP", "gzip"),
    ],
)
def test_accept_encoding(header: str, expected: str) -> None:
    assert encoding.accepted(header) == expected
