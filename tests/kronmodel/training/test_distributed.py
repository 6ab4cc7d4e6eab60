"""Several processes, started by the real torchrun, against one."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from kronmodel.cli import main as cli
from kronmodel.errors import KronmodelError
from kronmodel.training.distributed import ALONE, Group, joined

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
# 4,000 samples in batches of 129: shares of 65 and 64, and a last batch of one sample, of which one process has none.
TRAIN = ["train", "--data", "mnist-5k", "--name", "toy", "--hidden", "16x12,8x8", "--batch-size", "129", "--json"]
SGD = ["--kind", "kronecker", "--optimizer", "sgd", "--learning-rate", "0.1", "--schedule", "constant"]


LEAVE = """
import contextlib, time
import torch
from pathlib import Path
from kronmodel.training.distributed import joined

def gloo():
    found = []
    for path in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            found += [path.read_text()] if "gloo" in path.read_text() else []
    return found

def train(group):
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    parallel = group.parallel(network)
    parallel.itself = [parallel]  # a cycle, as torch makes some
    parallel(torch.ones(5, 3)).sum().backward()
    assert gloo()

with joined("cpu") as group:
    train(group)
deadline = time.monotonic() + 10  # a thread that has been waited for is still seen for a moment
while gloo():
    assert time.monotonic() < deadline, gloo()
"""


def start(*arguments: str) -> subprocess.Popen[str]:
    return torchrun("-m", "kronmodel", *arguments)


def torchrun(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*TORCHRUN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def alone(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert cli.main([*arguments]) == 0
    summary: dict[str, Any] = json.loads(capsys.readouterr().out)
    return summary


def weights(model: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    graph = onnx.load(model["path"]).graph
    return {each.name: numpy_helper.to_array(each) for each in graph.initializer}


def assert_the_same(got: dict[str, Any], want: dict[str, Any]) -> None:
    assert got["test_accuracy"] == pytest.approx(want["test_accuracy"], abs=0.002)
    mine, expected = weights(got), weights(want)
    assert list(mine) == list(expected)
    for name, values in mine.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_two_processes_train_the_network_of_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*TRAIN, "--epochs", "2", "--validation-share", "0.1", "--kind", "kronecker"]
    with start(*arguments, "--out", str(tmp_path / "two"), "--log-csv", str(tmp_path / "log.csv")) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    summary = json.loads(out)  # one object: one process prints
    assert err.count("toy-kronecker: epoch 2/2") == 1
    assert "Warning" not in err
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["toy-kronecker"]
    assert [path.name for path in (tmp_path / "two" / "toy-kronecker").iterdir()] == ["1"]
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3
    one = alone(capsys, *arguments, "--out", str(tmp_path / "one"))
    assert_the_same(summary["models"]["kronecker"], one["models"]["kronecker"])


def processes_of(torchrun: int) -> dict[str, int]:
    """Process ids by rank."""
    found: dict[str, int] = {}
    for task in Path(f"/proc/{torchrun}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            for child in (task / "children").read_text().split():
                environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
                found |= {entry.decode()[5:]: int(child) for entry in environment if entry.startswith(b"RANK=")}
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_a_process_that_is_killed_ends_the_run_which_can_be_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*TRAIN, *SGD, "--epochs", "20"]
    checkpoint = tmp_path / "two" / ".checkpoints" / "toy-kronecker" / "last.pt"
    with start(*arguments, "--out", str(tmp_path / "two")) as process:
        while not checkpoint.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        os.kill(processes_of(process.pid)["1"], signal.SIGKILL)
        began = time.monotonic()
        out, err = process.communicate(timeout=120)
        waited = time.monotonic() - began
    assert process.returncode != 0
    assert out == ""
    assert waited < 60  # torchrun gives the others 30 seconds to leave
    (line,) = [line for line in err.splitlines() if line.startswith("kronmodel: error:")]
    assert "gone" in line
    assert f"is kept in {checkpoint}: the same training with --resume continues from there" in line
    assert checkpoint.exists()

    resumed = alone(capsys, *arguments, "--out", str(tmp_path / "two"), "--resume")
    whole = alone(capsys, *arguments, "--out", str(tmp_path / "one"))
    assert_the_same(resumed["models"]["kronecker"], whole["models"]["kronecker"])
    assert not checkpoint.parent.parent.exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the threads in /proc")
def test_no_thread_outlives_the_run(tmp_path: Path) -> None:
    """One that did would abort the process if it still had a tensor to let go when the interpreter is gone."""
    script = tmp_path / "leave.py"
    script.write_text(LEAVE)
    with torchrun(str(script)) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


RESTORE = """
import os, signal, sys, warnings
import torch
from kronmodel.errors import TrainingError
from kronmodel.training.distributed import joined

def handler(*_):
    print("told")

signal.signal(signal.SIGTERM, handler)
filters = list(warnings.filters)
with joined("cpu") as group:
    parallel = group.parallel(torch.nn.Linear(3, 2))
    parallel(torch.ones(5, 3)).sum().backward()
assert (signal.getsignal(signal.SIGTERM), list(warnings.filters)) == (handler, filters), "success"
os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + 1)
os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
try:
    with joined("cpu") as group:
        assert signal.getsignal(signal.SIGTERM) is handler
        raise TrainingError("a failure of each")
except (TrainingError, SystemExit):
    pass
assert (signal.getsignal(signal.SIGTERM), list(warnings.filters)) == (handler, filters), "failure"
"""


@pytest.mark.slow
def test_signal_handlers_and_warning_filters_are_the_callers_again(tmp_path: Path) -> None:
    script = tmp_path / "restore.py"
    script.write_text(RESTORE)
    with torchrun(str(script)) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


SPEAK = """
import os, signal, sys
from kronmodel.training.distributed import Group

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
try:
    with Group(rank=0, size=2).connected():
        raise RuntimeError("gloo: connection reset")
finally:
    os.kill(os.getpid(), signal.SIGTERM)
"""


def test_torchrun_does_not_stop_it_from_saying_what_is_wrong() -> None:
    done = subprocess.run([sys.executable, "-c", SPEAK], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "TrainingError: another of the 2 processes of this run is gone" in done.stderr


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_weighted_shares_average_to_the_mean_of_the_batch(size: int) -> None:
    values = torch.rand(100, dtype=torch.float64)
    for count in (1, 2, 5, 100):
        batch = torch.randperm(100)[:count]
        shares = [Group(rank=rank, size=size).part_of(batch) for rank in range(size)]
        mean = sum(float(values[mine].mean()) * weight for mine, weight in shares) / size
        assert mean == pytest.approx(float(values[batch].mean()))
        taken = torch.cat([mine for mine, weight in shares if weight])
        assert taken.sort().values.equal(batch.sort().values)


def test_one_process_is_a_run_of_its_own() -> None:
    with joined("cpu") as group:
        assert group is ALONE
    network = torch.nn.Linear(1, 1)
    assert group.parallel(network) is network
    assert group.from_main("x") == "x"
    with group.connected(), pytest.raises(RuntimeError, match="gloo, but alone"), group.connected():
        raise RuntimeError("gloo, but alone")


def test_each_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    several = Group(rank=1, size=2)
    ALONE.take_device("cuda:1")
    several.take_device("cpu")
    with pytest.raises(ValueError, match="device must be cpu or cuda in a run of several processes, got 'cuda:1'"):
        several.take_device("cuda:1")
    count = torch.cuda.device_count()
    monkeypatch.setenv("LOCAL_RANK", str(count))
    with pytest.raises(KronmodelError, match=f"each process needs a GPU: got {count}, expected over {count}"):
        several.take_device("cuda")
