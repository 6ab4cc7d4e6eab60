"""Measuring process: quality of the models' outputs on the same rows (`python -m app.measure.children.quality`).

Its memory and times are not measured, so it may import anything.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import ModelError
from app.measure.timing import Array, Refused, TimedSession, read_uploaded_rows, run_job
from app.models.card import Card
from app.models.output_head import OutputHead, softmax
from app.models.samples import SamplesError, read_samples

BATCH = 256
MAX_CLASSES = 100  # of a confusion matrix
Z = 1.959964  # of a 95 % interval


@dataclass(frozen=True, slots=True)
class EvaluationRows:
    """Rows to evaluate the models on.

    Args:
        source: `samples` or `uploaded`.
        name: name of the source in the report.
        inputs: float32 (n, *row_shape).
        labels: true labels (n,), or None.
    """

    source: str
    name: str
    inputs: Array
    labels: NDArray[Any] | None


@dataclass(frozen=True, slots=True)
class ModelOutputs:
    """The outputs of one model for all rows.

    Args:
        model: name of the model.
        labels: class labels; None for a regression.
        values: probabilities (n, classes), or values (n, outputs) of a regression.
    """

    model: str
    labels: Sequence[str] | None
    values: NDArray[np.float64]

    @property
    def predicted(self) -> NDArray[np.intp]:
        """Positions (n,) of the most probable classes."""
        predicted: NDArray[np.intp] = self.values.argmax(axis=1)
        return predicted


def main() -> None:
    """Receive a job, evaluate the models, and send the result."""
    run_job(lambda job: {"quality": _evaluate(job)})


def _evaluate(job: Mapping[str, Any]) -> dict[str, Any] | None:
    """Fields of `Quality`; None where there are no rows that all models take."""
    sessions = [
        TimedSession(model["name"], model["path"], device=job["device"], threads=job["threads"])
        for model in job["models"]
    ]
    uploaded = job["uploaded"]
    rows = _read_uploaded(uploaded, sessions) if uploaded else _read_samples(job["models"], sessions)
    if rows is None:
        return None
    outputs = [
        _run_model(session, model["card"], rows.inputs) for session, model in zip(sessions, job["models"], strict=True)
    ]
    models = [_model_quality(each, rows.labels) for each in outputs]
    pairs = [_pair_quality(a, b) for a, b in itertools.combinations(outputs, 2)]
    return {
        "source": rows.source,
        "name": rows.name,
        "rows": len(rows.inputs),
        "labelled": rows.labels is not None,
        "sentence": _sentence(rows, models, pairs),
        "labels": next((list(each.labels) for each in outputs if each.labels is not None), None),
        "models": models,
        "pairs": pairs,
    }


def _read_uploaded(uploaded: Mapping[str, str], sessions: Sequence[TimedSession]) -> EvaluationRows:
    """Read the uploaded rows and labels.

    Raises:
        Refused: a model takes rows of another width.
    """
    with np.load(uploaded["path"], allow_pickle=False) as arrays:
        labels = arrays.get("labels")
    rows = [read_uploaded_rows(uploaded["path"], session.row_shape) for session in sessions]
    return EvaluationRows("uploaded", uploaded["name"], rows[0], labels)


def _read_samples(models: Sequence[Mapping[str, Any]], sessions: Sequence[TimedSession]) -> EvaluationRows | None:
    """Read the samples of the first model that has some; None where the models take rows of different widths."""
    if len({math.prod(session.row_shape) for session in sessions}) > 1:
        return None
    for model, session in zip(models, sessions, strict=True):
        try:
            samples = read_samples(Path(model["samples"]), session.row_shape)
        except SamplesError:
            continue
        if len(samples):
            return EvaluationRows("samples", f"samples of {model['name']}", samples.inputs, samples.labels)
    return None


def _run_model(session: TimedSession, card_json: str | None, inputs: Array) -> ModelOutputs:
    """Run one model on all rows, a batch at a time.

    Raises:
        Refused: the model has no numeric output, or gives one that is not finite.
    """
    size = session.fixed_batch or BATCH
    head, parts = None, []
    for start in range(0, len(inputs), size):
        part = inputs[start : start + size]
        outputs = dict(zip(session.outputs, session.run(session.feed(part, size)), strict=True))
        if head is None:
            try:
                card = None if card_json is None else Card.parse(card_json, session.name)
                head = OutputHead.of(outputs, card, session.class_labels)
            except ModelError as error:
                raise Refused(f"{session.name}: {error}") from None
        parts.append(np.asarray(outputs[head.output], dtype=np.float64)[: len(part)])
    values = np.concatenate(parts)
    finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if not finite.all():
        raise Refused(f"inputs[{int(finite.argmin())}]: got an output of {session.name} that is not finite")
    if head is None or head.labels is None:
        return ModelOutputs(session.name, None, values.reshape(len(values), -1))
    return ModelOutputs(session.name, head.labels, softmax(values) if head.softmax else values)


def _model_quality(outputs: ModelOutputs, labels: NDArray[Any] | None) -> dict[str, Any]:
    """Fields of `ModelQuality`.

    Raises:
        Refused: a label is not a class of the model, or not a number that a regression could predict.
    """
    if labels is None:
        return {"model": outputs.model}
    if outputs.labels is None:
        targets = _targets(labels).reshape(-1, 1)
        if outputs.values.shape[1] != 1:
            return {"model": outputs.model}
        with np.errstate(over="ignore"):
            rmse = float(np.sqrt(np.mean((outputs.values - targets) ** 2)))
        if not math.isfinite(rmse):
            raise Refused(
                f"labels: the RMSE of {outputs.model} is not finite, expected labels of the size of its outputs"
            )
        return {"model": outputs.model, "rmse": rmse}
    true, predicted, classes = _class_positions(labels, outputs), outputs.predicted, len(outputs.labels)
    correct = int((true == predicted).sum())
    low, high = wilson_interval(correct, len(true))
    confusion = None
    if classes <= MAX_CLASSES:
        counts = np.bincount(true * classes + predicted, minlength=classes * classes)
        confusion = counts.reshape(classes, classes).tolist()
    return {
        "model": outputs.model,
        "accuracy": correct / len(true),
        "accuracy_low": low,
        "accuracy_high": high,
        "confusion": confusion,
    }


def _class_positions(labels: NDArray[Any], outputs: ModelOutputs) -> NDArray[np.int64]:
    """Positions (n,) of labels among the model's classes; a label is the name of a class or else its position.

    Raises:
        Refused: a label is neither.
    """
    names = list(outputs.labels or [])
    positions = {name: index for index, name in enumerate(names)}
    found: dict[object, int] = {}
    for value in np.unique(labels).tolist():
        index = positions.get(value) if isinstance(value, str) else None
        if index is None:
            index = _whole_number(value)
        if not 0 <= index < len(names):
            row = int(np.flatnonzero(labels == value)[0])
            raise Refused(
                f"labels[{row}]: got {str(value)[:50]!r}, expected one of {', '.join(names)[:200]}, "
                f"or 0 to {len(names) - 1}: {outputs.model} has these classes"
            )
        found[value] = index
    return np.array([found[value] for value in labels.tolist()], dtype=np.int64)


def _whole_number(label: Any) -> int:
    """The whole number of a label, including `1.0` as pandas writes it; -1 for any other label."""
    try:
        number = float(label)
    except ValueError:
        return -1
    return int(number) if number.is_integer() else -1


def _targets(labels: NDArray[Any]) -> NDArray[np.float64]:
    """Convert labels to the targets of a regression.

    Raises:
        Refused: a label is not a finite number.
    """
    try:
        numbers = labels.astype(np.float64)
    except ValueError as error:
        raise Refused(f"labels: {error}, expected the numbers that a regression predicts") from None
    finite = np.isfinite(numbers)
    if not finite.all():
        row = int(finite.argmin())
        raise Refused(f"labels[{row}]: got {str(labels[row])[:50]!r}, expected a finite number")
    return numbers


def _pair_quality(a: ModelOutputs, b: ModelOutputs) -> dict[str, Any]:
    """Fields of `QualityPair`."""
    pair: dict[str, Any] = {"a": a.model, "b": b.model}
    if a.labels is not None and b.labels is not None:
        if _same_classes(a.labels, b.labels):
            pair["agreement"] = float((a.predicted == b.predicted).mean())
            pair["largest_probability_drift"] = float(np.abs(a.values - b.values).max())
    elif a.labels is None and b.labels is None and a.values.shape == b.values.shape:
        pair["largest_difference"] = float(np.abs(a.values - b.values).max())
    return pair


def _same_classes(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether two models have the same classes; the names of a model without a card are their positions."""
    positions = [str(index) for index in range(len(a))]
    return list(a) == list(b) or (len(a) == len(b) and positions in (list(a), list(b)))


