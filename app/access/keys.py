"""API keys, their roles, and the file that holds their hashes."""

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
HEALTH_PATHS = frozenset({"/v2/health/live", "/v2/health/ready"})
_WITHOUT_KEY = HEALTH_PATHS | {"/", "/docs", "/openapi.json", "/metrics"}
_MODEL_FILE = re.compile(r"/api/models/[^/]+/file")
_LINE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,63})\s+(?P<role>\S+)\s+sha256:(?P<digest>[0-9a-f]{64})")


class Role(IntEnum):
    """Permissions of a key; each role includes those before it."""

    read = 1
    predict = 2
    admin = 3


@dataclass(frozen=True, slots=True)
class Key:
    """One line of the key file; `digest` is the SHA-256 of the key."""

    name: str
    role: Role
    digest: bytes


def read_keys(path: Path) -> list[Key]:
    """Read a key file: lines of `name role sha256:<hex>`; empty lines and those that start with # are ignored.

    Raises:
        StartupError: the file cannot be read, or a line is malformed; the message has its number but not its text,
            which may hold a key.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise StartupError(f"--keys (KRON_KEYS): got {size} bytes in {path}, expected at most {MAX_FILE_BYTES}")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise StartupError(f"--keys (KRON_KEYS): {path} cannot be read: {reason}") from None
    keys: list[Key] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None or found["role"] not in Role.__members__:
            raise StartupError(
                f"--keys (KRON_KEYS): {path} line {number}: expected `name role sha256:<64 hex digits>` with a role of "
                f"{', '.join(Role.__members__)}; `kronserve key` prints one"
            )
        if any(key.name == found["name"] for key in keys):
            raise StartupError(
                f"--keys (KRON_KEYS): {path} line {number}: got the name {found['name']!r} again, expected it once"
            )
        keys.append(Key(found["name"], Role[found["role"]], bytes.fromhex(found["digest"])))
    if not 1 <= len(keys) <= MAX_KEYS:
        raise StartupError(f"--keys (KRON_KEYS): got {len(keys)} keys in {path}, expected 1 to {MAX_KEYS}")
    return keys


def find_key(keys: Sequence[Key], presented: bytes) -> Key | None:
    """Look up the API key that a client sent, in constant time; None if it is unknown."""
    digest = hashlib.sha256(presented).digest()
    found = None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def make_key(name: str, role: Role) -> tuple[str, str]:
    """Generate an API key; returns it and its line for the key file. For 256 random bits a fast hash is safe."""
    key = secrets.token_urlsafe(32)
    return key, f"{name} {role.name} sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def required_role(method: str, path: str) -> Role | None:
    """Role that a request needs; None for health, metrics and static files, which need no key."""
    if method in {"GET", "HEAD"}:
        if _MODEL_FILE.fullmatch(path):
            return Role.predict  # with the file a caller predicts without the service
        return None if path in _WITHOUT_KEY or path.startswith("/static/") else Role.read
    if path == "/v2/repository/index":
        return Role.read
    if path == "/api/predict" or (path.startswith("/v2/models/") and path.endswith("/infer")):
        return Role.predict
    return Role.admin
