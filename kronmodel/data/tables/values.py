"""Parsing of texts as people write them in tables: numbers, truth values, dates and times."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LARGEST",
    "MISSING",
    "PLAIN",
    "TRUTH",
    "epoch_unit",
    "parse_dates",
    "parse_numbers",
    "truth_values",
]

Numbers = NDArray[np.float64]

LARGEST = float(np.finfo(np.float32).max)
MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "?", "<na>", "nat"})  # in lower case
TRUTH = {
    "true": True, "false": False, "yes": True, "no": False, "t": True, "f": False, "y": True, "n": False,
    "on": True, "off": False,
}  # fmt: skip
_PAIRS = ({"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"}, {"on", "off"})

_CURRENCY = re.compile(r"[$€£¥]|\b(?:USD|EUR|GBP|CHF|JPY)\b")
_GROUP = re.compile(r"(?<=\d)[ \u00a0\u2009\u202f'\u2019](?=\d{3}(?!\d))")  # blank or apostrophe between thousands
_COMMA_DECIMAL = re.compile(r"[-+]?(?:\d{1,3}(?:\.\d{3})+|\d*)(?:,\d+)?(?:[eE][-+]?\d+)?")
_COMMA_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d*)?")
_BRACKETS = re.compile(r"\((.*\d.*)\)")  # a negative amount in accounting

PLAIN = "numbers"
DECIMAL_COMMA, THOUSANDS = "decimal comma", "thousands"  # formats of numbers that are not plain


def parse_numbers(texts: Sequence[str], *, comma: bool, form: str = "") -> tuple[Numbers, str, str]:
    """Parse distinct texts as numbers: plain ones, else with ``$ € %``, thousands, or a decimal comma.

    Args:
        texts: the distinct texts, not missing.
        comma: a comma between digits is a decimal comma where it may be either that or between thousands.
        form: format of the numbers, as returned for other texts of the same column; empty to infer it.

    Returns:
        The numbers, NaN for what is not one, infinite for what does not fit in float32; a description of how they are
        written; and their format, empty where other texts of the column may have any.
    """
    if form in (DECIMAL_COMMA, THOUSANDS):
        known = _decimal_comma if form == DECIMAL_COMMA else _thousands
        return np.array([known(_strip(text)) for text in texts], np.float64), f"numbers with {form}", form
    plain = np.array([_plain(text) for text in texts], np.float64)
    best, how, form = plain, PLAIN, ""
    if not np.isnan(plain).any():
        return plain, how, ""
    stripped = [_strip(text) for text in texts]
    marks = sorted({mark for text in texts for mark in "$€£¥%" if mark in text})
    with_marks = f" with {' '.join(marks)}" if marks else ""
    ways: list[tuple[Callable[[str], float], str, str]] = [
        (_plain, f"numbers{with_marks}" if with_marks else "numbers with thousands", ""),
        (_decimal_comma, f"numbers with a decimal comma{with_marks.replace(' with', ' and')}", DECIMAL_COMMA),
        (_thousands, f"numbers with a comma between thousands{with_marks.replace(' with', ' and')}", THOUSANDS),
    ]
    if not comma:
        ways[1], ways[2] = ways[2], ways[1]
    for parse, description, found in ways:
        parsed = np.array([parse(text) for text in stripped], np.float64)
        if np.isnan(parsed).sum() < np.isnan(best).sum():
            best, how, form = parsed, description, found
    return best, how, form


def _plain(text: str) -> float:
    """Parse a number as Python does, but not ``1_000``; NaN if it is none, infinite if it is not finite in float32."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    if "_" in text:
        return math.nan
    return value if abs(value) <= LARGEST else math.inf


def _strip(text: str) -> str:
    """Remove currencies, a percent sign, and blanks between thousands; write an amount in brackets with a minus."""
    text = _CURRENCY.sub("", text).strip().removesuffix("%").strip()
    if bracketed := _BRACKETS.fullmatch(text):
        text = f"-{bracketed[1].strip()}"
    if text.startswith(("-", "+")):
        text = text[0] + text[1:].lstrip()
    return _GROUP.sub("", text)


def _decimal_comma(text: str) -> float:
    if not text or not _COMMA_DECIMAL.fullmatch(text):
        return math.nan
    return _plain(text.replace(".", "").replace(",", "."))


def _thousands(text: str) -> float:
    return _plain(text.replace(",", "")) if _COMMA_THOUSANDS.fullmatch(text) else _plain(text)


def truth_values(texts: Sequence[str]) -> Numbers | None:
    """Parse distinct texts as 1 for true and 0 for false; None unless they are one pair such as yes and no."""
    lower = {text.lower() for text in texts}
    if not any(lower == pair for pair in _PAIRS):
        return None
    return np.array([TRUTH[text.lower()] for text in texts], np.float64)


