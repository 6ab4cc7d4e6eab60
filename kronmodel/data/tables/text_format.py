"""Detection of how a text file holds a table: encoding, separator, comment lines, header line."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from kronmodel.data.tables.text_stream import Lines, byte_chunks, text_lines, utf8_chunks
from kronmodel.errors import DataError

__all__ = ["TextFormat", "is_number", "row_chunks", "row_lines", "text_format"]

SAMPLE_ROWS = 200
SAMPLE_BYTES = 2 << 20  # from which the separator is chosen, and which have to hold the header line
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars", " ": "spaces"}
# Longer marks first: the mark of UTF-16 is the beginning of that of UTF-32.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
FALLBACKS = {"cp1252": "Windows-1252", "latin-1": "Latin-1"}
MOST_ZEROS = 0.6  # of every other byte of UTF-16 text with Latin letters
ENOUGH = 0.5  # fraction of the rows that have as many cells as the header line


@dataclass(frozen=True, kw_only=True)
class TextFormat:
    """How a text file holds a table.

    Attributes:
        path: path of the file.
        encoding: name of Python's codec.
        separator: character between the cells of a row; a space stands for any number of spaces.
        comments: lines that begin with ``#`` are left out.
        header: the columns' names without spaces around them; "" for a column without a name.
        start: number of bytes, in UTF-8, in front of the first row.
        first_line: number of the line at which the first row begins.
        plain: pyarrow can parse the rows: no comments, no spaces between a separator and a quote.
        notes: sentences for the user about what was detected and is not usual.
    """

    path: Path
    encoding: str
    separator: str
    comments: bool
    header: tuple[str, ...]
    start: int
    first_line: int
    plain: bool
    notes: tuple[str, ...] = ()


@dataclass
class _Scan:
    """Result of a pass over all bytes of a file in one encoding."""

    encoding: str
    quotes: int = 0
    comments: bool = False
    spaced_quotes: bool = False
    wrong: tuple[int, str] | None = None  # position of the first byte that is not of the encoding, and the reason
    head: bytes = field(default=b"", repr=False)


def text_format(path: Path) -> TextFormat:
    """Detect how a text file holds a table.

    Raises:
        DataError: the file is not text, or its header line can't be read.
        OSError: the file can't be read.
    """
    scan, notes = _scan(path)
    lines = scan.head.decode(errors="ignore").splitlines(keepends=True)
    comments = scan.comments and _are_comments(lines)
    rows = [line for line in lines[: 4 * SAMPLE_ROWS] if not (comments and line.startswith("#"))]
    separator = _separator(rows)
    header, start, line = _header(path, "".join(lines), separator, comments=comments)
    if header and all(len(name) > 2 and name[0] == name[-1] == "'" for name in (cell.strip() for cell in header)):
        header = [name.strip()[1:-1] for name in header]  # not quotes to a parser of CSV
    if comments:
        notes.append("lines that begin with # are left out as comments")
    if separator in ("|", " "):
        notes.append(f"cells are separated by {SEPARATORS[separator]}")
    return TextFormat(
        path=path,
        encoding=scan.encoding,
        separator=separator,
        comments=comments,
        header=tuple(name.strip() for name in header),
        start=start,
        first_line=line + 1,
        plain=not (comments or scan.spaced_quotes or separator == " " or scan.quotes % 2),
        notes=tuple(notes),
    )


def row_lines(layout: TextFormat) -> Lines:
    """Return the lines of the rows, without the header line."""
    lines = text_lines(_without_header(layout), comments=layout.comments)
    lines.number = layout.first_line - 1
    return lines


def row_chunks(layout: TextFormat) -> Iterator[bytes]:
    """Yield the rows, without the header line, as UTF-8 text for pyarrow's parser: as they are, or separated by commas.

    Raises:
        DataError: a row is not valid.
    """
    if layout.plain:
        yield from _without_header(layout)
        return
    lines = row_lines(layout)
    reader = csv.reader(lines, delimiter=layout.separator, skipinitialspace=True, strict=True)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    try:
        for row in reader:
            cells = row[:-1] if layout.separator == " " and row and not row[-1] else row
            if cells:
                writer.writerow(cells)
            if out.tell() > 1 << 20:
                yield out.getvalue().encode()
                out.seek(0)
                out.truncate()
    except csv.Error as error:
        raise DataError(f"{layout.path}, line {lines.number}: {error}") from error
    yield out.getvalue().encode()


def _without_header(layout: TextFormat) -> Iterator[bytes]:
    skip = layout.start
    for chunk in utf8_chunks(layout.path, layout.encoding):
        if skip < len(chunk):
            yield chunk[skip:]
        skip = max(0, skip - len(chunk))


def _scan(path: Path) -> tuple[_Scan, list[str]]:
    """Find the encoding of a file, and what pyarrow's parser does not understand."""
    first = next(byte_chunks(path), b"")
    encoding = next((name for mark, name in MARKS if first.startswith(mark)), None) or _unmarked(first[:512])
    scan = _try(path, encoding)
    if scan.wrong is None:
        return scan, [f"read as {encoding[:6].upper()} text"] if encoding.startswith(("utf-16", "utf-32")) else []
    at, reason = scan.wrong
    if encoding == "utf-8":
        for other, title in FALLBACKS.items():
            again = _try(path, other)
            if again.wrong is None:
                return again, [f"not UTF-8 text ({reason} at byte {at:,}), so read as {title}"]
    raise DataError(f"{path} is not {encoding[:6].rstrip('-').upper()} text: {reason} at byte {at:,}")


