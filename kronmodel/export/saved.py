"""Saving and loading of trained networks: ``model.safetensors`` for weights, ``model.json`` for the configuration.

Files are treated as untrusted input: nothing in them is executed, and sizes are checked before memory is allocated.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from kronmodel.data.dataset import Dataset, Scaling
from kronmodel.data.tables.encoding import encoding_from_json, encoding_json
from kronmodel.errors import ExportError, LoadError
from kronmodel.export.preprocessing import Preprocessing
from kronmodel.nn.conv import ConvConfig
from kronmodel.nn.networks import DenseConfig, KroneckerConfig, Network, build

__all__ = ["SavedNetwork", "load", "network_config", "saved_files"]

FORMAT_VERSION = 1
CONFIG_NAME, WEIGHTS_NAME = "model.json", "model.safetensors"
MAX_CONFIG_BYTES = 256 << 20  # enough for a million features with three numbers each
MAX_HEADER_BYTES = 100 << 20  # the limit of safetensors itself
MAX_SIZE = 1 << 24  # largest width or rank
MAX_LAYERS = 1000
LARGEST_ITEM = 8  # bytes of a float64
VERSION = re.compile(r"[1-9][0-9]{0,8}")
CONFIGS: dict[str, type[KroneckerConfig | DenseConfig]] = {"kronecker": KroneckerConfig, "dense": DenseConfig}


class SavedNetwork(Network):
    """Trained network that was loaded from files, in training mode.

    Attributes:
        config: configuration that the network was built from.
        preprocessing: conversion of raw features, targets and outputs; the network itself takes preprocessed features.
        path: version folder that the network was loaded from.
    """

    def __init__(
        self, network: Network, config: KroneckerConfig | DenseConfig, preprocessing: Preprocessing, path: Path
    ) -> None:
        super().__init__(cast(Any, list(network.layers)), config.activation, network.features)
        self.config = config
        self.preprocessing = preprocessing
        self.path = path


def saved_files(network: Network, config: KroneckerConfig | DenseConfig, data: Dataset) -> dict[str, bytes]:
    """Serialise a trained network to the content of the files that :func:`load` reads.

    Args:
        network: the trained network, on any device.
        config: configuration that the network was built from.
        data: data set that the network was trained on; provides labels and scaling.

    Returns:
        The content of each file by its name.

    Raises:
        ExportError: the configuration holds a value that can't be written as JSON.
    """
    kind = next(kind for kind, made_by in CONFIGS.items() if type(config) is made_by)
    described = {
        "format_version": FORMAT_VERSION,
        "network": {"kind": kind, **asdict(config)},
        "task": data.task,
        "labels": data.labels,
        "n_features": data.features,
        "feature_names": data.feature_names,
        "image_shape": data.image_shape,
        "preprocessing": data.preprocessing,
        "scaling": _scaling_lists(data.scaling),
        "target_scaling": _scaling_lists(data.target_scaling),
        **({} if data.encoding is None else {"encoding": encoding_json(data.encoding)}),
    }
    try:
        text = json.dumps(described, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ExportError(f"the configuration of the network can't be written as JSON: {error}") from error
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return {WEIGHTS_NAME: safetensors.torch.save(weights), CONFIG_NAME: text.encode()}


def _scaling_lists(scaling: Scaling | None) -> dict[str, list[float]] | None:
    """Convert a scaling to lists for JSON, in which each float32 is written and read back without loss."""
    if scaling is None:
        return None
    return {name: getattr(scaling, name).tolist() for name in ("mean", "std", "inverse")}


def load(folder: str | os.PathLike[str]) -> SavedNetwork:
    """Load a trained network from a model repository, for further training.

    Torch's random state is unchanged.

    Args:
        folder: folder of a model, such as ``models/mnist-kronecker``, for its newest version; or folder of a version.

    Returns:
        The network on the CPU, in training mode, with the saved weights and data types.

    Raises:
        LoadError: a file is missing, truncated, damaged or in an unexpected format, or the files contradict each other.
    """
    path = _version_folder(Path(folder).expanduser())
    described = _read_config(path / CONFIG_NAME)
    try:
        config = network_config(described["network"])
        preprocessing = _preprocessing(described, config)
        with torch.random.fork_rng([]), torch.device("meta"):  # allocates no memory for the weights
            network = build(config)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError, RuntimeError) as error:
        raise LoadError(f"{path / CONFIG_NAME} is not the configuration of a network: {error}") from error
    network.load_state_dict(_read_weights(path / WEIGHTS_NAME, network.state_dict()), assign=True)
    return SavedNetwork(network, config, preprocessing, path)


def _version_folder(folder: Path) -> Path:
    """Resolve the folder of a model or of a version to a version folder; of a model, the newest version."""
    if (folder / CONFIG_NAME).is_file():
        return folder
    if not folder.is_dir():
        raise LoadError(f"{folder} is not a folder; expected that of a model or of one of its versions")
    try:
        versions = [path for path in folder.iterdir() if VERSION.fullmatch(path.name) and path.is_dir()]
    except OSError as error:
        raise LoadError(f"{folder} can't be read: {error.strerror or error}") from error
    newest = max(versions, key=lambda path: int(path.name), default=None)
    if newest is None or not (newest / CONFIG_NAME).is_file():
        raise LoadError(
            f"{newest or folder} has no {CONFIG_NAME}; expected the folder of a model that was trained here"
        )
    return newest


def _read(path: Path, limit: int) -> bytes:
    """Read a file of at most ``limit`` bytes."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise LoadError(f"{path} can't be read: {error.strerror or error}") from error
    if len(content) > limit:
        raise LoadError(f"{path} has more than {limit:,} bytes, which its configuration does not account for")
    return content


