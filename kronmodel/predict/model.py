"""An exported model for predictions: its session, its inputs by the model card, and the meaning of its output."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.data.tables.columns import Kind
from kronmodel.errors import LoadError

__all__ = ["ModelColumn", "PredictionModel"]

CARD_KEY = "kronmodel"
KINDS = ("number", "boolean", "date", "category")
VERSION = re.compile(r"[1-9][0-9]{0,8}")
BATCH = 4096  # rows of a run


@dataclass(frozen=True, kw_only=True)
class ModelColumn:
    """A column that a model takes.

    Attributes:
        name: name of the column.
        input: name of the graph's input; None if the only input is a row of all columns.
        kind: kind of its values.
    """

    name: str
    input: str | None
    kind: Kind


class PredictionModel:
    """An ONNX model with a model card, opened with onnxruntime.

    Args:
        path: the ``model.onnx``, or the folder of a version, or that of a model for its newest version.

    Attributes:
        path: path of the ONNX file.
        name: name of the model.
        columns: columns of a table that the model takes; empty for a model of images or of features without names.
        left_out: columns of the table that were left out in the training.
        formats: format of the numbers or dates of columns in the training, where it matters.
        labels: names of the classes; empty for regression.
        targets: names of the predicted columns, if they are known.
        row_shape: shape of a row of the only input; None if each column is an input.

    Raises:
        LoadError: the file can't be read, or is no model that was trained here.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        self.path = _model_file(path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common class
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise LoadError(f"{self.path} can't be opened by onnxruntime: {reason[0][:300]}") from error
        card = self._card()
        self.name = str(card.get("name") or self.path.parent.parent.name)
        self.labels = _texts(card.get("labels"))
        self.targets = _texts(card.get("target"))
        described = card.get("input")
        given: dict[str, Any] = described if isinstance(described, dict) else {}
        self.left_out = _texts(given.get("left_out"))
        formats = given.get("formats")
        self.formats = {str(name): str(form) for name, form in formats.items()} if isinstance(formats, dict) else {}
        inputs = {each.name: each for each in self._session.get_inputs()}
        self.row_shape: tuple[int, ...] | None = None
        if isinstance(given.get("columns"), list):
            self.columns = _columns(self.path, given["columns"], list(inputs))
        else:
            shape = next(iter(inputs.values())).shape[1:] if len(inputs) == 1 else []
            if not shape or not all(isinstance(size, int) for size in shape):
                raise LoadError(
                    f"{self.path} takes {', '.join(inputs)}, expected one input of rows, or a card with columns"
                )
            self.row_shape = tuple(shape)
            names = _texts(given.get("names"))
            named = names if len(self.row_shape) == 1 and len(names) == self.row_shape[0] else ()
            self.columns = tuple(ModelColumn(name=name, input=None, kind="number") for name in named)
        outputs = [each.name for each in self._session.get_outputs()]
        self._output = next((name for name in ("probabilities", "prediction", "logits") if name in outputs), outputs[0])

    def _card(self) -> dict[str, Any]:
        text = self._session.get_modelmeta().custom_metadata_map.get(CARD_KEY)
        if text is None:
            raise LoadError(f"{self.path} has no model card, expected a model that was trained here")
        try:
            card = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise LoadError(f"{self.path}: the model card is not JSON: {error}") from error
        if not isinstance(card, dict):
            raise LoadError(f"{self.path}: the model card must be a JSON object, got {type(card).__name__}")
        return card

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Compute the predictions for rows: probabilities ``(n, classes)``, or values ``(n, k)``.

        Args:
            feeds: for a model with an input for each column, ``(n, 1)`` values by input; else ``{"": rows}``.
        """
        if self.row_shape is not None:
            (rows,) = feeds.values()
            feeds = {self._session.get_inputs()[0].name: rows.reshape(-1, *self.row_shape)}
        count = len(next(iter(feeds.values())))
        parts = [
            self._session.run([self._output], {name: each[at : at + BATCH] for name, each in feeds.items()})[0]
            for at in range(0, count, BATCH)
        ]
        found: NDArray[np.float32] = np.concatenate(parts)
        return found.reshape(count, -1)


def _model_file(path: Path) -> Path:
    """Find the ONNX file of a model: the path itself, or in the folder of a version, or in the newest version."""
    if path.is_dir() and not (path / "model.onnx").is_file():
        versions = [each for each in path.iterdir() if VERSION.fullmatch(each.name) and (each / "model.onnx").is_file()]
        if versions:
            path = max(versions, key=lambda each: int(each.name))
    file = path / "model.onnx" if path.is_dir() else path
    if not file.is_file():
        raise LoadError(f"{file} is not there, expected an ONNX file or the folder of a model")
    return file


def _texts(given: Any) -> tuple[str, ...]:
    return tuple(given) if isinstance(given, list) and all(isinstance(each, str) for each in given) else ()


def _columns(path: Path, given: Sequence[Any], inputs: Sequence[str]) -> tuple[ModelColumn, ...]:
    columns = []
    for each in given:
        if not isinstance(each, dict) or not isinstance(each.get("name"), str) or each.get("kind") not in KINDS:
            raise LoadError(f"{path}: a column in the model card has no name or kind")
        columns.append(ModelColumn(name=each["name"], input=str(each.get("input", each["name"])), kind=each["kind"]))
    if sorted(str(column.input) for column in columns) != sorted(inputs):
        raise LoadError(f"{path}: the columns in the model card are not the inputs {', '.join(inputs)[:300]}")
    return tuple(columns)
