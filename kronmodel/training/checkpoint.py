"""Checkpoints: the training state, saved atomically after each epoch, and resumption from it."""

from __future__ import annotations

import io
import json
import pickle
import secrets
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from kronmodel.errors import Argument, CheckpointError, Message, is_out_of_memory
from kronmodel.files import FolderLock, sync_folder, write_atomically
from kronmodel.training.distributed import Group
from kronmodel.training.history import History

__all__ = ["Checkpoint", "Resumable", "RunIdentity", "read_checkpoint"]

FORMAT = 1
RESUME = Argument("resume", True)


@dataclass
class RunIdentity:
    """Identity of a training, which its checkpoints keep and the cards of its published models name.

    Attributes:
        id: random at first, then that of the checkpoint from which the training is resumed.
        resumed: whether the training is resumed from a checkpoint.
    """

    id: str = field(default_factory=lambda: secrets.token_hex(8))
    resumed: bool = False


class Checkpoint:
    """Checkpoint of one training in ``folder/last.pt``; a context manager that locks the folder against other runs.

    A checkpoint is written to a temporary file, synced and renamed, so that a crash at any time leaves the previous
    one intact. Folders that are still empty on exit are removed.

    Args:
        folder: folder of the checkpoint; created if it is missing.
        fingerprint: configuration that determines the course of the training, as nested mappings of plain values. A
            checkpoint with a different fingerprint is refused.
        resume: continue from the checkpoint in the folder, if there is one.
        writes: whether this process writes; in a distributed run, only the main process does.
        report: called with messages for the user.
        run: identity of the training; the networks of a twin share one.

    Raises:
        CheckpointError: on entering, the folder can't be created, or another run uses it.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: Mapping[str, Any],
        *,
        resume: bool = False,
        writes: bool = True,
        report: Callable[[str], None] = lambda line: None,
        run: RunIdentity | None = None,
    ) -> None:
        self.folder = folder
        self.path = folder / "last.pt"
        self.epoch = 0
        self._run = run or RunIdentity()
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
            if self._lock is not None and self._lock.file is not None:  # the lock file keeps the folder non-empty
                self._release()
            self._remove_empty()
            self._release()

    def load(self) -> dict[str, Any] | None:
        """Load the saved training state if ``resume`` is set and a checkpoint exists, without executing code in it.

        Raises:
            CheckpointError: the file is damaged, or belongs to another configuration.
        """
        if not self._resume:
            return None
        if not self.path.exists():
            self._report(f"no checkpoint in {self.folder}: starting from the beginning")
            return None
        fingerprint, saved = read_checkpoint(self.path, "; without ", RESUME, " a training starts afresh")
        state = saved["state"]
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
        self._run.id, self._run.resumed = str(saved.get("run", self._run.id)), True
        self._report(f"continuing from {self.path} after epoch {self.epoch}")
        result: dict[str, Any] = state
        return result

    def save(self, epoch: int, state: Callable[[], dict[str, Any]]) -> None:
        """Replace the checkpoint by the current training state.

        Args:
            epoch: number of finished epochs.
            state: returns the state as tensors and plain values; called only in the process that writes.

        Raises:
            CheckpointError: the checkpoint can't be written; the previous one is intact.
        """
        if self._writes:
            saved = {
                "format": FORMAT,
                "fingerprint": json.dumps(self._fingerprint),
                "epoch": epoch,
                "run": self._run.id,
            }
            saved["state"] = state()
            content = io.BytesIO()  # torch.save would hide the OSError of a full disk behind its own error
            torch.save(saved, content)
            try:
                write_atomically(self.path, content.getbuffer(), beside=self.folder / "last.pt.new")
                self.epoch = epoch  # `hint` names the checkpoint that is on the disk, even if a later step fails
                sync_folder(self.folder)
            except OSError as error:
                raise self._unwritable(error) from error
        self.epoch = epoch

    def remove(self) -> None:
        """Delete the checkpoint after the training is complete."""
        if self._writes:
            self.path.unlink(missing_ok=True)
            (self.folder / "last.pt.new").unlink(missing_ok=True)
        self.epoch = 0

    @property
    def hint(self) -> Message:
        """Message that says how to resume after a failure; empty if there is no checkpoint."""
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
        """Remove the checkpoint's folder, its parent ``.checkpoints`` and the parents created for it, if empty."""
        for path in dict.fromkeys((self.folder, self.folder.parent, *self._made)):
            if path != self.folder.parent or path in self._made or path.name == ".checkpoints":
                try:
                    path.rmdir()
                except OSError:
                    return


def read_checkpoint(path: Path, *cure: str | Argument) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the file of a checkpoint without executing code in it.

    Args:
        path: path of the ``last.pt``.
        cure: end of the message if the file is damaged.

    Returns:
        The fingerprint, flat; and what is saved: ``epoch``, ``run``, and ``state`` with the ``network``.

    Raises:
        CheckpointError: the file can't be read, or is damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of a newer format if the file is not a checkpoint
            saved = torch.load(path, map_location="cpu", weights_only=True)
        found, fingerprint, _ = saved["format"], dict(json.loads(saved["fingerprint"])), saved["state"]
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror or error}") from error
    except (RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointError(Message(f"{path} is not a checkpoint, or damaged ({reason})", *cure)) from error
    if found != FORMAT:
        raise CheckpointError(f"{path} has format {found!r}, expected {FORMAT}")
    return fingerprint, saved


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``, with values converted to JSON types."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.loads(json.dumps(value))
    return flat


RATES = ("lr", "initial_lr", "max_lr", "min_lr")  # rates that schedules store in parameter groups


@dataclass(frozen=True)
class Resumable:
    """Training state that a checkpoint saves and restores: everything that changes from step to step.

    Torch's global generators, which dropout uses, are saved too.

    Attributes:
        network: network, of which weights and buffers are saved.
        optimizer: optimizer, of which moments and step counts are saved.
        schedule: learning-rate schedule, of which the position is saved.
        order: random generator of the order of the samples.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    order: torch.Generator

    def state(self, history: History, learning_rate: float) -> dict[str, Any]:
        """Collect the training state as tensors and plain values, for a checkpoint."""
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
        """Restore the training state from a checkpoint, if there is one to resume, and return its history.

        Only the main process needs the file. The learning rate may differ from the saved one, for example be lower
        after a divergence: the schedule then continues from its saved position, scaled.

        Raises:
            CheckpointError: the checkpoint is damaged, or belongs to another configuration.
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
