"""The scheduler: a bounded queue for each model, batches of the requests in it, and deadlines.

Only the runs happen in threads, everything else on the event loop, so no locks are needed. A request that finds a free
thread starts at once. Only requests that have to wait are batched, so batching never delays a request.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from weakref import WeakKeyDictionary

from app.errors import Overloaded, TimedOut
from app.inference.batching import BatchResult, Feeds, InferenceResult, InferenceTask, run_batch
from app.inference.engine import Engine
from app.inference.placement import Placement, measure


@dataclass(slots=True, eq=False)
class _QueuedTask:
    """An inference task that waits for a thread.

    Args:
        batch_key: equal for tasks that can share a run; None for a task that must run alone.
        future: gets the result or the error.
        is_waiting: it is in its model's queue.
    """

    task: InferenceTask
    batch_key: object
    future: asyncio.Future[InferenceResult]
    is_waiting: bool = True


@dataclass(slots=True, eq=False)
class _ModelQueue:
    """The placement of one model and the tasks that wait for it."""

    placement: Placement | None = None
    max_inline_rows: int = 0
    waiting: deque[_QueuedTask] = field(default_factory=deque)
    is_scheduled: bool = False  # it is in the scheduler's round-robin


class Scheduler:
    """Runs models for concurrent requests, on the event loop or in threads.

    Args:
        instances: most concurrent runs, of all models together.
        queue: most requests that wait for one model.
        max_batch: most rows of a run that joins several requests.
        seconds: most seconds of a request, waiting and running.
        on_queue: called when requests enter a model's queue or leave it: engine, change of their number.
        on_run: called after each run: engine, rows, nanoseconds.
        on_answer: called in the asyncio task of each answered request: engine, `batch_size`, `queue_ns`, `compute_ns`.
    """

    def __init__(
        self,
        *,
        instances: int,
        queue: int,
        max_batch: int,
        seconds: float,
        on_queue: Callable[[Engine, int], None] = lambda engine, requests: None,
        on_run: Callable[[Engine, int, int], None] = lambda engine, rows, run_ns: None,
        on_answer: Callable[..., None] | None = None,
    ) -> None:
        self._threads = ThreadPool(instances)
        self._idle = instances
        self._max_waiting = queue
        self._max_batch = max_batch
        self._seconds = seconds
        self._on_queue = on_queue
        self._on_run = on_run
        self._on_answer = on_answer
        self._queues: WeakKeyDictionary[Engine, _ModelQueue] = WeakKeyDictionary()
        # The models with waiting tasks, each once; a model goes to the end after each of its runs.
        self._round_robin: deque[tuple[Engine, _ModelQueue]] = deque()
        self._closed = False

    async def warm_up(self, engine: Engine) -> Placement:
        """Measure whether a model is faster on the event loop or in a thread, and place its later runs accordingly."""
        queue = self._queue_of(engine)
        queue.max_inline_rows = 0

        async def run_in_thread(feeds: Feeds, names: list[str]) -> int:
            return (await self.infer(engine, feeds, names)).compute_ns

        try:
            queue.placement = await measure(engine, run_in_thread)
        except (Overloaded, TimedOut):
            return Placement(0, 0, 0)  # too busy to measure: it runs in threads
        queue.max_inline_rows = queue.placement.max_inline_rows
        return queue.placement

    def placement(self, engine: Engine) -> Placement | None:
        """The measured placement of a model; None for one that was not measured and runs in threads."""
        return self._queue_of(engine).placement

    def waiting(self, engine: Engine) -> int:
        """Number of requests that wait for a model now."""
        return len(self._queue_of(engine).waiting)

    async def infer(
        self, engine: Engine, feeds: Feeds, outputs: Sequence[str], *, timeout: float | None = None
    ) -> InferenceResult:
        """Run a model on the inputs of one request, alone or batched with waiting ones; cancelling leaves the queue.

        Args:
            engine: the model.
            feeds: arrays of all inputs by name.
            outputs: names of the requested outputs.
            timeout: most seconds for waiting and running, if less than the scheduler's own limit.

        Raises:
            Overloaded: too many requests wait for this model, or the scheduler is closed.
            TimedOut: the time limit is exceeded; a request that is still waiting then does not run.
            ModelError: onnxruntime failed.
        """
        if self._closed:
            raise Overloaded("the service is shutting down")
        queue = self._queue_of(engine)
        task = InferenceTask.create(engine, feeds, outputs)
        if queue.max_inline_rows and task.rows <= queue.max_inline_rows:
            (result,) = self.run_inline([task])
            if isinstance(result, Exception):
                try:
                    raise result
                finally:  # its traceback refers to this frame: without the cycle the model is freed at once
                    del result
            return self._report_answer(engine, result)
        if not self._idle and len(queue.waiting) >= self._max_waiting:
            got = f"got {len(queue.waiting) + 1} waiting requests for this model"
            raise Overloaded(f"{got}, expected at most {self._max_waiting} (KRON_QUEUE)")
        loop = asyncio.get_running_loop()
        queued = _QueuedTask(task, task.batch_key(), loop.create_future())
        queue.waiting.append(queued)
        self._on_queue(engine, 1)
        self._schedule(engine, queue)
        self._start_runs()
        seconds = self._seconds if timeout is None else max(0.0, min(timeout, self._seconds))
        timer = loop.call_later(seconds, _expire, queued, seconds)
        try:
            return self._report_answer(engine, await queued.future)
        finally:
            timer.cancel()
            if queued.is_waiting:  # cancelled or timed out: it leaves the queue at once and does not run
                queue.waiting.remove(queued)
                self._on_queue(engine, -1)
            del queued  # its future holds the error, whose traceback refers to this frame

    def max_inline_rows(self, engine: Engine) -> int:
        """Most rows of a request that may go to `run_inline`; 0 for none."""
        return 0 if self._closed else self._queue_of(engine).max_inline_rows

    def run_inline(self, tasks: Sequence[InferenceTask]) -> Sequence[InferenceResult | Exception]:
        """Run tasks on the event loop, which waits; tasks that can share a run are batched.

        Batches have at most the model's `max_inline_rows`, so that no run is longer than was measured.

        Args:
            tasks: each of at most its model's `max_inline_rows`.

        Returns:
            For each task its result or its error.
        """
        if len(tasks) == 1:
            return self._run_batch(tasks)
        results: dict[int, InferenceResult | Exception] = {}
        groups: dict[object, list[int]] = {}
        for index, task in enumerate(tasks):
            key = task.batch_key()
            groups.setdefault(index if key is None else (id(task.engine), key), []).append(index)
        for indices in groups.values():
            max_rows = self._queue_of(tasks[indices[0]].engine).max_inline_rows
            batch: list[int] = []
            rows = 0
            for index in indices:
                if batch and rows + tasks[index].rows > max_rows:
                    results |= zip(batch, self._run_batch([tasks[i] for i in batch]), strict=True)
                    batch, rows = [], 0
                batch.append(index)
                rows += tasks[index].rows
            results |= zip(batch, self._run_batch([tasks[i] for i in batch]), strict=True)
        return [results[index] for index in range(len(tasks))]

    def _run_batch(self, batch: Sequence[InferenceTask]) -> Sequence[InferenceResult | Exception]:
        engine = batch[0].engine
        done = run_batch(batch, engine.run)
        for rows, run_ns in done.runs:
            self._on_run(engine, rows, run_ns)
        return done.results

    def _report_answer(self, engine: Engine, result: InferenceResult) -> InferenceResult:
        if self._on_answer is not None:
            self._on_answer(
                engine, batch_size=result.batch_size, queue_ns=result.queue_ns, compute_ns=result.compute_ns
            )
        return result

    def close(self) -> None:
        """Refuse new and waiting requests; runs in progress finish."""
        self._closed = True
        for _, queue in self._round_robin:
            for queued in queue.waiting:
                if not queued.future.done():
                    queued.future.set_exception(Overloaded("the service is shutting down"))
        self._round_robin.clear()
        self._threads.close()

    def join(self, seconds: float) -> bool:
        """Wait, after `close`, at most `seconds` for runs in progress; returns whether all of them finished."""
        return self._threads.join(seconds)

    def _queue_of(self, engine: Engine) -> _ModelQueue:
        queue = self._queues.get(engine)
        if queue is None:
            queue = self._queues[engine] = _ModelQueue()
        return queue

    def _schedule(self, engine: Engine, queue: _ModelQueue) -> None:
        if not queue.is_scheduled:
            queue.is_scheduled = True
            self._round_robin.append((engine, queue))

    def _start_runs(self) -> None:
        """Assign a batch to each idle thread, taking the models in turn."""
        while self._idle and self._round_robin:
            engine, queue = self._round_robin.popleft()
            queue.is_scheduled = False
            waiting_before = len(queue.waiting)
            batch = self._take_batch(queue, min(self._max_batch, engine.max_run_rows))
            self._on_queue(engine, len(queue.waiting) - waiting_before)
            if queue.waiting:
                self._schedule(engine, queue)
            if batch:
                self._idle -= 1
                self._threads.submit(_BatchRun(engine, batch, asyncio.get_running_loop(), self._on_run_end))

    def _take_batch(self, queue: _ModelQueue, max_rows: int) -> list[_QueuedTask]:
        """Remove the oldest task and the tasks that can share its run from a queue, in the order of arrival."""
        batch: list[_QueuedTask] = []
        others: list[_QueuedTask] = []
        rows = 0
        while queue.waiting and rows < max_rows:
            queued = queue.waiting.popleft()
            if queued.future.done():  # timed out or cancelled in this iteration of the event loop
                queued.is_waiting = False
            elif not batch or (queued.batch_key == batch[0].batch_key and rows + queued.task.rows <= max_rows):
                queued.is_waiting = False
                batch.append(queued)
                rows += queued.task.rows
                if queued.batch_key is None:
                    break
            else:
                others.append(queued)
        queue.waiting.extendleft(reversed(others))
        return batch

    def _on_run_end(self, engine: Engine, runs: Sequence[tuple[int, int]]) -> None:
        for rows, run_ns in runs:
            self._on_run(engine, rows, run_ns)
        self._idle += 1
        if not self._closed:
            self._start_runs()


class _BatchRun:
    """A job for a thread: runs a batch and hands the results to the event loop.

    Args:
        batch: tasks of equal `batch_key`.
        loop: the event loop of their futures.
        on_end: called on the event loop with the engine, and rows and nanoseconds of each run.
    """

    def __init__(
        self,
        engine: Engine,
        batch: Sequence[_QueuedTask],
        loop: asyncio.AbstractEventLoop,
        on_end: Callable[[Engine, Sequence[tuple[int, int]]], None],
    ) -> None:
        self._engine = engine
        self._batch = batch
        self._loop = loop
        self._on_end = on_end

    def __call__(self) -> None:
        pending = [queued for queued in self._batch if not queued.future.done()]
        done = run_batch([queued.task for queued in pending], self._engine.run)
        with suppress(RuntimeError):  # the event loop is closed, so nothing awaits the results
            self._loop.call_soon_threadsafe(self._deliver, pending, done)

    def _deliver(self, batch: Sequence[_QueuedTask], done: BatchResult) -> None:
        for queued, result in zip(batch, done.results, strict=True):
            if queued.future.done():
                continue
            if isinstance(result, Exception):
                queued.future.set_exception(result)
            else:
                queued.future.set_result(result)
        self._on_end(self._engine, done.runs)


def _expire(queued: _QueuedTask, seconds: float) -> None:
    if not queued.future.done():
        queued.future.set_exception(TimedOut(f"no answer within {seconds:g} s (KRON_PREDICT_SECONDS)"))


class ThreadPool:
    """Daemon threads that run jobs in the order of their submission; a job must not raise.

    Cheaper than `concurrent.futures`, whose futures, locks and callbacks cost as much as a run of a small model.

    Args:
        count: number of threads.
    """

    def __init__(self, count: int) -> None:
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work, daemon=True, name=f"inference-{i}") for i in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Callable[[], object]) -> None:
        """Run a job in the next free thread."""
        self._jobs.put(job)

    def close(self) -> None:
        """End the threads once the submitted jobs have run; does not wait for that."""
        for _ in self._threads:
            self._jobs.put(None)

    def join(self, seconds: float) -> bool:
        """Wait at most `seconds` for the threads, whose runs cannot be interrupted; returns whether all ended."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # an idle thread must not keep the job's model in memory
