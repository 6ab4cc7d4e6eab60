"""Tuning of the new weights of a compressed ONNX model: all layers together, to give the original's outputs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from kronmodel.compress.distillation import distill
from kronmodel.compress.gradients.module import GraphModule
from kronmodel.compress.graphs.samples import Samples
from kronmodel.compress.graphs.scores import scored_output
from kronmodel.compress.graphs.session import open_session, run
from kronmodel.compress.graphs.workspace import Workspace
from kronmodel.compress.matrices.fitting import HELD_OUT
from kronmodel.compress.samples import Batch
from kronmodel.compress.tuning import PATIENCE, tune
from kronmodel.data.dataset import Dataset, Scaling
from kronmodel.errors import KronmodelError
from kronmodel.training.checkpoint import Checkpoint
from kronmodel.training.config import TrainConfig
from kronmodel.training.evaluation import evaluation_mode
from kronmodel.training.loop import Progress, TrainResult

__all__ = ["SECONDS", "Pair", "with_weights"]

RUNS = 10  # runs of the model that are joined to one step
# Learning rate of a distillation relative to the squared error of the outputs and to the root mean square of the new
# weights, chosen on training samples of MNIST and Fashion-MNIST that were not trained on.
RATE_OF_SQUARE, LEAST_RATE, LARGEST_RATE = 0.5, 8e-4, 1e-2
LEAST_PROBABILITY = 1e-7
SECONDS = 200.0  # most time of the tuning of a model, by the time of its first step
LEAST_STEPS = 20
MAX_STEP_VALUES = 1 << 26  # values that the nodes compute in a step, most of which are kept for the gradients
ROWS = 512  # samples of one call of the original
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
        KronmodelError: the graphs have operators of which the gradients are not known.
    """

    def __init__(self, workspace: Workspace, compressed: onnx.ModelProto, samples: Samples) -> None:
        self._workspace, self._samples = workspace, samples
        original = workspace.model
        feeds = next(samples.batches())
        outputs = run(open_session(workspace.write(original, "original.onnx")), feeds, "the model")
        index = scored_output(outputs)
        output = original.graph.output[index].name
        own = {tensor.name for tensor in original.graph.initializer}
        self.error = 0.0
        self._shape = outputs[index].shape
        self._are_probabilities = _are_probabilities(outputs[index])
        self.teacher = GraphModule(original, workspace.array, output, lambda name: False)
        self.student = GraphModule(
            compressed, workspace.array, output, lambda name: name not in own, self.teacher.constants
        )
        try:
            with torch.inference_mode():
                found, new = (each(*self._arguments(feeds)) for each in (self.teacher, self.student))
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise KronmodelError(f"the model can't be computed in torch: {error}") from error
        want = torch.from_numpy(outputs[index])
        self.error = _distance(new, want)
        if want.dtype != torch.float32:
            raise KronmodelError(f"the model's output is of {outputs[index].dtype}, expected float32")
        if not found.shape == want.shape == new.shape or _distance(found, want) > EXACT or found.dtype != want.dtype:
            raise KronmodelError("the model gives other outputs in torch than in onnxruntime")

    def tune(
        self,
        steps: int,
        progress: Callable[[int, int], None] = lambda step, steps: None,
        *,
        seconds: float = SECONDS,
    ) -> int:
        """Train the new weights on the samples; return the step that is kept, 0 for none.

        Args:
            steps: most steps.
            progress: called with the number of each step, and of all.
            seconds: most time of computing, from which fewer steps may follow.
        """
        fitted, judge = ([self._arguments(each) for each in self._steps(part)] for part in self._parts())
        steps = min(steps, max(int(seconds / self._step_seconds(fitted[0])), LEAST_STEPS))
        with torch.inference_mode():
            pairs = [(x, self.teacher(*x)) for x in judge]
        is_one = any(len(y) < 2 for _, y in pairs)  # one row has no variance
        energy = sum(float((y if is_one else y - y.mean(0)).double().square().sum()) for _, y in pairs)

        def held_out_error() -> float:
            with torch.inference_mode():
                square = sum(float((self.student(*x) - y).double().square().sum()) for x, y in pairs)
            return math.sqrt(square / max(energy, 1e-300)) if math.isfinite(square) else math.inf

        batches: list[Batch] = [(tuple(x), {}) for x in fitted]
        return tune(
            self.student,
            self.teacher,
            [self.student],
            batches,
            held_out_error,
            steps=steps,
            patience=max(min(PATIENCE, steps // 150), 1),
            progress=progress,
        )

    def _parts(self) -> tuple[Samples, Samples]:
        """Return the samples to train on, and those that judge."""
        return self._samples.other_part(HELD_OUT), self._samples.part(HELD_OUT)

    def _steps(self, samples: Samples) -> Iterator[dict[str, NDArray[Any]]]:
        """Iterate over the inputs of a step each: as many runs together as the memory for their values allows."""
        if samples.fixed or samples.by_call:
            return samples.batches()
        run_values = max(self.student.values // min(samples.batch, len(self._samples)), 1)
        rows = max(min(RUNS * samples.batch, MAX_STEP_VALUES // run_values), 1)
        return replace(samples, batch=rows).batches()

    def _step_seconds(self, x: Sequence[Tensor]) -> float:
        """Measure a step: seconds of computing with the threads that torch uses."""
        began = time.process_time()
        self.student(*x).square().mean().backward()
        self.student.zero_grad()
        return (time.process_time() - began) / torch.get_num_threads()

    def _arguments(self, feeds: Mapping[str, NDArray[Any]]) -> list[Tensor]:
        return [torch.from_numpy(np.ascontiguousarray(feeds[name])) for name in self.teacher.inputs]

    def check_rows(self) -> None:
        """Check that the samples are rows of one input of floats, as :meth:`distill` takes.

        Raises:
            KronmodelError: they aren't.
        """
        if self._samples.by_call or self._samples.fixed or self._samples.constant:
            raise KronmodelError("the model takes no batches of any number of samples, so its weights can't be trained")
        arrays = list(self._samples.arrays.values())
        if len(arrays) != 1:
            raise KronmodelError(f"the model has {len(arrays)} inputs, expected one")
        if arrays[0].dtype != np.float32:
            raise KronmodelError(f"the model's input is of {arrays[0].dtype}, expected float32")

    def distill(
        self,
        training: Samples,
        validation: Samples,
        config: TrainConfig,
        *,
        label_weight: float,
        report: Callable[[Progress], None] = lambda progress: None,
        checkpoint: Checkpoint | None = None,
    ) -> TrainResult:
        """Train the new weights to give the original's outputs on more samples.

        Args:
            training: samples to train on, with labels if ``label_weight`` is not 0.
            validation: samples whose score is reported.
            config: configuration of the training.
            label_weight: weight of the labels' loss.
            report: called as the training goes on.
            checkpoint: checkpoint to resume from and to write after each epoch.

        Raises:
            TrainingError: the loss or the weights are no longer finite.
            CheckpointError: the checkpoint can't be read or written.
        """
        (array,) = training.arrays.values()
        networks = [_Rows(each, array.shape[1:], self._are_probabilities) for each in (self.student, self.teacher)]
        data = _dataset(training, validation, networks[1], labelled=label_weight > 0)
        return distill(
            networks[0], networks[1], data, config, label_weight=label_weight, report=report, checkpoint=checkpoint
        )

    def trial(self, training: Samples, validation: Samples, config: TrainConfig, *, label_weight: float) -> float:
        """Train the new weights and reset them; return the change of the outputs on other samples after the training.

        The change is the divergence of the classes' probabilities, or relative to the outputs if these are no classes.

        Args:
            training: samples to train on.
            validation: the other samples.
            config: configuration of the training.
            label_weight: weight of the labels' loss.

        Raises:
            TrainingError: the loss or the weights are no longer finite.
        """
        before = {name: tensor.clone() for name, tensor in self.student.state_dict().items()}
        self.distill(training, validation, config, label_weight=label_weight)
        with evaluation_mode(self.student), torch.inference_mode():
            parts = [self._arguments(feeds) for feeds in replace(validation, batch=ROWS).batches()]
            found, want = (torch.cat([each(*x) for x in parts]) for each in (self.student, self.teacher))
        self.student.load_state_dict(before)
        if want.ndim != 2 or want.shape[1] == 1:
            return _distance(found, want)
        if self._are_probabilities:
            found, want = (each.clamp_min(LEAST_PROBABILITY).log() for each in (found, want))
        found, want = F.log_softmax(found, 1), F.log_softmax(want, 1)
        return float(F.kl_div(found, want, reduction="batchmean", log_target=True))

    def has_labels(self, samples: Samples) -> bool:
        """Tell whether samples have labels that can be mixed into the loss: classes, or values to predict."""
        if samples.labels is None or len(self._shape) != 2:
            return False
        width = int(self._shape[1])
        if samples.task == "regression":
            return width == 1
        return width > 1 and int(samples.labels.min()) >= 0 and int(samples.labels.max()) < width

    @property
    def learning_rate(self) -> float:
        """Learning rate for a distillation: networks that are further from the original need larger steps."""
        weights = [each.detach().flatten() for each in self.student.weights.values() if each.ndim > 1]
        size = float(torch.cat(weights).square().mean().sqrt()) if weights else 0.0
        return min(max(RATE_OF_SQUARE * self.error**2 * size, LEAST_RATE), LARGEST_RATE)


class _Rows(nn.Module):
    """Network of samples of any shape as one of flat rows, which training takes; probabilities become logits."""

    def __init__(self, network: nn.Module, shape: Sequence[int], are_probabilities: bool) -> None:
        super().__init__()
        self.network, self._shape, self._are_probabilities = network, tuple(shape), are_probabilities

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.network(x.reshape(-1, *self._shape)).flatten(1)
        return y.clamp_min(LEAST_PROBABILITY).log() if self._are_probabilities else y


def _dataset(training: Samples, validation: Samples, teacher: nn.Module, *, labelled: bool) -> Dataset:
    """Arrange samples for a training, with the teacher's outputs as targets where no labels are used."""
    x = [np.asarray(next(iter(each.arrays.values())), np.float32) for each in (training, validation)]
    x = [each.reshape(len(each), -1) for each in x]
    with evaluation_mode(teacher), torch.inference_mode():
        parts = [torch.from_numpy(each[:1] if labelled else each).split(ROWS) for each in x]
        outputs = [torch.cat([teacher(part) for part in each]).numpy() for each in parts]
    width = outputs[0].shape[1]
    is_classification = training.task == "classification" if labelled else width > 1
    y: list[Any] = [each.argmax(1) if is_classification else each for each in outputs]
    if labelled:
        given = [np.asarray(each.labels) for each in (training, validation)]
        y = [each.astype(np.int64) if is_classification else each.astype(np.float32)[:, None] for each in given]
    ones = np.ones(width, np.float32)
    return Dataset(
        name="samples",
        x_train=x[0],
        y_train=y[0],
        x_test=x[1],
        y_test=y[1],
        task="classification" if is_classification else "regression",
        labels=tuple(map(str, range(width))) if is_classification else (),
        image_shape=training.image_shape,
        target_scaling=None if is_classification else Scaling(0 * ones, ones, ones),
        preprocessing="as given",
        origin=training.origin,
    )


def _are_probabilities(outputs: NDArray[Any]) -> bool:
    """Tell whether outputs are the probabilities of classes, not their logits."""
    if outputs.ndim != 2 or outputs.shape[1] < 2 or outputs.min() < 0:
        return False
    return bool(np.allclose(outputs.sum(1, dtype=np.float64), 1, atol=1e-3))


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
