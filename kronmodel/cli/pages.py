"""HTML reports as files."""

from __future__ import annotations

from pathlib import Path

from kronmodel.errors import ExportError
from kronmodel.files import is_writable_file, sync_folder, write_atomically

__all__ = ["check_page", "write_page"]


def check_page(path: Path | None) -> None:
    """Check that a report can be written to a path, without writing anything; meant for the start of a long run.

    Raises:
        ExportError: the path is not writable.
    """
    if path is not None and not is_writable_file(path):
        raise ExportError(f"can't write the report {path}: expected a file name in a writable folder")


def write_page(path: Path, page: str) -> None:
    """Write an HTML page atomically; a file at the path is replaced.

    Raises:
        ExportError: the file can't be written.
    """
    try:
        write_atomically(path, page.encode())
        sync_folder(path.absolute().parent)
    except OSError as error:
        raise ExportError(f"can't write the report {path}: {error.strerror or error}") from error
