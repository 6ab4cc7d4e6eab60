"""The cache of request templates: a cached request reads the same as a new one."""

import contextlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import BadRequest
from app.oip.request import read_request
from app.oip.request_cache import MAX_TEMPLATES
from app.oip.signature import Signature
from tests.app.oip_requests import SIGNATURE, document, one, read


def test_cached_json_with_other_binary_data() -> None:
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
        assert (request.rows, request.timeout_s, request.provenance, request.id) == (2, 5.0, True, None)
        assert len(signature.request_cache) == 1
    for blob, message in (
        (a.tobytes(), "input 'b': got 0 bytes of binary data, expected 16"),
        (a.tobytes() + b.tobytes() + b"x", "got 1 bytes after the last input's binary data"),
    ):
        with pytest.raises(BadRequest, match=message):
            read(value, blob, signature)
    read(value | {"id": "mine"}, a.tobytes() + b.tobytes(), signature)
    assert len(signature.request_cache) == 1  # requests with an id are not cached
    for timeout in range(2 * MAX_TEMPLATES):
        read(value | {"parameters": {"timeout": timeout}}, a.tobytes() + b.tobytes(), signature)
        assert len(signature.request_cache) <= MAX_TEMPLATES


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
def test_cached_json_with_other_data_reads_like_a_new_request(
    data: list[Any], shape: Any, more: str, comma: str
) -> None:
    """Reads each request with an empty cache, after a similar request, and a second time."""
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

    uncached = outcome(one("FP32", (-1, 2)))
    cached = one("FP32", (-1, 2))
    with contextlib.suppress(BadRequest):
        read_request(other, None, cached)
    assert outcome(cached) == uncached
    assert outcome(cached) == uncached


def test_binary_data_of_cached_requests_is_checked() -> None:
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
