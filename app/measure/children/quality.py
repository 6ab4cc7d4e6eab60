"""A measuring process (`python -m app.measure.children.quality`): what the models say to the same rows, right or wrong.

Its memory and its times are nobody's result, so it may import what it likes.
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
from app.measure.timed_session import Array, Refused, TimedSession
from app.measure.timing import own_rows
from app.models.card import Card
from app.models.output_head import OutputHead, softmax
from app.models.samples import SamplesError, read_samples
from app.processes import child

BATCH = 256
MAX_CLASSES = 100  # of a confusion matrix
Z = 1.959964  # of a 95 % interval


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows float32 (n, ...) with labels (n,) or None, and where they come from."""

    source: str
    name: str
    inputs: Array
    labels: NDArray[Any] | None


@dataclass(frozen=True, slots=True)
class Answers:
    """Of one model: probabilities (n, classes) and labels, or values (n, ...)."""

    model: str
    labels: Sequence[str] | None
    values: NDArray[np.float64]

    @property
    def best(self) -> NDArray[np.intp]:
        """The most probable class (n,)."""
        best: NDArray[np.intp] = self.values.argmax(axis=1)
        return best


def main() -> None:
    """Do the job."""
    job = child.receive()
    try:
        child.send(result={"quality": _quality(job)})
    except Refused as error:
        child.send(refused=str(error))


def _quality(job: Mapping[str, Any]) -> dict[str, Any] | None:
    """The `Quality` fields; None where there are no rows that all models take."""
    subjects = [
        TimedSession(model["name"], model["path"], device=job["device"], threads=job["threads"])
        for model in job["models"]
    ]
    rows = _own(job["own"], subjects) if job["own"] else _samples(job["models"], subjects)
    if rows is None:
        return None
    answers = [
        _answers(subject, model["card"], rows.inputs) for subject, model in zip(subjects, job["models"], strict=True)
    ]
    models = [_model(answer, rows.labels) for answer in answers]
    pairs = [_pair(a, b) for a, b in itertools.combinations(answers, 2)]
    return {
        "source": rows.source,
        "name": rows.name,
        "rows": len(rows.inputs),
        "labelled": rows.labels is not None,
        "sentence": _sentence(rows, models, pairs),
        "labels": next((list(answer.labels) for answer in answers if answer.labels is not None), None),
        "models": models,
        "pairs": pairs,
    }


def _own(own: Mapping[str, str], subjects: Sequence[TimedSession]) -> Rows:
    with np.load(own["path"], allow_pickle=False) as arrays:
        labels = arrays.get("labels")
    rows = [own_rows(own["path"], subject.row_shape) for subject in subjects]  # which refuses rows of another width
    return Rows("uploaded", own["name"], rows[0], labels)


def _samples(models: Sequence[Mapping[str, Any]], subjects: Sequence[TimedSession]) -> Rows | None:
    """The samples of the first model that has some, if they fit all of them."""
    if len({math.prod(subject.row_shape) for subject in subjects}) > 1:
        return None
    for model, subject in zip(models, subjects, strict=True):
        try:
            samples = read_samples(Path(model["samples"]), subject.row_shape)
        except SamplesError:
            continue
        if len(samples):
            return Rows("samples", f"samples of {model['name']}", samples.inputs, samples.labels)
    return None


def _answers(subject: TimedSession, card_json: str | None, inputs: Array) -> Answers:
    """What one model says to all rows, a batch at a time."""
    size = subject.fixed_batch or BATCH
    head, parts = None, []
    for start in range(0, len(inputs), size):
        part = inputs[start : start + size]
        outputs = dict(zip(subject.outputs, subject.run(subject.feed(part, size)), strict=True))
        if head is None:
            try:
                head = OutputHead.of(outputs, None if card_json is None else Card.parse(card_json, subject.name))
            except ModelError as error:
                raise Refused(f"{subject.name}: {error}") from None
        parts.append(np.asarray(outputs[head.output], dtype=np.float64)[: len(part)])
    values = np.concatenate(parts)
    finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if not finite.all():
        raise Refused(f"inputs[{int(finite.argmin())}]: {subject.name} has no finite answer to it")
    if head is None or head.labels is None:
        return Answers(subject.name, None, values.reshape(len(values), -1))
    return Answers(subject.name, head.labels, softmax(values) if head.softmax else values)


