"""A trained network as one self-contained ONNX file, checked against torch before anybody sees it."""

from __future__ import annotations

import json
import logging
import math
import warnings
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from kronmodel.data.dataset import Scaling
from kronmodel.errors import ExportError
from kronmodel.export.card import CARD_KEY
from kronmodel.export.passes import simplify
from kronmodel.nn.networks import Network

__all__ = ["PARITY_BATCHES", "check_parity", "to_onnx"]

PARITY_BATCHES = (1, 7, 64)
PARITY_TOLERANCE = 1e-4


class _Frame(nn.Module):
    """What the file computes around the network: raw features are standardised and filled up with zeros first."""

    mean: Tensor
    inverse: Tensor

    def __init__(self, network: Network, shape: tuple[int, ...], scaling: Scaling | None) -> None:
        super().__init__()
        self.network = network
        self.missing = network.in_features - math.prod(shape)
        self.scaled = scaling is not None
        if scaling is not None:
            self.register_buffer("mean", torch.from_numpy(scaling.mean).reshape(shape))
            self.register_buffer("inverse", torch.from_numpy(scaling.inverse).reshape(shape))

    def inner(self, x: Tensor) -> Tensor:
        """The network's output for raw features ``(batch, *shape)``."""
        if self.scaled:
            x = (x - self.mean) * self.inverse
        if self.missing:
            x = nn.functional.pad(x, (0, self.missing))
        output: Tensor = self.network(x)
        return output


class _Classifier(_Frame):
    """Gives the logits and their softmax."""

    outputs = ("logits", "probabilities")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.inner(x)
        return logits, logits.softmax(-1)


class _Regressor(_Frame):
    """Gives values in the target's own units."""

    outputs = ("prediction",)
    target_std: Tensor
    target_mean: Tensor

    def __init__(self, network: Network, shape: tuple[int, ...], scaling: Scaling | None, target: Scaling) -> None:
        super().__init__(network, shape, scaling)
        self.register_buffer("target_std", torch.from_numpy(target.std))
        self.register_buffer("target_mean", torch.from_numpy(target.mean))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.inner(x) * self.target_std + self.target_mean,)


def to_onnx(
    network: Network,
    card: dict[str, Any],
    samples: NDArray[np.float32],
    scaling: Scaling | None = None,
    target: Scaling | None = None,
) -> onnx.ModelProto:
    """Translate a network, put its card into the metadata, and check the outcome.

    Args:
        network: on any device; it is moved to the CPU.
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
    served: _Classifier | _Regressor
    if target is None:
        served = _Classifier(network.cpu(), shape, scaling)
    else:
        served = _Regressor(network.cpu(), shape, scaling, target)
    served.eval()
    example = torch.zeros(2, *shape)
    batch = torch.export.Dim("batch", min=1)
    # The exporter announces each of its steps, and warns of its own future.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            served,
            (example,),
            dynamo=True,
            dynamic_shapes={"x": {0: batch}},
            input_names=["input"],
            output_names=list(served.outputs),
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export gave no program")
    model = program.model_proto
    _strip(model)
    simplify(model)
    model.producer_name, model.producer_version = "kronmodel", card["versions"]["kronmodel"]
    model.metadata_props.add(key=CARD_KEY, value=json.dumps(card, allow_nan=False))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported model is not valid ONNX: {error}") from error
    check_parity(model, served, samples, unit=1.0 if target is None else target.std)
    return model


def check_parity(
    model: onnx.ModelProto,
    reference: nn.Module,
    samples: NDArray[np.float32],
    unit: float | NDArray[np.float32] = 1.0,
) -> None:
    """Compare a model with torch at each of :data:`PARITY_BATCHES`, by ONNX's own reference implementation.

    The reference implementation is independent of both torch and onnxruntime: what it computes is what the
    standard says that the file means.

    Args:
        model: with an input ``input`` and outputs in the order of the reference's.
        reference: gives a tuple of tensors.
        samples: inputs ``(n, ...)``; they are repeated to fill the largest batch.
        unit: what counts as one in the outputs, or in each of them ``(k,)``: the spread of what is predicted.

    Raises:
        ExportError: an output differs by more than :data:`PARITY_TOLERANCE`, in units or relatively, or isn't finite.
    """
    evaluator = ReferenceEvaluator(model)
    names = [output.name for output in model.graph.output]
    for size in PARITY_BATCHES:
        x = np.resize(samples, (size, *samples.shape[1:]))
        with torch.inference_mode():
            expected = [tensor.numpy() for tensor in reference(torch.from_numpy(x))]
        with np.errstate(all="ignore"):  # what isn't finite is reported below
            computed = evaluator.run(None, {"input": x})
        for name, want, got in zip(names, expected, computed, strict=True):
            if got.shape != want.shape:
                raise ExportError(f"{name} at batch {size} has shape {got.shape}, torch gives {want.shape}")
            difference = np.abs(got - want)
            allowed = PARITY_TOLERANCE * (unit + np.abs(want))
            if not np.isfinite(got).all() or not (difference <= allowed).all():
                worst = float((difference / unit).max())
                raise ExportError(
                    f"{name} at batch {size} differs from torch by up to {worst:.3g}, "
                    f"expected at most {PARITY_TOLERANCE}"
                )


def _strip(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes for debugging: it is larger than small networks, and names files of this machine."""
    del model.metadata_props[:]
    model.doc_string = ""
    graph = model.graph
    graph.name, graph.doc_string = "kronmodel", ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    for parts in (graph.node, graph.initializer, graph.input, graph.output):
        for part in parts:
            part.doc_string = ""
            del part.metadata_props[:]
