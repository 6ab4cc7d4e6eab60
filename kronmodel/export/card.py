"""Model cards: JSON descriptions in the metadata of ONNX files, under the key ``kronmodel``."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from kronmodel.errors import KronmodelError

if TYPE_CHECKING:  # so that reading a card does not import torch
    from kronmodel.data.dataset import Dataset
    from kronmodel.data.tables.encoding import EncodedColumn
    from kronmodel.nn.networks import Network
    from kronmodel.training.config import TrainConfig
    from kronmodel.training.loop import TrainResult
    from kronmodel.training.members import Role

__all__ = ["CARD_KEY", "make_card", "read_card", "served_name", "set_card"]

CARD_KEY = "kronmodel"


def make_card(
    *,
    twin: str,
    role: Role,
    network: Network,
    data: Dataset,
    config: TrainConfig,
    result: TrainResult,
    recipe: str,
    threads: int,
    metrics: dict[str, float] | None = None,
    run: str | None = None,
    start: str | None = None,
) -> dict[str, Any]:
    """Build the model card of a trained network: its data, architecture, training configuration and test scores.

    Args:
        twin: name of the twin.
        role: role of the network in the twin.
        network: the trained network.
        data: data set that the network was trained on.
        config: configuration of the training.
        result: result of the training.
        recipe: name of the recipe.
        threads: number of CPU threads in the training.
        metrics: further test scores besides the main metric, such as R².
        run: identity of the training, which stays the same if it is interrupted and resumed.
        start: description of the trained weights that the training started from, if there were any.
    """
    others = {name: value for name, value in (metrics or {}).items() if name != result.metric}
    return {
        "card_version": 1,
        "name": f"{twin}-{role}",
        "twin": twin,
        "role": role,
        "task": data.task,
        "layers": network.layer_cards(),
        "activation": network.activation,
        "parameters": network.parameter_count,
        "parameters_with_branch_biases": network.parameter_count_with_branch_biases,
        "weight_bytes": network.weight_bytes,
        "macs_per_sample": network.macs_per_sample,
        "input": _input(data),
        "preprocessing": data.preprocessing,
        **({"labels": list(data.labels)} if data.labels else {}),
        **({"target": list(data.target_names)} if data.target_names else {}),
        "data": {
            "name": data.name,
            "sha256": data.sha256,
            "train_samples": len(data.x_train),
            "test_samples": len(data.x_test),
            "split": data.split,
        },
        "test_metric": {
            "name": result.metric,
            "value": result.test_score,
            "higher_is_better": data.task == "classification",
            "samples": len(data.x_test),
            **others,
        },
        "training": {
            "recipe": recipe,
            **asdict(config),
            "seconds": round(result.train_seconds, 3),
            "ms_per_step": round(result.ms_per_step, 4),
            "steps": result.steps,
            "best_epoch": result.best_epoch,
            "threads": threads,
            **({} if run is None else {"run": run}),
            **({} if start is None else {"initial_weights": start}),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("kronmodel", "torch", "onnx")},
        },
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _input(data: Dataset) -> dict[str, Any]:
    """Describe a sample of the served model's input: an image or a row of named features."""
    if data.image_shape is not None and data.scaling is None:
        return {"kind": "image", "shape": list(data.image_shape), "range": [0.0, 1.0]}
    left_out = [note.name for note in data.columns if note.kind == "left out"]
    formats = {"formats": dict(data.formats)} if data.formats else {}
    if data.encoding is not None:
        columns = [_column(column) for column in data.encoding.columns]
        return {"kind": "features", "columns": columns, "left_out": left_out, **formats}
    shape = {} if data.image_shape is None else {"shape": list(data.image_shape)}
    names = list(data.feature_names)
    return {"kind": "features", **shape, "names": names, **({"left_out": left_out} if left_out else {}), **formats}


def _column(column: EncodedColumn) -> dict[str, Any]:
    """Describe an input column: names of column and input, kind, categories, and what replaces a missing value."""
    return {
        "name": column.name,
        **({"input": column.input} if column.input != column.name else {}),
        "kind": column.kind,
        "fill": column.fill,
        **({"values": list(column.values), "other": column.other} if column.kind == "category" else {}),
        **({"turns": list(column.turns)} if column.kind == "date" else {}),
    }


def read_card(model: onnx.ModelProto) -> dict[str, Any] | None:
    """Read the model card from the metadata of an ONNX model; None if the model has no card.

    Raises:
        KronmodelError: the card is not a JSON object.
    """
    text = next((entry.value for entry in model.metadata_props if entry.key == CARD_KEY), None)
    if text is None:
        return None
    try:
        card = json.loads(text)
    except ValueError as error:
        raise KronmodelError(f"the model card is not JSON: {error}") from error
    if not isinstance(card, dict):
        raise KronmodelError(f"the model card must be a JSON object, got {type(card).__name__}")
    return card


def set_card(model: onnx.ModelProto, card: Mapping[str, Any]) -> None:
    """Write a model card to the metadata of an ONNX model, in the place of the one that it has."""
    kept = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != CARD_KEY]
    del model.metadata_props[:]
    for key, value in (*kept, (CARD_KEY, json.dumps(card, allow_nan=False))):
        model.metadata_props.add(key=key, value=value)


def served_name(path: Path, card: dict[str, Any] | None) -> str:
    """Return the name of the model in an ONNX file: that of its folder in a repository, of its card, or of the file."""
    folder = path.absolute().parent
    if path.name == "model.onnx" and folder.name.isdecimal():
        return folder.parent.name
    named = None if card is None else card.get("name")
    return path.stem if named is None else str(named)
