"""API keys: who may do what. Only their hashes are kept."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from app.errors import StartupError

MAX_KEYS = 1000
MAX_FILE_BYTES = 256 * 1024
_OPEN = frozenset({"/", "/docs", "/openapi.json", "/metrics", "/v2/health/live", "/v2/health/ready"})
_LINE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,63})\s+(?P<role>\S+)\s+sha256:(?P<digest>[0-9a-f]{64})")


class Role(IntEnum):
    """What a key allows; each role allows what those before it do."""

    read = 1
    predict = 2
    admin = 3


@dataclass(frozen=True, slots=True)
class Key:
    """One line of the file."""

    name: str
    role: Role
    digest: bytes


def read_keys(path: Path) -> list[Key]:
    """The keys of a file: lines of `name role sha256:<hex>`; empty ones and those that start with # do not count.

    Raises:
        StartupError: it cannot be read, or a line is not of that form; the message has the line's number, not its text.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise StartupError(f"--keys (KRON_KEYS): {path} is longer than {MAX_FILE_BYTES} bytes")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise StartupError(f"--keys (KRON_KEYS): {path} cannot be read: {reason}") from None
    keys: list[Key] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None or found["role"] not in Role.__members__:
            raise StartupError(
                f"--keys (KRON_KEYS): {path} line {number}: expected `name role sha256:<64 hex digits>` with a role of "
                f"{', '.join(Role.__members__)}; `kronserve key` makes one"
            )
        if any(key.name == found["name"] for key in keys):
            raise StartupError(f"--keys (KRON_KEYS): {path} line {number}: {found['name']} is there twice")
        keys.append(Key(found["name"], Role[found["role"]], bytes.fromhex(found["digest"])))
    if not 1 <= len(keys) <= MAX_KEYS:
        raise StartupError(f"--keys (KRON_KEYS): got {len(keys)} keys in {path}, expected 1 to {MAX_KEYS}")
    return keys


def find_key(keys: Sequence[Key], presented: bytes) -> Key | None:
    """The key that was presented. It takes as long whichever it is, and whether or not there is one."""
    digest = hashlib.sha256(presented).digest()
    found = None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def make_key(name: str, role: Role) -> tuple[str, str]:
    """A new key, and its line for the file. 256 random bits need no slow hash."""
    key = secrets.token_urlsafe(32)
    return key, f"{name} {role.name} sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def needed_role(method: str, path: str) -> Role | None:
    """The role that a request needs; None where nobody is asked: health, metrics, and files that hold no data."""
    if method in {"GET", "HEAD"}:
        return None if path in _OPEN or path.startswith("/static/") else Role.read
    if path == "/v2/repository/index":
        return Role.read
    if path == "/api/predict" or (path.startswith("/v2/models/") and path.endswith("/infer")):
        return Role.predict
    return Role.admin
