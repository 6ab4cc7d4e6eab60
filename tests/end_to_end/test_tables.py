"""A table as people have it, from the file to answers: described, trained, predicted from a file, and served."""

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from sklearn.metrics import balanced_accuracy_score, recall_score

from kronmodel.cli import main as cli
from kronmodel.data.file_options import FileOptions
from kronmodel.data.registry import load
from kronmodel.export.saved import load as load_network
from tests.app.conftest import Serving, serving

ROWS = 240


def homes() -> list[dict[str, str]]:
    """Rows with a number, a category, a date, a yes or no, an id, and a column that is named like an output."""
    rng = np.random.default_rng(6)
    rows = []
    for number in range(ROWS):
        size, kind, year = rng.normal(50, 9), rng.choice(["Wohnung", "Häuschen", "shed"]), 2000 + number % 24
        grade = "high" if size + 20 * (kind == "Häuschen") + (year - 2012) > 57 else "low" if number % 6 else "mid"
        rows.append({
            "id": f"h{number}", "size": "" if number % 11 == 0 else f"{size:.3f}".replace(".", ","), "kind": str(kind),
            "logits": f"{rng.normal():.3f}".replace(".", ","), "built": f"{number % 28 + 1}.{number % 12 + 1}.{year}",
            "lift": "yes" if number % 2 else "no", "grade": grade,
        })  # fmt: skip
    return rows


