"""The command kronserve: output, exit codes, one-line errors, Ctrl-C."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.main import main
from tests.app.conftest import children_of, environment, is_alive, wait_until
from tests.app.graphs import classifier, publish, weights


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", *map(str, arguments)],
        env=environment(**({"compare_seconds": 250} | options)),
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip


def one_line(text: str) -> str:
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    return lines[0]


def test_compare_prints_one_json_object(models: Path) -> None:
    options = ["--models", models, "--batch-sizes", "1", "--seconds", "0.2", "--json"]
    done = run("compare", "small-kronecker", "plain", *options)
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert [model["model"] for model in report["models"]] == ["small-kronecker", "plain"]
    assert report["settings"]["batch_sizes"] == [1]
    assert "[0/" in done.stderr
    assert "memory plain" in done.stderr


def test_compare_prints_a_table_of_the_default_twin(models: Path) -> None:
    done = run("compare", "--batch-sizes", "2", "--seconds", "0.2", models=models, threads=1)
    assert done.returncode == 0
    for text in (
        "parameters",
        "small-kronecker",
        "small-dense",
        "p50 µs",
        "memory, peak",
        "At batch size 2",
        "1 thread",
        "as C: flash, code",
        "4,512",
    ):
        assert text in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "plain", "nobody"], "kronserve: model: got 'nobody', expected one of: heavy, padded, plain"),
        (["compare", "plain"], "kronserve: models: got plain, expected 2 to 6 different ones"),
        (
            ["compare", "plain", "padded", "--batch-sizes", "1,x"],
            "kronserve: --batch-sizes: got '1,x', expected numbers",
        ),
        (["compare", "plain", "padded", "--batch-sizes", "0"], "kronserve: --batch-sizes: got 0, expected greater"),
        (["compare", "plain", "padded", "--threads", "257"], "kronserve: --threads: got '257', expected less"),
        (
            ["compare", "plain", "padded", "--device", "cuda"],
            "kronserve: device: got 'cuda', expected one of: cpu (",
        ),
        (["compare", "--port", "1"], "kronserve: unrecognized arguments: --port"),
        (["--port", "many"], "kronserve: --port: got 'many', expected a valid integer"),
        (["--nonsense"], "kronserve: unrecognized arguments: --nonsense (see kronserve --help)"),
        (["serve", "--device", "tpu"], "kronserve: --device: got 'tpu', expected auto, cpu, cuda or cuda:N"),
        (
            ["--port", "0", "--host", "no such host", "--insecure-no-keys"],
            "kronserve: --host (KRON_HOST): got 'no such host'",
        ),
        (
            ["--port", "0", "--host", "192.0.2.1", "--insecure-no-keys"],
            "kronserve: cannot listen on 192.0.2.1 port 0: ",
        ),
        (
            ["--port", "0", "--host", "0.0.0.0"],
            "kronserve: --host (KRON_HOST): other machines can reach 0.0.0.0, and",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    models: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(os, "environ", environment(models=models))
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert one_line(err).startswith(message)
    assert out == ""


def test_an_empty_repository_is_one_line_that_names_the_command_to_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (tmp_path / "none", tmp_path):
        done = run("--port", "0", "--models", folder)
        assert done.returncode == 2
        assert "`kronmodel train --out" in one_line(done.stderr)
        assert main(["compare", "--models", str(folder)]) == 2
        assert "`kronmodel train --out" in one_line(capsys.readouterr().err)


def test_a_repository_of_invalid_models_is_exit_code_2(tmp_path: Path) -> None:
    publish(tmp_path, "bad", b"not a model")
    done = run("--port", "0", "--models", tmp_path)
    assert done.returncode == 2
    assert "bad: version 1: not an ONNX file" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_an_unavailable_cuda_device_is_one_line_and_exit_code_2(models: Path) -> None:
    for options, start in (
        ({"device": "cuda"}, "--device (KRON_DEVICE): got cuda, but "),
        ({"model_devices": "small-dense=cuda:1"}, "--model-devices (KRON_MODEL_DEVICES): got cuda:1, but "),
    ):
        done = run("--port", "0", "--models", models, **options)
        assert done.returncode == 2
        line = one_line(done.stderr)
        assert line.startswith(f"kronserve: {start}")
        assert "CPUExecutionProvider" in line
        assert done.stdout == ""


def test_a_port_in_use_is_reported_before_models_are_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments in (["check-port"], ["--models", str(tmp_path / "none")]):
            done = run(*arguments, "--port", port)
            assert done.returncode == 2
            expected = f"kronserve: port {port} on 127.0.0.1 is in use; choose another one with --port (KRON_PORT)"
            assert one_line(done.stderr) == expected
    assert run("check-port", "--port", port, "--host", "127.0.0.1").returncode == 0


def test_ctrl_c_while_comparing_leaves_no_child_and_no_traceback(models: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "compare", "plain", "padded", "--models", str(models)],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        assert "inputs" in process.stderr.readline()
        children = wait_until(lambda: children_of(process.pid))
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert output == ""
    assert "Traceback" not in errors
    assert not any(is_alive(child) for child in children)


def test_a_model_that_cannot_be_measured_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish(tmp_path, "narrow", classifier(weights([5, 3])))
    publish(tmp_path, "good", classifier(weights([6, 3])))
    publish(tmp_path, "bad", b"not a model")
    assert main(["compare", "good", "narrow", "--models", str(tmp_path)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("kronserve: models: got the input 'input' as ")
    assert last.endswith(" of narrow, expected the same shape")
    assert main(["compare", "good", "bad", "--models", str(tmp_path)]) == 2
    assert "bad cannot be used: version 1: not an ONNX file" in capsys.readouterr().err


def test_a_comparison_beyond_its_time_limit_is_exit_code_1(models: Path) -> None:
    done = run("compare", "plain", "padded", "--models", models, "--compare-seconds", "0.2")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("kronserve: the comparison took longer than 0.2 s")


def test_help_describes_options_with_their_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--max-body-bytes BYTES largest request body (default: 16777216)" in text
    assert "--host HOST address to listen on (default: 127.0.0.1)" in text
