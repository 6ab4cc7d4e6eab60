"""Changes of the served models that every worker process of a service applies: loads and unloads by request."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from app.errors import NotReady
from app.models.worker_state import UnloadedModels, WorkerState
from app.system.pidfiles import describe_shared_error

POLL_SECONDS = 0.02  # between reads of what the other workers report

T = TypeVar("T")
log = logging.getLogger(__name__)


class WorkerChanges:
    """Publishes this worker's loads and unloads to the others, and waits until all have applied them.

    Args:
        status: the status of each version in the workers.
        unloaded: the models that were unloaded by request.
        shared: folder shared by the workers of a service; None for a single worker.
        seconds: longest wait for the other workers.
    """

    def __init__(self, status: WorkerState, unloaded: UnloadedModels, shared: Path | None, seconds: float) -> None:
        self._status = status
        self._unloaded = unloaded
        self._shared = shared
        self._seconds = seconds

    def flush(self) -> None:
        """Report the state of this worker's models again, if the disk was full."""
        self._status.flush()

    def check(self, name: str) -> None:
        """Check that the shared folder can be written to, before anything of a model is changed.

        Raises:
            NotReady: it cannot, because the disk is full for example.
        """
        self._write(name, self._status.write)

    def unload(self, name: str) -> int:
        """Have the other workers unload a model; returns the number of the change.

        Raises:
            NotReady: the shared folder cannot be written to; nothing was changed.
        """
        return self._write(name, lambda: self._unloaded.add(name))

    def load(self, name: str) -> int:
        """Have the other workers load a model, and what else is new; returns the number of the change.

        Raises:
            NotReady: the shared folder cannot be written to; only this worker has loaded the model.
        """
        return self._write(name, lambda: self._unloaded.discard(name))

    async def wait(self, change: int, name: str, done: str) -> None:
        """Wait until every worker has applied a change of a model.

        Args:
            change: number of the change.
            name: of the model.
            done: `loaded` or `unloaded`, for the message.

        Raises:
            NotReady: a worker could not apply it, or has not applied it in time.
        """
        deadline = time.monotonic() + self._seconds
        while pending := self._status.count_pending(change):
            if time.monotonic() > deadline:
                raise NotReady(
                    f"{name} is {done}, but not in {pending} of {self._status.count_workers()} workers within "
                    f"{self._seconds:g} s (KRON_LOAD_SECONDS); see the service's log"
                )
            await asyncio.sleep(POLL_SECONDS)
        if reasons := self._status.failures_of_others(name):
            raise NotReady(
                f"{name} is {done}, but not in {len(reasons)} of {self._status.count_workers()} workers: {reasons[0]}"
            )

    def _write(self, name: str, write: Callable[[], T]) -> T:
        try:
            return write()
        except OSError as error:
            assert self._shared is not None  # a single worker writes nothing
            log.error("%.100r: %s", name, describe_shared_error(error, self._shared))
            raise NotReady(
                f"{name[:100]}: the service's folder for temporary files cannot be written to, or its disk is full; "
                "free space, or restart the service with another TMPDIR, and try again"
            ) from None
