"""Loading of a user's table as a data set: kinds of columns, unusable rows, target, encoding."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kronmodel.data.assembly import STANDARDISED, assemble, check_names, split_samples, target_scaling
from kronmodel.data.dataset import ColumnNote, Dataset, Report
from kronmodel.data.file_options import OF_COLUMNS, FileOptions
from kronmodel.data.grouping import RowSplit, group_split, time_split
from kronmodel.data.tables.bad_rows import SHOWN, left_out_text
from kronmodel.data.tables.columns import Column, Kind, column_of
from kronmodel.data.tables.fitting import fit_encoding, plain_text
from kronmodel.data.tables.reader import RawTable, read_table
from kronmodel.data.target import RawTarget, Target, raw_target, target_from_array
from kronmodel.errors import Argument, DataError, Message

__all__ = ["asked_kinds", "did_you_mean", "is_plain", "load_table", "target_columns"]

OUTPUTS = ("logits", "probabilities", "prediction")
COARSE = 1e-3  # largest rounding of float32, in standard deviations of a column, that a network doesn't notice


def load_table(path: Path, name: str, report: Report, options: FileOptions) -> Dataset:
    """Load a table as a data set.

    A table of numbers only becomes rows of float32 that are standardised in the graph; any other one is encoded in the
    graph, column by column.

    Raises:
        DataError: the file can't be read or has no usable data; the message names unusable rows by line number.
        ValueError: options contradict each other.
    """
    raw = read_table(path)
    for note in raw.file.notes:
        report(f"{path.name}: {note}")
    targets = target_columns(path, raw.names, options.target)
    kinds = asked_kinds(path, raw.names, targets, options)
    if not raw.table.num_rows:
        left_out_text(raw.file, raw.short_rows, {}, skip=options.skip_bad_rows)
        raise DataError(f"{path} has no rows that can be used")
    comma = raw.file.decimal_comma
    columns = [
        column_of(each, raw.table.column(each), kinds.get(each), comma=comma)
        for each in raw.names
        if each not in targets
    ]
    task = options.task if len(targets) == 1 else "regression"
    raw_targets = {each: raw_target(raw.table.column(each), task, comma=comma) for each in targets}
    problems = _problems(raw, columns, raw_targets, needed=options.impute == "none")
    left_out = left_out_text(raw.file, raw.short_rows, problems, skip=options.skip_bad_rows)
    if left_out is not None:
        report(left_out)
    usable = np.ones(raw.table.num_rows, bool)
    usable[list(problems)] = False
    good = np.flatnonzero(usable)
    if not len(good):
        raise DataError(f"{path} has no rows that can be used")
    columns = [column.take(good) for column in columns]
    formats = {each.name: each.form for each in columns if each.form}
    formats |= {each: raw_targets[each].form for each in targets if raw_targets[each].form}
    values = [raw_targets[each].values[good] for each in targets]
    target = target_from_array(values[0] if len(values) == 1 else np.stack(values, 1), task)
    by_column = _row_split(raw, good, options)
    shown = ", ".join(map(repr, targets))
    report(f"target {shown}: {target.task}, because {target.reason}")
    kept = [column for column in columns if column.kind != "left out"]
    if not kept:
        reasons = "; ".join(f"{column.name!r}: {column.why}" for column in columns[:SHOWN])
        raise DataError(
            f"{path}: every column but the target is left out, so there is nothing to learn from: {reasons}"
        )
    if all(map(is_plain, kept)):
        notes = tuple(ColumnNote(name=column.name, kind=column.kind, done=_plain_text(column)) for column in columns)
        _report_left_out(report, notes)
        x = np.stack([np.asarray(column.values, np.float32) for column in kept], 1)
        names = tuple(column.name for column in kept)
        return assemble(
            name,
            str(path),
            report,
            options,
            x=x,
            target=target,
            names=names,
            columns=notes,
            formats=formats,
            target_names=targets,
            by_column=by_column,
        )
    found = _encoded(
        name, path, report, options, columns=columns, target=target, target_names=targets, by_column=by_column
    )
    return replace(found, formats=formats)


def _encoded(
    name: str,
    path: Path,
    report: Report,
    options: FileOptions,
    *,
    columns: Sequence[Column],
    target: Target,
    target_names: tuple[str, ...],
    by_column: RowSplit | None,
) -> Dataset:
    """Split a table, and encode its columns as the training rows suggest."""
    train, test, how = split_samples(len(target.y), target, report, options, by_column)
    kept = [column for column in columns if column.kind != "left out"]
    dropped = [column.name for column in columns if column.kind == "left out"]
    impute = "median" if options.impute in (None, "none") else options.impute
    encoding, done = fit_encoding([column.take(train) for column in kept], dropped, impute=impute, reserved=OUTPUTS)
    if not encoding.columns:
        raise DataError(f"{path}: every feature is constant in the training samples, so there is nothing to learn from")
    notes = tuple(
        ColumnNote(
            name=column.name,
            kind="left out" if column.name in encoding.left_out else column.kind,
            done=done.get(column.name, column.why).removeprefix("left out: "),
        )
        for column in columns
    )
    _report_left_out(report, notes)
    described = [[asdict(column) for column in encoding.columns], encoding.left_out, target.labels]
    check_names(str(path), encoding.width, target, described)

    def rows(chosen: NDArray[np.intp]) -> dict[str, NDArray[np.generic]]:
        by_name = {column.name: column for column in kept}
        return {each.name: np.asarray(by_name[each.name].values)[chosen] for each in encoding.columns}

    test_rows = rows(test)
    return Dataset(
        name=name,
        x_train=encoding.apply(rows(train)),
        y_train=target.y[train],
        x_test=encoding.apply(test_rows),
        y_test=target.y[test],
        task=target.task,
        labels=target.labels,
        feature_names=encoding.feature_names,
        target_scaling=None if target.task == "classification" else target_scaling(str(path), target.y[train]),
        preprocessing=STANDARDISED.replace("standardises", "encodes"),
        origin=str(path),
        split=how,
        columns=notes,
        target_names=target_names,
        encoding=encoding,
        test_rows=test_rows,
    )


def _row_split(raw: RawTable, rows: NDArray[np.intp], options: FileOptions) -> RowSplit | None:
    """Make the split that the options name a column for; None to draw the rows."""
    if options.groups is not None and options.time_order is not None:
        raise ValueError(Message(Argument("groups"), " and ", Argument("time_order"), " both split the rows: give one"))
    if options.groups is not None:
        return group_split(raw.table, options.groups, rows)
    if options.time_order is not None:
        return time_split(raw.table, options.time_order, rows, comma=raw.file.decimal_comma)
    return None


def is_plain(column: Column) -> bool:
    """Tell whether a column is of numbers without gaps that float32 resolves."""
    if column.kind != "number" or column.missing.any():
        return False
    values = np.asarray(column.values)
    if not len(values) or (values == values[0]).all():
        return True
    return bool(np.finfo(np.float32).eps * np.abs(values).max() <= COARSE * values.std())


def _plain_text(column: Column) -> str:
    return column.why if column.kind == "left out" else plain_text(column)


def _report_left_out(report: Report, notes: Iterable[ColumnNote]) -> None:
    left_out = [note for note in notes if note.kind == "left out"]
    if left_out:
        shown = "; ".join(f"{note.name!r} ({note.done})" for note in left_out[:SHOWN])
        more = f"; and {len(left_out) - SHOWN:,} more" if len(left_out) > SHOWN else ""
        report(f"columns that are left out: {shown}{more}")


def target_columns(path: Path, names: Sequence[str], target: str | None) -> tuple[str, ...]:
    """Find the columns to predict; several are separated by commas.

    Raises:
        DataError: the table has too few columns, or none of that name.
    """
    if len(names) < 2:
        raise DataError(f"{path} has {len(names)} columns, expected a target and at least one more")
    columns = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    if target is None:
        raise DataError(Message("name the column to predict by ", Argument("target"), f"; {path} has {columns}"))
    if target in names:
        return (target,)
    chosen = tuple(part.strip() for part in target.split(","))
    unknown = next((part for part in chosen if part not in names), None)
    if unknown is not None:
        raise DataError(f"{path} has no column {unknown!r}{did_you_mean(unknown, names)}; it has {columns}")
    if len(set(chosen)) < len(chosen) or len(chosen) == len(names):
        raise DataError(f"{path}: the targets {target!r} must be different columns, and leave at least one more")
    return chosen


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a question with the most similar name, or nothing."""
    by_lower = {each.lower(): each for each in names}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f" (did you mean {by_lower[found[0]]!r}?)" if found else ""


