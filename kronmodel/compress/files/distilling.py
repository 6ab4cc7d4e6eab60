"""Distillation of a compressed ONNX model: its new weights are trained to give the original's outputs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx

from kronmodel.compress.distillation import DISTILLATION
from kronmodel.compress.files.report import DistillationRow
from kronmodel.compress.files.target import Distillation
from kronmodel.compress.gradients.tuning import Pair, with_weights
from kronmodel.compress.graphs.network import Progress
from kronmodel.compress.graphs.samples import Samples, card_of
from kronmodel.compress.graphs.scores import Scores, compare
from kronmodel.compress.graphs.workspace import Workspace
from kronmodel.errors import Argument, KronmodelError, Message
from kronmodel.training.checkpoint import Checkpoint
from kronmodel.training.config import Augmentation, TrainConfig
from kronmodel.training.members import SMALLEST_AUGMENTED
from kronmodel.training.recipes import RECIPES

__all__ = ["augmentation_of", "check_trainable", "distill_model"]

JUDGED = 512  # samples on which the error before the training is measured
TRIED = 8192  # samples of a short training that decides about changes of images
HIGHER_IS_BETTER = ("accuracy", "r2", "agreement")


def check_trainable(workspace: Workspace, samples: Samples) -> None:
    """Check before any fit that the weights of a model can be trained.

    Raises:
        KronmodelError: they can't.
    """
    try:
        Pair(workspace, workspace.model, samples).check_rows()
    except KronmodelError as error:
        raise KronmodelError(Message(Argument("distill"), f" is not possible: {error}")) from error


def augmentation_of(model: onnx.ModelProto, samples: Samples, asked: Distillation) -> Augmentation:
    """Find the random changes of training images: as asked, or of the original's training, or of the default recipe.

    Args:
        model: the original, of which the card may name its training.
        samples: the training samples.
        asked: the changes that are given.

    Raises:
        ValueError: changes are given, but the samples are not images.
    """
    shape = samples.image_shape
    if shape is None:
        if any(asked.changes.values()):
            raise ValueError(Message(Argument(next(iter(asked.changes))), " is for images, but the data are none"))
        return Augmentation()
    recipe = RECIPES["default"].kronecker.augmentation if min(shape[-2:]) >= SMALLEST_AUGMENTED else Augmentation()
    training = (card_of(model) or {}).get("training")
    named = {}
    if isinstance(training, Mapping) and all(name in training for name in asdict(recipe)):
        named = {name: training[name] for name in asdict(recipe) if isinstance(training[name], int | float)}
    return replace(recipe, **{**named, **asked.changes})


def distill_model(
    workspace: Workspace,
    path: Path,
    samples: tuple[Samples, Samples],
    asked: Distillation,
    progress: Progress,
    *,
    checkpoint: Checkpoint | None = None,
) -> tuple[Path, DistillationRow]:
    """Train the new weights of a compressed model to give the original's outputs.

    Args:
        workspace: holds the original.
        path: the compressed model.
        samples: samples to train on, and others by which it is decided whether the trained weights are kept.
        asked: epochs, weight of the labels, changes of images.
        progress: called as the training goes on.
        checkpoint: checkpoint to resume from and to write after each epoch.

    Returns:
        Path of the trained model, or of the compressed model itself if that is the better one; and what was done.

    Raises:
        KronmodelError: the model has operators or inputs with which its weights can't be trained.
        TrainingError: the training diverged.
        CheckpointError: the checkpoint can't be read or written.
    """
    training, validation = samples
    model = onnx.load(path)
    # The error that the learning rate depends on is that on samples which nothing was fitted to.
    pair = Pair(workspace, model, replace(validation, batch=min(len(validation), JUDGED)))
    if not pair.student.weights:
        raise KronmodelError(Message(Argument("distill"), " is not possible: no new weight is of 32-bit floats"))
    images = augmentation_of(workspace.model, training, asked)
    label_weight = asked.label_weight if pair.has_labels(training) and pair.has_labels(validation) else 0.0
    config = replace(DISTILLATION, epochs=asked.epochs, learning_rate=pair.learning_rate)
    began = time.perf_counter()
    if images and not asked.changes:
        progress("trying changes of images", 0, 0)
        images = _better(pair, samples, config, (images, Augmentation()), label_weight)
    config = replace(config, **asdict(images))
    pair.distill(
        training,
        validation,
        config,
        label_weight=label_weight,
        report=lambda now: progress(f"distilling, epoch {now.epoch}", now.step, now.steps),
        checkpoint=checkpoint,
    )
    seconds = time.perf_counter() - began
    trained = workspace.save(with_weights(workspace, model, pair.student.weights), "distilled.onnx")
    original = workspace.write(workspace.model, "original.onnx")
    scores = compare({"original": original, "before": path, "after": trained}, validation)
    metric = _metric(scores["before"], scores["after"])
    before, after = (float(getattr(scores[name], metric)) for name in ("before", "after"))
    is_kept = after >= before if metric in HIGHER_IS_BETTER else after < before
    row = DistillationRow(
        epochs=asked.epochs,
        samples=len(training),
        validated=len(validation),
        seconds=seconds,
        label_weight=label_weight,
        augmentation={name: value for name, value in asdict(images).items() if value},
        learning_rate=config.learning_rate,
        metric=metric,
        before=before,
        after=after,
        is_kept=is_kept,
    )
    return (trained if is_kept else path), row


def _better(
    pair: Pair,
    samples: tuple[Samples, Samples],
    config: TrainConfig,
    candidates: Sequence[Augmentation],
    label_weight: float,
) -> Augmentation:
    """Choose the changes of images with which a short training comes nearest to the original."""
    training, validation = samples
    few = training.take(np.random.default_rng(config.seed).permutation(len(training))[:TRIED])
    errors = [
        pair.trial(few, validation, replace(config, epochs=1, **asdict(each)), label_weight=label_weight)
        for each in candidates
    ]
    return candidates[int(np.argmin(errors))]


def _metric(before: Scores, after: Scores) -> str:
    """Choose the score that decides: of the labels if there are any, else the agreement with the original."""
    known = (
        name for name in HIGHER_IS_BETTER if getattr(before, name) is not None and getattr(after, name) is not None
    )
    return next(known, "relative_error")
