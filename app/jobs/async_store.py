"""Calls of the archive, each in a thread; what a disk or a damaged file does not allow is said in words."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from app.errors import ReportsError

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


async def asked(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call it.

    Raises:
        ReportsError: it cannot be done.
    """
    with as_error_messages():
        return await asyncio.to_thread(function, *args, **kwargs)


async def kept(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Call it for a job; a full disk is no reason not to go on."""
    try:
        return await asked(function, *args, **kwargs)
    except ReportsError as error:
        log.error("%s", error)
        return None


@contextmanager
def as_error_messages() -> Iterator[None]:
    """Have errors of the archive be told to whoever asks.

    Raises:
        ReportsError: in place of any of them.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise ReportsError(f"the reports cannot be read or kept: {error}") from None
    except OSError as error:  # of the lock beside it
        raise ReportsError(f"the reports cannot be read or kept: {error.strerror or error}") from None
