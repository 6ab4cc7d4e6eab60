"""Quality of the outputs of models: accuracy with its interval, confusion matrix, RMSE, agreement."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.measure.examples import wrong_rows
from app.measure.timing import Refused

MAX_CLASSES = 100  # of a confusion matrix
Z = 1.959964  # of a 95 % interval


@dataclass(frozen=True, slots=True)
class ModelOutputs:
    """The outputs of one model for all rows.

    Args:
        model: name of the model.
        labels: class labels; None for a regression.
        values: probabilities or scores (n, classes), or values (n, outputs) of a regression.
        regression: the card says that the values are those of a regression.
    """

    model: str
    labels: Sequence[str] | None
    values: NDArray[np.float64]
    regression: bool = False

    @property
    def predicted(self) -> NDArray[np.intp]:
        """Positions (n,) of the most probable classes."""
        predicted: NDArray[np.intp] = self.values.argmax(axis=1)
        return predicted


def quality_of(
    outputs: Sequence[ModelOutputs], source: Mapping[str, Any], rows: int, labels: NDArray[Any] | None
) -> dict[str, Any]:
    """Fields of `Quality`.

    Args:
        outputs: of all models, for the same rows.
        source: `source` and `name` of the rows.
        rows: their number.
        labels: true labels (n,), or None.

    Raises:
        Refused: a label is not a class of a model, or not a number that a regression could predict.
    """
    if labels is not None:
        outputs = [_as_classifier(each, labels) for each in outputs]
    models = [_model_quality(each, labels) for each in outputs]
    pairs = [_pair_quality(a, b) for a, b in itertools.combinations(outputs, 2)]
    return {
        "source": source["source"],
        "name": source["name"],
        "rows": rows,
        "labelled": labels is not None,
        "sentence": _sentence(source, rows, models, pairs),
        "labels": next((list(each.labels) for each in outputs if each.labels is not None), None),
        "models": models,
        "pairs": pairs,
    }


def _as_classifier(outputs: ModelOutputs, labels: NDArray[Any]) -> ModelOutputs:
    """A model with several values for each row, which one label cannot be a target of: these are scores of classes."""
    classes = outputs.values.shape[1]
    if outputs.labels is not None or outputs.regression or classes < 2:
        return outputs
    return ModelOutputs(outputs.model, [str(index) for index in range(classes)], outputs.values)


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
        "wrong": None if confusion is None else wrong_rows(true, predicted),
    }


def _class_positions(labels: NDArray[Any], outputs: ModelOutputs) -> NDArray[np.int64]:
    """Positions (n,) of labels among the model's classes; a label is the name of a class or else its position.

    Numbers are positions where all of them can be and one of them is no name, so that classes "3" and "7" are found by
    their names, and the positions 0 and 1 of classes "1" and "2" are not mixed with those.

    Raises:
        Refused: a label is neither.
    """
    names = list(outputs.labels or [])
    positions: dict[object, int] = {name: index for index, name in enumerate(names)}
    values = np.unique(labels).tolist()
    by_name: dict[object, int] = {}
    numbers: dict[object, int] = {}
    for value in values:
        number = _whole_number(value)
        if number >= 0:
            numbers[value] = number
        index = positions.get(value, positions.get(str(number)))
        if index is not None:
            by_name[value] = index
        elif not 0 <= number < len(names):
            row = int(np.flatnonzero(labels == value)[0])
            raise Refused(
                f"labels[{row}]: got {str(value)[:50]!r}, expected one of {', '.join(names)[:200]}, "
                f"or 0 to {len(names) - 1}: {outputs.model} has these classes"
            )
    if not numbers.keys() <= by_name.keys() and max(numbers.values()) < len(names):
        by_name |= numbers
    found = {value: by_name.get(value, numbers.get(value, 0)) for value in values}
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
            if max(values.max() for values in (a.values, b.values)) <= 1 and min(a.values.min(), b.values.min()) >= 0:
                pair["largest_probability_drift"] = float(np.abs(a.values - b.values).max())
    elif a.labels is None and b.labels is None and a.values.shape == b.values.shape:
        pair["largest_difference"] = float(np.abs(a.values - b.values).max())
    return pair


def _same_classes(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether two models have the same classes; the names of a model without a card are their positions."""
    positions = [str(index) for index in range(len(a))]
    return list(a) == list(b) or (len(a) == len(b) and positions in (list(a), list(b)))


def _sentence(
    source: Mapping[str, Any], rows: int, models: Sequence[Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]]
) -> str:
    """The conclusion: accuracy or RMSE of each model, and the agreement of each pair."""
    start = f"On the {rows:,} row{'s' if rows != 1 else ''} of {source['name']}"
    if source["source"] == "samples":
        start = f"On the {rows:,} {source['name']}, a part of the test set"
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
