"""Checkpoints of a distillation: the fitted model that it starts from, and the state of its training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kronmodel.compress.files.report import LayerRow
from kronmodel.compress.files.target import Distillation, Settings, Target
from kronmodel.compress.graphs.samples import Samples
from kronmodel.compress.graphs.workspace import Workspace
from kronmodel.errors import Argument, CheckpointError, Message, TrainingError
from kronmodel.training.checkpoint import Checkpoint

__all__ = ["DistillationCheckpoints", "checkpoints_of", "fingerprint"]

Fitted = tuple[Path, list[LayerRow]]
"""A fitted model in the workspace, and the description of its layers."""

FITTED = "fitted"  # folder of the fitted model, beside the checkpoint of the training


class DistillationCheckpoints:
    """Checkpoints of one distillation.

    Args:
        fitted: checkpoint of the fitted model.
        training: checkpoint of the training.
    """

    def __init__(self, fitted: Checkpoint, training: Checkpoint) -> None:
        self.training = training
        self._fitted = fitted
        self._is_kept = False

    def fitted(self, workspace: Workspace, fit: Callable[[], Fitted]) -> Fitted:
        """Load the fitted model and the description of its layers; without a checkpoint, fit the layers and save both.

        Args:
            workspace: folder for the loaded model.
            fit: fits the layers.

        Raises:
            CheckpointError: the checkpoint is damaged, of another configuration, or can't be written.
        """
        state = self._fitted.load()
        if state is not None:
            path = workspace.folder / "fitted.onnx"
            try:
                path.write_bytes(state["model"].numpy().tobytes())
                described = [
                    {name: _tuple(value) for name, value in row.items()} for row in json.loads(state["layers"])
                ]
                rows = [LayerRow(**row) for row in described]
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise CheckpointError(f"{self._fitted.path} holds no fitted model") from error
        else:
            path, rows = fit()
            self.training.remove()  # that of an earlier run, which other fitted layers belong to
            model = torch.from_numpy(np.fromfile(path, np.uint8))
            layers = json.dumps([asdict(row) for row in rows])
            self._fitted.save(0, lambda: {"model": model, "layers": layers})
        self._is_kept = True
        return path, rows

    def remove(self) -> None:
        """Delete both checkpoints after the result is published."""
        self._fitted.remove()
        self.training.remove()
        self._is_kept = False

    @property
    def hint(self) -> Message:
        """Message that says how to resume; empty if there is nothing to resume from."""
        if self.training.hint or not self._is_kept:
            return self.training.hint
        kept = f"the fitted layers are kept in {self._fitted.path}: the same command with "
        return Message(kept, Argument("resume", True), " continues from there")


@contextmanager
def checkpoints_of(
    asked: Distillation, folder: Path, identity: Mapping[str, Any], report: Callable[[str], None]
) -> Iterator[DistillationCheckpoints]:
    """Open the checkpoints of a distillation during a ``with`` block; if it fails, say how to resume.

    Args:
        asked: the distillation.
        folder: folder of the checkpoints.
        identity: configuration that a checkpoint must have to be resumed.
        report: called with messages for the user.

    Raises:
        CheckpointError: the folder can't be created, or another run uses it.
    """
    with (
        Checkpoint(folder, identity, resume=asked.resume, report=report) as training,
        Checkpoint(folder / FITTED, identity, resume=asked.resume, report=report) as fitted,
    ):
        checkpoints = DistillationCheckpoints(fitted, training)
        try:
            yield checkpoints
        except (KeyboardInterrupt, SystemExit):
            if checkpoints.hint:
                report(checkpoints.hint)
            raise
        except TrainingError as error:
            if not checkpoints.hint:
                raise
            raise TrainingError(Message(f"{error}; ", *checkpoints.hint.parts)) from error


def fingerprint(
    original: Path, data: str | None, samples: Samples, *, target: Target, asked: Distillation, settings: Settings
) -> dict[str, Any]:
    """Collect what determines a distillation, so that only the same one is resumed.

    Args:
        original: the file to compress, with all its weights in it or in the files that it names.
        data: name or file of the data.
        samples: samples that the layers are fitted to.
        target: size or quality to reach.
        asked: the distillation.
        settings: structures to consider.
    """
    digest = hashlib.sha256()
    for array in (*samples.arrays.values(), *([] if samples.labels is None else [samples.labels])):
        digest.update(np.ascontiguousarray(array).tobytes() if array.dtype != object else repr(array.tolist()).encode())
    with original.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    training = {name: value for name, value in asdict(asked).items() if name not in ("checkpoint", "resume")}
    return {
        "model": sha256,
        "data": {"name": data, "sha256": digest.hexdigest(), "samples": len(samples)},
        "target": asdict(target),
        "distillation": training,
        "fits": {
            "structures": list(settings.structures),
            "allow_slower": settings.allow_slower,
            "tune_steps": settings.tune_steps,
        },
    }


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
