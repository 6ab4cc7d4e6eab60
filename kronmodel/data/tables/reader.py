"""Reading of table files with pyarrow: text, Parquet, Feather and JSON lines, whole or piece by piece."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kronmodel.data.tables.memory import free_memory, megabytes
from kronmodel.data.tables.text_format import TextFormat, is_number, row_chunks, row_lines, text_format
from kronmodel.data.tables.text_stream import COMPRESSED, Pieces, byte_chunks
from kronmodel.errors import DataError

if TYPE_CHECKING:  # pyarrow is not needed for data sets by name
    import pyarrow as pa

__all__ = ["FORMATS", "BadRow", "RawTable", "TableFile", "is_table", "read_table"]

TEXT, JSON, PARQUET, FEATHER = "text", "JSON lines", "Parquet", "Feather"
FORMATS = {
    ".csv": TEXT, ".tsv": TEXT, ".tab": TEXT, ".txt": TEXT, ".psv": TEXT, ".jsonl": JSON, ".ndjson": JSON,
    ".parquet": PARQUET, ".feather": FEATHER, ".arrow": FEATHER,
}  # fmt: skip
MAX_NAME = 200  # characters; longest column name that readers of model cards accept
MAX_NAMES = 1 << 20  # characters of all column names together
MAX_COLUMNS = 100_000
SAMPLE_ROWS = 200
COPIES = 3  # memory for reading, converting and training, as a multiple of the table's own


@dataclass(frozen=True)
class BadRow:
    """Unusable row of a table: its line number in the file, and the reason."""

    line: int
    problem: str


@dataclass(frozen=True, kw_only=True, eq=False)
class RawTable:
    """Content of a table file, of which no cell is interpreted yet.

    Attributes:
        table: columns by name; those of a text file are texts.
        file: the file, which knows the line numbers of the rows.
        short_rows: rows with a wrong number of cells, which are not in ``table``.
    """

    table: pa.Table
    file: TableFile
    short_rows: tuple[BadRow, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.table.column_names)


def is_table(path: Path) -> bool:
    """Tell whether a file is a table by the suffix of its name, such as ``.csv`` or ``.csv.gz``."""
    return _suffix(path) in FORMATS


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if len(suffixes) > 1 and suffixes[-1] in COMPRESSED:
        return suffixes[-2]
    return suffixes[-1] if suffixes else ""


def read_table(path: Path) -> RawTable:
    """Read a whole table file into memory.

    Raises:
        DataError: the file can't be read, is no table, or does not fit into memory.
    """
    import pyarrow as pa

    file = TableFile(path)
    batches, size, rows = [], 0, 0
    free = free_memory()
    for batch in file.batches():
        batches.append(batch)
        size, rows = size + batch.nbytes, rows + len(batch)
        needed = COPIES * size
        if free is not None and needed > free:
            raise DataError(
                f"{path} does not fit into memory: its first {rows:,} rows need about {megabytes(needed)} for reading "
                f"and training, and {megabytes(free)} are free"
            )
    table = pa.Table.from_batches(batches) if batches else file.empty()
    return RawTable(table=table, file=file, short_rows=tuple(file.short_rows()))


class TableFile:
    """A table file that is open for reading piece by piece.

    Attributes:
        path: path of the file.
        names: names of the columns.
        notes: sentences for the user about the file's format.

    Raises:
        DataError: the file can't be read, or is no table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.format = FORMATS.get(_suffix(path), TEXT)
        self._short: list[tuple[int, int]] = []  # ordinal among all rows, from 1; number of cells
        self._layout: TextFormat | None = None
        self._cells: list[str | None] = []
        self.notes: tuple[str, ...] = ()
        with _as_data_errors(path):
            if self.format == TEXT:
                self._layout = text_format(path)
                header = self._layout.header
                self._cells, notes = _cells_of_rows(self._layout)
                self.notes = self._layout.notes + notes
            else:
                header = tuple(self._open_columns()[0])
                index = [name for name in header if re.fullmatch(r"__index_level_\d+__", name)]
                self._cells = [None if name in index else name for name in header]
                self.notes = (f"the index of pandas, {', '.join(index)}, is left out",) if index else ()
        self.names = _checked_names(path, self._cells, header, text=self.format == TEXT)

    @property
    def decimal_comma(self) -> bool:
        """Whether a comma between digits is rather a decimal comma: the cells are separated by semicolons."""
        return self._layout is not None and self._layout.separator == ";"

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows piece by piece, as batches of the named columns; those of a text file are texts."""
        with _as_data_errors(self.path, self._diagnose):
            if self._layout is not None:
                yield from self._text_batches(self._layout)
                return
            _, batches = self._open_columns()
            for batch in batches:
                yield batch.select(list(self.names))

    def empty(self) -> pa.Table:
        """Return the table without rows."""
        import pyarrow as pa

        return pa.table({name: pa.array([], pa.string()) for name in self.names})

    def short_rows(self) -> list[BadRow]:
        """List the rows with a wrong number of cells that :meth:`batches` has left out."""
        lines = self._lines([ordinal for ordinal, _ in self._short])
        expected = len(self._cells)
        return [BadRow(lines[ordinal], f"got {cells} values, expected {expected}") for ordinal, cells in self._short]

    def line_numbers(self, rows: Sequence[int]) -> dict[int, int]:
        """Find the numbers of the lines in the file at which rows begin, by the rows' indices in the table.

        Of a file that is no text, these are the rows' own numbers, from 1.
        """
        if self._layout is None:
            return {row: row + 1 for row in rows}
        short = sorted(ordinal for ordinal, _ in self._short)
        ordinals = {}
        passed = 0
        for row in sorted(rows):
            while passed < len(short) and short[passed] <= row + passed + 1:
                passed += 1
            ordinals[row] = row + passed + 1
        lines = self._lines(list(ordinals.values()))
        return {row: lines[ordinal] for row, ordinal in ordinals.items()}

    def _lines(self, ordinals: Sequence[int]) -> dict[int, int]:
        """Map the ordinals of rows, from 1, to their line numbers."""
        if not ordinals or self._layout is None:
            return {}
        wanted, found = set(ordinals), {}
        last = max(wanted)
        lines = row_lines(self._layout)
        count = 0
        with _as_data_errors(self.path):
            for row in csv.reader(lines, delimiter=self._layout.separator, skipinitialspace=True):
                if row:
                    count += 1
                    if count in wanted:
                        found[count] = lines.begin
                lines.end_record()
                if count >= last:
                    break
        return found

    def _text_batches(self, layout: TextFormat) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        from pyarrow import csv as pa_csv

        keys = [f"f{index}" for index in range(len(self._cells))]
        kept = {f"f{index}": name for index, name in enumerate(self._cells) if name is not None}

        def skip(row: pa_csv.InvalidRow) -> str:
            self._short.append((row.number, row.actual_columns))
            return "skip"

        self._short.clear()
        chunks = row_chunks(layout)
        first = next((chunk for chunk in chunks if chunk.strip()), None)
        if first is None or not kept:
            return

        def pieces() -> Iterator[bytes]:
            yield first
            yield from chunks

        stream = io.BufferedReader(Pieces(pieces()), 1 << 20)
        reader = pa_csv.open_csv(
            stream,
            read_options=pa_csv.ReadOptions(column_names=keys, use_threads=False, block_size=4 << 20),
            parse_options=pa_csv.ParseOptions(
                delimiter=layout.separator if layout.plain else ",",
                newlines_in_values=True,
                invalid_row_handler=skip,
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types={key: pa.large_string() for key in keys},
                include_columns=list(kept),
                strings_can_be_null=False,
            ),
        )
        for batch in reader:
            yield batch.rename_columns(list(kept.values()))

    def _diagnose(self) -> str | None:
        """Find a row of a text file that is not valid, with Python's own parser."""
        if self._layout is None:
            return None
        lines = row_lines(self._layout)
        try:
            for _ in csv.reader(lines, delimiter=self._layout.separator, skipinitialspace=True, strict=True):
                pass
        except csv.Error as error:
            return f"{self.path}, line {lines.number}: {error}"
        return None

    def _open_columns(self) -> tuple[Sequence[str], Iterator[pa.RecordBatch]]:
        """Open a file of columns, or of JSON lines; return its names and its batches."""
        import pyarrow as pa

        names: Sequence[str]
        if self.format == PARQUET:
            from pyarrow import parquet

            file = parquet.ParquetFile(self.path)
            names, batches = file.schema_arrow.names, file.iter_batches()
        elif self.format == FEATHER:
            with pa.OSFile(str(self.path)) as opened:
                legacy = opened.read(4) == b"FEA1"
            if legacy:
                from pyarrow import feather

                table = feather.read_table(self.path)
                names, batches = table.column_names, iter(table.to_batches())
            else:
                reader = pa.ipc.open_file(pa.memory_map(str(self.path)))
                names = reader.schema.names
                batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
        else:
            from pyarrow import json as pa_json

            size, free = self.path.stat().st_size, free_memory()
            if free is not None and COPIES * size > free:  # pyarrow reads all lines at once
                needed = f"about {megabytes(COPIES * size)}, and {megabytes(free)} are free"
                raise DataError(f"{self.path} does not fit into memory: its lines need {needed}")
            stream = io.BufferedReader(Pieces(byte_chunks(self.path)), 1 << 20)
            table = pa_json.read_json(stream)
            names, batches = table.column_names, iter(table.to_batches())
        return names, batches


