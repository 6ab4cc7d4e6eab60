"""Who runs when: a bounded queue before each model, batches of what waits, and deadlines.

Everything but the runs happens on the event loop, so nothing here needs a lock. A request for which a thread is free
starts at once; only what has to wait anyway is put together, so batching never delays a lone request.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from weakref import WeakKeyDictionary

import numpy as np

from app.dispatch import Dispatch, measure
from app.engine import Array, Engine
from app.errors import ModelError, Overloaded, TimedOut
from app.threads import Threads

Feeds: TypeAlias = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Inference:
    """What one request got from its run; `batch_size` counts the rows of the whole run, other requests' included."""

    outputs: Mapping[str, Array]
    queue_ns: int
    compute_ns: int
    batch_size: int


@dataclass(slots=True, eq=False)
class _Request:
    feeds: Feeds
    outputs: Sequence[str]
    rows: int
    kind: object  # requests of equal kind can be one run; None runs by itself
    future: asyncio.Future[Inference]
    arrived_ns: int
    waits: bool = True


class _Lane:
    """What waits for one model."""

    def __init__(self, engine: Engine) -> None:
        self.batchable = engine.batchable
        self.dispatch: Dispatch | None = None
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
        on_run: Callable[[Engine, int, int], None] = lambda engine, rows, run_ns: None,
        on_answer: Callable[[Engine, Inference], None] | None = None,
    ) -> None:
        self._threads = Threads(instances)
        self._idle = instances
        self._queue = queue
        self._max_batch = max_batch
        self._seconds = seconds
        self._on_run = on_run
        self._on_answer = on_answer
        self._lanes: WeakKeyDictionary[Engine, _Lane] = WeakKeyDictionary()
        # The models for which something waits, each once; whoever was served goes to the end.
        self._turns: deque[tuple[Engine, _Lane]] = deque()
        self._closed = False

    async def warm_up(self, engine: Engine) -> Dispatch:
        """Measure whether this model is faster on the event loop than in a thread, and decide so from now on."""
        lane = self._lane(engine)
        lane.inline_rows = 0

        async def threaded(feeds: Feeds, names: list[str]) -> int:
            return (await self.infer(engine, feeds, names)).compute_ns

        try:
            lane.dispatch = await measure(engine, threaded)
        except (Overloaded, TimedOut):
            return Dispatch(0, 0, 0)  # there is no quiet moment: threads it is
        lane.inline_rows = lane.dispatch.inline_rows
        return lane.dispatch

    def dispatch(self, engine: Engine) -> Dispatch | None:
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
        done = self.run_at_once(engine, feeds, outputs)
        if done is not None:
            return done
        lane = self._lane(engine)
        rows = _rows(lane, feeds)
        if not self._idle and len(lane.waiting) >= self._queue:
            raise Overloaded(f"{self._queue} requests wait for this model already, no more may (KRON_QUEUE)")
        loop = asyncio.get_running_loop()
        kind = _kind(feeds, outputs) if lane.batchable else None
        request = _Request(feeds, outputs, rows, kind, loop.create_future(), time.perf_counter_ns())
        lane.waiting.append(request)
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

    def at_once(self, engine: Engine) -> bool:
        """Whether there are requests to this model that `run_at_once` answers."""
        return self._lane(engine).inline_rows > 0 and not self._closed

    def run_at_once(self, engine: Engine, feeds: Feeds, outputs: Sequence[str]) -> Inference | None:
        """Run a model here and now, where that was measured to be faster than a hand-over to a thread; else None.

        Raises:
            ModelError: onnxruntime failed.
        """
        lane = self._lane(engine)
        if not lane.inline_rows:
            return None
        rows = _rows(lane, feeds)
        if rows > lane.inline_rows:
            return None
        started = time.perf_counter_ns()
        values = engine.run(feeds, outputs)
        run_ns = time.perf_counter_ns() - started
        self._on_run(engine, rows, run_ns)
        return self._answered(engine, Inference(values, 0, run_ns, rows))

    def _answered(self, engine: Engine, inference: Inference) -> Inference:
        if self._on_answer is not None:
            self._on_answer(engine, inference)
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
            lane = self._lanes[engine] = _Lane(engine)
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
            batch = self._take(lane)
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
            elif not batch or (request.kind == batch[0].kind and rows + request.rows <= self._max_batch):
                request.waits = False
                batch.append(request)
                rows += request.rows
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
        finished: Callable[[Engine, Sequence[tuple[int, int]]], None],
    ) -> None:
        self._engine = engine
        self._batch = batch
        self._loop = loop
        self._finished = finished
        self._runs: list[tuple[int, int]] = []  # rows and nanoseconds

    def __call__(self) -> None:
        wanted = [request for request in self._batch if not request.future.done()]
        answers = self._together(wanted) if len(wanted) > 1 else None
        if answers is None:  # one bad request must not cost the others their answers
            answers = [self._alone(request) for request in wanted]
        try:
            self._loop.call_soon_threadsafe(self._deliver, wanted, answers)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    def _together(self, batch: Sequence[_Request]) -> list[Inference | Exception] | None:
        """Each request's rows of one run; None where the model failed or gives other than a row for a row."""
        started = time.perf_counter_ns()
        rows = sum(request.rows for request in batch)
        try:
            feeds = {name: np.concatenate([request.feeds[name] for request in batch]) for name in batch[0].feeds}
            before = time.perf_counter_ns()
            values = self._engine.run(feeds, batch[0].outputs)
            compute_ns = time.perf_counter_ns() - before
            self._runs.append((rows, compute_ns))
        except (ModelError, MemoryError):
            return None
        if any(getattr(value, "shape", ())[:1] != (rows,) for value in values.values()):
            return None
        answers: list[Inference | Exception] = []
        first = 0
        for request in batch:
            part = slice(first, first + request.rows)
            first += request.rows
            outputs = {name: value[part] for name, value in values.items()}
            answers.append(Inference(outputs, started - request.arrived_ns, compute_ns, rows))
        return answers

    def _alone(self, request: _Request) -> Inference | Exception:
        started = time.perf_counter_ns()
        try:
            values = self._engine.run(request.feeds, request.outputs)
        except Exception as error:  # whatever it is, it belongs to the request
            return error
        compute_ns = time.perf_counter_ns() - started
        self._runs.append((request.rows, compute_ns))
        return Inference(values, started - request.arrived_ns, compute_ns, request.rows)

    def _deliver(self, batch: Sequence[_Request], answers: Sequence[Inference | Exception]) -> None:
        for request, answer in zip(batch, answers, strict=True):
            if request.future.done():
                continue
            if isinstance(answer, Exception):
                request.future.set_exception(answer)
            else:
                request.future.set_result(answer)
        self._finished(self._engine, self._runs)


def _rows(lane: _Lane, feeds: Feeds) -> int:
    return max([array.shape[0] if array.ndim else 1 for array in feeds.values()]) if lane.batchable else 1


def _kind(feeds: Feeds, outputs: Sequence[str]) -> object:
    """The outputs wanted, and of each input its type and the shape of a row; None if inputs differ in their rows."""
    if len({array.shape[:1] or None for array in feeds.values()}) != 1:
        return None
    return (tuple(outputs), *sorted((name, array.dtype.str, array.shape[1:]) for name, array in feeds.items()))


def _expire(request: _Request, seconds: float) -> None:
    if not request.future.done():
        request.future.set_exception(TimedOut(f"no answer within {seconds:g} s (KRON_PREDICT_SECONDS)"))
