"""Files of tables as people have them: encodings, separators, comments, compression, columns, damaged ones."""

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from kronmodel.data.tables import reader
from kronmodel.data.tables.reader import RawTable, read_table
from kronmodel.errors import DataError

ROWS = {"name": ["é x", "b,c"], "size": ["1", "2"]}
TEXT = 'name,size\né x,1\n"b,c",2\n'


def write(folder: Path, content: str | bytes, name: str = "a.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def cells(table: RawTable) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = table.table.to_pydict()
    return found


@pytest.mark.parametrize(
    ("encoding", "note"),
    [
        ("utf-8", ()),
        ("utf-8-sig", ()),
        ("utf-16", ("read as UTF-16 text",)),
        ("utf-16-le", ("read as UTF-16 text",)),
        ("utf-16-be", ("read as UTF-16 text",)),
        ("cp1252", ("not UTF-8 text (invalid continuation byte at byte 10), so read as Windows-1252",)),
    ],
)
def test_encodings_are_recognised_and_unusual_ones_are_said(encoding: str, note: tuple[str], tmp_path: Path) -> None:
    table = read_table(write(tmp_path, TEXT.encode(encoding)))
    assert cells(table) == ROWS
    assert table.file.notes == note


def test_text_with_bytes_that_windows_1252_lacks_is_latin_1(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, b"a,b\n\x81\xe9,1\n"))
    assert cells(table) == {"a": ["\x81é"], "b": ["1"]}
    assert table.file.notes[0].endswith("so read as Latin-1")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", " ", "   "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_separators(separator: str, end: str, tmp_path: Path) -> None:
    lines = [f'"name"{separator}size', f'"é x"{separator}1', f'"b,c"{separator}2', ""]
    assert cells(read_table(write(tmp_path, end.join(lines)))) == ROWS


def test_a_quoted_cell_may_hold_line_breaks_and_quotes(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, 'a,b\n"x\ny",1\n\n"say ""hi""",2\n5,"3"\n'))
    assert cells(table) == {"a": ["x\ny", 'say "hi"', "5"], "b": ["1", "2", "3"]}
    assert table.file.line_numbers([2, 0, 1]) == {0: 2, 1: 5, 2: 6}


@pytest.mark.parametrize(
    ("text", "found", "note"),
    [
        ("# made by x\n#\na,b\n1,2\n# so\n3,#4\n", {"a": ["1", "3"], "b": ["2", "#4"]}, "as comments"),
        ("a,b\n1,2\n# this one, here, is odd\n3,4\n", {"a": ["1", "3"], "b": ["2", "4"]}, "as comments"),
        ("# x y\n1 2\n3 4\n", {"x": ["1", "3"], "y": ["2", "4"]}, "separated by spaces"),
        ("a,b\n#1,2\n#3,4\n", {"a": ["#1", "#3"], "b": ["2", "4"]}, None),
        ('a,b\n"x\n# y",2\n', {"a": ["x\n# y"], "b": ["2"]}, None),
        ("a,b,\n1,2,\n3,4,\n", {"a": ["1", "3"], "b": ["2", "4"]}, None),
        ("a,b\n1,2,\n3,4,\n", {"a": ["1", "3"], "b": ["2", "4"]}, None),
        (",a,b\n0,1,2\n1,3,4\n", {"a": ["1", "3"], "b": ["2", "4"]}, "an index that pandas or R writes"),
        ('"a" "b"\n"r1" 1 2\n"r2" 3 4\n', {"a": ["1", "3"], "b": ["2", "4"]}, "an index that pandas or R writes"),
        ('a, b\n1, "2, 3"\n', {"a": ["1"], "b": ["2, 3"]}, None),
    ],
)
def test_what_programs_write_around_the_cells(text: str, found: Any, note: str | None, tmp_path: Path) -> None:
    table = read_table(write(tmp_path, text))
    assert cells(table) == found
    assert (note or "") in " ".join(table.file.notes)
    assert note is not None or table.file.notes == ()


