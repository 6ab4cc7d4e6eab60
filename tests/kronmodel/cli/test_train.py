"""`kronmodel train`: what its options do, what it prints, and what is in the model card."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from sklearn.datasets import load_wine

from kronmodel.cli import main as cli
from tests.conftest import Twin

FAST = ["--data", "mnist-5k", "--hidden", "8x8", "--rank", "1", "--epochs", "1", "--batch-size", "1000"]


def test_the_default_twin_as_json(trained_twin: Twin) -> None:
    assert trained_twin.summary["twin"] == "mnist"
    models = trained_twin.summary["models"]
    assert list(models) == ["kronecker", "dense"]
    for role, model in models.items():
        assert list(model) == [
            "name",
            "version",
            "path",
            "parameters",
            "parameters_with_branch_biases",
            "weight_bytes",
            "c",
            "macs_per_sample",
            "test_accuracy",
            "test_metric",
            "train_seconds",
            "ms_per_step",
        ]
        assert (model["name"], model["version"]) == (f"mnist-{role}", "1")
        path = Path(model["path"])
        assert path == trained_twin.repository / f"mnist-{role}" / "1" / "model.onnx"
        onnx.checker.check_model(path, full_check=True)
    assert models["kronecker"]["parameters"] == 11_490
    assert models["kronecker"]["parameters_with_branch_biases"] == 13_068
    assert models["dense"]["parameters"] == 1_238_730
    assert models["kronecker"]["test_accuracy"] > 0.93


def test_one_kind_a_table_and_the_next_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, page, out = tmp_path / "log.csv", tmp_path / "report.html", tmp_path / "models"
    more = ["--kind", "kronecker", "--name", "toy", "--out", str(out), "--log-csv", str(log), "--report", str(page)]
    for version in (1, 2):
        assert cli.main(["train", *FAST, *more]) == 0
        text, err = capsys.readouterr()
        assert f"toy-kronecker v{version}" in text
        assert "toy-kronecker: epoch 1/1" in err
        assert (out / "toy-kronecker" / str(version) / "model.onnx").is_file()
        assert f"toy-kronecker v{version}</th>" in page.read_text()
        assert len(log.read_text().splitlines()) == 2
    assert [path.name for path in out.iterdir()] == ["toy-kronecker"]
    assert len(list(tmp_path.iterdir())) == 3


def test_options_reach_the_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--recipe", "paper", "--rank", "2", "--order", "left,right", "--hidden", "8x6,4x10", "--seed", "7"]
    options += [
        "--data",
        "mnist-5k",
        "--epochs",
        "1",
        "--batch-size",
        "500",
        "--learning-rate",
        "0.05",
        "--threads",
        "1",
    ]
    assert cli.main(["train", *options, "--kind", "kronecker", "--out", str(tmp_path), "--json"]) == 0
    path = json.loads(capsys.readouterr().out)["models"]["kronecker"]["path"]
    assert cli.main(["info", path, "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    card = info["card"]
    assert [layer["out_shape"] for layer in card["layers"]] == [[8, 6], [4, 10], [2, 5]]
    assert all(layer["order"] == ["left", "right"] and layer["activation"] == "tanh" for layer in card["layers"])
    training = {
        key: card["training"][key] for key in ("recipe", "optimizer", "learning_rate", "schedule", "seed", "threads")
    }
    assert training == {
        "recipe": "paper",
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "schedule": "constant",
        "seed": 7,
        "threads": 1,
    }
    assert info["inputs"] == [{"name": "input", "datatype": "FLOAT", "shape": ["batch", 784]}]
    assert info["file_bytes"] == Path(path).stat().st_size
    assert cli.main(["info", path]) == 0
    assert "mnist-5k-kronecker" in capsys.readouterr().out


def test_a_network_without_hidden_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data", "digits", "--hidden", "none", "--rank", "1", "--epochs", "1", "--out", str(tmp_path), "--json"]
    assert cli.main(["train", *options]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert models["dense"]["parameters"] == 64 * 10 + 10
    # 8x8 inputs by 2x5 outputs: two factors, inner biases (2 * 8) and a bias.
    assert models["kronecker"]["parameters"] == 2 * 8 + 5 * 8 + 2 * 8 + 10


@pytest.mark.slow
def test_convolutions_in_front_of_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--features", "4,8", "--dropout", "0.1", "--hidden", "8x8", "--rank", "2", "--order", "left,right"]
    arguments = [
        "train",
        "--data",
        "mnist-5k",
        *options,
        "--epochs",
        "1",
        "--batch-size",
        "500",
        "--out",
        str(tmp_path),
    ]
    assert cli.main([*arguments, "--name", "conv"]) == 0
    assert "… with branch biases" in capsys.readouterr().out
    for role, first in (("kronecker", [14, 28]), ("dense", [392])):
        assert cli.main(["info", str(tmp_path / f"conv-{role}" / "1" / "model.onnx"), "--json"]) == 0
        info = json.loads(capsys.readouterr().out)
        assert info["inputs"] == [{"name": "input", "datatype": "FLOAT", "shape": ["batch", 1, 28, 28]}]
        card = info["card"]
        assert card["input"] == {"kind": "image", "shape": [28, 28], "range": [0.0, 1.0]}
        assert [layer["kind"] for layer in card["layers"][:2]] == ["Conv2d", "Conv2d"]
        assert [layer["out_shape"] for layer in card["layers"][:2]] == [[4, 14, 14], [8, 7, 7]]
        assert card["layers"][2]["in_shape"] == first
    assert card["parameters_with_branch_biases"] == card["parameters"]
    samples = np.load(tmp_path / "conv-kronecker" / "1" / "samples.npz")
    assert samples["inputs"].shape == (100, 1, 28, 28)


def test_thirteen_columns_need_padding_asked_for_and_get_it_in_the_graph(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bunch = load_wine()
    path, out = tmp_path / "wine.csv", tmp_path / "models"
    rows = [[*bunch.feature_names, "cultivar"]]
    rows += [[*map(str, x), str(y)] for x, y in zip(bunch.data.tolist(), bunch.target.tolist(), strict=True)]
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    command = [
        "train",
        "--data",
        str(path),
        "--target",
        "cultivar",
        "--hidden",
        "8x8",
        "--epochs",
        "40",
        "--out",
        str(out),
    ]
    assert cli.main([*command, "--json"]) == 0
    out_text, err = capsys.readouterr()
    text = "13 features have no factors but 1 and 13, which compress nothing: each row is filled up with zeros to 3x5"
    assert text in err
    assert "target 'cultivar': classification, because it has 3 distinct whole numbers" in err
    models = json.loads(out_text)["models"]
    for role, first in (("kronecker", [3, 5]), ("dense", [13])):
        assert models[role]["test_accuracy"] > 0.8
        assert cli.main(["info", models[role]["path"], "--json"]) == 0
        info = json.loads(capsys.readouterr().out)
        assert info["inputs"][0]["shape"] == ["batch", 13]
        assert info["card"]["input"] == {"kind": "features", "names": bunch.feature_names}
        assert info["card"]["labels"] == ["0", "1", "2"]
        assert info["card"]["layers"][0]["in_shape"] == first


def test_a_regression_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "line.csv"
    path.write_text("a,b,c,d,y\n" + "".join(f"{n},{n % 7},{n % 5},{n % 3},{n * 1.5}\n" for n in range(50)))
    out = str(tmp_path / "models")
    options = ["--target", "y", "--hidden", "4x4", "--epochs", "2", "--kind", "dense", "--out", out]
    assert cli.main(["train", "--data", str(path), *options]) == 0
    out_text, err = capsys.readouterr()
    assert re.search(r"line-dense: epoch 2/2  loss [0-9.]+  test RMSE [0-9.]+\n", err)
    assert "test RMSE" in out_text
    assert "test R²" in out_text
    assert "accuracy" not in out_text


def test_linear_layers_reach_the_network_and_the_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--layer", "linear", "--kind", "kronecker", "--name", "toy", "--out", str(tmp_path), "--json"]
    assert cli.main(["train", *FAST, *options]) == 0
    summary = json.loads(capsys.readouterr().out)["models"]["kronecker"]
    assert cli.main(["info", summary["path"], "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["card"]["layers"]
    assert [layer["kind"] for layer in layers] == ["KroneckerLinear", "KroneckerLinear"]
    # Weights and biases of A (8 x 28), B (8 x 28), then A (2 x 8), B (5 x 8).
    assert summary["parameters"] == 2 * 8 * 28 + 64 + 2 * 8 + 5 * 8 + 10
    assert cli.main(["train", *FAST, "--layer", "linear", "--order", "right"]) == 2
    assert "order is for dual layers" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["train", *FAST, "--layer", "cubic"])
    assert "argument --layer: invalid choice: 'cubic'" in capsys.readouterr().err
