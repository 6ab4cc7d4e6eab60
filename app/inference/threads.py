"""The threads that run models: a fixed number, fed through one queue."""

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue


class Threads:
    """Daemon threads that run jobs in the order given; a job must not raise.

    Much cheaper than `concurrent.futures`, whose futures, locks and callbacks cost as much as a small model does.
    """

    def __init__(self, count: int) -> None:
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work, daemon=True, name=f"inference-{i}") for i in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Callable[[], object]) -> None:
        """Run the job in the next free thread."""
        self._jobs.put(job)

    def close(self) -> None:
        """The threads end once they have run what was submitted; this call does not wait for them."""
        for _ in self._threads:
            self._jobs.put(None)

    def join(self, seconds: float) -> bool:
        """Whether all threads ended within that time; onnxruntime cannot be interrupted."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # an idle thread must not keep alive what it ran
