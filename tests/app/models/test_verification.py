"""Hostile files are refused with a reason, and their sandboxed processes affect nothing else."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import onnx
import orjson
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.models.card import MAX_CARD_BYTES
from app.models.verification import VerificationResult, verify
from app.settings import Settings
from tests.app.conftest import children_of, environment, is_alive, serving, wait_until
from tests.app.graphs import CARD, classifier, publish, weights

GOOD = classifier(weights([6, 3]), card=CARD)
FLOATS = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("input", "out")]


def hostile(nodes: list[onnx.NodeProto], **constants: object) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", FLOATS[:1], FLOATS[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def gigantic() -> onnx.ModelProto:
    """A model that adds the maximum of 10^11 zeros, which need 400 GB."""
    return hostile(
        [
            helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
            helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
            helper.make_node("Add", ["input", "zero"], ["out"]),
        ],
        size=[10**11],
    )


def endless() -> onnx.ModelProto:
    """A model that adds one in a loop of 2^60 steps."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["x", "one"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(np.array(1, np.float32), "one")],
    )
    return hostile([helper.make_node("Loop", ["times", "go", "input"], ["out"], body=body)], times=2**60, go=True)


def verify_files(paths: list[Path], **options: object) -> dict[Path, VerificationResult]:
    return asyncio.run(verify(paths, Settings.model_validate(options)))


def test_a_deleted_file_is_refused_and_others_are_verified(tmp_path: Path) -> None:
    first, last = (publish(tmp_path, name, GOOD) for name in ("first", "last"))
    gone = tmp_path / "gone.onnx"  # deleted after the scan
    results = verify_files([first, gone, last])
    assert replace(results[first], memory_bytes=0) == replace(results[last], memory_bytes=0)
    assert results[first].error is None
    assert results[first].initializer_elements == 18
    assert results[gone].error == "cannot be read: No such file or directory"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured on Linux only")
def test_the_memory_of_a_model_is_measured(tmp_path: Path) -> None:
    small = publish(tmp_path, "small", GOOD)
    large = publish(tmp_path, "large", classifier(weights([6, 3]), padding_bytes=32 * 2**20))
    results = verify_files([small, large])
    assert 0 < (results[small].memory_bytes or 0) < 4 * 2**20
    assert 32 * 2**20 <= (results[large].memory_bytes or 0) < 80 * 2**20


def test_a_card_that_is_not_utf8_refuses_only_its_file(tmp_path: Path) -> None:
    broken = GOOD.SerializeToString().replace(b'"card_version"', b'"card_v\xff\xfe\xfd\xfc\xfbn"')
    bad, good = publish(tmp_path, "bad", broken), publish(tmp_path, "good", GOOD)
    results = verify_files([bad, good])
    assert results[bad].error in {
        "the card is not UTF-8: write it again as JSON",
        "not an ONNX file, or a truncated one: copy or export it again",
    }
    assert results[good].error is None


def test_a_too_long_card_is_cut(tmp_path: Path) -> None:
    """Each character of the card takes 12 bytes of JSON."""
    wordy = classifier(weights([6, 3]))
    helper.set_model_props(wordy, {"kronmodel": '{"preprocessing": "' + "\N{PILE OF POO}" * 450_000 + '"}'})
    bad, good = publish(tmp_path, "wordy", wordy), publish(tmp_path, "good", GOOD)
    results = verify_files([bad, good])
    assert (results[bad].error, results[good].error) == (None, None)
    assert len(results[bad].card or "") == MAX_CARD_BYTES + 1
    assert orjson.loads(results[good].card or "") == CARD


def test_verification_has_a_time_limit(tmp_path: Path) -> None:
    paths = [publish(tmp_path, name, GOOD) for name in ("a", "b")]
    reason = "not read within 0.001 s, all files together (KRON_LOAD_SECONDS)"
    assert verify_files(paths, load_seconds=0.001) == dict.fromkeys(paths, VerificationResult(error=reason))


@pytest.mark.parametrize(
    ("made", "options", "reason"),
    [
        (endless, {"trial_seconds": 5}, "reading, loading and running it once took longer than 5 s (KRON_TRIAL_SEC"),
        (gigantic, {}, "onnxruntime failed: "),
    ],
    ids=["endless", "gigantic"],
)
def test_a_model_beyond_the_limits_of_time_or_memory_is_refused(
    tmp_path: Path, made: Callable[[], onnx.ModelProto], options: dict[str, object], reason: str
) -> None:
    bad, good = publish(tmp_path, "bad", made()), publish(tmp_path, "good", GOOD)
    results = verify_files([bad, good], **options)
    error = results[bad].error or ""
    assert error.startswith(reason)
    assert "KRON_TRIAL" in error
    assert results[good].error is None


