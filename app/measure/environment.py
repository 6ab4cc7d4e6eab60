"""What measurements run on."""

import platform
from pathlib import Path

import numpy as np
import onnxruntime

from app.inference.session import CPU_ARENA
from app.measure.comparison_schemas import Environment
from app.system.cpus import available_cpus

NICENESS = 10  # of measuring processes


def environment(provider: str, threads: int) -> Environment:
    """This machine, with a provider and a number of threads."""
    return Environment(
        cpu=_cpu_name(),
        cores=available_cpus(),
        platform=platform.platform(),
        python=platform.python_version(),
        onnxruntime=onnxruntime.__version__,
        numpy=np.__version__,
        provider=provider,
        threads=threads,
        arena=CPU_ARENA,
        niceness=NICENESS,
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