@pytest.mark.parametrize(
    "name", ["a.tsv.gz", "a.csv.gz", "a.csv.zst", "a.parquet", "a.feather", "a.jsonl", "a.jsonl.gz"]
)
def test_compressed_files_and_files_of_columns(name: str, tmp_path: Path) -> None:
    path, table = tmp_path / name, pa.table({"name": ["é x", None], "size": [1.5, 2.0], "on": [True, False]})
    if name.endswith("parquet"):
        parquet.write_table(table, path)
    elif name.endswith("feather"):
        feather.write_feather(table, str(path))
    elif "jsonl" in name:
        text = '{"name": "é x", "size": 1.5, "on": true}\n{"name": null, "size": 2, "on": false}\n'.encode()
        path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    else:
        text = "name,size,on\né x,1.5,true\n,2.0,false\n".replace(",", "\t" if "tsv" in name else ",").encode()
        with pa.output_stream(str(path), compression="gzip" if name.endswith("gz") else "zstd") as stream:
            stream.write(text)
        assert cells(read_table(path)) == {"name": ["é x", ""], "size": ["1.5", "2.0"], "on": ["true", "false"]}
        return
    assert read_table(path).table.to_pydict() == table.to_pydict()


def test_the_index_of_pandas_in_a_parquet_file_is_left_out(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"a": [1], "__index_level_0__": [7]}), tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    assert cells(table) == {"a": [1]}
    assert table.file.notes == ("the index of pandas, __index_level_0__, is left out",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"a,b\n\0\x01\x02,1\n", "holds zero bytes, expected text"),
        ("a.csv", 'a,b\n1,"2\n', "line 2: unexpected end of data"),
        ("a.csv.gz", b"no gzip", "can't be read: .*incorrect header"),
        ("a.csv.gz", gzip.compress(b"a,b\n1,2\n" * 9999, mtime=0)[:60], "can't be read: Truncated compressed stream"),
        ("a.parquet", b"PAR1", "can't be read: Parquet"),
        ("a.feather", b"nothing", "can't be read: "),
        ("a.jsonl", "[1, 2\n", "can't be read: JSON parse error"),
        ("a.csv", b"\xff\xfea", "is not UTF-16 text: truncated data at byte 2"),
        ("a.csv", "a,b,,c\n1,2,3,4\n", "column 3 has no name"),
        ("a.csv", "a,b\n1," + "x" * 200_000 + "\n", "is not a valid table: field larger than field limit"),
        ("a.csv", "a," + "x" * 200_000 + "\n1,2\n", "line 1: field larger than field limit"),
        ("a.csv", "1.5,2\n3,4\n", "begins with the numbers 1.5, 2, expected a header line"),
    ],
)
def test_files_that_are_no_tables(name: str, content: str | bytes, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, content, name)
    with pytest.raises(DataError, match=message):
        read_table(path)


def test_a_table_larger_than_the_free_memory_is_refused_with_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "a,b\n" + "1,2\n" * 100_000)
    monkeypatch.setattr(reader, "free_memory", lambda: 5_000_000)
    with pytest.raises(
        DataError, match=r"does not fit into memory: its first [\d,]+ rows need about \d+ MB .*, and 5 MB"
    ):
        read_table(path)
    lines = write(tmp_path, '{"a": 1}\n' * 200_000, "a.jsonl")
    with pytest.raises(DataError, match=r"does not fit into memory: its lines need about 5 MB, and 5 MB are free"):
        read_table(lines)
    monkeypatch.setattr(reader, "free_memory", lambda: 50_000_000)
    assert read_table(path).table.num_rows == 100_000


def test_rows_of_another_length_are_left_out_and_known_by_line(tmp_path: Path) -> None:
    text = "a,b\n" + "".join(f"{n},x\n" if n % 1000 else "alone\n" for n in range(1, 2500))
    table = read_table(write(tmp_path, text))
    assert [(row.line, row.problem) for row in table.short_rows] == [
        (1001, "got 1 values, expected 2"),
        (2001, "got 1 values, expected 2"),
    ]
    assert cells(table)["a"][998:1001] == ["999", "1001", "1002"]
    assert table.file.line_numbers([998, 999, 1998]) == {998: 1000, 999: 1002, 1998: 2002}
