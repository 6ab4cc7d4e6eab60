"""Regression on a .csv file, trained, exported, served and compared: diabetes, 442 patients (Efron et al. 2004)."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from sklearn.datasets import load_diabetes
from sklearn.metrics import mean_squared_error, r2_score

from app.cli import main as kronserve
from kronmodel.cli import main as cli
from kronmodel.data.registry import load
from kronmodel.data.user_file import FileOptions
from tests.app.conftest import serving


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """Paths of the .csv file and of the model repository, and the names of the features."""
    folder = tmp_path_factory.mktemp("regression")
    bunch = load_diabetes(scaled=False)
    with (folder / "diabetes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*bunch.feature_names, "progression"])
        writer.writerows([*x, y] for x, y in zip(bunch.data.tolist(), bunch.target.tolist(), strict=True))
    return folder / "diabetes.csv", folder / "models", bunch.feature_names


@pytest.fixture(scope="module")
def summary(files: tuple[Path, Path, list[str]]) -> dict[str, Any]:
    path, repository, _ = files
    arguments = ["train", "--data", str(path), "--target", "progression", "--hidden", "4x4", "--activation", "tanh"]
    arguments += ["--epochs", "20", "--learning-rate", "0.01"]
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lines.append)
        assert cli.main([*arguments, "--batch-size", "32", "--out", str(repository), "--json"]) == 0
    (line,) = lines
    models: dict[str, Any] = json.loads(line)["models"]
    return models


def test_training_reports_rmse_and_r2(files: tuple[Path, Path, list[str]], summary: dict[str, Any]) -> None:
    path, _, names = files
    for role, model in summary.items():
        assert "test_accuracy" not in model
        metric = model["test_metric"]
        assert (metric["name"], metric["higher_is_better"], metric["samples"]) == ("rmse", False, 88), role
        # A linear regression reaches 53 and 0.52 on this split; the target's own spread is 77.
        assert metric["value"] < 68
        assert metric["r2"] > 0.2
    data = load(str(path), lambda line: None, FileOptions(target="progression"))
    assert data.feature_names == tuple(names)


def test_info_shows_inputs_outputs_and_card_of_the_file(
    files: tuple[Path, Path, list[str]], summary: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["info", summary["kronecker"]["path"], "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["inputs"] == [{"name": "input", "datatype": "FLOAT", "shape": ["batch", 10]}]
    assert info["outputs"] == [{"name": "prediction", "datatype": "FLOAT", "shape": ["batch", 1]}]
    card = info["card"]
    assert (card["task"], card["input"]) == ("regression", {"kind": "features", "names": files[2]})
    assert "labels" not in card
    assert card["test_metric"] == summary["kronecker"]["test_metric"]
    assert card["data"]["split"] == "0.2 of the samples for the test, drawn with seed 0"


def test_the_served_model_has_the_test_metric_that_training_reported(
    files: tuple[Path, Path, list[str]], summary: dict[str, Any]
) -> None:
    path, repository, _ = files
    data = load(str(path), lambda line: None, FileOptions(target="progression"))
    with serving(repository) as server:
        answer = server.client.post("/api/predict", json={"inputs": data.x_test.tolist()}).json()
        samples = server.client.get("/api/models/diabetes-kronecker/samples", params={"limit": 3}).json()
    assert [result["model"] for result in answer["results"]] == ["diabetes-kronecker", "diabetes-dense"]
    for result in answer["results"]:
        assert all(set(output) == {"value"} for output in result["outputs"])
        values = np.array([[output["value"]] for output in result["outputs"]])
        metric = summary[result["model"].removeprefix("diabetes-")]["test_metric"]
        assert np.sqrt(mean_squared_error(data.y_test, values)) == pytest.approx(metric["value"], rel=1e-4)
        assert r2_score(data.y_test, values) == pytest.approx(metric["r2"], abs=1e-4)
    np.testing.assert_array_equal(np.array(samples["inputs"], np.float32), data.x_test[:3])
    assert samples["labels"] == data.y_test[:3, 0].tolist()


def test_the_exported_file_takes_raw_values_in_plain_onnxruntime(
    files: tuple[Path, Path, list[str]], summary: dict[str, Any]
) -> None:
    """The standardisation of features is part of the graph: the file needs no other preprocessing."""
    data = load(str(files[0]), lambda line: None, FileOptions(target="progression"))
    session = onnxruntime.InferenceSession(summary["dense"]["path"], providers=["CPUExecutionProvider"])
    (values,) = session.run(None, {"input": data.x_test})
    assert np.sqrt(mean_squared_error(data.y_test, values)) == pytest.approx(
        summary["dense"]["test_metric"]["value"], rel=1e-4
    )


def test_the_comparison_reports_the_test_metric(
    files: tuple[Path, Path, list[str]], summary: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compare", "diabetes-kronecker", "diabetes-dense", "--models", str(files[1]), "--json"]
    arguments += ["--seconds", "0.4"]
    assert kronserve.main(arguments) == 0
    metrics = [model["test_metric"] for model in json.loads(capsys.readouterr().out)["models"]]
    assert [metric["name"] for metric in metrics] == ["rmse", "rmse"]
    assert metrics[0]["value"] == summary["kronecker"]["test_metric"]["value"]
