"""Messages of refused requests: what was got is never what was expected."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadRequest, RequestError
from tests.app.oip_requests import document, read

JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 4), st.floats(), st.sampled_from(["FP32", "INT64", "a", "y"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["name", "x"]), inner)),
    max_leaves=5,
)
SIZES = st.lists(st.one_of(st.integers(-3, 3), st.floats(-2, 2), st.booleans(), st.none()), max_size=3)


def check(message: str) -> None:
    """Fail where a message says that it got what it expected."""
    said = re.search(r"\bgot (?P<got>.+?), expected (?P<expected>.+)", message, re.DOTALL)
    if said:
        got, expected = (re.sub(r"['\"]", "", said[part]).strip() for part in ("got", "expected"))
        assert got != expected, message


def test_the_check_finds_such_a_message() -> None:
    with pytest.raises(AssertionError):
        check("input 'a': shape: got [-1, 784], expected [-1, 784]")
    check("input 'a': shape: got [1, 785], expected [-1, 784]")


@given(shape=st.one_of(SIZES, st.just([-1, 2]), JSON), datatype=st.one_of(st.just("FP32"), JSON))
def test_shapes_and_datatypes(shape: Any, datatype: Any) -> None:
    try:
        read(document(a={"shape": shape, "datatype": datatype}))
    except RequestError as error:
        check(str(error))


@given(
    place=st.sampled_from(["inputs", "outputs", "id", "parameters"]),
    entry=st.sampled_from(["name", "shape", "datatype", "data", "parameters"]),
    value=JSON,
    whole=st.booleans(),
)
def test_other_values(place: str, entry: str, value: Any, whole: bool) -> None:
    changes = {place: value} if whole else {"a": {entry: value}}
    try:
        read(document(**changes))
    except RequestError as error:
        check(str(error))


@pytest.mark.parametrize("shape", [[-1, 2], [-1, -1], [2, -2], [True, 2], [2.0, 2]])
def test_a_size_that_is_no_size_is_named(shape: list[object]) -> None:
    wrong = next(size for size in shape if type(size) is not int or size < 0)
    with pytest.raises(BadRequest) as raised:
        read(document(a={"shape": shape}))
    assert str(raised.value) == f"input 'a': shape: got {wrong!r} in {shape}, expected whole numbers from 0 on"
