"""Who runs when: a bounded queue before each model, batches of what waits, and deadlines.

Everything but the runs happens on the event loop, so nothing here needs a lock. A request for which a thread is free
starts at once; only what has to wait anyway is put together, so batching never delays a lone request.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from weakref import WeakKeyDictionary

from app.errors import Overloaded, TimedOut
from app.inference.batching import BatchResult, Feeds, Inference, InferenceTask, run_batch
from app.inference.engine import Engine
from app.inference.placement import Placement, measure


@dataclass(slots=True, eq=False)
class _Request:
    """A request that waits for a thread."""

    ask: InferenceTask
    kind: object
    future: asyncio.Future[Inference]
    waits: bool = True


class _Lane:
    """What waits for one model."""

    def __init__(self) -> None:
        self.dispatch: Placement | None = None
        self.inline_rows = 0
        self.waiting: deque[_Request] = deque()
        self.in_turn = False


class Scheduler:
    """Runs models for many requests at once.

    Args:
        instances: runs at the same time, of all models together.
        queue: requests that may wait for one model.
        max_batch: most rows of one run that is put together from several requests.
        seconds: longest time of a request, waiting and running together.
        on_queue: told of requests that begin to wait, and of those that no longer do: engine, number (negative then).
        on_run: told after each run, once for all requests that it answered: engine, rows, nanoseconds.
        on_answer: told about each request that was answered, in the task that asked.
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
        self._threads = Threads(instances)
        self._idle = instances
        self._queue = queue
        self._max_batch = max_batch
        self._seconds = seconds
        self._on_queue = on_queue
        self._on_run = on_run
        self._on_answer = on_answer
        self._lanes: WeakKeyDictionary[Engine, _Lane] = WeakKeyDictionary()
        # The models for which something waits, each once; whoever was served goes to the end.
        self._turns: deque[tuple[Engine, _Lane]] = deque()
        self._closed = False

    async def warm_up(self, engine: Engine) -> Placement:
        """Measure whether this model is faster on the event loop than in a thread, and decide so from now on."""
        lane = self._lane(engine)
        lane.inline_rows = 0

        async def threaded(feeds: Feeds, names: list[str]) -> int:
            return (await self.infer(engine, feeds, names)).compute_ns

        try:
            lane.dispatch = await measure(engine, threaded)
        except (Overloaded, TimedOut):
            return Placement(0, 0, 0)  # there is no quiet moment: threads it is
        lane.inline_rows = lane.dispatch.inline_rows
        return lane.dispatch

    def dispatch(self, engine: Engine) -> Placement | None:
        """What `warm_up` found; None without it, and then every run is in a thread."""
        return self._lane(engine).dispatch

    def waiting(self, engine: Engine) -> int:
        """Requests that wait for this model now."""
        return len(self._lane(engine).waiting)

    async def infer(
        self, engine: Engine, feeds: Feeds, outputs: Sequence[str], *, timeout: float | None = None
    ) -> Inference:
        """Run a model, by itself or together with other requests that wait; cancelling gives up the place.

        Args:
            engine: the model.
            feeds: its inputs by name.
            outputs: the names wanted.
            timeout: most seconds that waiting and running may take; never more than the scheduler's own.

        Raises:
            Overloaded: too many requests wait for this model.
            TimedOut: there is no answer in time; a request whose time is over before it runs never does.
            ModelError: onnxruntime failed.
        """
        if self._closed:
            raise Overloaded("the service is shutting down")
        lane = self._lane(engine)
        ask = InferenceTask.of(engine, feeds, outputs)
        if lane.inline_rows and ask.rows <= lane.inline_rows:
            (answer,) = self.run_now([ask])
            if isinstance(answer, Exception):
                try:
                    raise answer
                finally:  # it holds this frame, which must not hold it: only the collector would free the model
                    del answer
            return self._answered(engine, answer)
        if not self._idle and len(lane.waiting) >= self._queue:
            raise Overloaded(f"{self._queue} requests wait for this model already, no more may (KRON_QUEUE)")
        loop = asyncio.get_running_loop()
        request = _Request(ask, ask.kind(), loop.create_future())
        lane.waiting.append(request)
        self._on_queue(engine, 1)
        self._enqueue(engine, lane)
        self._start_runs()
        seconds = self._seconds if timeout is None else max(0.0, min(timeout, self._seconds))
        timer = loop.call_later(seconds, _expire, request, seconds)
        try:
            return self._answered(engine, await request.future)
        finally:
            timer.cancel()
            if request.waits:  # cancelled or late: its place is free at once, and it will not run
                lane.waiting.remove(request)
                self._on_queue(engine, -1)
            del request  # as above, for it has the answer

    def inline_rows(self, engine: Engine) -> int:
        """Most rows of a request that `run_now` takes; 0 for none."""
        return 0 if self._closed else self._lane(engine).inline_rows

    def run_now(self, asks: Sequence[InferenceTask]) -> Sequence[Inference | Exception]:
        """Run models here and now, each of the requests having no more rows than its model's `inline_rows`.

        Those that came at the same time are run together, as far as they can be, and as many rows as was measured to be
        good: what one run costs more than the rows in it is paid once.
        """
        if len(asks) == 1:
            return self._run_here(asks)
        found: dict[int, Inference | Exception] = {}
        batches: dict[object, list[int]] = {}
        for index, ask in enumerate(asks):
            kind = ask.kind()
            batches.setdefault(index if kind is None else (id(ask.engine), kind), []).append(index)
        for indices in batches.values():
            most = self._lane(asks[indices[0]].engine).inline_rows
            part: list[int] = []
            rows = 0
            for index in indices:
                if part and rows + asks[index].rows > most:
                    found |= zip(part, self._run_here([asks[i] for i in part]), strict=True)
                    part, rows = [], 0
                part.append(index)
                rows += asks[index].rows
            found |= zip(part, self._run_here([asks[i] for i in part]), strict=True)
        return [found[index] for index in range(len(asks))]

    def _run_here(self, batch: Sequence[InferenceTask]) -> Sequence[Inference | Exception]:
        engine = batch[0].engine
        done = run_batch(batch, engine.run)
        for rows, run_ns in done.runs:
            self._on_run(engine, rows, run_ns)
        return done.answers

    def _answered(self, engine: Engine, inference: Inference) -> Inference:
        if self._on_answer is not None:
            self._on_answer(
                engine,
                batch_size=inference.batch_size,
                queue_ns=inference.queue_ns,
                compute_ns=inference.compute_ns,
            )
        return inference

    def close(self) -> None:
        """Refuse what comes and what waits; what runs ends by itself."""
        self._closed = True
        for _, lane in self._turns:
            for request in lane.waiting:
                if not request.future.done():
                    request.future.set_exception(Overloaded("the service is shutting down"))
        self._turns.clear()
        self._threads.close()

    def join(self, seconds: float) -> bool:
        """After `close`: whether all runs ended within that time."""
        return self._threads.join(seconds)

    def _lane(self, engine: Engine) -> _Lane:
        lane = self._lanes.get(engine)
        if lane is None:
            lane = self._lanes[engine] = _Lane()
        return lane

    def _enqueue(self, engine: Engine, lane: _Lane) -> None:
        if not lane.in_turn:
            lane.in_turn = True
            self._turns.append((engine, lane))

    def _start_runs(self) -> None:
        """Give every idle thread a run, the models in turns."""
        while self._idle and self._turns:
            engine, lane = self._turns.popleft()
            lane.in_turn = False
            waited = len(lane.waiting)
            batch = self._take(lane)
            self._on_queue(engine, len(lane.waiting) - waited)
            if lane.waiting:
                self._enqueue(engine, lane)
            if batch:
                self._idle -= 1
                self._threads.submit(_Run(engine, batch, asyncio.get_running_loop(), self._finished))

    def _take(self, lane: _Lane) -> list[_Request]:
        """The first request that is still wanted, and what may run together with it, in the order of arrival."""
        batch: list[_Request] = []
        others: list[_Request] = []
        rows = 0
        while lane.waiting and rows < self._max_batch:
            request = lane.waiting.popleft()
            if request.future.done():  # late or cancelled in this very turn of the loop
                request.waits = False
            elif not batch or (request.kind == batch[0].kind and rows + request.ask.rows <= self._max_batch):
                request.waits = False
                batch.append(request)
                rows += request.ask.rows
                if request.kind is None:
                    break
            else:
                others.append(request)
        lane.waiting.extendleft(reversed(others))
        return batch

    def _finished(self, engine: Engine, runs: Sequence[tuple[int, int]]) -> None:
        for rows, run_ns in runs:
            self._on_run(engine, rows, run_ns)
        self._idle += 1
        if not self._closed:
            self._start_runs()


class _Run:
    """The job of a thread: one run for all requests of a batch, and the answers back to the event loop."""

    def __init__(
        self,
        engine: Engine,
        batch: Sequence[_Request],
        loop: asyncio.AbstractEventLoop,
        run_to_completion: Callable[[Engine, Sequence[tuple[int, int]]], None],
    ) -> None:
        self._engine = engine
        self._batch = batch
        self._loop = loop
        self._finished = run_to_completion

    def __call__(self) -> None:
        wanted = [request for request in self._batch if not request.future.done()]
        done = run_batch([request.ask for request in wanted], self._engine.run)
        try:
            self._loop.call_soon_threadsafe(self._deliver, wanted, done)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    def _deliver(self, batch: Sequence[_Request], done: BatchResult) -> None:
        for request, answer in zip(batch, done.answers, strict=True):
            if request.future.done():
                continue
            if isinstance(answer, Exception):
                request.future.set_exception(answer)
            else:
                request.future.set_result(answer)
        self._finished(self._engine, done.runs)


def _expire(request: _Request, seconds: float) -> None:
    if not request.future.done():
        request.future.set_exception(TimedOut(f"no answer within {seconds:g} s (KRON_PREDICT_SECONDS)"))


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
