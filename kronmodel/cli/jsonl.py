"""Progress of a training as JSON lines to an open file descriptor, for another program."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kronmodel.errors import KronmodelError, TrainingError
from kronmodel.training.history import Epoch

if TYPE_CHECKING:  # torch takes seconds to import
    from kronmodel.data.dataset import Dataset
    from kronmodel.training.loop import Progress
    from kronmodel.training.members import Member

__all__ = ["Messages"]


class Messages:
    """Writes the events of a training, each as a JSON object with the key ``event``.

    - ``plan``, once, before the first step: ``members``, each with ``role``, ``name``, ``epochs``, ``parameters``,
      ``macs_per_sample`` and the ``layers`` of its model card; ``metric``; ``data``, as ``kronmodel data NAME`` has it.
    - ``step``, about ten times a second: ``role``, ``name``, ``step`` of ``steps``, ``epoch``, ``loss``.
    - ``epoch``, after each one: ``role``, ``name`` and the fields of :class:`~kronmodel.training.history.Epoch`. A
      resumed training first repeats its earlier epochs.
    - ``exporting``, once all are trained. What was published is what ``--json`` prints.

    A number that is not finite is null.

    Args:
        descriptor: an open file descriptor such as 2 or 3; None writes nothing.

    Raises:
        KronmodelError: it is not open for writing.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        if descriptor is not None and not _writable(descriptor):
            raise KronmodelError(f"--progress-fd must be a file descriptor that is open for writing, got {descriptor}")

    def plan(self, members: Sequence[Member], data: Dataset) -> None:
        """Write the networks and the data of the training."""
        if self._descriptor is None:
            return
        import torch

        from kronmodel.nn.networks import build
        from kronmodel.training.tasks import task_of

        with torch.random.fork_rng([]), torch.device("meta"):  # only shapes are needed
            networks = [(member, build(member.config)) for member in members]
        self._write(
            "plan",
            members=[
                {
                    "role": member.role,
                    "name": member.name,
                    "epochs": member.training.epochs,
                    "parameters": network.parameter_count,
                    "macs_per_sample": network.macs_per_sample,
                    "layers": network.layer_cards(),
                }
                for member, network in networks
            ],
            metric=task_of(data).metric,
            data=data.describe(),
        )

    def step(self, member: Member, now: Progress) -> None:
        """Write the progress of one network's training."""
        own = {"role": member.role, "name": member.name}
        self._write("step", **own, step=now.step, steps=now.steps, epoch=now.epoch, loss=now.loss)

    def epoch(self, member: Member, epoch: Epoch) -> None:
        """Write the scores of an epoch."""
        self._write("epoch", role=member.role, name=member.name, **asdict(epoch))

    def exporting(self) -> None:
        """Write that all networks are trained."""
        self._write("exporting")

    def _write(self, event: str, **fields: Any) -> None:
        """Write one line.

        Raises:
            TrainingError: the reader has closed its end.
        """
        if self._descriptor is None:
            return
        line = json.dumps({"event": event} | {name: _finite(value) for name, value in fields.items()}) + "\n"
        left = memoryview(line.encode())
        try:
            while left:  # a pipe takes a long line in pieces
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            raise TrainingError(f"can't tell the progress to --progress-fd {self._descriptor}: {error}") from error


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _writable(descriptor: int) -> bool:
    try:
        os.write(descriptor, b"")
    except (OSError, OverflowError, ValueError):
        return False
    return not stat.S_ISDIR(os.fstat(descriptor).st_mode)
