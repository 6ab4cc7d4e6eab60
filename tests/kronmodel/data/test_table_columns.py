"""Kinds of columns: numbers as people write them, truth values, dates, categories, text, ids."""

import datetime as dt
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kronmodel.data.tables.columns import Column, Kind, column_of
from kronmodel.data.tables.values import parse_dates, parse_numbers


def column(cells: list[Any], kind: Kind | None = None, *, name: str = "c", comma: bool = False) -> Column:
    return column_of(name, pa.chunked_array([pa.array(cells)]), kind, comma=comma)


@pytest.mark.parametrize(
    ("cells", "comma", "values"),
    [
        (["1", "2.5", "-3e2", " 4 ", "+5"], False, [1, 2.5, -300, 4, 5]),
        (["1,5", "2", "-0,25"], True, [1.5, 2, -0.25]),
        (["1,5", "2", "-0,25"], False, [1.5, 2, -0.25]),
        (["1.234,5", "2,5"], False, [1234.5, 2.5]),
        (["1,234", "2,345"], True, [1.234, 2.345]),
        (["1,234", "2,345"], False, [1234, 2345]),
        (["1,234.50", "12", "1,234,567"], False, [1234.5, 12, 1234567]),
        (["$1,234.50", "-$5", "($7)"], False, [1234.5, -5, -7]),
        (["5 €", "1.000,5 €"], True, [5, 1000.5]),
        (["12 %", "3.5%"], False, [12, 3.5]),
        (["1 234", "1'234", "1\u202f234"], False, [1234, 1234, 1234]),
        (["USD 5", "6 EUR"], False, [5, 6]),
    ],
)
def test_numbers_as_people_write_them(cells: list[str], comma: bool, values: list[float]) -> None:
    found = column(cells, comma=comma)
    assert (found.kind, dict(found.wrong)) == ("number", {})
    assert found.values is not None
    assert found.values.tolist() == values


@pytest.mark.parametrize("text", ["1_000", "1,23,4", "12-5", "$", "%", "1.2.3", "--5", "١٢a", "0x10"])
def test_what_is_no_number(text: str) -> None:
    for comma in (True, False):
        assert math.isnan(parse_numbers([text], comma=comma)[0][0])


def test_a_few_wrong_cells_are_errors_and_many_make_it_texts() -> None:
    few = column(["1", "2", "x", "1e39", "NA", "5", "6", "7"])
    assert few.kind == "number"
    assert few.wrong == {2: "got 'x', expected a finite number", 3: "got '1e39', expected a finite number"}
    assert few.missing.tolist() == [False, False, True, True, True, False, False, False]
    many = column(["1", "a1", "2", "a2", "3", "4", "5", "a3", "a4", "a5", "a6", "7", "8", "9"])
    assert (many.kind, many.why) == ("left out", "free text or names: different in every row")
    assert column(["1", "x"] * 3, "number").wrong == dict.fromkeys((1, 3, 5), "got 'x', expected a finite number")


@pytest.mark.parametrize(("yes", "no"), [("True", "false"), ("yes", "NO"), ("Y", "n"), ("t", "F"), ("on", "off")])
def test_truth_values(yes: str, no: str) -> None:
    found = column([yes, no, "", yes])
    assert found.kind == "boolean"
    assert found.values is not None
    np.testing.assert_array_equal(found.values, [1, 0, np.nan, 1])


@pytest.mark.parametrize("cells", [["yes", "false"], ["yes", "maybe", "no"], ["yes", "yes"]])
def test_other_pairs_are_categories(cells: list[str]) -> None:
    assert column(cells * 2).kind == "category"


@pytest.mark.parametrize(
    ("cells", "days"),
    [
        (["2024-03-01", "2023-12-31"], [dt.date(2024, 3, 1), dt.date(2023, 12, 31)]),
        (["01.03.2024", "31.12.2023"], [dt.date(2024, 3, 1), dt.date(2023, 12, 31)]),
        (["3/1/2024", "12/31/2023"], [dt.date(2024, 3, 1), dt.date(2023, 12, 31)]),
        (["1/3/2024", "31/12/2023"], [dt.date(2024, 3, 1), dt.date(2023, 12, 31)]),
        (["Mar 1 2024", "Dec 31 2023"], [dt.date(2024, 3, 1), dt.date(2023, 12, 31)]),
        (["March 1, 2024", "December 31, 2023"], [dt.date(2024, 3, 1), dt.date(2023, 12, 31)]),
        (["2024/03/01", "2023/12/31"], [dt.date(2024, 3, 1), dt.date(2023, 12, 31)]),
    ],
)
def test_dates(cells: list[str], days: list[dt.date]) -> None:
    found = column([*cells, ""])
    assert found.kind == "date"
    assert found.values is not None
    assert found.values[:2].tolist() == [(day - dt.date(1970, 1, 1)).days * 86400 for day in days]
    assert math.isnan(found.values[2])


def test_times_and_zones() -> None:
    seconds, _, _ = parse_dates(["2024-01-02T03:04:05Z", "2024-01-02 05:04:05.5+02:00"])
    assert np.diff(seconds).tolist() == [0.5]
    clock, how, _ = parse_dates(["23:59", "00:01"])
    assert (clock.tolist(), how) == ([86340, 60], "dates or times as %H:%M")
    assert parse_dates(["May", "x1"])[1] == ""