def asked_kinds(path: Path, names: Sequence[str], targets: Sequence[str], options: FileOptions) -> dict[str, Kind]:
    """Collect the kinds that options give to columns."""
    kinds: dict[str, Kind] = {}
    by_column = {"groups": options.groups, "time_order": options.time_order}
    named: list[tuple[str, Kind | None, Sequence[str]]]
    named = [(option, kind, getattr(options, option)) for option, kind in OF_COLUMNS.items()]
    named += [(option, None, [column] if column else []) for option, column in by_column.items()]
    for option, kind, chosen in named:
        for column in chosen:
            if column not in names:
                columns = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
                text = f": {path} has no column {column!r}{did_you_mean(column, names)}; it has {columns}"
                raise DataError(Message(Argument(option), text))
            if column in targets:
                raise ValueError(Message(Argument(option), f": got the target {column!r}, expected another column"))
            if kind is None:
                continue
            if kinds.get(column, kind) != kind:
                raise ValueError(Message(Argument(option), f": {column!r} is named by another option, too"))
            kinds[column] = kind
    if options.groups is not None:  # the groups of the test have no value that was seen in the training
        kinds[options.groups] = "left out"
    return kinds


def _problems(
    raw: RawTable, columns: Sequence[Column], targets: dict[str, RawTarget], *, needed: bool
) -> dict[int, str]:
    """Find the rows that can't be used, with the first reason of each; ``needed`` makes missing values a reason."""
    problems: dict[int, str] = {}
    by_name = {column.name: column for column in columns}
    for name in raw.names:
        if name in targets:
            found = {row: f"the target {name!r}: {text}" for row, text in targets[name].wrong.items()}
        else:
            column = by_name[name]
            found = {row: f"column {name!r}: {text}" for row, text in column.wrong.items()}
            if needed and column.kind != "left out":
                missing = np.flatnonzero(column.missing).tolist()
                found = dict.fromkeys(missing, f"column {name!r}: got '', expected a value") | found
        for row, text in found.items():
            problems.setdefault(row, text)
    return problems
