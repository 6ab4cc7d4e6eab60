"""Rows with the columns' names: converted to the inputs of a graph, with errors that name the place."""

import datetime as dt
import math
from typing import Any

import numpy as np
import pytest

from app.errors import BadRequest
from app.models.column_inputs import ColumnInputs, InputColumn
from app.serving.named_rows import joined_columns, rows_of, separate_columns

TABLE = ColumnInputs(
    (
        InputColumn("size", "size", "number"),
        InputColumn("logits", "logits_", "boolean"),
        InputColumn("kind", "kind", "category"),
        InputColumn("when", "when", "date"),
    ),
    frozenset({"id"}),
    separate=True,
)
ROW = {"size": 3, "logits": True, "kind": "flat", "when": "2024-05-31"}


def feeds(*rows: Any) -> dict[str, list[Any]]:
    found = separate_columns(list(rows), TABLE, max_rows=5)
    assert {name: (each.shape, each.dtype.kind) for name, each in found.items()} == {
        name: ((len(rows), 1), "O" if name == "kind" else "f") for name in ("size", "logits_", "kind", "when")
    }
    return {name: each[:, 0].tolist() for name, each in found.items()}


def test_values_of_every_kind() -> None:
    found = feeds(
        ROW, ROW | {"size": 0.5, "logits": "No", "kind": " b ", "when": "2024-05-31T01:00+02:00"}, ROW | {"id": 7}
    )
    assert found["size"] == [3, 0.5, 3]
    assert found["logits_"] == [1, 0, 1]
    assert found["kind"] == ["flat", "b", "flat"]
    midnight = dt.datetime(2024, 5, 31, tzinfo=dt.UTC).timestamp()
    assert found["when"] == [midnight, midnight - 3600, midnight]
    times = feeds(
        ROW | {"when": "08:30", "kind": 4}, ROW | {"when": 5, "kind": 4.0}, ROW | {"kind": 4.5}, ROW | {"kind": True}
    )
    assert times["when"][:2] == [30600, 5]
    assert times["kind"] == ["4", "4", "4.5", "true"]


def test_arrays_become_rows_that_requests_may_have() -> None:
    rows: list[dict[str, Any]] = [
        ROW | {"size": 0.5}, {"size": None, "logits": None, "kind": None, "when": None},
        ROW | {"logits": False, "when": "2024-05-31T01:02:03.500000"}, ROW | {"when": "1970-01-01T08:30:00"},
        ROW | {"when": 1e20}, ROW | {"when": 0.1234567891},
    ]  # fmt: skip
    arrays = separate_columns(rows, TABLE, max_rows=9)
    found = rows_of(arrays, TABLE)
    assert found == rows
    assert [type(row["logits"]) for row in found] == [bool, type(None), bool, bool, bool, bool]
    for name, again in separate_columns(found, TABLE, max_rows=9).items():
        assert str(again.tolist()) == str(arrays[name].tolist())


@pytest.mark.parametrize("missing", [None, "", " NA ", "nan"])
def test_missing_values(missing: Any) -> None:
    found = feeds(dict.fromkeys(ROW, missing))
    assert found.pop("kind") == [""]
    assert all(math.isnan(values[0]) for values in found.values())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, r"rows: got null, expected a list of objects"),
        ([], "rows: got 0 rows, expected 1 to 5"),
        ([ROW] * 6, "rows: got 6 rows, expected 1 to 5"),
        ([ROW, [1]], r"rows\[1\]: got a list, expected an object"),
        (
            [ROW | {"Kind": 1}],
            r"rows\[0\]: got the unknown column 'Kind' \(did you mean 'kind'\?\), expected size, logits",
        ),
        ([{"size": 1, "kind": "a"}], r"rows\[0\]: lacks 'logits', 'when', expected each column, null for a missing"),
        ([ROW | {"size": "3"}], r"rows\[0\]: 'size': got a string, expected a finite number, or null"),
        ([ROW | {"size": True}], r"rows\[0\]: 'size': got a boolean"),
        ([ROW | {"size": 1e300}], r"rows\[0\]: 'size': got 1e\+300, expected a finite number"),
        ([ROW | {"logits": 2}], r"rows\[0\]: 'logits': got a number, expected true, false or null"),
        ([ROW | {"logits": "maybe"}], r"rows\[0\]: 'logits': got 'maybe'"),
        ([ROW | {"kind": ["a"]}], r"rows\[0\]: 'kind': got a list, expected a text or null"),
        ([ROW | {"when": "soon"}], r"rows\[0\]: 'when': got 'soon', expected a date such as"),
        ([ROW | {"when": "99:99"}], r"rows\[0\]: 'when': got '99:99'"),
        ([ROW | {"when": {}}], r"rows\[0\]: 'when': got an object"),
    ],
)
def test_wrong_rows_are_named(rows: Any, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        separate_columns(rows, TABLE, max_rows=5)


def test_rows_of_numbers_are_put_in_the_order_of_the_card() -> None:
    columns = ColumnInputs(tuple(InputColumn(name, "", "number") for name in "abc"), frozenset({"d"}), separate=False)
    rows = joined_columns([{"c": 3, "b": 2.5, "a": 1}, {"a": -1, "c": 0, "b": 7, "d": "x"}], columns, max_rows=2)
    np.testing.assert_array_equal(rows, np.array([[1, 2.5, 3], [-1, 7, 0]], np.float32))
    for wrong in (None, "1", True, 1e39):
        with pytest.raises(BadRequest, match=r"rows\[0\]: 'b': got .*, expected a finite number"):
            joined_columns([{"a": 1, "b": wrong, "c": 2}], columns, max_rows=2)
