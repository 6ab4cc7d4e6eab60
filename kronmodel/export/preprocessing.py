"""Preprocessing of a saved network's features and targets, and postprocessing of its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kronmodel.data.dataset import Scaling, TaskName
from kronmodel.data.tables.encoding import TableEncoding

__all__ = ["Preprocessing"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Preprocessing:
    """Conversion of raw features, targets and outputs for a network, with the same arithmetic as the exported graph.

    Attributes:
        task: ``"classification"`` or ``"regression"``.
        labels: name of each class; empty for regression.
        n_features: number of raw features of a sample.
        feature_names: name of each feature, if a sample is not an image.
        image_shape: ``(height, width)`` or ``(channels, height, width)`` of a sample that is an image, else None.
        description: sentence that describes how the raw features were made.
        scaling: standardises the features; None if the network takes them unscaled.
        target_scaling: standardises the values to predict; None for classification.
        width: number of the network's inputs; those beyond the features are zeros.
        encoding: encodes the columns of a table as raw features; None if a row is one of numbers.
    """

    task: TaskName
    labels: tuple[str, ...]
    n_features: int
    feature_names: tuple[str, ...]
    image_shape: tuple[int, ...] | None
    description: str
    scaling: Scaling | None
    target_scaling: Scaling | None
    width: int
    encoding: TableEncoding | None = None

    def features(self, x: NDArray[Any] | Tensor | Mapping[str, NDArray[Any]]) -> Tensor:
        """Standardise raw features, and pad them with zeros to the network's input width.

        Args:
            x: ``(n, n_features)`` or images ``(n, *image_shape)``; with an encoding, also the columns ``(n,)`` of a
                table by name: numbers with NaN for missing ones, texts with "".

        Returns:
            ``(n, width)``, float32, on the device of ``x``.

        Raises:
            ValueError: a sample has another number of features.
        """
        if isinstance(x, Mapping):
            if self.encoding is None:
                raise ValueError("expected an array of features, got columns by name")
            x = self.encoding.apply(x)
        rows = torch.as_tensor(x, dtype=torch.float32)
        rows = rows.reshape(len(rows), -1)
        if rows.shape[1] != self.n_features:
            raise ValueError(f"expected {self.n_features} features a sample, got {rows.shape[1]}")
        if self.scaling is not None:
            mean, inverse = (_like(rows, values) for values in (self.scaling.mean, self.scaling.inverse))
            rows = (rows - mean) * inverse
        return nn.functional.pad(rows, (0, self.width - self.n_features))

    def targets(self, y: NDArray[Any] | Tensor) -> Tensor:
        """Standardise the values to predict ``(n, k)``; class indices ``(n,)`` are returned as int64."""
        if self.target_scaling is None:
            return torch.as_tensor(y, dtype=torch.int64)
        values = torch.as_tensor(y, dtype=torch.float32)
        scaling = self.target_scaling
        return (values - _like(values, scaling.mean)) * _like(values, scaling.inverse)

    def predictions(self, output: Tensor) -> Tensor:
        """Convert the network's outputs to probabilities ``(n, classes)`` or values ``(n, k)`` in their own units."""
        if self.target_scaling is None:
            return output.softmax(-1)
        return output * _like(output, self.target_scaling.std) + _like(output, self.target_scaling.mean)


def _like(tensor: Tensor, values: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(values).to(tensor.device)
