"""A disk of a few megabytes that a test fills: a tmpfs in a mount namespace, which only the started process sees."""

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

_MOUNT = 'mount -t tmpfs -o size="$1" none "$2" && shift 2 && exec "$@"'


def with_small_disk(folder: Path, megabytes: int) -> list[str]:
    """The first words of a command whose process has a disk of its own in place of a folder; skips without the right.

    The process keeps the id of the command.
    """
    found = shutil.which("unshare")
    own = ["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"]
    for command in own if found else ():
        prefix = [*command, "sh", "-c", _MOUNT, "sh", f"{megabytes}m", str(folder)]
        if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
            return prefix
    pytest.skip("this user may not mount a tmpfs")


def fill(pid: int, folder: Path) -> Path:
    """Fill the disk that a process has at a folder, to the last byte; returns the file to delete."""
    path = Path(f"/proc/{pid}/root{folder}/fill")
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    return path