class _as_data_errors:  # noqa: N801 - used like a function
    """Context manager that raises errors of pyarrow and of the system as a :class:`DataError`."""

    def __init__(self, path: Path, diagnose: Callable[[], str | None] = lambda: None) -> None:
        self._path, self._diagnose = path, diagnose

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        import pyarrow as pa

        if isinstance(error, pa.ArrowInvalid | pa.ArrowNotImplementedError | pa.ArrowKeyError | EOFError):
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise DataError(self._diagnose() or f"{self._path} can't be read: {reason[:300]}") from error
        if isinstance(error, csv.Error):
            raise DataError(f"{self._path} is not a valid table: {error}") from error
        if isinstance(error, UnicodeDecodeError):
            raise DataError(f"{self._path} is not text: {error.reason} at byte {error.start}") from error
        if isinstance(error, OSError):
            reason = error.strerror or str(error).strip().splitlines()[0]
            raise DataError(f"{self._path} can't be read: {reason[:300]}") from error


def _cells_of_rows(layout: TextFormat) -> tuple[list[str | None], tuple[str, ...]]:
    """Name the cells of a text file's rows, and describe those that are left out, whose name is None.

    Left out are an index without a name, which pandas and R write, and what a comma at the end of each line makes.
    """
    names: list[str | None] = list(layout.header)
    rows = []
    for row in csv.reader(row_lines(layout), delimiter=layout.separator, skipinitialspace=True):
        if row:
            rows.append(row[:-1] if layout.separator == " " and not row[-1] else row)
        if len(rows) >= SAMPLE_ROWS:
            break
    widths = {len(row) for row in rows}
    longer = [row for row in rows if len(row) == len(names) + 1]
    notes = []
    if len(names) > 1 and longer and len(names) not in widths and 2 * len(longer) > len(rows):
        names = [*names, ""] if not any(row[-1].strip() for row in longer) else ["", *names]
    if len(names) > 2 and names[-1] == "" and not any(row[-1].strip() for row in rows if len(row) == len(names)):
        names[-1] = None  # says nothing
    if len(names) > 2 and names[0] == "":
        names[0] = None
        notes.append("the first column has no name, as an index that pandas or R writes, and is left out")
    return names, tuple(notes)


def _checked_names(path: Path, cells: Sequence[str | None], header: Sequence[str], *, text: bool) -> tuple[str, ...]:
    """Check the names of the columns, and return them without those of the columns that are left out."""
    names = [name for name in cells if name is not None]
    shown = ", ".join(header[:12]) + (f" and {len(header) - 12} more" if len(header) > 12 else "")
    if text and header and all(is_number(name) for name in header):
        raise DataError(f"{path} begins with the numbers {shown}, expected a header line with the columns' names")
    if "" in names:
        raise DataError(f"{path}: column {cells.index('') + 1} has no name in the header line")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path} has the column {twice!r} twice, expected names that differ")
    if len(names) > MAX_COLUMNS or max(map(len, names), default=0) > MAX_NAME or sum(map(len, names)) > MAX_NAMES:
        raise DataError(
            f"{path}: the columns' names are too long, expected at most {MAX_COLUMNS:,} columns with names of at most "
            f"{MAX_NAME} characters, {MAX_NAMES:,} in all"
        )
    return tuple(names)
