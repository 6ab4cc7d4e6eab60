"""Files named by the process that writes them."""

from pathlib import Path


def state_file(folder: Path, pid: int) -> Path:
    """The file in which a worker tells the others; whoever sees it die deletes it."""
    return folder / f"{pid}.standing"
