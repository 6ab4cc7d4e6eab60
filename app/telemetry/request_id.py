"""The id of a request: taken from its client or made up, in every answer and in every line of the log about it."""

import itertools
import re
import secrets
from contextvars import ContextVar

_GIVEN = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_PREFIX = secrets.token_hex(6)
_numbers = itertools.count(1)

current: ContextVar[str | None] = ContextVar("request_id", default=None)


def choose(given: bytes | None) -> bytes:
    """The client's id if it is short and plain, else a new one."""
    if given is not None and _GIVEN.fullmatch(given):
        return given
    return f"{_PREFIX}-{next(_numbers)}".encode()