def written(rows: list[dict[str, str]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=";")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode("cp1252")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    (folder / "homes.csv.gz").write_bytes(gzip.compress(written(homes())))
    command = ["train", "--data", str(folder / "homes.csv.gz"), "--target", "grade", "--epochs", "12", "--threads", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda *_: None)
        assert cli.main([*command, "--out", str(folder / "models"), "--json"]) == 0
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> np.ndarray[Any, Any]:
    """Probabilities by torch, on what the encoding in numpy makes of the file."""
    network = load_network(folder / "models" / "homes-kronecker").eval()
    columns: dict[str, list[Any]] = {name: [] for name in ("size", "kind", "logits", "built", "lift")}
    for row in homes():
        day, month, year = map(int, row["built"].split("."))
        columns["size"].append(float(row["size"].replace(",", ".") or "nan"))
        columns["kind"].append(row["kind"])
        columns["logits"].append(float(row["logits"].replace(",", ".")))
        columns["built"].append(np.datetime64(f"{year}-{month:02d}-{day:02d}", "s").astype(int))
        columns["lift"].append(float(row["lift"] == "yes"))
    arrays = {name: np.array(each, object if name == "kind" else float) for name, each in columns.items()}
    output = network(network.preprocessing.features(arrays))
    found: np.ndarray[Any, Any] = network.preprocessing.predictions(output).detach().numpy()
    return found


def test_data_says_what_each_column_becomes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", str(folder / "homes.csv.gz"), "--target", "grade", "--json"]) == 0
    out, err = capsys.readouterr()
    columns = {each["name"]: (each["kind"], each["done"]) for each in json.loads(out)["columns"]}
    assert {name: kind for name, (kind, _) in columns.items()} == {
        "id": "left out", "size": "number", "kind": "category", "logits": "number", "built": "date", "lift": "boolean",
    }  # fmt: skip
    assert "numbers with a decimal comma; standardised; " in columns["size"][1]
    assert columns["kind"][1] == "3 categories, a one-hot column each"
    assert "homes.csv.gz: not UTF-8 text" in err
    assert "columns that are left out: 'id' (free text or names: different in every row)" in err
    asked = ["--drop", "size,logits", "--categorical", "built", "--drop", "lift"]
    assert cli.main(["data", str(folder / "homes.csv.gz"), "--target", "grade", *asked, "--json"]) == 0
    kinds = {each["name"]: each["kind"] for each in json.loads(capsys.readouterr().out)["columns"]}
    assert [kinds[name] for name in ("size", "logits", "lift", "built")] == ["left out"] * 3 + ["category"]
    assert cli.main(["data", str(folder / "homes.csv.gz"), "--target", "grade", "--drop", "sise"]) == 2
    assert "--drop: " in (err := capsys.readouterr().err)
    assert "has no column 'sise' (did you mean 'size'?)" in " ".join(err.split())


def test_predict_writes_answers_with_ids_and_checks_them(
    folder: Path, expected: np.ndarray[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "answers.csv"
    command = ["predict", str(folder / "models" / "homes-kronecker"), str(folder / "homes.csv.gz")]
    assert cli.main([*command, "--out", str(out), "--proba", "--check", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    with out.open(newline="") as file:
        answers = list(csv.DictReader(file))
    labels = ["high", "low", "mid"]
    names = ["row", "id", "predicted_grade", *(f"probability_{label}" for label in labels)]
    assert list(answers[0]) == names
    assert [(row["row"], row["id"]) for row in answers] == [(str(n + 1), f"h{n}") for n in range(ROWS)]
    got = np.array([[float(row[f"probability_{label}"]) for label in labels] for row in answers])
    np.testing.assert_allclose(got, expected, atol=1e-5)
    truth, predicted = [row["grade"] for row in homes()], [row["predicted_grade"] for row in answers]
    assert predicted == [labels[index] for index in expected.argmax(1)]
    check = summary["check"]
    assert (summary["rows"], check["rows"]) == (ROWS, ROWS)
    assert check["accuracy"] == pytest.approx(np.mean(np.array(truth) == np.array(predicted)))
    assert check["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, predicted))
    recall = recall_score(truth, predicted, labels=labels, average=None)
    assert list(check["recall"].values()) == pytest.approx(recall.tolist())


def test_predict_reads_numbers_and_dates_as_the_training_did(
    folder: Path, expected: np.ndarray[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the model's format, `51,234` between commas is fifty thousand, and pieces of few rows differ."""
    monkeypatch.setattr("kronmodel.predict.rows.PIECE_ROWS", 7)
    with (tmp_path / "new.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(homes()[0]))
        writer.writeheader()
        writer.writerows(homes())
    out = tmp_path / "answers.csv"
    command = ["predict", str(folder / "models" / "homes-kronecker"), str(tmp_path / "new.csv"), "--out", str(out)]
    assert cli.main([*command, "--proba"]) == 0
    with out.open(newline="") as answers:
        got = [
            [float(row[f"probability_{label}"]) for label in ("high", "low", "mid")] for row in csv.DictReader(answers)
        ]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_predict_names_wrong_rows_and_leaves_no_half_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = homes()
    rows[2]["size"] = "big"
    rows[5]["built"] = "soon"
    (tmp_path / "new.csv").write_bytes(written(rows))
    out = tmp_path / "answers.csv"
    command = ["predict", str(folder / "models" / "homes-kronecker"), str(tmp_path / "new.csv"), "--out", str(out)]
    assert cli.main(command) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert "line 4: column 'size': got 'big', expected a finite number" in err
    assert "line 7: column 'built': got 'soon', expected a date or a time" in err
    assert sorted(each.name for each in tmp_path.iterdir()) == ["new.csv"]
    assert cli.main([*command, "--skip-bad-rows"]) == 0
    assert len(out.read_text().splitlines()) == ROWS - 2 + 1
    (tmp_path / "other.csv").write_text("id;Size;kind\nx;1;shed\n")
    assert cli.main([*command[:2], str(tmp_path / "other.csv")]) == 2
    assert "has no column 'size' (did you mean 'Size'?)" in " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Serving]:
    with serving(folder / "models", reports="off") as server:
        yield server


def test_the_service_takes_rows_by_names_and_the_protocol_the_columns(
    server: Serving, folder: Path, expected: np.ndarray[Any, Any]
) -> None:
    rows: list[dict[str, Any]] = []
    for row in homes()[:30]:
        day, month, year = row["built"].split(".")
        number, other = row["size"].replace(",", "."), row["logits"].replace(",", ".")
        rows.append({
            "size": float(number) if number else None, "kind": row["kind"], "logits": float(other),
            "built": f"{year}-{int(month):02d}-{int(day):02d}", "lift": row["lift"] == "yes", "id": row["id"],
        })  # fmt: skip
    answer = server.client.post("/api/predict", json={"rows": rows, "models": ["homes-kronecker"]}).json()
    outputs = answer["results"][0]["outputs"]
    np.testing.assert_allclose([each["probabilities"] for each in outputs], expected[:30], atol=1e-5)
    wrong = server.client.post("/api/predict", json={"rows": [rows[0] | {"Kind": "shed"}]})
    assert (wrong.status_code, "did you mean 'kind'?" in wrong.json()["error"]) == (400, True)
    for body in ({"inputs": [[1, 2]]}, {"inputs": [[1]], "rows": rows}, {}):
        assert server.client.post("/api/predict", json=body).status_code == 400
    full = [row for row in rows if row["size"] is not None]
    epoch = [float(np.datetime64(row["built"], "s").astype(int)) for row in full]
    columns = {"size": [row["size"] for row in full], "kind": [row["kind"] for row in full], "built": epoch,
               "logits_": [row["logits"] for row in full], "lift": [float(row["lift"]) for row in full]}  # fmt: skip
    inputs = [
        {"name": name, "shape": [len(full), 1], "datatype": "BYTES" if name == "kind" else "FP64", "data": data}
        for name, data in columns.items()
    ]
    answer = server.client.post("/v2/models/homes-kronecker/infer", json={"inputs": inputs}).json()
    found = next(each for each in answer["outputs"] if each["name"] == "probabilities")
    want = expected[:30][[row["size"] is not None for row in rows]]
    np.testing.assert_allclose(np.array(found["data"]).reshape(found["shape"]), want, atol=1e-5)
    card = server.client.get("/api/models/homes-kronecker").json()["card"]["input"]
    assert [column["name"] for column in card["columns"]] == ["size", "kind", "logits", "built", "lift"]
    assert card["left_out"] == ["id"]


@pytest.mark.slow
def test_the_samples_are_rows_with_names_that_a_comparison_uses(server: Serving) -> None:
    given = server.client.get("/api/models/homes-kronecker/samples", params={"limit": 100}).json()
    truth = {(row["logits"], row["kind"], row["lift"]): row["grade"] for row in homes()}
    assert given["total"] == len(given["inputs"]) == len(given["labels"]) > 40
    for row, label in zip(given["inputs"], given["labels"], strict=True):
        number = f"{row['logits']:.3f}".replace(".", ",")
        assert truth[number, row["kind"], "yes" if row["lift"] else "no"] == label
        assert isinstance(row["built"], str)
        assert row["size"] is None or isinstance(row["size"], float)
    answer = server.client.post("/api/predict", json={"rows": given["inputs"], "models": ["homes-kronecker"]}).json()
    right = [
        each["label"] == label for each, label in zip(answer["results"][0]["outputs"], given["labels"], strict=True)
    ]
    body = {
        "models": ["homes-kronecker", "homes-dense"],
        "batch_sizes": [1, 8],
        "seconds": 0.2,
        "depths": ["session", "http"],
    }
    answer = server.client.post("/api/compare", json=body)
    assert answer.status_code == 200, answer.text
    report = answer.json()
    assert (report["inputs"]["source"], report["inputs"]["rows"]) == ("samples", given["total"])
    assert report["quality"]["models"][0]["accuracy"] == pytest.approx(np.mean(right))
    assert {each["batch_size"] for each in report["models"][0]["service_latency"]} == {1, 8}


def test_the_published_samples_are_rows_of_the_test(folder: Path) -> None:
    path = folder / "models" / "homes-kronecker" / "1"
    data = load(str(folder / "homes.csv.gz"), lambda line: None, FileOptions(target="grade"))
    assert data.encoding is not None
    session = onnxruntime.InferenceSession(path / "model.onnx")
    with np.load(path / "samples.npz") as samples:
        columns = [samples[f"column_{number}"] for number in range(5)]
        labels = samples["labels"]
    names = [each.name for each in session.get_inputs()]
    by_name = {column.name: columns[names.index(column.input)][:, 0] for column in data.encoding.columns}
    by_name["kind"] = by_name["kind"].astype(object)
    tested = {tuple(row) for row in data.x_test.tolist()}
    assert {tuple(row) for row in data.encoding.apply(by_name).tolist()} <= tested
    assert len(labels) == len(columns[0]) == len(data.x_test)
