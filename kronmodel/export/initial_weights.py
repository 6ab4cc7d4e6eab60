"""Trained weights that a training starts from: of a published model, or of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kronmodel.data.dataset import Dataset
from kronmodel.errors import Argument, CheckpointError, KronmodelError, LoadError, Message
from kronmodel.export.saved import load, network_config
from kronmodel.nn.networks import DenseConfig, KroneckerConfig, build
from kronmodel.training.checkpoint import read_checkpoint
from kronmodel.training.members import InitialWeights, Role

__all__ = ["read_initial_weights"]

CHECKPOINT_NAME = "last.pt"
OPTION = Argument("initial_weights")


def read_initial_weights(paths: Sequence[Path], data: Dataset) -> dict[Role, InitialWeights]:
    """Read the weights that the trainings of a twin's networks start from.

    Args:
        paths: for each network the folder of a model or of a version, a file in it such as ``model.onnx``, or a
            checkpoint: a ``last.pt`` or its folder.
        data: data set of the training, which must have the same features and the same kind of targets.

    Returns:
        The weights by the role of their network.

    Raises:
        KronmodelError: a file can't be read or is damaged, the data are of another kind, or two networks have the same
            role.
    """
    found: dict[Role, InitialWeights] = {}
    for path in paths:
        expanded = path.expanduser()
        checkpoint = expanded / CHECKPOINT_NAME if expanded.is_dir() else expanded
        if checkpoint.suffix == ".pt" and checkpoint.is_file():
            start = _of_checkpoint(checkpoint, data)
        else:
            start = _of_model(expanded.parent if expanded.is_file() else expanded, data)
        role: Role = "kronecker" if isinstance(start.config, KroneckerConfig) else "dense"
        if role in found:
            text = f" has two {role} networks, {found[role].source} and {start.source}; expected one of each kind"
            raise KronmodelError(Message(OPTION, text))
        found[role] = start
    return found


def _of_model(folder: Path, data: Dataset) -> InitialWeights:
    saved = load(folder)
    source = "/".join(saved.path.absolute().parts[-2:])
    made_for = saved.preprocessing
    pairs: tuple[tuple[str, Any, Any], ...] = (
        ("task", made_for.task, data.task),
        ("number of features", made_for.n_features, data.features),
        ("labels", made_for.labels, tuple(data.labels)),
        ("names of features", made_for.feature_names, tuple(data.feature_names)),
        ("number of outputs", _outputs(saved.config), data.outputs),
    )
    for name, expected, given in pairs:
        if given != expected:
            raise LoadError(
                f"{saved.path} was trained on other data; {name}: expected {_text(expected)} as there, got "
                f"{_text(given)} in {data.name}"
            )
    return _checked(source, saved.config, saved.state_dict(), saved.path)


def _of_checkpoint(path: Path, data: Dataset) -> InitialWeights:
    fingerprint, saved = read_checkpoint(path)
    if fingerprint.get("data.sha256") != data.sha256:
        raise CheckpointError(
            f"{path} is of a training on other data: expected {fingerprint.get('data.name')} as there, got {data.name}"
        )
    state = saved["state"].get("network", {})
    if "values" in state:
        raise CheckpointError(
            Message(
                f"{path} is of a training with quantised weights; expected float ones, or a published model; continue "
                "that training with ",
                Argument("resume", True),
            )
        )
    try:
        config = network_config({"kind": fingerprint.get("role"), **_nested(fingerprint)["network"]})
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{path} does not have the configuration of a network: {error}") from error
    return _checked("/".join(path.absolute().parts[-2:]), config, state, path)


def _checked(
    source: str, config: KroneckerConfig | DenseConfig, values: Mapping[str, Any], path: Path
) -> InitialWeights:
    """Check the names, shapes and values of the tensors of a network."""
    with torch.random.fork_rng([]), torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in build(config).state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in values.items() if isinstance(tensor, torch.Tensor)}
    if found != expected or len(found) != len(values):
        raise LoadError(f"{path} has other weights than its configuration says; it is damaged")
    if not all(tensor.isfinite().all() for tensor in values.values()):
        raise LoadError(f"{path} has weights that are not finite; expected those of a training that converged")
    return InitialWeights(source=source, config=config, values=values)


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Undo the flattening of a fingerprint: ``{"a.b": 1}`` becomes ``{"a": {"b": 1}}``."""
    found: dict[str, Any] = {}
    for name, value in flat.items():
        *folders, last = name.split(".")
        part = found
        for folder in folders:
            part = part.setdefault(folder, {})
        part[last] = value
    return found


def _text(value: Any) -> str:
    if not isinstance(value, tuple):
        return str(value)
    return ", ".join(value[:10]) + (f" and {len(value) - 10} more" if len(value) > 10 else "") or "none"


def _outputs(config: KroneckerConfig | DenseConfig) -> int:
    return config.out_features if isinstance(config, DenseConfig) else math.prod(config.out_shape)
