"""The key file of a running service, which is read again when it changes."""

import logging
from collections.abc import Sequence
from pathlib import Path

from app.access.keys import Key, read_keys
from app.errors import StartupError

log = logging.getLogger(__name__)


class KeyFile:
    """The API keys in force: those of the key file when it could last be read.

    A new file that is missing, empty or malformed changes nothing, since a service must neither open up nor lock all
    clients out because of a typing error or a file that is half written.

    Args:
        path: the key file; None for a service without keys.

    Raises:
        StartupError: the file cannot be read, or is malformed.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen = _fingerprint(path)  # before the file is read: a later change is found
        self.keys: Sequence[Key] = [] if path is None else read_keys(path)

    def refresh(self, *, always: bool = False) -> bool:
        """Read the file again if it has changed, and log which keys were added and removed; blocks.

        Args:
            always: read it also if it seems unchanged.

        Returns:
            Whether the keys have changed.
        """
        seen = _fingerprint(self._path)
        if self._path is None or (seen == self._seen and not always):
            return False
        self._seen = seen
        try:
            keys = read_keys(self._path)
        except StartupError as error:
            log.error("API keys: the file cannot be used; the %d keys in force stay: %s", len(self.keys), error)
            return False
        changes = _changes(self.keys, keys)
        self.keys = keys
        log.warning("API keys: %d in force; %s", len(keys), "; ".join(changes) or "unchanged")
        return bool(changes)


def _fingerprint(path: Path | None) -> tuple[int, ...] | None:
    """Values that change with the file; None where there is none. Links are followed."""
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return found and (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _changes(before: Sequence[Key], after: Sequence[Key]) -> list[str]:
    """Describe the difference by names and roles; a line with another hash is a key removed and a key added."""
    lists = {"added": set(after) - set(before), "removed": set(before) - set(after)}
    return [
        f"{word} {', '.join(f'{key.name} ({key.role.name})' for key in sorted(keys, key=lambda key: key.name))}"
        for word, keys in lists.items()
        if keys
    ]
