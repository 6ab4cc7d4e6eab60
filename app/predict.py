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
from app.rows import to_array
from app.scheduler import Inference, Scheduler
from app.shadow import Shadow

Rows = NDArray[np.float32]


async def predict(
    models: Sequence[Model],
    inputs: object,
    *,
    scheduler: Scheduler,
    metrics: Metrics,
    max_batch: int,
    seconds: float,
    booleans: bool = True,
    shadow: Shadow | None = None,
) -> dict[str, Any]:
    """The answers of all models to the same rows, as the API gives them.

    The models run one after the other, so that each one's `compute_us` is its own, and in an order drawn for each
    request: whichever is first finds cold caches, and that should not always be the same one.

    Raises:
        BadRequest: the rows are not what one of the models takes, or a model has no finite answer to one.
        Overloaded: too much is waiting.
        TimedOut: it took too long.
        ModelError: onnxruntime failed.
    """
    arrays: dict[tuple[tuple[int, ...], ...], Rows] = {}
    for model in models:
        if model.row_shapes not in arrays:  # both members of a twin take the same rows
            arrays[model.row_shapes] = to_array(inputs, model.row_shapes, max_rows=max_batch, booleans=booleans)
        _check_fixed_batch(model, len(arrays[model.row_shapes]))
    runs: dict[str, Inference] = {}
    end = time.monotonic() + seconds
    for model in random.sample(models, len(models)) if len(models) > 1 else models:
        started = time.perf_counter_ns()
        rows = arrays[model.row_shapes]
        runs[model.name] = run = await scheduler.infer(
            model.engine, model.rows.feed(rows), (model.head.output,), timeout=end - time.monotonic()
        )
        taken = time.perf_counter_ns() - started
        if shadow is not None:
            shadow.offer(model, model.rows.feed(rows), run.outputs, run.compute_ns)
        metrics.predicted(model, rows=len(rows), request_ns=taken, run=run)
        model.statistics.succeeded(
            rows=len(rows), batch_size=run.batch_size, queue_ns=run.queue_ns, compute_ns=run.compute_ns
        )
    results = [_result(model, runs[model.name]) for model in models]
    return {"results": results, "agreement": _agreement(results)}


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