def _try(path: Path, encoding: str) -> _Scan:
    scan = _Scan(encoding)
    decoder = codecs.getincrementaldecoder(encoding)()
    before, position = "\n", 0
    for chunk in chain(byte_chunks(path), (b"",)):
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            begun = len(error.object) - len(chunk)  # bytes of a character that the chunk before began
            scan.wrong = position - begun + error.start, error.reason
            return scan
        position += len(chunk)
        if "\0" in text:
            raise DataError(f"{path} holds zero bytes, expected text")
        if len(scan.head) < SAMPLE_BYTES:
            scan.head += text.encode()
        both = before + text
        scan.quotes += text.count('"')
        scan.comments = scan.comments or "\n#" in both
        scan.spaced_quotes = scan.spaced_quotes or re.search(r'[,;\t|\n] +"', both) is not None
        before = both[-64:]
    return scan


def _unmarked(head: bytes) -> str:
    """Recognise UTF-16 without a byte order mark by its zero bytes; anything else is taken for UTF-8."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    if len(head) >= 4 and max(even, odd) > MOST_ZEROS * len(head) / 2 and min(even, odd) < len(head) / 8:
        return "utf-16-be" if even > odd else "utf-16-le"
    return "utf-8"


def _are_comments(lines: Sequence[str]) -> bool:
    """Tell whether lines that begin with ``#`` are comments: the first line is one, or their cells make no rows."""
    filled = [line for line in lines if line.strip()]
    if not filled or filled[0].startswith("#"):
        return bool(filled)
    used = [separator for separator in SEPARATORS if separator in filled[0] and separator != " "]
    marked = [line for line in filled if line.startswith("#")]
    return all(line.count(each) != filled[0].count(each) for line in marked for each in used)


def _cells(lines: Sequence[str], separator: str) -> list[list[str]]:
    """Split the first lines into cells, as far as they can be."""
    rows: list[list[str]] = []
    try:
        for row in csv.reader(iter(lines), delimiter=separator, skipinitialspace=True):
            cells = [cell for cell in row if cell] if separator == " " else row
            if cells:
                rows.append(cells)
            if len(rows) > SAMPLE_ROWS:
                break
    except csv.Error:
        pass
    return rows


def _separator(lines: Sequence[str]) -> str:
    """Choose the separator with which most rows have as many cells as the header line, and of these the most cells."""
    found: list[tuple[bool, float, int, str]] = []
    for separator in SEPARATORS:
        rows = _cells(lines, separator)
        width = len(rows[0]) if rows else 0
        if width < 2:
            continue
        same = sum(abs(len(row) - width) <= 1 for row in rows[1:]) / max(1, len(rows) - 1)
        spaces = separator == " "
        if spaces and (same < 1 or len(rows) < 2):  # spaces are in texts, too
            continue
        found.append((same >= ENOUGH and not spaces, round(same, 1), width, separator))
    return max(found, default=(False, 0.0, 0, ","))[3]


def _header(path: Path, text: str, separator: str, *, comments: bool) -> tuple[list[str], int, int]:
    """Read the header line; return its cells, the number of bytes up to its end, and the number of its last line."""
    source = io.StringIO(text, newline="")
    lines = Lines(iter(source.readline, ""), comments=comments)
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    try:
        row = next((row for row in reader if row and (separator != " " or any(row))), None)
    except csv.Error as error:
        raise DataError(f"{path}, line {lines.number}: {error}") from error
    if row is None:
        return [], len(text.encode()), lines.number
    cells = [cell for cell in row if cell] if separator == " " else row
    if comments and all(map(is_number, cells)):  # "# name name" directly above rows of numbers
        above = text.splitlines(keepends=True)[: lines.number - 1]
        names = _cells([above[-1].lstrip("# ")] if above else [], separator)
        if names and len(names[0]) == len(cells) > 1 and not any(map(is_number, names[0])):
            return names[0], len("".join(above).encode()), lines.number - 1
    return cells, len(text[: source.tell()].encode()), lines.number


def is_number(cell: str) -> bool:
    """Tell whether a cell is a number, NaN included."""
    try:
        float(cell)
    except ValueError:
        return False
    return True
