"""Arrays parsed in pieces: equal to the text parsed at once, wherever it is cut, and with the same errors."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app import json_arrays
from app.errors import BadRequest, TooLarge
from app.json_arrays import JsonArray, syntax_error
from app.parsing import MAX_REST_BYTES, Object, parse_with_arrays

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet='ab,[]{}:" \\\n/é€😀', max_size=8)
    | st.sampled_from(["\\", '"', '\\"', '],["', '"data":[1,2]', "]", "[["])
)
LISTS = st.lists(st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=6), max_leaves=30), max_size=9)
VALUES = st.recursive(
    SCALARS | LISTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["data", 'a"data', "é"]), inner),
    max_leaves=12,
)
SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" \n,\t", " : "), (",  \r\n", ":")])
WINDOWS = st.sampled_from([2, 3, 5, 8, 13, 40, 1000])
CHANGES = st.sampled_from([*'[]{}",:\\ 01.eE+-tn', "", "NaN", "Infinity", "1e999", "é"])


@contextmanager
def windows(size: int) -> Iterator[None]:
    """Cut texts after every few bytes, instead of after every 64 KiB."""
    with mock.patch.multiple(json_arrays, WINDOW_BYTES=size, FIRST_BYTES=size):
        yield


def joined(array: JsonArray) -> list[Any]:
    """The whole array, put together of its pieces as `JsonArray.pieces` documents them."""
    whole: list[Any] = []
    for piece, depth in array.pieces():
        _append(whole, piece, depth)
    return whole


def _append(whole: list[Any], piece: list[Any], depth: int) -> None:
    if depth >= 2:
        _append(whole[-1], piece[0], depth - 1)
        piece = piece[1:]
    whole += piece


def leaves(value: object) -> int:
    """Number of innermost elements, an empty list counted as one."""
    return sum(map(leaves, value)) if isinstance(value, list) and value else 1


def lists(value: object) -> int:
    return 1 + sum(map(lists, value)) if isinstance(value, list) else 0


def _holds_object(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(map(_holds_object, value)))


def dumped(value: object, separators: tuple[str, str], *, ascii_only: bool = False) -> bytes:
    return json.dumps(value, separators=separators, ensure_ascii=ascii_only).encode()


@given(value=LISTS, separators=SEPARATORS, window=WINDOWS, ascii_only=st.booleans(), rest=st.sampled_from(["", " ]x"]))
def test_an_array_in_pieces_is_the_array(
    value: list[Any], separators: tuple[str, str], window: int, ascii_only: bool, rest: str
) -> None:
    text = dumped(value, separators, ascii_only=ascii_only)
    with windows(window):
        array = JsonArray(b'{"data":' + text + rest.encode(), 8)
        assert joined(array) == orjson.loads(text)
    assert array.end == 8 + len(text)
    assert array.values == leaves(value)
    assert array.lists == lists(value)
    assert array.rows == sum(isinstance(row, list) for row in value)


def _entries(document: Object) -> list[Object]:
    entries = document.get("inputs")
    return [entry for entry in entries if type(entry) is dict] if type(entries) is list else []


def _whole(body: bytes) -> object:
    """The body parsed at once; the message where it is not valid."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        return str(syntax_error(body, problem, problem.pos))


def _in_pieces(body: bytes) -> object:
    """The body parsed by `parse_with_arrays`, its arrays put together; the message where it is not valid."""
    try:
        document = parse_with_arrays(body, "data", _entries)
        for entry in _entries(document):
            if type(entry.get("data")) is JsonArray:
                entry["data"] = joined(entry["data"])
    except BadRequest as error:
        return str(error)
    return document


@given(data=st.lists(LISTS, max_size=3), other=VALUES, separators=SEPARATORS, window=WINDOWS)
@example(data=[[1]], other={'a"data': [1]}, separators=(",", ":"), window=2)
def test_a_document_with_arrays_is_the_document(
    data: list[list[Any]], other: object, separators: tuple[str, str], window: int
) -> None:
    """Whatever else it holds: other values under the key, and texts that only look like the key and an array."""
    entries = [{"name": f"{index}", "data": each} for index, each in enumerate(data)]
    body = dumped({"data": other, "inputs": [*entries, other], "": '"data":[', "other": other}, separators)
    parsed = _whole(body)
    if isinstance(other, dict) and "data" in other:
        other["data"] = None  # an array in an entry may hold objects, which no tensor does
        body = dumped({"data": other, "inputs": [*entries, other]}, separators)
        parsed = _whole(body)
    with windows(window):
        assert _in_pieces(body) == parsed


