"""The running container: keys, clients, comparison, limits, stopping."""

import json
import os
import re
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import pytest
import tritonclient.http

from tests.app.conftest import wait_until
from tests.image.conftest import copy_models
from tests.image.container import HEALTH, LOCKED_DOWN, Container, engine, run

OPEN = ("--env", "KRON_INSECURE_NO_KEYS=true")


def own_address() -> str:
    """Address of this machine in its network; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        address: str = probe.getsockname()[0]
    return address


def test_the_first_command_serves_with_a_key_that_is_printed_once(models: Path) -> None:
    with Container(models) as container:
        key = container.key()
        with container.client() as client:
            assert client.get("/api/models").status_code == 401
            assert client.get("/metrics").is_success
            assert client.get("/").is_success
            for name in ("localhost", own_address(), socket.gethostname(), "kronmodel.example.org"):
                headers = {"X-API-Key": key, "Host": f"{name}:{container.port}"}
                assert client.get("/api/models", headers=headers).is_success, name
        assert container.stop() == 0
        engine("start", container.id)
        container.wait_until_ready()
        with container.client(key) as client:
            assert client.get("/api/models").is_success
        assert container.logs().count(key) == 1
        assert [message for message in container.messages() if message.startswith("Open http://localhost:8000")]


def test_a_generated_key_with_a_read_only_root(models: Path) -> None:
    with Container(models, *LOCKED_DOWN) as container, container.client(container.key()) as client:
        assert client.get("/api/models").is_success
        assert "the next start generates another one" in container.logs()
    volume = f"kronmodel-test-{uuid.uuid4().hex}"
    keys: list[str] = []
    try:
        for _ in range(2):
            with Container(models, *LOCKED_DOWN, "--volume", f"{volume}:/var/lib/kronmodel") as container:
                if keys:
                    assert "printed only now" not in container.logs()
                else:
                    keys.append(container.key())
                with container.client(keys[0]) as client:
                    assert client.get("/api/models").is_success
    finally:
        engine("volume", "rm", volume)


def test_a_key_file_and_no_keys(models: Path, tmp_path: Path) -> None:
    made = run("key", "ci", "--role", "predict")
    keys = tmp_path / "keys"
    keys.write_text(made.stdout)
    keys.chmod(0o644)
    key = re.findall(r"not stored anywhere: (\S+)", made.stderr)[0]
    with Container(
        models, "--volume", f"{keys}:/run/secrets/keys", "--env", "KRON_KEYS=/run/secrets/keys"
    ) as container:
        with container.client(key) as client:
            assert client.get("/api/models").is_success
            assert client.post("/v2/repository/models/mnist-dense/unload").status_code == 403
        assert "printed only now" not in container.logs()
    with Container(models, *OPEN) as container, container.client() as client:
        assert client.get("/api/models", headers={"Host": "any.example.org"}).is_success
        assert "printed only now" not in container.logs()


@pytest.fixture(scope="module")
def small(models: Path) -> Iterator[Container]:
    """A container with what it needs at least: read-only, another user, 160 MB, one CPU, no capabilities."""
    with Container(
        models, *OPEN, *LOCKED_DOWN, "--user", "12345:12345", "--memory", "160m", "--cpus", "1"
    ) as container:
        yield container


def expected_logits(models: Path, name: str, rows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(models / name / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"input": rows})[0])


def test_predictions_by_json_and_binary(small: Container, models: Path) -> None:
    rows = np.random.default_rng(5).random((7, 784), dtype=np.float32)
    with small.client() as client:
        answers = client.post("/api/predict", json={"inputs": rows.tolist()}).json()["results"]
        assert {answer["model"] for answer in answers} == {"mnist-kronecker", "mnist-dense"}
        for answer in answers:
            want = expected_logits(models, answer["model"], rows).argmax(1)
            assert [int(output["label"]) for output in answer["outputs"]] == want.tolist()
    with tritonclient.http.InferenceServerClient(f"localhost:{small.port}") as triton:
        assert triton.is_server_ready()
        for binary in (True, False):
            given = tritonclient.http.InferInput("input", rows.shape, "FP32")
            given.set_data_from_numpy(rows, binary_data=binary)
            wanted = tritonclient.http.InferRequestedOutput("logits", binary_data=binary)
            got = triton.infer("mnist-kronecker", [given], outputs=[wanted]).as_numpy("logits")
            np.testing.assert_allclose(got, expected_logits(models, "mnist-kronecker", rows), atol=1e-5)


def test_metrics(small: Container) -> None:
    with small.client() as client:
        before = client.get("/metrics").text
        assert "nv_inference_pending_request_count{" in before
        assert "kron_model_info{" in before or "nv_inference_request_success{" in before


def test_a_comparison_in_a_read_only_container(small: Container) -> None:
    with small.client() as client:
        answer = client.post("/api/compare", json={"batch_sizes": [1, 8], "seconds": 1}, timeout=250)
        assert answer.is_success, answer.text
        report = answer.json()
    assert [model["model"] for model in report["models"]] == ["mnist-kronecker", "mnist-dense"]
    assert all(model["memory"]["peak_rss_bytes"] > 0 for model in report["models"])
    assert report["pairs"]


def test_health_check(small: Container) -> None:
    assert json.loads(engine("exec", small.id, *HEALTH)) == {"ready": True}


def test_it_was_never_out_of_memory(small: Container) -> None:
    """Runs after the tests above."""
    assert small.is_running
    assert not small.state["OOMKilled"]


def test_commands(models: Path) -> None:
    done = run(
        "compare", "mnist-kronecker", "mnist-dense", "--batch-sizes", "1", "--seconds", "0.3",
        models=models, options=LOCKED_DOWN,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "p50 µs" in done.stdout


def test_stop_under_load_loses_nothing(models: Path) -> None:
    body = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 784], "data": [0.5] * 784}]}
    lost: list[str] = []
    answered = [0] * 4
    stopping = threading.Event()

    def load(position: int, container: Container) -> None:
        with container.client() as client:
            while True:
                try:
                    answer = client.post("/v2/models/mnist-kronecker/infer", json=body)
                except httpx.ConnectError:  # new connections are refused at the end: that is the one way to end
                    if not stopping.is_set():
                        lost.append("connection refused while running")
                    return
                except httpx.HTTPError as error:
                    lost.append(repr(error))
                    return
                if not answer.is_success:
                    lost.append(f"{answer.status_code}: {answer.text}")
                answered[position] += 1

    with Container(models, *OPEN) as container:
        threads = [threading.Thread(target=load, args=(position, container)) for position in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: min(answered) > 50)
        stopping.set()
        assert container.stop() == 0
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
    assert lost == []


def test_stop_while_starting(models: Path) -> None:
    """Python as the first process would ignore SIGTERM until it handles it: a stop would last until SIGKILL."""
    with Container(models, *OPEN, ready=False) as container:
        began = time.monotonic()
        assert container.stop(seconds=40) in {0, 128 + signal.SIGTERM}
        assert time.monotonic() - began < 40


def test_a_model_added_while_running(models: Path, tmp_path: Path) -> None:
    own = copy_models(models, tmp_path / "models")
    with Container(own) as container, container.client(container.key()) as client:
        copy_models(own / "mnist-kronecker", own / "added")
        assert client.get("/v2/models/added/ready").status_code == 404
        assert client.post("/v2/repository/models/added/load").is_success
        assert client.get("/v2/models/added/ready").is_success
        copy_models(own / "mnist-kronecker", own / "more")
        engine("kill", "--signal", "HUP", container.id)
        wait_until(lambda: client.get("/v2/models/more/ready").is_success)


def test_a_folder_without_usable_models_is_one_line_and_exit_code_2(models: Path, tmp_path: Path) -> None:
    empty, wrong, secret = tmp_path / "empty", tmp_path / "wrong", tmp_path / "secret"
    for folder in (empty, wrong, secret):
        folder.mkdir()
        folder.chmod(0o755)
    (wrong / "mine" / "1").mkdir(parents=True)
    (wrong / "mine" / "1" / "model.onnx").write_bytes(b"not ONNX")
    copy_models(models / "mnist-dense", secret / "mnist-dense")
    (secret / "mnist-dense" / "1" / "model.onnx").chmod(0o600)  # of this user, who is not the container's
    unreadable = tmp_path / "unreadable"
    unreadable.mkdir()
    unreadable.chmod(0o700)
    cases: list[tuple[Path | None, str]] = [
        (None, "no models to serve in /models"),
        (empty, "no models to serve in /models"),
        (wrong, "mine: version 1: "),
    ]
    if os.getuid() == 0:  # files of root, which the user of the container is not
        cases += [(secret, "cannot be read: Permission denied"), (unreadable, "/models")]
    for case, message in cases:
        done = run(models=case)
        lines = [line for line in done.stderr.splitlines() if line.startswith("kronserve: ")]
        assert done.returncode == 2, (case, done.stdout, done.stderr)
        assert len(lines) == 1, done.stderr
        assert message in lines[0]
        assert "Traceback" not in done.stderr
