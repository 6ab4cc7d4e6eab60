"""Export of a trained network with its preprocessing to ONNX: raw features in, predictions out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kronmodel.data.dataset import Scaling
from kronmodel.data.tables.encoding import TableEncoding
from kronmodel.export.c.figures import c_figures
from kronmodel.export.card import set_card
from kronmodel.export.encoding_graph import add_encoding, feeds
from kronmodel.export.exporter import on_cpu, to_onnx
from kronmodel.export.parity import PARITY_TOLERANCE, ROUNDED_TOLERANCE, check_rows
from kronmodel.nn.networks import Network
from kronmodel.quantization.network import QuantizedNetwork

__all__ = ["export_network"]


class _ServedNetwork(nn.Module):
    """Module for export: standardises and zero-pads raw features, applies the network, and computes its predictions.

    Args:
        network: the trained network, on the CPU.
        shape: shape of a sample of raw features.
        scaling: standardises the features; None if the network takes them unscaled.
        target: scaling of the values to predict, for regression; None for classification.
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
    *,
    encoding: TableEncoding | None = None,
    rows: Mapping[str, NDArray[Any]] | None = None,
    as_float: bool = False,
) -> onnx.ModelProto:
    """Export a trained network with its preprocessing and its model card to ONNX, and compare outputs with PyTorch's.

    Args:
        network: the trained network, on any device; its device and modes are unchanged.
        card: model card from :func:`kronmodel.export.card.make_card`.
        samples: real inputs ``(n, features)``, or ``(n, channels, height, width)`` with convolutions, for the
            comparison. If they have fewer features than the network takes, the graph pads them with zeros.
        scaling: standardises the features in the first step of the graph.
        target: scaling of the values to predict, for regression; inverted in the last step of the graph.
        encoding: encodes the columns of a table in the first steps of the graph; None if the samples are not encoded.
        rows: the samples before their encoding: values ``(n,)`` of each encoded column by its name.
        as_float: write the weights of a quantised network as floats, with the same values.

    Returns:
        The ONNX model, with an input ``[batch, 1]`` for each encoded column (see
        :func:`kronmodel.export.encoding_graph.add_encoding`), else with the input ``input``, float32
        ``[batch, features]``, or ``[batch, channels, height, width]`` with convolutions; and the outputs ``logits`` and
        ``probabilities``, or ``prediction``, float32 ``[batch, k]``.

    Raises:
        ExportError: the model is not valid ONNX, or its outputs differ from the network's.
    """
    shape = samples.shape[1:]
    served = _ServedNetwork(on_cpu(network), network.in_features - math.prod(shape), shape, scaling, target)
    units = {"logits": np.ones(()), "probabilities": np.ones(())} if target is None else {"prediction": target.std}
    rounded = isinstance(network, QuantizedNetwork) and bool(network.scales)
    model = to_onnx(
        served,
        torch.from_numpy(samples),
        units=units,
        stored=network.stored if isinstance(network, QuantizedNetwork) and not as_float else (),
        rounded=rounded,
    )
    set_card(model, card | c_figures(model, samples))
    if encoding is not None and rows is not None:
        add_encoding(model, encoding)
        check_rows(
            model,
            served,
            feeds(encoding, rows),
            torch.from_numpy(encoding.apply(rows)),
            units,
            tolerance=ROUNDED_TOLERANCE if rounded else PARITY_TOLERANCE,
        )
    return model
