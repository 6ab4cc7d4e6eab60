"""The decoding of a model's output: classes with probabilities, or plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.errors import ModelError
from app.inference.datatypes import Array
from app.models.card import Card

RowResult = dict[str, Any]


@dataclass(frozen=True, slots=True)
class OutputHead:
    """The output of a model that answers a request, and its decoding.

    Args:
        output: name of the output.
        labels: names of the classes; None if the output has plain values.
        softmax: the output has logits, which `softmax` turns into probabilities.
    """

    output: str
    labels: Sequence[str] | None = None
    softmax: bool = False

    @classmethod
    def of(
        cls, outputs: Mapping[str, Array], card: Card | None, class_labels: Mapping[str, Sequence[str]]
    ) -> "OutputHead":
        """Choose the output: probabilities or logits of a classifier, else `prediction`, else the first number.

        Args:
            outputs: of the warm-up, by name.
            card: the model's card, with its task and labels.
            class_labels: of the session: names of the classes by the name of each output that the graph has them for.

        Raises:
            ModelError: no output is a numeric tensor.
        """
        usable = {
            name: value
            for name, value in outputs.items()
            if isinstance(value, np.ndarray) and value.dtype.kind in "fiu"
        }
        if not usable:
            raise ModelError("got no numeric output, expected at least one")
        if card is not None and card.task == "regression":
            return cls("prediction" if "prediction" in usable else next(iter(usable)))
        for name in (*class_labels, "probabilities", "logits"):
            if name in usable and usable[name].ndim == 2:
                classes = usable[name].shape[1]
                named = (None if card is None else card.labels, class_labels.get(name))
                labels = next((labels for labels in named if labels and len(labels) == classes), None)
                return cls(name, labels or [str(index) for index in range(classes)], softmax=name == "logits")
        return cls(next(iter(usable)))

    def decode(self, values: Array) -> list[RowResult]:
        """Decode an output to one JSON object per row: label and probabilities, or value."""
        if self.labels is None:
            rows = values.reshape(len(values), -1)
            if rows.shape[1] == 1:
                return [{"value": value} for value in rows[:, 0].tolist()]
            return [{"value": row} for row in rows]
        probabilities = softmax(values) if self.softmax else values
        if not probabilities.flags.c_contiguous:  # orjson writes no other arrays
            probabilities = np.ascontiguousarray(probabilities)
        best = probabilities.argmax(axis=1).tolist()
        return [
            {"label": self.labels[index], "probabilities": row} for index, row in zip(best, probabilities, strict=True)
        ]


def softmax(logits: Array) -> Array:
    """Softmax over the last axis, without overflow for large logits."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Array = powers / powers.sum(axis=-1, keepdims=True)
    return result
