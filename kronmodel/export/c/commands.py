"""Commands that the C export runs: compilers, and the generator for other graphs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from kronmodel.errors import ExportError

__all__ = ["run"]


def run(command: Sequence[str], seconds: float) -> str:
    """Run a command with a time limit, and return its standard output.

    Raises:
        ExportError: the command can't be started, fails, or does not end in time; with the line that says why.
    """
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False, text=True,
            errors="replace", env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ExportError(f"{name} did not end within {seconds:g} s") from error
    except OSError as error:
        raise ExportError(f"{name} can't be started: {error.strerror or error}") from error
    if done.returncode != 0:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        reasons = [line for line in lines if "error" in line.lower()] or lines[-1:] or ["no message"]
        raise ExportError(f"{name} failed with exit code {done.returncode}: {reasons[0].strip()[:300]}")
    return done.stdout
