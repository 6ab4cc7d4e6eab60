"""Files that worker processes share, named by the id of the process that writes them."""

from pathlib import Path


def state_file(folder: Path, pid: int) -> Path:
    """Path of the file in which a worker publishes its models' states.

    The parent deletes it when the worker has died, so a worker is alive as long as its file exists.
    """
    return folder / f"{pid}.state"
