"""The admin key that a service without API keys generates at its first start, so that it may leave the loopback."""

import os
import secrets
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.access.keys import Role, make_key
from app.errors import StartupError


@dataclass(frozen=True, slots=True)
class FirstKey:
    """A generated admin key.

    Attributes:
        path: key file to read, which holds the key's hash.
        message: sentence to print, with the key; None if an earlier start generated the key and has printed it.
    """

    path: Path
    message: str | None


def first_key(path: Path) -> FirstKey:
    """Generate an admin key and write its hash to a key file; a file that exists is left as it is.

    Where the file cannot be written, such as on a read-only file system, the hash is kept in memory.

    Raises:
        StartupError: the file cannot be written, on a system that has no files in memory.
    """
    key, line = make_key("first", Role.admin)
    generated = f"no API keys are given, so one was generated, for the role admin. It is printed only now: {key}"
    try:
        if path.exists() or not _create(path, line + "\n"):
            return FirstKey(path, None)
    except OSError as error:
        reason = f"{path} cannot be written: {error.strerror}"
        return FirstKey(
            _create_in_memory(line + "\n", reason),
            f"{generated} (the next start generates another one, because {reason})",
        )
    return FirstKey(path, f"{generated} (its hash is in {path})")


def _create(path: Path, text: str) -> bool:
    """Write a new file at once and whole; returns False if another process has just created it."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # unlike a renaming, this fails where the file exists
    except FileExistsError:
        return False
    finally:
        with suppress(OSError):
            draft.unlink()
    return True


def _create_in_memory(text: str, reason: str) -> Path:
    """Write a file in memory, which this process and its forks can open by the path until they end."""
    if sys.platform != "linux":
        raise StartupError(f"--generate-key (KRON_GENERATE_KEY): {reason}")
    descriptor = os.memfd_create("keys")
    os.write(descriptor, text.encode())
    return Path(f"/proc/self/fd/{descriptor}")