@pytest.mark.parametrize(
    ("cells", "seconds"),
    [
        (["1970", "1971"], [0, 365 * 86400]),
        (["19700102", "19710101"], [86400, 365 * 86400]),
        (["1764000000", "0"], [1764000000, 0]),
        (["1764000000500", "1764000000000"], [1764000000.5, 1764000000]),
    ],
)
def test_numbers_as_dates_where_that_was_asked_for(cells: list[str], seconds: list[float]) -> None:
    assert column(cells).kind == "number"
    found = column(cells, "date")
    assert found.values is not None
    assert found.values.tolist() == seconds
    typed = column([int(cell) for cell in cells], "date").values
    assert typed is not None
    assert typed.tolist() == seconds


def test_texts_are_categories_where_they_repeat_and_else_left_out() -> None:
    assert column(["a", "b", "a", "b", ""]).kind == "category"
    names = column([f"name {n}" for n in range(9)])
    assert (names.kind, names.why) == ("left out", "free text or names: different in every row")
    mostly = column([f"name {n}" for n in range(9)] + ["name 3"])
    assert mostly.why == "free text or names: 9 different texts in 10 rows"
    kept = column([f"name {n}" for n in range(9)], "category")
    assert (kept.kind, kept.why) == ("category", "as asked for")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("id", "left out"), ("patient_id", "left out"), ("PassengerId", "left out"), ("Unnamed: 0", "left out"),
     ("acid", "number"), ("year", "number"), ("valid", "number")],
)  # fmt: skip
def test_numbers_that_only_count_the_rows(name: str, kind: str) -> None:
    assert column([str(n) for n in range(30)], name=name).kind == kind
    assert column([str(n // 2) for n in range(30)], name=name).kind == "number"


def test_columns_with_types() -> None:
    found = column([dt.datetime(2024, 1, 1, 12), None])
    assert (found.kind, found.values is not None and found.values.tolist()[0]) == ("date", 1704110400.0)
    assert column([dt.date(1970, 1, 2), None]).values is not None
    assert column([True, False, None]).kind == "boolean"
    assert column([1, 2, None]).missing.tolist() == [False, False, True]
    assert column([1.5, float("inf")]).wrong == {1: "got inf, expected a finite number"}
    assert column([[1], [2]]).why == "values of the type list<item: int64>"
    assert column([None, None]).why == "every value is missing"
    texts = column([1, 2, None], "category").values
    assert texts is not None
    assert texts.tolist() == ["1", "2", ""]


def test_the_fast_parser_of_whole_columns_agrees_with_the_other_one() -> None:
    rng = np.random.default_rng(3)
    cells = [repr(value) for value in (rng.normal(size=500) * 10.0 ** rng.integers(-20, 20, 500)).tolist()]
    fast, slow = column(cells), column([*cells, "$5"])
    assert fast.values is not None
    assert slow.values is not None
    np.testing.assert_array_equal(fast.values, slow.values[:-1])
    assert fast.values.tolist() == [float(cell) for cell in cells]


@pytest.mark.parametrize(
    ("trained", "new", "values"),
    [
        (["1,5", "2.000,25"], ["1,234", "2.500"], [1.234, 2500]),
        (["1,234,567", "2,5.5", "1,000.5"], ["1,234", "7.5"], [1234, 7.5]),
        (["1.5", "2"], ["1,5", "2,25"], [1.5, 2.25]),  # plain numbers say nothing about other ones
    ],
)
def test_numbers_are_read_in_the_format_of_other_rows(trained: list[str], new: list[str], values: list[float]) -> None:
    form = parse_numbers(trained, comma=False)[2]
    for comma in (False, True):
        numbers, _, again = parse_numbers(new, comma=comma or not form, form=form)
        assert (numbers.tolist(), again) == (values, form or "decimal comma")


@pytest.mark.parametrize(
    ("trained", "new", "expected"),
    [
        (["31/12/2023", "01/02/2024"], ["01/02/2024", "2024-02-01"], ["2024-02-01", "2024-02-01"]),
        (["12/31/2023", "01/02/2024"], ["01/02/2024", "13/01/2024"], ["2024-01-02", None]),
        (["31.12.2023 08:00"], ["01.02.2024 00:00"], ["2024-02-01"]),
        (["2023-12-31"], ["2024-02-01"], ["2024-02-01"]),
    ],
)
def test_dates_are_read_in_the_format_of_other_rows(trained: list[str], new: list[str], expected: list[str]) -> None:
    form = column_of("", pa.chunked_array([pa.array(trained)]), "date", comma=False).form
    column = column_of("", pa.chunked_array([pa.array(new)]), "date", comma=False, form=form)
    assert [None if math.isnan(each) else str(np.datetime64(int(each), "s"))[:10] for each in column.values] == expected  # type: ignore[union-attr]
    assert (column.form, list(column.wrong)) == (form, [row for row, each in enumerate(expected) if each is None])


def test_numbers_as_dates_keep_their_unit() -> None:
    years = column_of("", pa.chunked_array([pa.array([1999, 2001])]), "date", comma=False)
    assert years.form == "years"
    strange = column_of("", pa.chunked_array([pa.array([2000, 20_000_101])]), "date", comma=False, form=years.form)
    assert strange.wrong == {1: "got 20000101, expected years"}
    early = column_of("", pa.chunked_array([pa.array([5.0])]), "date", comma=False, form="milliseconds since 1970")
    assert np.asarray(early.values).tolist() == [0.005]
