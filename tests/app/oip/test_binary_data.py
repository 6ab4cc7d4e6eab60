"""BYTES elements encoded and decoded."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadRequest
from app.oip.binary_data import decode_bytes_elements, encode_bytes_elements


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
def test_truncated_data_and_wrong_lengths_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode_bytes_elements(memoryview(data), 2, "x")
    assert message in str(caught.value)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_bytes_round_trip(texts: list[str]) -> None:
    values = np.empty(len(texts), object)
    values[:] = texts
    wire = encode_bytes_elements(values)
    expected = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)
    assert wire == expected
    assert decode_bytes_elements(memoryview(wire), len(texts), "x").tolist() == texts
