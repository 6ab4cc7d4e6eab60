"""One prediction request: rows in, the answers of one or more models out."""

import random
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import BadRequest
from app.metrics import Metrics
from app.model import Model
from app.receipt import receipt as make_receipt
from app.rows import to_array
from app.scheduler import Inference, Scheduler
from app.shadow import Shadow

Rows = NDArray[np.float32]
_clock = time.perf_counter_ns


class Prediction:
    """The answers of one or more models to the same rows, as the API gives them.

    The models run one after the other, so that each one's `compute_us` is its own, and in an order drawn for each
    request: whichever is first finds cold caches, and that should not always be the same one.

    Args:
        models: that answer.
        inputs: parsed JSON.
        max_batch: most rows.
        booleans: whether the JSON may hold any.
        receipt: say of each answer how it came about.

    Raises:
        BadRequest: the rows are not what one of the models takes.
    """

    def __init__(
        self, models: Sequence[Model], inputs: object, *, max_batch: int, booleans: bool, receipt: bool
    ) -> None:
        self._models = models
        self._receipt = receipt
        self._runs: dict[str, tuple[Inference, int]] = {}  # with the nanoseconds that it took, waiting included
        self._arrays: dict[tuple[tuple[int, ...], ...], Rows] = {}
        for model in models:
            if model.row_shapes not in self._arrays:  # both members of a twin take the same rows
                self._arrays[model.row_shapes] = to_array(
                    inputs, model.row_shapes, max_rows=max_batch, booleans=booleans
                )
            _check_fixed_batch(model, len(self._arrays[model.row_shapes]))

    async def run(self, scheduler: Scheduler, seconds: float) -> None:
        """Run all models.

        Raises:
            Overloaded: too much is waiting.
            TimedOut: it took too long.
            ModelError: onnxruntime failed.
        """
        end = time.monotonic() + seconds
        for model in self._in_turn():
            started = _clock()
            run = await scheduler.infer(
                model.engine, self._feeds(model), (model.head.output,), timeout=end - time.monotonic()
            )
            self._runs[model.name] = run, _clock() - started

    def run_at_once(self, scheduler: Scheduler) -> bool:
        """Run all models without waiting; False where one of them would have to.

        Raises:
            ModelError: onnxruntime failed.
        """
        for model in self._in_turn():
            run = scheduler.run_at_once(model.engine, self._feeds(model), (model.head.output,))
            if run is None:
                return False
            self._runs[model.name] = run, run.compute_ns
        return True

    def answer(self, metrics: Metrics, shadow: Shadow | None) -> dict[str, Any]:
        """What came out, after which the request counts as answered.

        Raises:
            BadRequest: one of the models has no finite answer to a row.
        """
        results = [_result(model, self._runs[model.name][0]) for model in self._models]
        if self._receipt:
            for model, result in zip(self._models, results, strict=True):
                result["receipt"] = make_receipt(model, self._runs[model.name][0])
        answer = {"results": results, "agreement": _agreement(results)}
        for model in self._models:
            run, taken = self._runs[model.name]
            rows = len(self._arrays[model.row_shapes])
            if shadow is not None:
                shadow.offer(model, self._feeds(model), run.outputs, run.compute_ns)
            metrics.predicted(model, rows=rows, request_ns=taken, run=run)
            model.statistics.succeeded(
                rows=rows, batch_size=run.batch_size, queue_ns=run.queue_ns, compute_ns=run.compute_ns
            )
        return answer

    def _in_turn(self) -> Sequence[Model]:
        return random.sample(self._models, len(self._models)) if len(self._models) > 1 else self._models

    def _feeds(self, model: Model) -> dict[str, Rows]:
        return model.rows.feed(self._arrays[model.row_shapes])


def _result(model: Model, run: Inference) -> dict[str, Any]:
    output = run.outputs[model.head.output]
    if not np.isfinite(output).all():
        finite = np.isfinite(output.reshape(len(output), -1)).all(axis=1)
        raise BadRequest(f"inputs[{int(finite.argmin())}]: {model.name} has no finite answer to it")
    return {
        "model": model.name,
        "version": model.artifact.version,
        "provider": model.engine.provider,
        "outputs": model.head.answers(output),
        "queue_us": run.queue_ns / 1000,
        "compute_us": run.compute_ns / 1000,
    }


def _check_fixed_batch(model: Model, rows: int) -> None:
    fixed = model.rows.fixed_batch
    if fixed is not None and rows != fixed:
        raise BadRequest(f"inputs: got {rows} rows, expected exactly {fixed}: {model.name} has a fixed batch size")


def _agreement(results: Sequence[dict[str, Any]]) -> float | None:
    if len(results) < 2:
        return None
    columns = [[answer.get("label") for answer in result["outputs"]] for result in results]
    columns = [column for column in columns if None not in column]
    if len(columns) < 2:
        return None
    rows = list(zip(*columns, strict=True))
    return sum(len(set(labels)) == 1 for labels in rows) / len(rows)
