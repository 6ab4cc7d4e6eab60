"""Atomic file writes, syncing to disk, and checks that a path is writable."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

__all__ = ["is_writable_file", "is_writable_folder", "sync_folder", "write_atomically", "write_synced"]


def write_synced(path: Path, content: bytes | memoryview) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, content: bytes | memoryview, *, beside: Path | None = None) -> None:
    """Create or replace a file: at any moment, even after a crash, the path has its old content or the new one.

    The name in the folder may be lost by a crash until :func:`sync_folder` is called.

    Args:
        path: of the file.
        content: the new content.
        beside: temporary file in the same folder; by default a hidden one with a random name.

    Raises:
        OSError: the file can't be written; its old content is still there.
    """
    beside = beside or path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_synced(beside, content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_writable_folder(folder: Path) -> bool:
    """Whether files can be created in a folder. Nothing is written."""
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def is_writable_file(path: Path) -> bool:
    """Whether a file can be created or replaced at a path. Nothing is written."""
    return not path.is_dir() and is_writable_folder(path.absolute().parent)
