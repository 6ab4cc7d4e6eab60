"""Report of the unusable rows of a table by their line numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kronmodel.data.tables.reader import BadRow, TableFile
from kronmodel.errors import Argument, DataError, Message

__all__ = ["SHOWN", "bad_rows_text", "left_out_text"]

SHOWN = 5  # most unusable rows that a message lists


def left_out_text(
    file: TableFile, short_rows: Sequence[BadRow], problems: Mapping[int, str], *, skip: bool
) -> str | None:
    """Describe the unusable rows that are left out; return None if there are none.

    Args:
        file: the table.
        short_rows: rows with a wrong number of cells.
        problems: why a row can't be used, by its index among the other rows.
        skip: leave them out.

    Raises:
        DataError: there are unusable rows, and ``skip`` is not set.
    """
    shown = bad_rows_text(file, short_rows, problems)
    if shown is None:
        return None
    bad, _, rows = shown.partition(": ")
    if skip:
        return f"left out {bad} of {file.path}: {rows}"
    cure = Argument("skip_bad_rows", True)
    raise DataError(Message(f"{file.path} has {shown}. Mend them, or leave them out with ", cure))


def bad_rows_text(file: TableFile, short_rows: Sequence[BadRow], problems: Mapping[int, str]) -> str | None:
    """Count the unusable rows and describe the first, as in ``2 bad rows: line 3: ...``; return None without any."""
    count = len(problems) + len(short_rows)
    if not count:
        return None
    first = sorted(problems)[:SHOWN]
    lines = file.line_numbers(first)
    rows = sorted([*short_rows, *(BadRow(lines[row], problems[row]) for row in first)], key=lambda row: row.line)
    shown = "; ".join(f"line {row.line}: {row.problem}" for row in rows[:SHOWN])
    more = f"; and {count - SHOWN:,} more" if count > SHOWN else ""
    bad = "1 bad row" if count == 1 else f"{count:,} bad rows"
    return f"{bad}: {shown}{more}"
