"""Tuning of the new weights of a compressed ONNX model: all layers together, to give the original's outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kronmodel.compress.distillation import DISTILLATION, distill
from kronmodel.compress.fitting import HELD_OUT
from kronmodel.compress.gradients.module import GraphModule
from kronmodel.compress.graphs.samples import Samples
from kronmodel.compress.graphs.scores import scored_output
from kronmodel.compress.graphs.session import open_session, run
from kronmodel.compress.graphs.workspace import Workspace
from kronmodel.compress.samples import Batch
from kronmodel.compress.tuning import tune
from kronmodel.errors import KronmodelError
from kronmodel.training.loop import Progress

__all__ = ["Pair", "with_weights"]

RUNS = 10  # runs of the model that are joined to one step
RATE_OF_ERROR, LEAST_RATE, LARGEST_RATE = 0.05, 7e-4, 1e-2  # learning rate of a distillation, by the model's error
EXACT = 1e-3  # largest relative difference of the outputs in torch from those in onnxruntime


class Pair:
    """Original and compressed model as torch modules, of which the new weights of the latter can be trained.

    Args:
        workspace: holds the original.
        compressed: the compressed model, in the workspace.
        samples: the samples that it was fitted to.

    Attributes:
        teacher: the original.
        student: the compressed model; its parameters are the weights that the original does not have.
        error: change of the outputs on the first samples before any training, relative to the outputs.

    Raises:
        KronmodelError: the graphs have operators of which the gradients are not known, or several inputs, or need runs
            of a fixed number of samples.
    """

    def __init__(self, workspace: Workspace, compressed: onnx.ModelProto, samples: Samples) -> None:
        if samples.by_call or samples.fixed or samples.constant:
            raise KronmodelError("the model takes no batches of any number of samples, so its weights can't be trained")
        self._workspace, self._samples = workspace, samples
        original = workspace.model
        feeds = next(samples.batches())
        outputs = run(open_session(workspace.write(original, "original.onnx")), feeds, "the model")
        index = scored_output(outputs)
        output = original.graph.output[index].name
        own = {tensor.name for tensor in original.graph.initializer}
        self.error = 0.0
        self.teacher = GraphModule(original, workspace.array, output, lambda name: False)
        self.student = GraphModule(compressed, workspace.array, output, lambda name: name not in own)
        (array,) = feeds.values()
        try:
            with torch.inference_mode():
                found, new = (each(torch.from_numpy(array)) for each in (self.teacher, self.student))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise KronmodelError(f"the model can't be computed in torch: {error}") from error
        want = torch.from_numpy(outputs[index])
        self.error = _distance(new, want)
        close = found.shape == want.shape == new.shape and _distance(found, want) <= EXACT
        if not close or found.dtype != torch.float32:
            raise KronmodelError("the model gives other outputs in torch than in onnxruntime")

    def tune(self, steps: int) -> int:
        """Train the new weights on the samples for at most so many steps; return the step that is kept, 0 for none."""
        judge = self._samples.part(HELD_OUT)
        fitted = self._samples.other_part(HELD_OUT)
        size = RUNS * self._samples.batch
        batches: list[Batch] = [((part,), {}) for part in self._tensor(fitted).split(size)]
        with torch.inference_mode():
            pairs = [(x, self.teacher(x)) for x in self._tensor(judge).split(size)]
        energy = sum(float((y - y.mean(0)).double().square().sum()) for _, y in pairs)

        def held_out_error() -> float:
            with torch.inference_mode():
                square = sum(float((self.student(x) - y).double().square().sum()) for x, y in pairs)
            return math.sqrt(square / max(energy, 1e-300)) if math.isfinite(square) else math.inf

        return tune(self.student, self.teacher, [self.student], batches, held_out_error, steps=steps)

    def _tensor(self, samples: Samples) -> Tensor:
        (array,) = samples.arrays.values()
        return torch.from_numpy(array)

    def distill(self, x: NDArray[np.float32], epochs: int, report: Callable[[Progress], None]) -> None:
        """Train the new weights to give the original's outputs on more inputs, without labels.

        Args:
            x: inputs ``(n, width)``, of which the last tenth is not trained on.
            epochs: passes over the inputs.
            report: called as the training goes on.

        Raises:
            DataError: the inputs are not rows of features, or too few.
        """
        rate = min(max(RATE_OF_ERROR * self.error, LEAST_RATE), LARGEST_RATE)
        distill(self.student, self.teacher, x, replace(DISTILLATION, epochs=epochs, learning_rate=rate), report=report)


def _distance(found: Tensor, want: Tensor) -> float:
    norm = float(want.double().norm())
    return float((found.double() - want.double()).norm()) / max(norm, 1e-30)


def with_weights(workspace: Workspace, model: onnx.ModelProto, weights: Mapping[str, nn.Parameter]) -> onnx.ModelProto:
    """Copy a model with other values of stored tensors, by name."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(workspace.tensor(tensor.name, weights[tensor.name].detach().numpy()))
    return copy
