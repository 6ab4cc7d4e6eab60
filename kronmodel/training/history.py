"""Training history: loss and scores of each epoch, selection of the best epoch, and a CSV log."""

from __future__ import annotations

import csv
import os
import statistics
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from kronmodel.errors import TrainingError
from kronmodel.files import is_writable_file

if TYPE_CHECKING:  # so that reading a history does not import torch
    from torch import Tensor, nn

__all__ = ["Epoch", "EpochLog", "History"]


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Times, loss and scores of one epoch of a training.

    Attributes:
        epoch: number of the epoch, from 1.
        seconds: wall time from the start of the training to the end of this epoch, without the evaluations.
        ms_per_step: median wall time of the epoch's steps, in milliseconds.
        loss: mean training loss over the epoch's samples.
        validation: score on the validation split; None without a validation split.
        test: score on the test set, for information only: no decision depends on it.
    """

    epoch: int
    seconds: float
    ms_per_step: float
    loss: float
    validation: float | None
    test: float


@dataclass
class History:
    """History of a training's finished epochs, with the weights of the best one if there is a validation split.

    Attributes:
        epochs: the finished epochs.
        best_weights: weights of the best epoch; None without a validation split.
        higher_is_better: whether a higher score is better.
        first: number of the first epoch whose weights may be kept: in quantisation-aware training, the first in which
            everything is quantised.
    """

    epochs: list[Epoch] = field(default_factory=list)
    best_weights: dict[str, Tensor] | None = None
    higher_is_better: bool = True
    first: int = 1

    @property
    def best(self) -> Epoch:
        """First epoch with the best validation score that may be kept; without a validation split, the last epoch."""
        scored = [epoch for epoch in self.epochs if epoch.validation is not None and epoch.epoch >= self.first]
        if not scored:
            return self.epochs[-1]
        sign = 1 if self.higher_is_better else -1
        return max(scored, key=lambda epoch: sign * (epoch.validation or 0.0))

    @property
    def ms_per_step(self) -> float:
        """Median over the epochs of the median wall time of a step, in milliseconds."""
        return statistics.median(epoch.ms_per_step for epoch in self.epochs)

    def add(self, epoch: Epoch, network: nn.Module) -> None:
        """Append an epoch, and copy the network's weights if the epoch has the best validation score of all."""
        self.epochs.append(epoch)
        if epoch.validation is not None and epoch.epoch >= self.first and self.best is epoch:
            self.best_weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def patience_exhausted(self, patience: int) -> bool:
        """Tell whether the last ``patience`` epochs did not improve the validation score; False for a patience of 0."""
        return bool(patience and self.epochs) and self.epochs[-1].epoch - self.best.epoch >= patience

    def state(self) -> dict[str, Any]:
        """Convert the history to plain values and tensors, for a checkpoint."""
        return {"epochs": [asdict(epoch) for epoch in self.epochs], "best_weights": self.best_weights}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Self:
        """Rebuild a history from the result of :meth:`state`."""
        return cls([Epoch(**epoch) for epoch in state["epochs"]], state["best_weights"])


class EpochLog:
    """CSV log of a training, with a line for each epoch of each network, written when the epoch ends.

    A resumed run writes the earlier epochs again from its checkpoints, so that the file has each epoch once.

    Args:
        path: CSV file; replaced if it exists. None writes nothing.

    Raises:
        TrainingError: the path is not writable.
    """

    COLUMNS = ("model", *(each.name for each in fields(Epoch)))

    def __init__(self, path: Path | None) -> None:
        if path is not None and not is_writable_file(path):
            raise TrainingError(f"can't write the log {path}: expected a file name in a writable folder")
        self._path = path
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, model: str, epoch: Epoch) -> None:
        """Write the line of an epoch to the log; a missing score is an empty field.

        Raises:
            TrainingError: the file can't be written.
        """
        if self._path is None:
            return
        rows = [(model, *asdict(epoch).values())]
        try:
            if self._file is None:  # opened late, so that a run that is refused does not replace an earlier log
                self._file = self._path.open("w", newline="", encoding="utf-8")
                rows.insert(0, self.COLUMNS)
            csv.writer(self._file, lineterminator=os.linesep).writerows(rows)
            self._file.flush()
        except OSError as error:
            raise TrainingError(f"can't write the log {self._path}: {error.strerror or error}") from error
