"""Whether freed memory is really kept: counted in page faults, in a process of its own."""

import subprocess
import sys

SCRIPT = """
import resource, sys
import torch
from kronmodel.training.device import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def steps():
    for _ in range(20):
        torch.ones(10_000_000)  # 40 MB: above 32 MB glibc never keeps it by itself

steps()
before = faults()
steps()
print(faults() - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True, timeout=120)
    return int(done.stdout)


def test_freed_memory_is_kept() -> None:
    assert faults("kept") < faults("given back") / 10
