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
from app.pool import Pool
from app.rows import to_array
from app.shadow import Shadow

Rows = NDArray[np.float32]


async def predict(
    models: Sequence[Model],
    inputs: object,
    *,
    pool: Pool,
    metrics: Metrics,
    max_batch: int,
    shadow: Shadow | None = None,
) -> dict[str, Any]:
    """The answers of all models to the same rows, as the API gives them.

    The models run one after the other in one thread, so that each one's `compute_us` is its own, and in an order
    drawn for each request: whichever is first finds cold caches, and that should not always be the same one.

    Raises:
        BadRequest: the rows are not what one of the models takes, or a model has no finite answer to one.
        Overloaded: too much is waiting.
        ModelError: onnxruntime failed.
    """
    arrays: dict[tuple[tuple[int, ...], ...], Rows] = {}
    batches = []
    for model in models:
        if model.row_shapes not in arrays:  # both members of a twin take the same rows
            arrays[model.row_shapes] = to_array(inputs, model.row_shapes, max_rows=max_batch)
        batches.append(arrays[model.row_shapes])
        _check_fixed_batch(model, len(batches[-1]))

    def run() -> list[tuple[NDArray[Any], float]]:
        order = random.sample(range(len(models)), len(models))
        timed = {index: _timed(models[index], batches[index]) for index in order}
        return [timed[index] for index in range(len(models))]

    values, queue_us = await pool.run(run)
    results = []
    for model, rows, (output, compute_us) in zip(models, batches, values, strict=True):
        finite = np.isfinite(output.reshape(len(output), -1)).all(axis=1)
        if not finite.all():
            raise BadRequest(f"inputs[{int(finite.argmin())}]: {model.name} has no finite answer to it")
        if shadow is not None:
            shadow.offer(model, rows, output, compute_us)
        metrics.predicted(model, rows=len(rows), queue_us=queue_us, compute_us=compute_us)
        results.append(
            {
                "model": model.name,
                "version": model.artifact.version,
                "provider": model.engine.provider,
                "outputs": model.head.answers(output),
                "queue_us": round(queue_us, 1),
                "compute_us": round(compute_us, 1),
            }
        )
    return {"results": results, "agreement": _agreement(results)}


def _check_fixed_batch(model: Model, rows: int) -> None:
    fixed = model.engine.fixed_batch
    if fixed is not None and rows != fixed:
        raise BadRequest(f"inputs: got {rows} rows, expected exactly {fixed}: {model.name} has a fixed batch size")


def _timed(model: Model, rows: Rows) -> tuple[NDArray[Any], float]:
    start = time.perf_counter_ns()
    output = model.engine.run(rows, [model.head.output])[model.head.output]
    return output, (time.perf_counter_ns() - start) / 1000


def _agreement(results: Sequence[dict[str, Any]]) -> float | None:
    columns = [[answer.get("label") for answer in result["outputs"]] for result in results]
    columns = [column for column in columns if None not in column]
    if len(columns) < 2:
        return None
    rows = list(zip(*columns, strict=True))
    return sum(len(set(labels)) == 1 for labels in rows) / len(rows)