def _read_config(path: Path) -> dict[str, Any]:
    """Read ``model.json`` and check its format version and the names of its fields."""
    try:
        described = json.loads(_read(path, MAX_CONFIG_BYTES))
    except (ValueError, RecursionError) as error:
        raise LoadError(f"{path} is not JSON, or truncated: {error}") from error
    if not isinstance(described, dict):
        raise LoadError(f"{path} must be a JSON object, got {type(described).__name__}")
    if described.get("format_version") != FORMAT_VERSION:
        found = str(described.get("format_version"))[:40]
        raise LoadError(f"{path} has format version {found}, expected {FORMAT_VERSION}")
    try:
        _check_names(described, (*EXPECTED, "encoding"), EXPECTED)
    except ValueError as error:
        raise LoadError(f"{path}: {error}") from error
    return described


EXPECTED = (
    "format_version", "network", "task", "labels", "n_features", "feature_names", "image_shape", "preprocessing",
    "scaling", "target_scaling",
)  # fmt: skip


def _check_names(given: Mapping[str, Any], allowed: Sequence[str], required: Sequence[str]) -> None:
    unknown = [name[:40] for name in given if name not in allowed]
    missing = [name for name in required if name not in given]
    if unknown or missing:
        got = ", ".join([*(f"unknown field {name!r}" for name in unknown[:5]), *(f"no {name!r}" for name in missing)])
        raise ValueError(f"got {got}; expected {', '.join(allowed)}")


def network_config(given: Any) -> KroneckerConfig | DenseConfig:
    """Build a network configuration from JSON; the configuration's constructor checks the values.

    Raises:
        ValueError: a field is unknown, missing or too large.
        TypeError: a field has the wrong type.
    """
    if not isinstance(given, dict) or given.get("kind") not in CONFIGS:
        raise ValueError(f"network must be an object with a kind of {' or '.join(CONFIGS)}")
    made_by = CONFIGS[given["kind"]]
    given = {name: value for name, value in given.items() if name != "kind"}
    names = [each.name for each in fields(made_by)]
    _check_names(given, names, names)
    if not isinstance(given["hidden"], list) or len(given["hidden"]) > MAX_LAYERS:
        raise ValueError(f"hidden must be a list of at most {MAX_LAYERS} layers")
    _check_sizes(given)
    if given["features"] is not None:
        conv = [each.name for each in fields(ConvConfig)]
        if not isinstance(given["features"], dict):
            raise TypeError("features must be an object or null")
        _check_names(given["features"], conv, conv)
        given["features"] = ConvConfig(**{name: _tuples(value) for name, value in given["features"].items()})
    return made_by(**{name: _tuples(value) for name, value in given.items()})


