"""Numerical comparison of an ONNX model with the PyTorch module that it was exported from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from kronmodel.errors import ExportError
from kronmodel.training.evaluation import evaluation_mode

__all__ = ["PARITY_BATCHES", "PARITY_TOLERANCE", "ROUNDED_TOLERANCE", "check_parity", "check_rows", "repeat_to"]

PARITY_BATCHES = (1, 7, 64)
PARITY_TOLERANCE = 1e-4
ROUNDED_TOLERANCE = 0.1  # for activations that are rounded to 8 bits, each of which may differ by a level


def check_parity(
    model: onnx.ModelProto,
    reference: nn.Module,
    inputs: Sequence[Tensor],
    units: Mapping[str, NDArray[Any]] | None = None,
    tolerance: float = PARITY_TOLERANCE,
) -> None:
    """Compare the outputs of an ONNX model with a PyTorch module's, at each batch size of :data:`PARITY_BATCHES`.

    The model runs in ONNX's reference implementation, which follows the standard and is independent of both torch and
    onnxruntime.

    Args:
        model: the ONNX model, with inputs and outputs in the order of the module's.
        reference: the module; takes the inputs as positional arguments and returns a tuple of tensors.
        inputs: tensors ``(n, ...)`` on the CPU; repeated to fill the largest batch.
        units: for the name of an output, the magnitude that its tolerance is relative to, broadcast to the output; by
            default the root mean square of the output's values, at least 1.
        tolerance: largest difference, in units and relative to the value.

    Raises:
        ExportError: an output differs by more than the tolerance, in units or relatively; or is not finite
            where the module's is; or has another shape; or, if it is not floating-point, differs at all.
    """
    evaluator = ReferenceEvaluator(model)
    names = [output.name for output in model.graph.output]
    for size in PARITY_BATCHES:
        batch = [repeat_to(each, size) for each in inputs]
        with torch.inference_mode():
            expected = [tensor.numpy() for tensor in reference(*batch)]
        feeds = {each.name: tensor.numpy() for each, tensor in zip(model.graph.input, batch, strict=True)}
        with np.errstate(all="ignore"):  # values that are not finite are reported below
            computed = evaluator.run(None, feeds)
        for name, want, got in zip(names, expected, computed, strict=True):
            _check_output(f"{name} at batch {size}", want, np.asarray(got), (units or {}).get(name), tolerance)


def check_rows(
    model: onnx.ModelProto,
    reference: nn.Module,
    feeds: Mapping[str, NDArray[Any]],
    encoded: Tensor,
    units: Mapping[str, NDArray[Any]],
    *,
    tolerance: float = PARITY_TOLERANCE,
) -> None:
    """Compare the outputs of a model that encodes rows itself with those of a module on the encoded rows.

    Args:
        model: the ONNX model, whose outputs have the keys of the module's.
        reference: the module on the CPU, in any mode; returns a dict of tensors.
        feeds: inputs of the model by name.
        encoded: the same rows, encoded.
        units: as for :func:`check_parity`.
        tolerance: as for :func:`check_parity`.

    Raises:
        ExportError: an output differs.
    """
    names = [output.name for output in model.graph.output]
    with evaluation_mode(reference), torch.inference_mode():
        expected = reference(encoded)
    with np.errstate(all="ignore"):
        computed = ReferenceEvaluator(model).run(names, dict(feeds))
    for name, got in zip(names, computed, strict=True):
        _check_output(f"{name} of encoded rows", expected[name].numpy(), np.asarray(got), units.get(name), tolerance)


def _check_output(
    what: str, want: NDArray[Any], got: NDArray[Any], unit: NDArray[Any] | None, tolerance: float = PARITY_TOLERANCE
) -> None:
    if got.shape != want.shape:
        raise ExportError(f"{what} has shape {got.shape}, torch gives {want.shape}")
    if got.dtype != want.dtype:
        raise ExportError(f"{what} has type {got.dtype}, torch gives {want.dtype}")
    if want.dtype.kind not in "fc":
        if not np.array_equal(got, want):
            raise ExportError(f"{what} differs from torch in {int((got != want).sum()):,} of {want.size:,} values")
        return
    if unit is None:
        unit = np.asarray(max(1.0, float(np.sqrt(np.mean(np.square(want, dtype=np.float64)))) if want.size else 1.0))
    difference = np.abs(got - want)
    if not np.isfinite(got).all() or not (difference <= tolerance * (unit + np.abs(want))).all():
        worst = float((difference / unit).max())
        raise ExportError(f"{what} differs from torch by up to {worst:.3g}, expected at most {tolerance}")


def repeat_to(samples: Tensor, size: int) -> Tensor:
    """Repeat samples ``(n, ...)`` cyclically to a batch of ``size``, or truncate them to the first ``size``."""
    return samples[torch.arange(size) % len(samples)]
