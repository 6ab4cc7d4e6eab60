"""Losses and scores of the epochs of a training, the best of them, and a CSV log that grows with the training."""

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

if TYPE_CHECKING:  # reading a history needs no torch
    from torch import Tensor, nn

__all__ = ["Epoch", "EpochLog", "History"]


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One pass over the training data.

    Attributes:
        epoch: its number, from 1.
        seconds: wall time of the training so far, this epoch included, without the evaluations.
        ms_per_step: median wall time of its steps.
        loss: mean over its training samples.
        validation: score on the validation split, or None where there is none.
        test: score on the test set; nothing is decided by it.
    """

    epoch: int
    seconds: float
    ms_per_step: float
    loss: float
    validation: float | None
    test: float


@dataclass
class History:
    """The epochs so far, and the weights of the best one if there is a validation split to choose it by."""

    epochs: list[Epoch] = field(default_factory=list)
    best_weights: dict[str, Tensor] | None = None
    higher_is_better: bool = True

    @property
    def best(self) -> Epoch:
        """The first epoch with the best validation score; without validation, the last epoch."""
        scored = [epoch for epoch in self.epochs if epoch.validation is not None]
        if not scored:
            return self.epochs[-1]
        sign = 1 if self.higher_is_better else -1
        return max(scored, key=lambda epoch: sign * (epoch.validation or 0.0))

    @property
    def ms_per_step(self) -> float:
        """Median of the epochs' medians."""
        return statistics.median(epoch.ms_per_step for epoch in self.epochs)

    def add(self, epoch: Epoch, network: nn.Module) -> None:
        """Add an epoch, and keep a copy of the network's weights if its validation score is the best so far."""
        self.epochs.append(epoch)
        if epoch.validation is not None and self.best is epoch:
            self.best_weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def patience_exhausted(self, patience: int) -> bool:
        """Return whether the last ``patience`` epochs brought no better validation score; never for a patience of 0."""
        return bool(patience and self.epochs) and self.epochs[-1].epoch - self.best.epoch >= patience

    def state(self) -> dict[str, Any]:
        """Return the history as plain values and tensors, for a checkpoint."""
        return {"epochs": [asdict(epoch) for epoch in self.epochs], "best_weights": self.best_weights}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Self:
        """Build the history from the result of :meth:`state`."""
        return cls([Epoch(**epoch) for epoch in state["epochs"]], state["best_weights"])


class EpochLog:
    """A CSV file with a line for each epoch of each network, there as soon as the epoch is over.

    A run that is resumed writes the earlier epochs anew from its checkpoints, so that each stands in the file once.

    Args:
        path: replaced if it exists; None writes nothing.

    Raises:
        TrainingError: no file can be written there.
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
        """Write one line; a missing score is an empty field.

        Raises:
            TrainingError: the file can't be written.
        """
        if self._path is None:
            return
        rows = [(model, *asdict(epoch).values())]
        try:
            if self._file is None:  # not before: a run that is refused leaves the file of an earlier one
                self._file = self._path.open("w", newline="", encoding="utf-8")
                rows.insert(0, self.COLUMNS)
            csv.writer(self._file, lineterminator=os.linesep).writerows(rows)
            self._file.flush()
        except OSError as error:
            raise TrainingError(f"can't write the log {self._path}: {error.strerror or error}") from error
