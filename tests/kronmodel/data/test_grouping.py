"""Splits of tables by groups and by time."""

import random
from pathlib import Path

import numpy as np
import pytest

from kronmodel.data.file_options import FileOptions, column_options
from kronmodel.data.registry import load
from kronmodel.errors import DataError


def table(folder: Path, rows: int = 120) -> Path:
    """Write rows in random order: a patient for each 7 rows, a day for each 3, and the row's number."""
    lines = [
        f"p{row // 7},2024-{1 + row // 28 // 3:02}-{1 + row // 3 % 28:02},{row},{'ab'[row % 2]}" for row in range(rows)
    ]
    random.Random(5).shuffle(lines)
    path = folder / "visits.csv"
    path.write_text("patient,day,number,kind\n" + "\n".join(lines))
    return path


def numbers(path: Path, options: FileOptions) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], list[str]]:
    """Return the column `number` of training and test rows, the names of the features, and the messages."""
    said: list[str] = []
    data = load(str(path), said.append, options)
    assert data.test_rows is not None or data.scaling is not None
    place = data.feature_names.index("number")
    assert data.encoding is None
    return data.x_train[:, place], data.x_test[:, place], data.feature_names, said


def test_groups_are_never_on_both_sides(tmp_path: Path) -> None:
    path = table(tmp_path)
    chosen = set()
    for seed in range(3):
        options = FileOptions(target="kind", drop=("day",), groups="patient", seed=seed)
        train, test, names, said = numbers(path, options)
        assert names == ("number",)  # the groups are no feature
        assert not {int(row) // 7 for row in train} & {int(row) // 7 for row in test}
        assert sorted([*train, *test]) == list(range(120))
        assert 0.1 <= len(test) / 120 <= 0.3
        assert any(line.startswith("split: ") and "of 18 groups of 'patient' for the test" in line for line in said)
        chosen.add(tuple(sorted(test)))
    assert len(chosen) > 1


def test_the_latest_rows_are_the_test_and_equal_times_stay_together(tmp_path: Path) -> None:
    options = FileOptions(target="kind", drop=("day", "patient"), time_order="day", test_fraction=0.21)
    train, test, _, said = numbers(table(tmp_path), options)
    assert train.max() < test.min()
    assert test.min() % 3 == 0  # a whole day
    assert len(test) in (24, 27)
    assert any("the latest 0.2" in line and "by 'day' for the test" in line for line in said)


def test_a_class_that_only_the_test_has_is_named(tmp_path: Path) -> None:
    path = tmp_path / "late.csv"
    path.write_text(
        "when,x,kind\n" + "\n".join(f"{row},{row % 7},{'abc'[2 if row > 90 else row % 2]}" for row in range(100))
    )
    said: list[str] = []
    load(str(path), said.append, FileOptions(target="kind", time_order="when"))
    assert "classes without a training sample, which can't be learned: 'c'" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": "patients"}, "no column 'patients' .did you mean 'patient'"),
        ({"time_order": "patient"}, "column 'patient' is taken for .*, expected dates, times or numbers"),
        ({"groups": "kind"}, "got the target 'kind'"),
        ({"groups": "patient", "time_order": "day"}, "both split the rows"),
    ],
)
def test_wrong_columns_are_refused(tmp_path: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises((DataError, ValueError), match=message):
        load(str(table(tmp_path)), lambda line: None, FileOptions(target="kind", **column_options(options)))


def test_a_missing_or_single_group_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    for cells, message in (
        ([f"{'' if row == 3 else 'g'},{row},{'ab'[row % 2]}" for row in range(20)], "has no value in 1 row"),
        ([f"g,{row},{'ab'[row % 2]}" for row in range(20)], "the same group in every row"),
    ):
        path.write_text("group,x,kind\n" + "\n".join(cells))
        with pytest.raises(DataError, match=message):
            load(str(path), lambda line: None, FileOptions(target="kind", groups="group"))