def test_the_service_survives_hostile_files(tmp_path: Path) -> None:
    """Truncated files, flipped bits, too much memory or time: at the start, and loaded at run time."""
    publish(tmp_path, "good", GOOD)
    publish(tmp_path, "endless", endless())
    publish(tmp_path, "gigantic", gigantic())
    content = GOOD.SerializeToString()
    rng = np.random.default_rng(5)
    for number in range(6):
        flipped = np.frombuffer(content, np.uint8).copy()
        flipped[rng.integers(0, len(flipped), 8)] ^= np.uint8(1 << rng.integers(0, 8))
        publish(tmp_path, f"flipped-{number}", flipped.tobytes())
        publish(tmp_path, f"cut-{number}", content[: int(rng.integers(1, len(content)))])
    with serving(tmp_path, trial_seconds=2, reports=":memory:") as server:
        index = server.client.post("/v2/repository/index").json()
        states = {entry["name"]: entry for entry in index}
        assert len(states) == 15
        assert states["good"]["state"] == "READY"
        for name in ("endless", "gigantic"):
            assert states[name]["state"] == "UNAVAILABLE"
            assert "KRON_TRIAL" in states[name]["reason"]
        publish(tmp_path, "good", endless(), version=2)
        answer = server.client.post("/v2/repository/models/good/load")
        assert answer.status_code == 400
        assert "good: version 2: reading, loading and running it once took longer than 2 s" in answer.json()["error"]
        assert server.client.post("/api/predict", json={"inputs": [[0.5] * 6], "models": ["good"]}).is_success


def test_a_crash_refuses_only_its_file(tmp_path: Path) -> None:
    """A segmentation fault in onnxruntime is simulated for one of three files."""
    paths = [publish(tmp_path, name, GOOD) for name in ("a", "crash", "b")]
    code = (
        "import os, signal\n"
        "import app.inference.engine\n"
        "from app.models import verification\n"
        "loaded = app.inference.engine.open_session\n"
        "def fault(path, **options):\n"
        "    if '/crash/' in path:\n"
        "        os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return loaded(path, **options)\n"
        "app.inference.engine.open_session = fault\n"
        "verification.main()\n"
    )
    job = {
        "paths": [str(path) for path in paths],
        "cpu_only": True,
        "max_batch": 8,
        "max_card_chars": 100_000,
        "seconds": 20,
        "bytes": 2**32,
        "max_model_bytes": 2**31,
        "batch_axes": {},
    }
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(orjson.dumps(job) + b"\n")
        process.stdin.flush()
        found = {Path(line["path"]).parts[-3]: line.get("error") for line in map(orjson.loads, process.stdout)}
        process.stdin.close()
    assert found == {
        "a": None,
        "b": None,
        "crash": "reading, loading or running it once crashed the process of its smoke test (SIGSEGV): "
        "export the model again",
    }


def test_sandboxes_end_when_the_service_dies(tmp_path: Path) -> None:
    publish(tmp_path, "good", GOOD)
    with serving(tmp_path, reports=":memory:", expected_code=-9) as server:
        publish(tmp_path, "endless", endless())
        os.kill(server.process.pid, signal.SIGHUP)
        child = next(iter(wait_until(server.children)))
        smoke_tests = wait_until(lambda: children_of(child))
        server.process.kill()
        wait_until(lambda: not any(is_alive(pid) for pid in (child, *smoke_tests)), seconds=10)


def test_a_sighup_while_models_are_loading_refreshes_them_afterwards(tmp_path: Path) -> None:
    publish(tmp_path, "good", GOOD)
    publish(tmp_path, "endless", endless())  # its smoke test runs into the time limit
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "app", "--port", str(port), "--models", str(tmp_path)]
    with subprocess.Popen(
        command, env=environment(trial_seconds=2, reports="off"), stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_until(lambda: children_of(process.pid))  # the folder was scanned
            publish(tmp_path, "good", GOOD, version=2)
            process.send_signal(signal.SIGHUP)

            def is_served() -> bool:
                with suppress(httpx.TransportError):
                    return httpx.get(f"http://127.0.0.1:{port}/v2/models/good/versions/2/ready").is_success
                return False

            wait_until(is_served)
        finally:
            process.terminate()
            process.wait(timeout=30)
