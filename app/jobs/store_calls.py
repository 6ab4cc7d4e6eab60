"""Calls of the store from the event loop, and its errors as messages for clients and for the log."""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

from app.errors import ReportsError
from app.jobs.store import is_disk_full
from app.system.files import DISK_FULL_ERRORS

DISK_FULL = "the disk is full"

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)


class ReportsLog:
    """Logs the errors of a store: each one once, until a call succeeds.

    Args:
        path: file of the store.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._logged: str | None = None

    def failed(self, error: ReportsError) -> None:
        """Log an error, unless it was the last one, too."""
        if str(error) != self._logged:
            log.error("%s (%s)", error, self._path)
        self._logged = str(error)

    def succeeded(self) -> None:
        """Log that the store can be written again, if it could not."""
        if self._logged is not None:
            log.info("the reports can be written again (%s)", self._path)
        self._logged = None


async def call_store(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a method of the store in a thread.

    Raises:
        ReportsError: the file cannot be read or written.
    """
    with store_errors():
        return await asyncio.to_thread(function, *args, **kwargs)


async def try_call_store(errors: ReportsLog, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Call a method of a store in a thread; an error is logged, because a full disk must not stop a job."""
    try:
        result = await call_store(function, *args, **kwargs)
    except ReportsError as error:
        errors.failed(error)
        return None
    errors.succeeded()
    return result


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Turn errors of SQLite and of the lock file into messages for clients.

    Raises:
        ReportsError: in place of sqlite3.Error and OSError.
    """
    try:
        yield
    except sqlite3.Error as error:
        reason = DISK_FULL if is_disk_full(error) else str(error)
        raise ReportsError(f"the reports cannot be read or kept: {reason}") from None
    except OSError as error:
        reason = DISK_FULL if error.errno in DISK_FULL_ERRORS else error.strerror or str(error)
        raise ReportsError(f"the reports cannot be read or kept: {reason}") from None