def _check_sizes(value: Any) -> None:
    """Check that no number in a nested JSON value exceeds the largest supported width or rank."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        _check_sizes(part)
    if isinstance(value, int | float) and not -MAX_SIZE <= value <= MAX_SIZE:
        raise ValueError(f"numbers must be at most {MAX_SIZE:,}, got {value}")


def _tuples(value: Any) -> Any:
    """Convert lists from JSON to tuples, as configurations need them, in a nested value."""
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value


def _preprocessing(given: Mapping[str, Any], config: KroneckerConfig | DenseConfig) -> Preprocessing:
    """Build the preprocessing from JSON, after checking its values against the network's configuration.

    Raises:
        ValueError: a value contradicts the network's configuration or another value.
        TypeError: a value has the wrong type.
    """
    task, image_shape, n_features = given["task"], given["image_shape"], given["n_features"]
    if task not in ("classification", "regression"):
        raise ValueError(f"task must be classification or regression, got {str(task)[:40]!r}")
    dense = config if isinstance(config, DenseConfig) else config.dense()
    width = dense.in_features if config.features is None else math.prod(config.features.image_shape)
    labels, names = (_texts(name, given[name]) for name in ("labels", "feature_names"))
    if type(n_features) is not int or not 1 <= n_features <= width:
        raise ValueError(f"n_features must be between 1 and the network's {width:,} inputs, got {n_features!r}")
    if len(labels) != (dense.out_features if task == "classification" else 0):
        raise ValueError(f"expected a label for each of the {dense.out_features:,} classes, got {len(labels):,}")
    if names and len(names) != n_features:
        raise ValueError(f"expected {n_features:,} feature_names, got {len(names):,}")
    if image_shape is not None:
        _check_sizes(image_shape)
        if not all(type(size) is int for size in image_shape) or math.prod(image_shape) != n_features:
            raise ValueError(f"image_shape must be whole numbers with the product {n_features:,}, got {image_shape}")
    scaling = _scaling("scaling", given["scaling"], n_features)
    target_scaling = _scaling("target_scaling", given["target_scaling"], dense.out_features)
    if (target_scaling is not None) != (task == "regression"):
        raise ValueError(f"target_scaling is for regression, which alone needs it, got task {task!r}")
    encoding = encoding_from_json(given["encoding"]) if "encoding" in given else None
    if encoding is not None and (encoding.width != n_features or scaling is not None):
        raise ValueError(f"encoding must give {n_features:,} features without a scaling, got {encoding.width:,}")
    if not isinstance(given["preprocessing"], str):
        raise TypeError("preprocessing must be a text")
    return Preprocessing(
        task=task,
        labels=labels,
        n_features=n_features,
        feature_names=names,
        image_shape=None if image_shape is None else tuple(image_shape),
        description=given["preprocessing"],
        scaling=scaling,
        target_scaling=target_scaling,
        width=width,
        encoding=encoding,
    )


def _texts(name: str, given: Any) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise TypeError(f"{name} must be a list of texts")
    return tuple(given)


def _scaling(name: str, given: Any, count: int) -> Scaling | None:
    """Build a scaling of ``count`` columns from JSON."""
    if given is None:
        return None
    if not isinstance(given, dict):
        raise TypeError(f"{name} must be an object or null")
    columns = ("mean", "std", "inverse")
    _check_names(given, columns, columns)
    with np.errstate(over="ignore"):  # a number beyond float32's range becomes infinite, and is then refused
        arrays = [np.asarray(given[column], np.float32) for column in columns]
    if any(array.shape != (count,) or not np.isfinite(array).all() for array in arrays):
        raise ValueError(f"{name} must have {count:,} finite numbers in each of {', '.join(columns)}")
    return Scaling(*arrays)


def _read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read ``model.safetensors``, and check the names, shapes and types of its tensors.

    Args:
        path: path of the file.
        expected: tensors with the required names and shapes; values and floating-point types may differ.

    Raises:
        LoadError: the file can't be read, or holds other tensors or values that are not finite.
    """
    limit = MAX_HEADER_BYTES + LARGEST_ITEM * sum(tensor.numel() for tensor in expected.values())
    try:
        tensors = safetensors.torch.load(_read(path, limit))
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise LoadError(f"{path} is not a safetensors file, or truncated: {error}") from error
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    names = [name for name in {**shapes, **found} if shapes.get(name) != found.get(name)]
    if names:
        wrong = "; ".join(f"{name[:80]}: got {found.get(name)}, expected {shapes.get(name)}" for name in names[:5])
        raise LoadError(f"{path} does not fit {CONFIG_NAME} ({wrong})")
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise LoadError(f"{path}: {name} must hold finite floating-point numbers")
    return tensors
