"""How a model's output is read: as classes with probabilities, or as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import ModelError
from app.models.card import Card

Array = NDArray[Any]
Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class OutputHead:
    """The output to ask for, and what it means; `labels` is None where it gives values."""

    output: str
    labels: Sequence[str] | None = None
    softmax: bool = False

    @classmethod
    def of(cls, outputs: Mapping[str, Array], card: Card | None) -> "OutputHead":
        """Choose by what the model gave when it was warmed up, and by what its card says.

        Raises:
            ModelError: none of the outputs is a numeric tensor.
        """
        usable = {
            name: value
            for name, value in outputs.items()
            if isinstance(value, np.ndarray) and value.dtype.kind in "fiu"
        }
        if not usable:
            raise ModelError("got no numeric output")
        if card is not None and card.task == "regression":
            return cls("prediction" if "prediction" in usable else next(iter(usable)))
        for name in ("probabilities", "logits"):
            if name in usable and usable[name].ndim == 2:
                classes = usable[name].shape[1]
                labels = card.labels if card and card.labels and len(card.labels) == classes else None
                return cls(name, labels or [str(index) for index in range(classes)], softmax=name == "logits")
        return cls(next(iter(usable)))

    def answers(self, values: Array) -> list[Answer]:
        """One answer per row of the output, ready for JSON."""
        if self.labels is None:
            rows = values.reshape(len(values), -1)
            if rows.shape[1] == 1:
                return [{"value": value} for value in rows[:, 0].tolist()]
            return [{"value": row} for row in rows]
        probabilities = softmax(values) if self.softmax else values
        if not probabilities.flags.c_contiguous:  # orjson wants them so
            probabilities = np.ascontiguousarray(probabilities)
        best = probabilities.argmax(axis=1).tolist()
        return [
            {"label": self.labels[index], "probabilities": row} for index, row in zip(best, probabilities, strict=True)
        ]


def softmax(logits: Array) -> Array:
    """Softmax over the last axis, stable for large values."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Array = powers / powers.sum(axis=-1, keepdims=True)
    return result
