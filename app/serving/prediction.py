"""The answers of one or more models to the same rows, free of HTTP."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import BadRequest
from app.inference.batching import InferenceResult, InferenceTask
from app.models.model import Model
from app.serving.named_rows import joined_columns, separate_columns
from app.serving.rows import to_array
from app.serving.shadow import Shadow
from app.telemetry.prometheus import Metrics

MAX_NOVELTY_ELEMENTS = 65_536  # of all rows, beyond one: the detectors run on the event loop

Array = NDArray[Any]
Rows = NDArray[np.float32]


@dataclass(slots=True)
class _ModelRun:
    """One model's run of a prediction request: the inputs, and the result once the model has run."""

    model: Model
    rows: int
    feeds: dict[str, Array]
    inference: InferenceResult = field(init=False)


class Prediction:
    """Prediction request: runs of one or more models on the same rows, and the response made of their results.

    The models run one after the other, so that each one's `compute_us` is its own. Their order is drawn at random for
    each request: the first run finds cold caches, which should not always cost the same model time.

    Args:
        models: to run.
        inputs: the request's rows, as parsed from JSON.
        named_rows: its rows with the columns' names, instead of `inputs`.
        max_batch: most rows.
        booleans: whether the JSON may hold `true` or `false`.
        with_provenance: add the `receipt` to each model's answer.
        with_novelty: add `unlike` to the answers of models that have a detector.

    Raises:
        BadRequest: the rows do not fit one of the models.
    """

    def __init__(
        self,
        models: Sequence[Model],
        inputs: object,
        *,
        named_rows: object = None,
        max_batch: int,
        booleans: bool,
        with_provenance: bool,
        with_novelty: bool = False,
    ) -> None:
        self._with_provenance = with_provenance
        self._with_novelty = with_novelty
        self._place = "inputs" if named_rows is None else "rows"
        self._runs: list[_ModelRun] = []
        arrays: dict[tuple[tuple[int, ...], ...], Rows] = {}
        for model in models:
            if named_rows is not None:
                self._runs.append(_named_run(model, named_rows, max_batch))
                continue
            rows = arrays.get(model.row_shapes)
            if rows is None:  # the members of a twin take the same rows
                rows = to_array(inputs, model.row_shapes, max_rows=max_batch, booleans=booleans)
                arrays[model.row_shapes] = rows
                if with_novelty and len(rows) > 1 and rows.size > MAX_NOVELTY_ELEMENTS:
                    got = f"got {rows.size:,} numbers in all rows"
                    raise BadRequest(
                        f"novelty: {got}, expected at most {MAX_NOVELTY_ELEMENTS:,}; send fewer rows at once"
                    )
            _check_fixed_batch(model, len(rows))
            self._runs.append(_ModelRun(model, len(rows), model.row_input.feed(rows)))
        self._order = random.sample(self._runs, len(self._runs)) if len(self._runs) > 1 else self._runs
        self.tasks: Sequence[InferenceTask] = [
            InferenceTask.create(run.model.engine, run.feeds, (run.model.output_head.output,)) for run in self._order
        ]

    def answer(self, inferences: Sequence[InferenceResult]) -> dict[str, Any]:
        """Compose the response.

        Args:
            inferences: the results of `tasks`.

        Raises:
            BadRequest: a model has no finite answer to a row.
        """
        for run, inference in zip(self._order, inferences, strict=True):
            run.inference = inference
        results = []
        for run in self._runs:
            results.append(_result(run.model, run.inference, self._place))
            if self._with_novelty:
                _add_novelty(results[-1]["outputs"], run)
            if self._with_provenance:
                results[-1]["receipt"] = provenance(run.model, run.inference)
        return {"results": results, "agreement": _agreement(results)}

    def count(self, metrics: Metrics, shadow: Shadow | None) -> None:
        """Count the request as answered by each model, after `answer`.

        Args:
            metrics: counts the request.
            shadow: is offered the request.
        """
        for run in self._runs:
            model, result = run.model, run.inference
            if shadow is not None:
                shadow.offer(model, run.feeds, result.outputs, result.compute_ns)
            metrics.predicted(
                model.name,
                model.version,
                rows=run.rows,
                request_ns=result.queue_ns + result.compute_ns,
                queue_ns=result.queue_ns,
                compute_ns=result.compute_ns,
            )
            model.statistics.record_success(
                rows=run.rows, batch_size=result.batch_size, queue_ns=result.queue_ns, compute_ns=result.compute_ns
            )


def provenance(model: Model, inference: InferenceResult) -> dict[str, Any]:
    """Describe the provenance of an answer: the file's checksum, provider, threads, times and batch size."""
    return {
        "model_sha256": model.artifact.sha256,
        "provider": model.engine.provider,
        "threads": model.engine.threads,
        "queue_us": inference.queue_ns / 1000,
        "compute_us": inference.compute_ns / 1000,
        "batch_size": inference.batch_size,
    }


def _named_run(model: Model, rows: object, max_batch: int) -> _ModelRun:
    """Prepare a model's run on rows with the columns' names."""
    if model.columns is None:
        if model.unusable is not None:
            model.output_head  # noqa: B018 - raises the reason
        raise BadRequest(f"rows: {model.name} has no names of columns in its card, expected `inputs`")
    if model.columns.separate:
        feeds = separate_columns(rows, model.columns, max_rows=max_batch)
    else:
        feeds = model.row_input.feed(joined_columns(rows, model.columns, max_rows=max_batch))
    count = len(next(iter(feeds.values())))
    _check_fixed_batch(model, count)
    return _ModelRun(model, count, feeds)


def _result(model: Model, inference: InferenceResult, place: str) -> dict[str, Any]:
    output = inference.outputs[model.output_head.output]
    if not np.isfinite(output).all():
        finite = np.isfinite(output.reshape(len(output), -1)).all(axis=1)
        raise BadRequest(f"{place}[{int(finite.argmin())}]: {model.name} has no finite answer to it")
    return {
        "model": model.name,
        "version": model.version,
        "provider": model.engine.provider,
        "outputs": model.output_head.decode(output),
        "queue_us": inference.queue_ns / 1000,
        "compute_us": inference.compute_ns / 1000,
    }


def _add_novelty(answers: list[dict[str, Any]], run: _ModelRun) -> None:
    """Add to each answer whether its image is unlike the training images, if the model has a detector."""
    if run.model.novelty is None:
        return
    marks = run.model.novelty.unlike(next(iter(run.feeds.values()))).tolist()
    for answer, unlike in zip(answers, marks, strict=True):
        answer["unlike"] = unlike


def _check_fixed_batch(model: Model, rows: int) -> None:
    fixed = None if model.takes_columns else model.row_input.fixed_batch
    if fixed is not None and rows != fixed:
        raise BadRequest(f"inputs: got {rows} rows, expected exactly {fixed}: {model.name} has a fixed batch size")
    if model.signature.limited and rows > model.signature.max_batch:
        raise BadRequest(
            f"inputs: got {rows} rows, expected at most {model.signature.max_batch}: max_batch_size of {model.name}"
        )


def _agreement(results: Sequence[dict[str, Any]]) -> float | None:
    """Fraction of rows to which all classifiers give the same label; None with fewer than two classifiers."""
    if len(results) < 2:
        return None
    columns = [[answer.get("label") for answer in result["outputs"]] for result in results]
    columns = [column for column in columns if None not in column]
    if len(columns) < 2:
        return None
    rows = list(zip(*columns, strict=True))
    return sum(len(set(labels)) == 1 for labels in rows) / len(rows)