_DAYS = (
    "%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%y", "%m/%d/%y",
    "%d/%m/%y", "%b %d %Y", "%b %d, %Y", "%B %d, %Y", "%B %d %Y", "%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%d-%b-%y",
    "%b %Y", "%B %Y", "%Y-%m",
)  # fmt: skip
_TIMES = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p", "%I:%M%p")
_FORMATS = (*_DAYS, *(f"{day} {time}" for day in _DAYS for time in _TIMES), *_TIMES)
_ISO = "dates such as 2024-05-31"
_DIGITS = re.compile(r"\d")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def parse_dates(texts: Sequence[str], form: str = "") -> tuple[Numbers, str, str]:
    """Parse distinct texts as dates and times in the format that most of them have.

    Args:
        texts: the distinct texts, not missing.
        form: format of the dates, as returned for other texts of the same column; empty to infer it. Dates in ISO 8601
            are parsed beside those in another format, unless these are times.

    Returns:
        Seconds since 1970-01-01, in UTC where no zone is written; of times alone, seconds since midnight; NaN for what
        is none. A description of the format; and the format, empty for ISO 8601.
    """
    if form in _FORMATS:
        given = _with_format(form)
        seconds = np.array([given(text) for text in texts], np.float64)
        if form not in _TIMES:
            seconds = np.where(np.isnan(seconds), [_iso(text) for text in texts], seconds)
        return seconds, f"dates or times as {form}", form
    nothing = np.full(len(texts), np.nan)
    first = [text for text in texts if _DIGITS.search(text)][:40]
    if not first or max(map(len, first)) > 40:
        return nothing, "", ""
    best: Callable[[str], float] = _iso
    found = sum(not math.isnan(_iso(text)) for text in first)
    how, form = _ISO, ""
    if found < len(first):
        for each in _FORMATS:
            parse = _with_format(each)
            count = sum(not math.isnan(parse(text)) for text in first)
            if count > found:
                best, found, how, form = parse, count, f"dates or times as {each}", each
    if not found:
        return nothing, "", ""
    return np.array([best(text) for text in texts], np.float64), how, form


def _iso(text: str) -> float:
    if len(text) < 8 or not text[0].isdigit() or text.isdigit():  # 20240531 is more often a number
        return math.nan
    try:
        return _seconds(dt.datetime.fromisoformat(text))
    except ValueError:
        return math.nan


def _with_format(form: str) -> Callable[[str], float]:
    only_time = "%Y" not in form and "%y" not in form

    def parse(text: str) -> float:
        try:
            value = dt.datetime.strptime(text, form)
        except ValueError:
            return math.nan
        if only_time:
            return value.hour * 3600 + value.minute * 60 + value.second + value.microsecond / 1e6
        return _seconds(value)

    return parse


def _seconds(value: dt.datetime) -> float:
    return (value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)).timestamp()


_UNITS = {"seconds": 1.0, "milliseconds": 1e-3, "microseconds": 1e-6, "nanoseconds": 1e-9}
_YEARS, _DIGIT_DATES = "years", "dates such as 20240531"


def epoch_unit(values: Numbers, form: str = "") -> tuple[Numbers, str]:
    """Interpret numbers as dates by their magnitude: years, 20240531, or seconds, milliseconds, ... since 1970.

    Args:
        values: the numbers, NaN for missing ones.
        form: a description as returned for other numbers of the same column; empty to infer it.

    Returns:
        Seconds since 1970-01-01, and a description.
    """
    largest = float(np.nanmax(np.abs(values)))
    if form == _YEARS or (not form and largest <= 9999):
        known = np.abs(values) <= 9999  # not NaN, either
        years = np.where(known, values, 1970)
        whole = np.floor(years)
        starts = (whole.astype("int64") - 1970).astype("datetime64[Y]").astype("datetime64[s]").astype(np.float64)
        seconds = starts + (years - whole) * 365.25 * 86400
        return np.where(known, seconds, np.nan), _YEARS
    if form == _DIGIT_DATES or (not form and float(np.nanmin(values)) >= 10_000_101 and largest <= 99_991_231):
        texts = ["" if math.isnan(value) else str(int(value)) for value in values.tolist()]
        parse = _with_format("%Y%m%d")
        seconds = np.array([parse(text) for text in texts], np.float64)
        if form or np.isnan(seconds).sum() == np.isnan(values).sum():
            return seconds, _DIGIT_DATES
    found = form.removesuffix(" since 1970")
    if found not in _UNITS:
        limits = zip(_UNITS, (1e11, 1e14, 1e17, math.inf), strict=True)
        found = next(unit for unit, limit in limits if largest < limit or limit == math.inf)
    return values * _UNITS[found], f"{found} since 1970"
