"""A training that runs out of memory ends with one line, exit code 2 and how to resume: with a real limit."""

import subprocess
import sys
from pathlib import Path

import pytest

from kronmodel.errors import is_out_of_memory, out_of_memory_text
from tests.app.conftest import environment

# The first run is interrupted after its first epoch; the second one may allocate 150 MB more than the process has then.
SCRIPT = """
import gc, resource, sys
from pathlib import Path
import sklearn.datasets
import kronmodel.training.device
from kronmodel.cli.main import main
from kronmodel.cli.training import CommandCallback

def interrupt(self, member, epoch):
    raise KeyboardInterrupt

kronmodel.training.device.keep_freed_memory = lambda: False  # else the second run uses what the first one allocated
CommandCallback.on_epoch, real = interrupt, CommandCallback.on_epoch
assert main(sys.argv[1:]) == 130
CommandCallback.on_epoch = real
gc.collect()
line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize"))
used = int(line.split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 150 * 2**20, resource.RLIM_INFINITY))
sys.exit(main([*sys.argv[1:], "--resume"]))
"""
# Without the native kernel, one step needs several arrays of 1,438 samples x 4 terms x 4,096 features: 94 MB each.
TRAIN = ["train", "--data", "digits", "--kind", "kronecker", "--rank", "4", "--hidden", "64x64,64x64", "--epochs", "3"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and a limit of the address space")
def test_out_of_memory_is_one_line_that_says_how_to_resume(tmp_path: Path) -> None:
    out = tmp_path / "models"
    arguments = [*TRAIN, "--batch-size", "1438", "--threads", "1", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env=environment() | {"KRONMODEL_NATIVE": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("kronmodel: error: out of memory: ")
    assert "bytes more could not be allocated for the training of digits-kronecker; free memory, or use a " in last
    assert f"--batch-size; epoch 1 is kept in {out}/.checkpoints/digits-kronecker/last.pt: the same " in last
    assert "Traceback" not in done.stderr
    assert [path.name for path in out.iterdir()] == [".checkpoints"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "out of memory"),
        (
            MemoryError("Unable to allocate 7.45 GiB for an array"),
            "out of memory: 7.45 GiB more could not be allocated",
        ),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB"),
            "out of memory: 2.00 GiB more could not be allocated",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 40000000 bytes."),
            "out of memory: 40,000,000 bytes more could not be allocated",
        ),
        (RuntimeError("std::bad_alloc"), "out of memory"),
        (ImportError("libx.so: failed to map segment from shared object"), "out of memory"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (ValueError("out of memory"), None),
    ],
)
def test_errors_of_every_allocator_are_recognised(error: Exception, text: str | None) -> None:
    assert is_out_of_memory(error) == (text is not None)
    if text is not None:
        assert out_of_memory_text(error) == text
