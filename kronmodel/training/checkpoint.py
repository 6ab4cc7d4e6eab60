"""Checkpoints: the training state on disk after each epoch, written atomically, and resuming from it."""

from __future__ import annotations

import io
import json
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from kronmodel.errors import Argument, CheckpointError, Message
from kronmodel.files import FolderLock, sync_folder, write_atomically
from kronmodel.training.distributed import Group
from kronmodel.training.history import History

__all__ = ["Checkpoint", "Resumable"]

FORMAT = 1
RESUME = Argument("resume", True)


class Checkpoint:
    """The checkpoint of one training: ``folder/last.pt``. A context: while it lasts, no other run may use the folder.

    A checkpoint is written beside, synced and renamed, so a crash at any moment leaves the one before. Folders that
    stay empty are removed on the way out.

    Args:
        folder: where it is; made when it is missing.
        fingerprint: what decides the course of the training, as nested mappings of plain values. A checkpoint with
            another one is refused.
        resume: continue from the checkpoint in the folder, if there is one.
        writes: whether this process writes; in a run of several only one does.
        report: called with lines for the user.

    Raises:
        CheckpointError: the folder can't be made or another run uses it (on entering).
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: Mapping[str, Any],
        *,
        resume: bool = False,
        writes: bool = True,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.folder = folder
        self.path = folder / "last.pt"
        self.epoch = 0
        self._fingerprint = _flat(fingerprint)
        self._resume, self._writes, self._report = resume, writes, report
        self._made: list[Path] = []
        self._lock: FolderLock | None = None

    def __enter__(self) -> Self:
        if not self._writes:
            return self
        try:
            self._made = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(self.folder)
        except BlockingIOError as error:
            self._release()
            raise CheckpointError(
                Message(
                    f"another training is writing checkpoints to {self.folder}; expected a folder of its own: give one "
                    "of them another ",
                    Argument("name"),
                    " or ",
                    Argument("checkpoint"),
                )
            ) from error
        except OSError as error:
            self._release()
            raise self._unwritable(error) from error
        if self.path.exists() and not self._resume:
            self._report(
                Message(
                    f"starting afresh; the checkpoint {self.path} of an earlier run will be replaced (or: ", RESUME, ")"
                )
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._writes:
            (self.folder / "last.pt.new").unlink(missing_ok=True)
            if self._lock is not None and self._lock.file is not None:  # it would keep the folder from being empty
                self._release()
            self._remove_empty()
            self._release()

    def load(self) -> dict[str, Any] | None:
        """Read the saved state if the training is to be resumed and there is one. Nothing in the file is executed.

        Raises:
            CheckpointError: the file is damaged, or belongs to another configuration.
        """
        if not self._resume:
            return None
        if not self.path.exists():
            self._report(f"no checkpoint in {self.folder}: starting from the beginning")
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what isn't a checkpoint, torch suspects that it is a newer one
                saved = torch.load(self.path, map_location="cpu", weights_only=True)
            found, fingerprint, state = saved["format"], json.loads(saved["fingerprint"]), saved["state"]
        except OSError as error:
            raise CheckpointError(f"{self.path} can't be read: {error.strerror or error}") from error
        except (RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise CheckpointError(
                Message(
                    f"{self.path} is not a checkpoint, or damaged ({reason}); without ",
                    RESUME,
                    " a training starts afresh",
                )
            ) from error
        if found != FORMAT:
            raise CheckpointError(f"{self.path} has format {found!r}, expected {FORMAT}")
        names = [
            name
            for name in {**self._fingerprint, **fingerprint}
            if fingerprint.get(name) != self._fingerprint.get(name)
        ]
        if names:
            wrong = "; ".join(
                f"{name}: got {fingerprint.get(name)}, expected {self._fingerprint.get(name)}" for name in names
            )
            raise CheckpointError(
                Message(f"{self.path} is of another configuration ({wrong}); without ", RESUME, " it is replaced")
            )
        self.epoch = int(saved["epoch"])
        self._report(f"continuing from {self.path} after epoch {self.epoch}")
        result: dict[str, Any] = state
        return result

    def save(self, epoch: int, state: Callable[[], dict[str, Any]]) -> None:
        """Replace the checkpoint.

        Args:
            epoch: number of finished epochs.
            state: returns tensors and plain values; called only in the process that writes.

        Raises:
            CheckpointError: it can't be written; the one before is still there.
        """
        if self._writes:
            saved = {"format": FORMAT, "fingerprint": json.dumps(self._fingerprint), "epoch": epoch, "state": state()}
            content = io.BytesIO()  # torch would turn a full disk into an error of its own
            torch.save(saved, content)
            try:
                write_atomically(self.path, content.getbuffer(), beside=self.folder / "last.pt.new")
                self.epoch = epoch  # `hint` speaks of what is there, whatever comes next
                sync_folder(self.folder)
            except OSError as error:
                raise self._unwritable(error) from error
        self.epoch = epoch

    def remove(self) -> None:
        """Remove the checkpoint of a training that is complete."""
        if self._writes:
            self.path.unlink(missing_ok=True)
            (self.folder / "last.pt.new").unlink(missing_ok=True)
        self.epoch = 0

    @property
    def hint(self) -> Message:
        """How to continue after a failure; empty if nothing is kept."""
        if not self.epoch:
            return Message()
        kept = f"epoch {self.epoch} is kept in {self.path}: the same training with "
        return Message(kept, RESUME, " continues from there")

    def _unwritable(self, error: OSError) -> CheckpointError:
        return CheckpointError(f"can't write checkpoints to {self.folder}: {error}")

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _remove_empty(self) -> None:
        """Remove the folder and its ``.checkpoints`` if empty, and what was made for them."""
        for path in dict.fromkeys((self.folder, self.folder.parent, *self._made)):
            if path != self.folder.parent or path in self._made or path.name == ".checkpoints":
                try:
                    path.rmdir()
                except OSError:
                    return


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten ``{"a": {"b": 1}}`` to ``{"a.b": 1}``, with values as JSON reads them."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.loads(json.dumps(value))
    return flat


RATES = ("lr", "initial_lr", "max_lr", "min_lr")  # what the schedules keep in the optimizer


@dataclass(frozen=True)
class Resumable:
    """Everything that changes from step to step.

    Attributes:
        network: its weights and buffers.
        optimizer: its moments and step counts.
        schedule: where in the schedule it stands.
        order: draws the order of the samples. Torch's global generators, which dropout draws from, are saved too.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    order: torch.Generator

    def state(self, history: History, learning_rate: float) -> dict[str, Any]:
        """Return all of it as tensors and plain values."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "order": self.order.get_state(),
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
            "history": history.state(),
            "learning_rate": learning_rate,
        }

    def resume(self, checkpoint: Checkpoint | None, learning_rate: float, group: Group) -> History:
        """Take the state of a checkpoint if there is one to resume, and return its history.

        Only the main process needs the file. The learning rate may differ from before, such as a lower one after a
        divergence: the schedule continues where it was, scaled.

        Raises:
            CheckpointError: it is damaged, or of another configuration.
        """
        saved = checkpoint.load() if checkpoint is not None and group.is_main else None
        saved = group.from_main(saved)
        if saved is None:
            return History()
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.order.set_state(saved["order"])
        torch.set_rng_state(saved["random"])
        if saved["cuda_random"] is not None and torch.cuda.is_initialized():
            torch.cuda.set_rng_state(saved["cuda_random"])
        if learning_rate != saved["learning_rate"]:
            factor = learning_rate / saved["learning_rate"]
            for settings in self.optimizer.param_groups:
                settings.update({name: factor * settings[name] for name in RATES if name in settings})
            self.schedule.base_lrs = [factor * rate for rate in self.schedule.base_lrs]
        history = History.of(saved["history"])
        if checkpoint is not None:
            checkpoint.epoch = len(history.epochs)
        return history