@given(value=LISTS, at=st.integers(0, 10**6), change=CHANGES, cut=st.booleans(), window=WINDOWS)
def test_one_wrong_character_is_reported_as_by_the_parser(
    value: list[Any], at: int, change: str, cut: bool, window: int
) -> None:
    text = dumped({"inputs": [{"data": value}], "id": "é"}, (",", ":")).decode()
    at %= len(text)
    body = (text[:at] + change + text[at + cut :]).encode()
    with windows(window):
        got, expected = _in_pieces(body), _whole(body)
    if isinstance(expected, dict) and any(_holds_object(entry.get("data")) for entry in _entries(expected)):
        return  # an object in an array ends it; what is read then is refused as a tensor
    if change == "{":  # so what is wrong with the object is not known, but what follows it does not fit either
        assert isinstance(got, str) == isinstance(expected, str)
    else:
        assert got == expected


@pytest.mark.parametrize("window", [2, 7, 64, 100_000])
@pytest.mark.parametrize("before", ["", "1,", "[1,2],", '"a",' * 20])
def test_an_object_ends_an_array_with_an_object(window: int, before: str) -> None:
    """No tensor has objects, so what follows the first one is not parsed; but the array's end is found."""
    text = ("[" + before + '{"a":[1,{"b":"]}"}],"c":2},5,[6]]').encode()
    with windows(window):
        array = JsonArray(text + b",]", 0)
        assert array.end == len(text)
        assert joined(array) == [*orjson.loads(f"[{before}0]")[:-1], {}]


@pytest.mark.parametrize("window", [7, 60, 100, 1000])
@pytest.mark.parametrize("values", [100, 10])
@pytest.mark.parametrize("space", ["", " " * 99], ids=["dense", "spaced"])
def test_rows_are_whole_in_their_pieces(values: int, window: int, space: str) -> None:
    rows = [[float(index)] * values for index in range(50)]
    with windows(window):
        array = JsonArray(dumped(rows, (",", ":")).replace(b"]", space.encode() + b"]" + space.encode()), 0)
        pieces = list(array.row_pieces(values, "inputs"))
        assert [row for piece in pieces for row in piece] == rows
        assert len(pieces) > 1
        assert array.rows == 50


@pytest.mark.parametrize("row", [[0] * 100_000, [[0]] * 100_000, [[[]]] * 100_000])
def test_a_row_of_far_too_many_values_is_not_parsed(row: list[object]) -> None:
    array = JsonArray(orjson.dumps([[1], row, [2]]), 0)
    message = r"inputs\[[01]\](: | to .*)got more than \d+ values or lists in a row, expected 3 values"
    with mock.patch.object(orjson, "loads", wraps=orjson.loads) as loads, pytest.raises(BadRequest, match=message):
        list(array.row_pieces(3, "inputs"))
    assert all(len(call.args[0]) < 100_000 for call in loads.call_args_list)


def test_long_json_besides_the_arrays_is_refused_with_the_cure() -> None:
    row = '{"island": "Torgersen", "mass": 3650.0}'
    rows = ",".join([row] * (MAX_REST_BYTES // len(row)))
    body = f'{{"inputs": [{",".join("1" * 99)}], "rows": [{rows}]}}'.encode()
    with pytest.raises(TooLarge, match=rf"under 'inputs', .*{MAX_REST_BYTES}; send fewer rows"):
        parse_with_arrays(body, "inputs", lambda document: [document])
    shorter = body.replace(f",{row}".encode() * 200, b"")
    assert len(parse_with_arrays(shorter, "inputs", lambda document: [document])["rows"]) < MAX_REST_BYTES // len(row)
