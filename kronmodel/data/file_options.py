"""Options for reading a user's data file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from kronmodel.data.dataset import TaskName
from kronmodel.data.tables.columns import Kind
from kronmodel.data.tables.fitting import Impute
from kronmodel.errors import Argument

__all__ = ["OF_COLUMNS", "TEST_FRACTION", "FileOptions", "column_options"]

TEST_FRACTION = 0.2
# Options that name columns of a table, and the kind that each gives them.
OF_COLUMNS: dict[str, Kind] = {"drop": "left out", "categorical": "category", "numeric": "number", "date": "date"}
OTHERS = ("impute", "groups", "time_order")  # further options for the columns of a table


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Options for reading a user's data file; a field that is None, False or empty counts as not given.

    Attributes:
        target: name of the column of a table to predict; for regression several names, separated by commas.
        task: classification or regression; inferred from the target if None.
        test_fraction: fraction of the samples to keep for the test, for a file that is not split already; default 0.2.
        skip_bad_rows: leave out unusable rows of a table instead of refusing the file.
        drop: columns of a table to leave out.
        categorical: columns of a table to take as categories.
        numeric: columns of a table to take as numbers.
        date: columns of a table to take as dates and times.
        impute: what replaces a missing number; ``"none"`` makes its row unusable. Default ``"median"``.
        groups: column of a table whose groups stay together in the split; it is no feature.
        time_order: column of a table whose latest rows are the test.
        seed: random seed of the split.
    """

    target: str | None = None
    task: TaskName | None = None
    test_fraction: float | None = None
    skip_bad_rows: bool = False
    drop: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    date: tuple[str, ...] = ()
    impute: Impute | None = None
    groups: str | None = None
    time_order: str | None = None
    seed: int = 0

    def given(self) -> list[Argument]:
        """List the arguments that the caller set, except the seed, which applies to every data set."""
        names = ("target", "task", "test_fraction", "skip_bad_rows", *OF_COLUMNS, *OTHERS)
        return [Argument(name) for name in names if getattr(self, name) not in (None, False, ())]

    def given_for_tables(self) -> list[Argument]:
        """List the arguments that the caller set and that apply to tables only."""
        return [argument for argument in self.given() if argument.name not in ("task", "test_fraction")]


def column_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Check options for the columns of a table, and convert them to fields of :class:`FileOptions`.

    Raises:
        ValueError: an option is unknown, or its value is not valid.
    """
    unknown = [name for name in given if name not in (*OF_COLUMNS, *OTHERS)]
    if unknown:
        raise ValueError(f"columns has no option {unknown[0]!r}; expected some of {', '.join((*OF_COLUMNS, *OTHERS))}")
    if given.get("impute") not in (None, *get_args(Impute)):
        raise ValueError(f"impute must be one of {', '.join(get_args(Impute))}, got {given['impute']!r}")
    for name in ("groups", "time_order"):
        if not isinstance(given.get(name), str | None):
            raise ValueError(f"{name} must be the name of a column, got {given[name]!r}")
    for name in OF_COLUMNS:
        value = given.get(name, ())
        if isinstance(value, str) or not all(isinstance(each, str) for each in value):
            raise ValueError(f"{name} must be a sequence of columns' names, got {value!r}")
    return {name: value if name in OTHERS else tuple(value) for name, value in given.items()}
