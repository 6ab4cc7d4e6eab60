"""Request ids: the client's own or a new one; each response and log line of a request has it."""

import itertools
import re
import secrets
from contextvars import ContextVar

_ALLOWED = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_PREFIX = secrets.token_hex(6)
_numbers = itertools.count(1)

current: ContextVar[str | None] = ContextVar("request_id", default=None)


def choose(from_client: bytes | None) -> bytes:
    """Choose the id of a request: the client's if it is short and harmless in a log, otherwise a new one."""
    if from_client is not None and _ALLOWED.fullmatch(given := from_client.strip(b" \t")):
        return given
    return f"{_PREFIX}-{next(_numbers)}".encode()
