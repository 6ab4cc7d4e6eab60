"""Shadow mode: a second model is scored on a sample of the answered requests, off the request path."""

import contextlib
import logging
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import BadRequest, ModelError, StartupError
from app.models.model import Model
from app.models.output_head import softmax
from app.models.repository import Repository
from app.serving.schemas import ShadowReport
from app.settings import Settings
from app.telemetry.prometheus import Metrics

MAX_WAITING = 8  # sampled requests; further ones are dropped, since answering takes precedence
WINDOW = 1000  # latest requests, for the medians of times

Array = NDArray[Any]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Sample:
    """An answered request to be scored."""

    primary: Model
    feeds: Mapping[str, Array]
    output: Array
    compute_ns: int


class Shadow:
    """Scores the shadow model on requests that the primary model answered, in a separate thread.

    Args:
        primary: name of the model that answers.
        shadow: name of the model that is scored.
        fraction: of the requests that are scored, from 0 to 1.
        repository: gives the served version of the shadow model at the time of each run.
        metrics: count what is scored.
    """

    def __init__(self, primary: str, shadow: str, *, fraction: float, repository: Repository, metrics: Metrics) -> None:
        self._primary = primary
        self._shadow = shadow
        self._fraction = fraction
        self._repository = repository
        self._metrics = metrics
        self._waiting: queue.Queue[_Sample | None] = queue.Queue(MAX_WAITING)
        self._lock = threading.Lock()
        self._requests = self._rows = self._dropped = self._failed = self._labelled = self._disagreements = 0
        self._drift: float | None = None
        self._difference: float | None = None
        self._times: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._thread.start()

    @classmethod
    def from_settings(cls, settings: Settings, repository: Repository, metrics: Metrics) -> "Shadow | None":
        """Create the shadow that the settings ask for; None where they ask for none.

        Raises:
            StartupError: the settings name models that are not served, or that take different rows.
        """
        if settings.shadow is None:
            return None
        got = f"--shadow (KRON_SHADOW): got {settings.shadow!r}"
        primary, _, shadow = settings.shadow.partition("=")
        if {primary, shadow} & repository.unloaded:  # this worker replaces one that has checked the models
            return cls(primary, shadow, fraction=settings.shadow_share, repository=repository, metrics=metrics)
        models = {model.name: model for model in repository.models.values() if model.unusable is None}
        if primary == shadow or not {primary, shadow} <= models.keys():
            raise StartupError(f"{got}, expected A=B with two different models of: {', '.join(models)}")
        sizes = [_taken(models[name]) for name in (primary, shadow)]
        if sizes[0] != sizes[1]:
            both = f"{primary} takes {', '.join(sizes[0])[:500]}, {shadow} {', '.join(sizes[1])[:500]}"
            raise StartupError(f"{got}, expected models that take the same rows: {both}")
        return cls(primary, shadow, fraction=settings.shadow_share, repository=repository, metrics=metrics)

    def offer(self, model: Model, feeds: Mapping[str, Array], outputs: Mapping[str, Array], compute_ns: int) -> None:
        """Sample an answered request for scoring; never waits.

        Args:
            model: the one that answered.
            feeds: its inputs by name.
            outputs: its outputs by name; a request without the output that the model's head reads is not scored.
            compute_ns: time of its run.
        """
        if model.name != self._primary or model.unusable is not None or random.random() >= self._fraction:
            return
        output = outputs.get(model.output_head.output)
        if output is None:
            return
        try:
            self._waiting.put_nowait(_Sample(model, feeds, output, compute_ns))
        except queue.Full:
            with self._lock:
                self._dropped += 1
            self._metrics.shadow_skipped("dropped")

    def report(self) -> ShadowReport:
        """Summarise the requests scored so far."""
        with self._lock:
            times = np.array(self._times) if self._times else None
            return ShadowReport(
                primary=self._primary,
                shadow=self._shadow,
                share=self._fraction,
                requests=self._requests,
                rows=self._rows,
                dropped=self._dropped,
                failed=self._failed,
                disagreements=self._disagreements if self._labelled else None,
                disagreement_rate=self._disagreements / self._labelled if self._labelled else None,
                largest_probability_drift=self._drift,
                largest_difference=self._difference,
                primary_p50_us=None if times is None else _median(times[:, 0]),
                shadow_p50_us=None if times is None else _median(times[:, 1]),
                difference_p50_us=None if times is None else _median(times[:, 1] - times[:, 0]),
            )

    def close(self) -> None:
        """Stop the thread; requests that wait are not scored."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        self._waiting.put(None)
        self._thread.join(timeout=5)

    def _work(self) -> None:
        while (sample := self._waiting.get()) is not None:
            self._compare(sample)
            del sample  # an idle thread must not keep a model alive

    def _compare(self, sample: _Sample) -> None:
        """Run the shadow model on an answered request and score it."""
        try:
            shadow = self._repository.models.get(self._shadow)
            if shadow is None:
                raise ModelError(f"{self._shadow} is not served")
            start = time.perf_counter_ns()
            feeds = _feeds(sample, shadow)
            output = shadow.engine.run(feeds, [shadow.output_head.output])[shadow.output_head.output]
            self._score(sample, shadow, output, time.perf_counter_ns() - start)
        except Exception as error:  # any error of a model: it is counted, and must not end the thread
            if not isinstance(error, ModelError | BadRequest | ValueError):  # ValueError: a version takes other rows
                log.exception("shadow mode: %s", self._shadow)
            self._metrics.shadow_skipped("failed")
            with self._lock:
                self._failed += 1

    def _score(self, sample: _Sample, shadow: Model, output: Array, shadow_ns: int) -> None:
        """Compare two outputs and count the request."""
        first, second = sample.primary.output_head.labels, shadow.output_head.labels
        if (first is None) != (second is None) or sample.output.shape != output.shape:
            raise ModelError(f"{shadow.name} does not answer as {sample.primary.name} does")
        a, b = _values(sample.primary, sample.output), _values(shadow, output)
        largest = float(np.abs(a - b).max())
        if not np.isfinite(largest):
            raise ModelError(f"{shadow.name} has no finite answer")
        different = 0 if first is None else int((a.argmax(axis=1) != b.argmax(axis=1)).sum())
        self._metrics.shadowed(  # before the report, so that no request is in the report but not yet in the metrics
            shadow.name,
            rows=len(a),
            disagreements=different,
            primary_ns=sample.compute_ns,
            shadow_ns=shadow_ns,
        )
        with self._lock:
            self._requests += 1
            self._rows += len(a)
            self._times.append((sample.compute_ns / 1000, shadow_ns / 1000))
            if first is None:
                self._difference = max(largest, self._difference or 0.0)
            else:
                self._labelled += len(a)
                self._disagreements += different
                self._drift = max(largest, self._drift or 0.0)
            self._metrics.shadow_drift(shadow.name, max(self._drift or 0.0, self._difference or 0.0))


def _taken(model: Model) -> list[str]:
    """Describe what a row of a model holds: the inputs of its columns, sorted, or the number of its values."""
    if model.takes_columns:
        return sorted(f"{tensor.name} ({tensor.datatype})" for tensor in model.engine.inputs)
    return [f"{model.row_input.n_features} values"]


def _feeds(sample: _Sample, shadow: Model) -> Mapping[str, Array]:
    """Return the inputs of an answered request for the shadow model.

    Raises:
        ModelError: the shadow model takes other columns, or rows where the primary takes columns.
    """
    primary = sample.primary
    if primary.takes_columns != shadow.takes_columns or (primary.takes_columns and _taken(primary) != _taken(shadow)):
        raise ModelError(f"{shadow.name} takes other rows than {primary.name}")
    return sample.feeds if shadow.takes_columns else shadow.row_input.feed(sample.feeds[primary.row_input.name])


def _values(model: Model, output: Array) -> NDArray[np.float64]:
    """Extract the values to compare from an output: the probabilities of a classifier, else its values."""
    values = output.astype(np.float64)
    return np.asarray(softmax(values)) if model.output_head.labels is not None and model.output_head.softmax else values


def _median(values: Array) -> float:
    return round(float(np.median(values)), 1)
