"""Measuring process: quality and differences of the models' outputs (`python -m app.measure.children.quality`).

Its memory and times are not measured, so it may import anything.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import ModelError
from app.inference.datatypes import is_finite
from app.measure.differences import PairedDifferences, is_probabilities
from app.measure.inputs.arrays import InputArrays, load_labels
from app.measure.nodes import node_times
from app.measure.quality import ModelOutputs, quality_of
from app.measure.timed_session import TimedSession
from app.measure.timing import Refused, run_job
from app.models.card import Card
from app.models.output_head import OutputHead, softmax

BATCH = 256


def main() -> None:
    """Receive a job, evaluate the models, and send the result."""
    run_job(_evaluate)


def _evaluate(job: Mapping[str, Any]) -> dict[str, Any]:
    """The differences of the outputs, times of nodes, and fields of `Quality`; None where the inputs were generated."""
    sessions = [
        TimedSession(model["name"], model["path"], device=job["device"], threads=job["threads"])
        for model in job["models"]
    ]
    folder, source = Path(job["inputs"]), job["source"]
    inputs, labels = InputArrays.load(folder), load_labels(folder)
    cards = [_card(model) for model in job["models"]]
    collected = [CollectedOutputs(session, card) for session, card in zip(sessions, cards, strict=True)]
    differences = PairedDifferences([session.name for session in sessions], [session.interface for session in sessions])
    size = _rows_of_a_run(sessions, inputs, job["batch_sizes"])
    for start in range(0, inputs.rows, size):
        count = min(size, inputs.rows - start)
        outputs = [
            {name: _cut(values, size, count) for name, values in session.run(session.feed(inputs, size, start)).items()}
            for session in sessions
        ]
        for each, values in zip(collected, outputs, strict=True):
            each.add(values, start, count)
        differences.add(outputs, count)
    evaluated = [each.outputs() for each in collected] if source["source"] != "generated" else []
    known = [each for each in evaluated if each is not None]
    quality = quality_of(known, source, inputs.rows, labels) if known and len(known) == len(evaluated) else None
    # Sessions of their own: a profile slows runs down.
    nodes = [node_times(job, model, inputs) for model in job["models"] if job.get("nodes")]
    return {"quality": quality, "differences": differences.results(), "nodes": nodes}


def _rows_of_a_run(sessions: Sequence[TimedSession], inputs: InputArrays, batch_sizes: Sequence[int]) -> int:
    """Rows to run together: a batch size that was measured, for it fits into memory; more for rows of fixed sizes."""
    rows = inputs.rows
    fixed = next((each.interface.fixed_batch for each in sessions if each.interface.fixed_batch is not None), None)
    if fixed is not None:
        return fixed
    if all(each.interface.row_shape is not None for each in sessions):
        with suppress(Refused):  # a graph may take fewer rows than its shapes say
            for session in sessions:
                session.run(session.feed(inputs, min(rows, BATCH)))
            return min(rows, BATCH)
    return max((size for size in batch_sizes if size <= rows), default=min(batch_sizes))


def _cut(values: Any, size: int, count: int) -> Any:
    """The outputs of the first `count` rows of a run of `size` rows, where the first axis is that of the rows."""
    return values[:count] if isinstance(values, np.ndarray) and values.ndim and len(values) == size else values


def _card(model: Mapping[str, Any]) -> Card | None:
    return None if model["card"] is None else Card.parse(model["card"], model["name"])


class CollectedOutputs:
    """The output of one model that answers a row, collected over all runs.

    Args:
        session: of the model.
        card: its card.
    """

    def __init__(self, session: TimedSession, card: Card | None) -> None:
        self._model = session.name
        self._class_labels = session.class_labels
        self._card = card
        self._head: OutputHead | None = None
        self._parts: list[NDArray[np.float64]] | None = []

    def add(self, outputs: Mapping[str, Any], start: int, count: int) -> None:
        """Add the outputs of rows `start` to `start + count`.

        Raises:
            Refused: an output is not finite.
        """
        _check_finite(self._model, outputs, start, count)
        if self._parts is None:
            return
        try:
            self._head = self._head or _choose_head(outputs, self._card, self._class_labels)
        except ModelError:
            self._parts = None
            return
        values = np.asarray(outputs[self._head.output], dtype=np.float64)
        if values.ndim not in (1, 2) or len(values) != count:
            self._parts = None
            return
        self._parts.append(values.reshape(count, -1))

    def outputs(self) -> ModelOutputs | None:
        """The collected outputs; None for a model that has no output with a value or scores for each row."""
        if not self._parts or self._head is None:
            return None
        values = np.concatenate(self._parts)
        if self._head.labels is None:
            regression = self._card is not None and self._card.task == "regression"
            return ModelOutputs(self._model, None, values, regression)
        return ModelOutputs(self._model, self._head.labels, softmax(values) if self._head.softmax else values)


def _choose_head(
    outputs: Mapping[str, Any], card: Card | None, class_labels: Mapping[str, Sequence[str]]
) -> OutputHead:
    """The output with the answer, as for `/api/predict`, or probabilities under any name."""
    head = OutputHead.of(outputs, card, class_labels)
    if head.labels is not None or (card is not None and card.task == "regression"):
        return head
    for name, values in outputs.items():
        if isinstance(values, np.ndarray) and values.ndim == 2 and is_probabilities(values):
            return OutputHead(name, [str(index) for index in range(values.shape[1])])
    return head


def _check_finite(model: str, outputs: Mapping[str, Any], start: int, count: int) -> None:
    for values in outputs.values():
        if not is_finite(values):
            row = start
            if values.ndim and len(values) == count:
                row += next(index for index in range(count) if not is_finite(values[index]))
            raise Refused(f"inputs[{row}]: got an output of {model} that is not finite")


if __name__ == "__main__":
    main()