def _model(answers: Answers, labels: NDArray[Any] | None) -> dict[str, Any]:
    """The `ModelQuality` fields."""
    if labels is None:
        return {"model": answers.model}
    if answers.labels is None:
        targets = _numbers(labels).reshape(-1, 1)
        if answers.values.shape[1] != 1:
            return {"model": answers.model}
        with np.errstate(over="ignore"):
            rmse = float(np.sqrt(np.mean((answers.values - targets) ** 2)))
        if not math.isfinite(rmse):
            raise Refused(
                f"labels: the RMSE of {answers.model} is not finite, expected labels of the size of its answers"
            )
        return {"model": answers.model, "rmse": rmse}
    true, best, classes = _classes(labels, answers), answers.best, len(answers.labels)
    right = int((true == best).sum())
    low, high = wilson(right, len(true))
    confusion = None
    if classes <= MAX_CLASSES:
        confusion = np.bincount(true * classes + best, minlength=classes * classes).reshape(classes, classes).tolist()
    return {
        "model": answers.model,
        "accuracy": right / len(true),
        "accuracy_low": low,
        "accuracy_high": high,
        "confusion": confusion,
    }


def _classes(labels: NDArray[Any], answers: Answers) -> NDArray[np.int64]:
    """Labels as positions of the model's classes: a name if it is one, else a position."""
    names = list(answers.labels or [])
    places = {name: index for index, name in enumerate(names)}
    known: dict[object, int] = {}
    for value in np.unique(labels).tolist():
        index = places.get(value) if isinstance(value, str) else None
        if index is None:
            index = _position(value)
        if not 0 <= index < len(names):
            row = int(np.flatnonzero(labels == value)[0])
            raise Refused(
                f"labels[{row}]: got {str(value)[:50]!r}, expected one of {', '.join(names)[:200]}, "
                f"or 0 to {len(names) - 1}: {answers.model} has these classes"
            )
        known[value] = index
    return np.array([known[value] for value in labels.tolist()], dtype=np.int64)


def _position(label: Any) -> int:
    """The whole number that a label is, `1.0` included, as pandas writes it; else -1."""
    try:
        number = float(label)
    except ValueError:
        return -1
    return int(number) if number.is_integer() else -1


def _numbers(labels: NDArray[Any]) -> NDArray[np.float64]:
    try:
        numbers = labels.astype(np.float64)
    except ValueError as error:
        raise Refused(f"labels: {error}, expected the numbers that a regression predicts") from None
    finite = np.isfinite(numbers)
    if not finite.all():
        row = int(finite.argmin())
        raise Refused(f"labels[{row}]: got {str(labels[row])[:50]!r}, expected a finite number")
    return numbers


def _pair(a: Answers, b: Answers) -> dict[str, Any]:
    """The `QualityPair` fields."""
    pair: dict[str, Any] = {"a": a.model, "b": b.model}
    if a.labels is not None and b.labels is not None:
        if _same_classes(a.labels, b.labels):
            pair["agreement"] = float((a.best == b.best).mean())
            pair["largest_probability_drift"] = float(np.abs(a.values - b.values).max())
    elif a.labels is None and b.labels is None and a.values.shape == b.values.shape:
        pair["largest_difference"] = float(np.abs(a.values - b.values).max())
    return pair


def _same_classes(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether two models tell the same classes apart; one without a card has positions for names."""
    positions = [str(index) for index in range(len(a))]
    return list(a) == list(b) or (len(a) == len(b) and positions in (list(a), list(b)))


def _sentence(rows: Rows, models: Sequence[Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]]) -> str:
    count = f"{len(rows.inputs):,} row{'s' if len(rows.inputs) != 1 else ''}"
    start = f"On the {count} of {rows.name}"
    if rows.source == "samples":
        start = f"On a sample of {len(rows.inputs):,}, the {rows.name}, not on the whole test set"
    parts = [
        f"{model['model']} is right in {100 * model['accuracy']:.1f} % (95 % interval "
        f"{100 * model['accuracy_low']:.1f} to {100 * model['accuracy_high']:.1f})"
        for model in models
        if "accuracy" in model
    ]
    parts += [f"{model['model']} has an RMSE of {model['rmse']:.4g}" for model in models if "rmse" in model]
    parts += [
        f"{pair['a']} and {pair['b']} agree on {100 * pair['agreement']:.1f} %" for pair in pairs if "agreement" in pair
    ]
    return f"{start}: {'; '.join(parts)}." if parts else f"{start} there is nothing to compare."


def wilson(right: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    share = right / total
    centre = share + Z * Z / (2 * total)
    half = Z * math.sqrt(share * (1 - share) / total + Z * Z / (4 * total * total))
    scale = 1 + Z * Z / total
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


if __name__ == "__main__":
    main()
