"""One prediction request: rows in, the answers of one or more models out."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import BadRequest
from app.inference.batching import InferenceResult, InferenceTask
from app.inference.engine import Engine
from app.inference.scheduler import Scheduler
from app.models.model import Model
from app.serving.rows import to_array
from app.serving.shadow import Shadow
from app.telemetry.prometheus import Metrics

Rows = NDArray[np.float32]
_clock = time.perf_counter_ns


@dataclass(slots=True)
class _Part:
    """One model's share of a request."""

    model: Model
    rows: int
    feeds: dict[str, Rows]
    run: InferenceResult = field(init=False)
    taken_ns: int = field(init=False)  # waiting included


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
        self._receipt = receipt
        self._parts: list[_Part] = []
        self._turns: Sequence[_Part] = []
        arrays: dict[tuple[tuple[int, ...], ...], Rows] = {}
        for model in models:
            rows = arrays.get(model.row_shapes)
            if rows is None:  # both members of a twin take the same rows
                rows = to_array(inputs, model.row_shapes, max_rows=max_batch, booleans=booleans)
                arrays[model.row_shapes] = rows
            _check_fixed_batch(model, len(rows))
            self._parts.append(_Part(model, len(rows), model.row_input.feed(rows)))

    async def run(self, scheduler: Scheduler, seconds: float) -> None:
        """Run all models.

        Raises:
            Overloaded: too much is waiting.
            TimedOut: it took too long.
            ModelError: onnxruntime failed.
        """
        end = time.monotonic() + seconds
        for part in self._in_turn():
            started = _clock()
            part.run = await scheduler.infer(
                part.model.engine, part.feeds, (part.model.output_head.output,), timeout=end - time.monotonic()
            )
            part.taken_ns = _clock() - started

    def asks(self, most: Callable[[Engine], int]) -> Sequence[InferenceTask] | None:
        """What to run, in turns; None where a model takes fewer rows without waiting than `most` says of it."""
        if any(part.rows > most(part.model.engine) for part in self._parts):
            return None
        self._turns = self._in_turn()
        return [
            InferenceTask.create(part.model.engine, part.feeds, (part.model.output_head.output,))
            for part in self._turns
        ]

    def ran(self, inferences: Sequence[InferenceResult]) -> None:
        """What came of `asks`."""
        for part, run in zip(self._turns, inferences, strict=True):
            part.run, part.taken_ns = run, run.queue_ns + run.compute_ns

    def answer(self, metrics: Metrics, shadow: Shadow | None) -> dict[str, Any]:
        """What came out, after which the request counts as answered.

        Raises:
            BadRequest: one of the models has no finite answer to a row.
        """
        results = []
        for part in self._parts:
            results.append(_result(part.model, part.run))
            if self._receipt:
                results[-1]["receipt"] = make_receipt(part.model, part.run)
        answer = {"results": results, "agreement": _agreement(results)}
        for part in self._parts:
            model, run = part.model, part.run
            if shadow is not None:
                shadow.offer(model, part.feeds, run.outputs, run.compute_ns)
            metrics.predicted(
                model.name,
                model.version,
                rows=part.rows,
                request_ns=part.taken_ns,
                queue_ns=run.queue_ns,
                compute_ns=run.compute_ns,
            )
            model.statistics.record_success(
                rows=part.rows, batch_size=run.batch_size, queue_ns=run.queue_ns, compute_ns=run.compute_ns
            )
        return answer

    def _in_turn(self) -> Sequence[_Part]:
        return random.sample(self._parts, len(self._parts)) if len(self._parts) > 1 else self._parts


def _result(model: Model, run: InferenceResult) -> dict[str, Any]:
    output = run.outputs[model.output_head.output]
    if not np.isfinite(output).all():
        finite = np.isfinite(output.reshape(len(output), -1)).all(axis=1)
        raise BadRequest(f"inputs[{int(finite.argmin())}]: {model.name} has no finite answer to it")
    return {
        "model": model.name,
        "version": model.artifact.version,
        "provider": model.engine.provider,
        "outputs": model.output_head.decode(output),
        "queue_us": run.queue_ns / 1000,
        "compute_us": run.compute_ns / 1000,
    }


def _check_fixed_batch(model: Model, rows: int) -> None:
    fixed = model.row_input.fixed_batch
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


def make_receipt(model: Model, inference: InferenceResult) -> dict[str, Any]:
    """What a request gets that asks for it."""
    return {
        "model_sha256": model.artifact.sha256,
        "provider": model.engine.provider,
        "threads": model.engine.threads,
        "queue_us": inference.queue_ns / 1000,
        "compute_us": inference.compute_ns / 1000,
        "batch_size": inference.batch_size,
    }
