"""Description of a table before its target is chosen, compared with what training makes of it."""

from pathlib import Path

import pytest

from kronmodel.data.file_options import FileOptions
from kronmodel.data.inspection import inspect_table
from kronmodel.data.user_file import load_file
from kronmodel.errors import DataError

PLAIN = "\n".join(["a,b,c,always", *(f"{row},{row * row % 7},{row / 3:.3f},5" for row in range(40))])
MIXED = "\n".join(
    [
        "a,town,day,flag,always,remark",
        *(
            f"{row if row % 9 else ''},{'xyz'[row % 3]},2024-0{row % 9 + 1}-11,{['no', 'yes'][row % 2]},5,n{row}"
            for row in range(60)
        ),
    ]
)


@pytest.mark.parametrize(("text", "plain"), [(PLAIN, True), (MIXED, False)])
def test_kinds_widths_and_tasks_are_those_of_training(tmp_path: Path, text: str, plain: bool) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    columns = inspect_table(path, FileOptions())["columns"]
    possible = [column for column in columns if column["task"] is not None]
    assert len(possible) >= 3
    for target in possible:
        data = load_file(path, lambda _: None, FileOptions(target=target["name"], skip_bad_rows=True))
        assert (data.task, data.outputs) == (target["task"], target["outputs"])
        features = [column for column in columns if column is not target]
        used = [column for column in features if column["kind"] != "left out"]
        assert all(column["plain"] for column in used) == plain
        assert data.features == (len(used) if plain else sum(column["width"] for column in used))
        if not plain:
            kinds = {note.name: note.kind for note in data.columns}
            assert {column["name"]: column["kind"] for column in features if column["width"]} == {
                name: kind for name, kind in kinds.items() if kind != "left out"
            }


def test_kinds_that_the_user_gives_bad_rows_and_unusable_targets(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["a;b", *(f"{row};{row % 4}" for row in range(20)), "20;x", ";", "1;2;3"]))
    found = inspect_table(path, FileOptions(categorical=("a",)))
    assert found["rows"] == 23
    assert (
        found["bad_rows"]
        == "2 bad rows: line 22: column 'b': got 'x', expected a finite number; line 24: got 3 values, expected 2"
    )
    first, second = found["columns"]
    assert (first["kind"], second["kind"]) == ("category", "number")
    assert (second["task"], second["outputs"], second["unusable"]) == ("classification", 4, 2)
    path.write_text("a,b\n")
    with pytest.raises(DataError, match="no rows"):
        inspect_table(path, FileOptions())