def _sentence(rows: EvaluationRows, models: Sequence[Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]]) -> str:
    """The conclusion: accuracy or RMSE of each model, and the agreement of each pair."""
    count = len(rows.inputs)
    start = f"On the {count:,} row{'s' if count != 1 else ''} of {rows.name}"
    if rows.source == "samples":
        start = f"On the {count:,} {rows.name}, a part of the test set"
    parts = [
        f"{model['model']} has an accuracy of {100 * model['accuracy']:.1f} % (95 % interval "
        f"{100 * model['accuracy_low']:.1f} to {100 * model['accuracy_high']:.1f})"
        for model in models
        if "accuracy" in model
    ]
    parts += [f"{model['model']} has an RMSE of {model['rmse']:.4g}" for model in models if "rmse" in model]
    parts += [
        f"{pair['a']} and {pair['b']} agree on {100 * pair['agreement']:.1f} %" for pair in pairs if "agreement" in pair
    ]
    return f"{start}: {'; '.join(parts)}." if parts else f"{start}: the outputs of the models cannot be compared."


def wilson_interval(successes: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of the fraction `successes / total`."""
    fraction = successes / total
    centre = fraction + Z * Z / (2 * total)
    half = Z * math.sqrt(fraction * (1 - fraction) / total + Z * Z / (4 * total * total))
    scale = 1 + Z * Z / total
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


if __name__ == "__main__":
    main()
