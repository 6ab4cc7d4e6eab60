"""Files in the folder that the worker processes of a service share."""

from pathlib import Path

from app.system.files import describe_disk_error


def state_file(folder: Path, pid: int) -> Path:
    """Path of the file in which a worker publishes its models' states.

    The parent deletes it when the worker has died, so a worker is alive as long as its file exists.
    """
    return folder / f"{pid}.state"


def starting_file(folder: Path) -> Path:
    """Path of the file that the parent deletes once every worker can answer for the first time.

    Deleting needs no space, so a full disk does not keep the service from being ready.
    """
    return folder / "starting"


def stopping_file(folder: Path) -> Path:
    """Path of the file that the parent creates before it stops all workers; a single one may be stopped without it."""
    return folder / "stopping"


def describe_shared_error(error: OSError, folder: Path) -> str:
    """Describe an error of a file in the shared folder for the log."""
    return describe_disk_error(error, folder, "free space there, or set TMPDIR to a folder with more")
