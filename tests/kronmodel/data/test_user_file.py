"""The user's own .csv and .npz files: read, judged row by row, split and standardised."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler

from kronmodel.data.dataset import Dataset, prepared
from kronmodel.data.registry import load
from kronmodel.data.user_file import FileOptions
from kronmodel.errors import DataError
from tests.app.archives import HOSTILE_HEADERS, packed_files

HOUSES = "rooms,area,town,price\n3,70.5,1,200.5\n2,41,1,150\n4,90,2,333\n1,30,2,99.5\n5,120,1,400\n"


def write(folder: Path, text: str | bytes, name: str = "houses.csv") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def quiet(line: str) -> None:
    pass


def everything(data: Dataset) -> list[list[float]]:
    """All samples with their targets, in order."""
    y = np.concatenate([data.y_train, data.y_test]).reshape(-1, 1)
    return sorted(np.hstack([np.concatenate([data.x_train, data.x_test]), y]).tolist())


def test_a_csv_of_amounts_is_a_regression_and_says_why(tmp_path: Path) -> None:
    notes: list[str] = []
    data = load(write(tmp_path, HOUSES), notes.append, FileOptions(target="price"))
    assert notes == ["target 'price': regression, because its values are not all whole numbers"]
    assert (data.name, data.task, data.labels, data.outputs) == ("houses", "regression", (), 1)
    assert data.feature_names == ("rooms", "area", "town")
    assert (len(data.x_train), len(data.x_test)) == (4, 1)
    assert everything(data)[1] == [2, 41, 1, 150]
    assert data.split == "0.2 of the samples for the test, drawn with seed 0"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_usual_ways_of_writing_a_table(delimiter: str, end: str, tmp_path: Path) -> None:
    plain = load(write(tmp_path, HOUSES), quiet, FileOptions(target="price"))
    text = "\ufeff" + HOUSES.replace("rooms", '" rooms "').replace("70.5", " 7.05e1 ").replace(",", delimiter)
    data = load(write(tmp_path, text.replace("\n", end) + end, "a.csv"), quiet, FileOptions(target="price"))
    assert data.feature_names == plain.feature_names
    assert data.sha256 == plain.sha256


@pytest.mark.parametrize(
    ("cells", "asked", "task", "labels"),
    [
        (["yes", "no", "no", "yes"], None, "classification", ("no", "yes")),
        (["10", "9", "9", "10"], None, "classification", ("9", "10")),
        (["1.0", "0", "0.0", "1"], None, "classification", ("0", "1")),
        (["1", "2", "2", "1"], "regression", "regression", ()),
        (["0.5", "1.5", "0.5", "1.5"], "classification", "classification", ("0.5", "1.5")),
        (["a", "1", "1", "a"], "classification", "classification", ("1", "a")),
        ([str(n) for n in range(24)], None, "regression", ()),
    ],
)
def test_the_task_is_inferred_or_asked_for(
    cells: list[str], asked: Any, task: str, labels: tuple[str, ...], tmp_path: Path
) -> None:
    text = "f,y\n" + "".join(f"{index},{cell}\n" for index, cell in enumerate(cells))
    data = load(write(tmp_path, text), quiet, FileOptions(target="y", task=asked, test_fraction=0.5))
    assert (data.task, data.labels) == (task, labels)
    if labels:
        truth = [labels.index(str(int(float(cell))) if cell in ("1.0", "0.0") else cell) for cell in cells]
        assert [y for _, y in everything(data)] == truth


BAD = "a,b,y\n1,2,0.5\n1,x,0.5\n1,2\n\n3,nan,0.5\n4,2,\n" + '5,"2\n",2.5\n6,1e39,0.5\n7,1_0,0.5\n8,9,ten\n9,3,1.5\n'


def test_bad_rows_are_named_by_line_with_got_and_expected(tmp_path: Path) -> None:
    path = write(tmp_path, BAD)
    with pytest.raises(DataError) as caught:
        load(path, quiet, FileOptions(target="y"))
    assert str(caught.value) == (
        f"{path} has 6 bad rows: line 3: column 'b': got 'x', expected a finite number; "
        "line 4: got 2 values, expected 3; line 7: the target 'y': got '', expected a value; "
        "line 10: column 'b': got '1e39', expected a finite number; "
        "line 11: column 'b': got '1_0', expected a finite number; and 1 more. "
        "Mend them, or leave them out with skip_bad_rows=True"
    )


def test_bad_rows_are_left_out_where_that_was_asked_for(tmp_path: Path) -> None:
    notes: list[str] = []
    options = FileOptions(target="y", skip_bad_rows=True, test_fraction=0.4, impute="none")
    data = load(write(tmp_path, BAD), notes.append, options)
    assert notes[0].startswith("left out 7 bad rows of ")
    assert "line 6: column 'b': got '', expected a value" in notes[0]
    assert everything(data) == [[1, 2, 0.5], [5, 2, 2.5], [9, 3, 1.5]]


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        (HOUSES, None, r"name the column to predict by target; .* has rooms, area, town, price"),
        (HOUSES, "cost", "has no column 'cost'; it has rooms, area, town, price"),
        (HOUSES.split("\n", 1)[1], "1", "begins with the numbers 3, 70.5, 1, 200.5, expected a header line"),
        ("", "y", "has 0 columns, expected a target and at least one more"),
        ("y\n1\n", "y", "has 1 columns"),
        ("a,,y\n", "y", "column 2 has no name"),
        ("a,a,y\n", "y", "has the column 'a' twice"),
        (f"{'a' * 201},y\n", "y", "names are too long"),
        ("a,y\n", "y", "has no rows that can be used"),
        ("a,y\n1,2.5\n", "y", "1 samples are too few"),
        ('a,y\n1,"2\n', "y", "line 2: unexpected end of data"),
        (b"a,y\n\0,1\n", "y", "holds zero bytes, expected text"),
        (b"\xff\xfea\0,\0y", "y", "is not UTF-16 text: truncated data"),
        ("a,b,y\n1,2,0.5\n1,2,1.5\n1,2,2.5\n", "y", "every feature is constant in the training samples"),
        ("a,y\n1,0.5\n2,0.5\n3,0.5\n", "y", "the target is 0.5 in every training sample"),
        ("a,y\n1,x\n2,x\n", "y", "the target is 'x' in every row that can be used, expected 2 classes or more"),
        ("a,y\n1,x\n2,z\n", "y", "each of the 2 classes has one sample only"),
        (f"a,y\n1,x\n2,{'z' * 201}\n3,x\n", "y", "a class has a name of 201 characters"),
        (",".join(f"{n}{'é' * 150}" for n in range(300)) + ",y\n" + "1," * 300 + "0.5\n", "y", "bytes of names in the"),
    ],
)
def test_files_that_are_no_use(text: str | bytes, target: str | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load(write(tmp_path, text), quiet, FileOptions(target=target, test_fraction=0.34))


def test_options_that_mean_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="target and test_fraction are for files, not for the data set"):
        load("digits", quiet, FileOptions(target="y", test_fraction=0.1))
    for share in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="the test fraction must be between 0 and 1, got"):
            load(write(tmp_path, HOUSES), quiet, FileOptions(target="price", test_fraction=share))
    with pytest.raises(DataError, match="can't be read: No such file"):
        load(str(tmp_path / "none.csv"), quiet, FileOptions(target="y"))
    with pytest.raises(DataError, match=r"'a\.xls'; expected one of: mnist, .*, or a file \.csv, .*, \.npz"):
        load("a.xls", quiet)


def wine(folder: Path) -> str:
    bunch = load_wine()
    rows = [",".join(map(str, [*x, f"c{y}"])) for x, y in zip(bunch.data.tolist(), bunch.target.tolist(), strict=True)]
    return write(folder, "\n".join([",".join([*bunch.feature_names, "cultivar"]), *rows]), "my wine.csv")


def test_the_split_is_seeded_and_keeps_the_proportions_of_the_classes(tmp_path: Path) -> None:
    path = wine(tmp_path)
    first, again, other = (load(path, quiet, FileOptions(target="cultivar", seed=seed)) for seed in (3, 3, 4))
    assert first.name == "my-wine"
    assert first.sha256 == again.sha256 != other.sha256
    assert everything(first) == everything(other)
    assert np.bincount(load_wine().target).tolist() == [59, 71, 48]
    for data in (first, other):
        assert np.bincount(data.y_test.astype(int)).tolist() == [12, 14, 10]


def test_features_are_standardised_by_the_training_samples_only(tmp_path: Path) -> None:
    data = load(wine(tmp_path), quiet, FileOptions(target="cultivar", test_fraction=0.5))
    ready = prepared(data, 16)
    oracle = StandardScaler().fit(data.x_train.astype(np.float64))
    np.testing.assert_allclose(ready.x_train[:, :13], oracle.transform(data.x_train), atol=2e-5)
    np.testing.assert_allclose(ready.x_test[:, :13], oracle.transform(data.x_test), atol=2e-5)
    assert not ready.x_train[:, 13:].any()
    with pytest.raises(ValueError, match="the network takes 12 features, got 13"):
        prepared(data, 12)


def test_constant_columns_count_for_nothing_and_are_told(tmp_path: Path) -> None:
    notes: list[str] = []
    rows = [f"{n},7,{0.1 + 0.2},{n % 2}\n" for n in range(12)]
    data = load(write(tmp_path, "n,seven,tenth,y\n" + "".join(rows)), notes.append, FileOptions(target="y"))
    assert notes[1] == "constant in the training samples, so ignored by the networks: 'seven', 'tenth'"
    assert data.scaling is not None
    strange = np.array([[1, 1e30, -5]], np.float32)
    assert data.scaling.apply(strange)[0, 1:].tolist() == [0, 0]


def save(folder: Path, **arrays: Any) -> str:
    np.savez_compressed(folder / "own.npz", allow_pickle=True, **arrays)
    return str(folder / "own.npz")


def test_npz_of_pictures_split_already(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 256, (30, 5, 6), dtype=np.uint8), np.arange(30) % 3
    data = load(save(tmp_path, x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:]), quiet)
    assert (data.image_shape, data.feature_names, data.scaling) == ((5, 6), (), None)
    assert (data.split, data.preprocessing, data.labels) == ("as in the file", "bytes divided by 255", ("0", "1", "2"))
    np.testing.assert_array_equal(data.x_test, x[20:].reshape(10, 30).astype(np.float32) / 255)
    assert data.y_train.tolist() == y[:20].tolist()
    with pytest.raises(ValueError, match="is split already, so test_fraction means nothing"):
        load(str(tmp_path / "own.npz"), quiet, FileOptions(test_fraction=0.1))
    with pytest.raises(ValueError, match=r"target is for tables such as \.csv files; the target of .* is its y"):
        load(str(tmp_path / "own.npz"), quiet, FileOptions(target="y"))


def test_npz_of_features_and_of_several_targets(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(5, 3, (40, 4)), rng.normal(100, 20, (40, 2))
    data = load(save(tmp_path, x=x, y=y), quiet)
    assert (data.task, data.outputs, data.feature_names) == ("regression", 2, ("x0", "x1", "x2", "x3"))
    assert data.target_scaling is not None
    np.testing.assert_allclose(data.target_scaling.mean, data.y_train.mean(0), rtol=1e-6)
    floats = load(save(tmp_path, x=rng.random((20, 3, 4, 4)), y=np.repeat(["a", "b"], 10)), quiet)
    assert (floats.image_shape, floats.scaling, floats.labels) == ((3, 4, 4), None, ("a", "b"))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": [1.0]}, "holds a; expected x, y or x_train, y_train, x_test, y_test"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(2)}, "x has 3 samples, y has 2"),
        ({"x": np.zeros(3), "y": np.zeros(3)}, r"x is float64 \(3,\), expected numbers of shape \(n, features\)"),
        ({"x": np.array([[1.0, np.inf]]), "y": [1.0]}, r"x\[0, 1\] is inf, expected finite numbers"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0)}, "x is empty"),
        ({"x": np.array([[object()]]), "y": [1]}, "x is of type object, expected numbers"),
        ({"x": np.zeros((2, 2), complex), "y": [1, 2]}, "x is of type complex128"),
        ({"x": np.eye(3) * 1e300, "y": [0.5, 1.5, 2]}, "values that don't fit in float32"),
        ({"x": np.eye(3), "y": np.zeros((3, 2, 2))}, r"the target has shape \(3, 2, 2\)"),
    ],
)
def test_npz_files_that_are_no_use(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load(save(tmp_path, **arrays), quiet)


def test_an_npz_that_claims_more_than_there_is(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999, 99999), }"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x.npy", "y.npy"):
            archive.writestr(name, b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(DataError, match="x has 79,999,199,200,008 bytes, expected at most"):
        load(str(path), quiet)
    for hostile in HOSTILE_HEADERS.values():
        path.write_bytes(packed_files({"x.npy": hostile, "y.npy": hostile}))
        with pytest.raises(DataError, match=r"bomb.npz is not a \.npz file of plain arrays: ."):
            load(str(path), quiet)
    path.write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"is not a \.npz file of plain arrays"):
        load(str(path), quiet)
