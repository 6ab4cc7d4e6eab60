"""A trained network with its preprocessing as the graph that is served: raw features in, predictions out."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kronmodel.data.dataset import Scaling
from kronmodel.export.card import CARD_KEY
from kronmodel.export.exporter import on_cpu, to_onnx
from kronmodel.nn.networks import Network

__all__ = ["export_network"]


class _ServedNetwork(nn.Module):
    """A network that standardises raw features and fills them up with zeros first.

    Args:
        network: on the CPU.
        shape: of a sample of raw features.
        scaling: of the features, if they are to be standardised.
        target: scaling of the values to predict, of a regression; None for a classification.
    """

    mean: Tensor
    inverse: Tensor
    target_std: Tensor
    target_mean: Tensor

    def __init__(
        self, network: nn.Module, missing: int, shape: tuple[int, ...], scaling: Scaling | None, target: Scaling | None
    ) -> None:
        super().__init__()
        self.network = network
        self.missing = missing
        self.scaled, self.regression = scaling is not None, target is not None
        if scaling is not None:
            self.register_buffer("mean", torch.from_numpy(scaling.mean).reshape(shape))
            self.register_buffer("inverse", torch.from_numpy(scaling.inverse).reshape(shape))
        if target is not None:
            self.register_buffer("target_std", torch.from_numpy(target.std))
            self.register_buffer("target_mean", torch.from_numpy(target.mean))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if self.scaled:
            x = (x - self.mean) * self.inverse
        if self.missing:
            x = nn.functional.pad(x, (0, self.missing))
        output: Tensor = self.network(x)
        if self.regression:
            return {"prediction": output * self.target_std + self.target_mean}
        return {"logits": output, "probabilities": output.softmax(-1)}


def export_network(
    network: Network,
    card: dict[str, Any],
    samples: NDArray[np.float32],
    scaling: Scaling | None = None,
    target: Scaling | None = None,
) -> onnx.ModelProto:
    """Export a trained network with its preprocessing and its model card, and check the model.

    Args:
        network: on any device; it keeps its device and its modes.
        card: from :func:`kronmodel.export.card.make_card`.
        samples: real inputs ``(n, features)``, or ``(n, channels, height, width)`` with convolutions, to compare on. If
            they are fewer features than the network takes, the graph fills them up with zeros.
        scaling: of the features; becomes the first step of the graph.
        target: scaling of the values to predict, of a regression; undone in the last step of the graph.

    Returns:
        Input ``input`` float32 ``[batch, features]``, or ``[batch, channels, height, width]`` with convolutions;
        outputs ``logits`` and ``probabilities``, or ``prediction`` float32 ``[batch, k]``.

    Raises:
        ExportError: the file is not valid ONNX, or computes something else than the network.
    """
    shape = samples.shape[1:]
    served = _ServedNetwork(on_cpu(network), network.in_features - math.prod(shape), shape, scaling, target)
    return to_onnx(
        served,
        torch.from_numpy(samples),
        metadata={CARD_KEY: json.dumps(card, allow_nan=False)},
        units={"logits": np.ones(()), "probabilities": np.ones(())} if target is None else {"prediction": target.std},
    )
