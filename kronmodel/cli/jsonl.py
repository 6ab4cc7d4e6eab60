"""A training as messages for the program that drives it: JSON objects, one a line, to an open file descriptor."""

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
    """What a training tells on the way, each time a JSON object with the key ``event``.

    - ``plan``, once, before the first step: ``members``, each with ``role``, ``name``, ``epochs``, ``parameters``,
      ``macs_per_sample`` and the ``layers`` of its model card; ``metric``; ``data``, as ``kronmodel data NAME`` has it.
    - ``step``, about ten times a second: ``role``, ``name``, ``step`` of ``steps``, ``epoch``, ``loss``.
    - ``epoch``, after each one: ``role``, ``name`` and the fields of :class:`~kronmodel.training.history.Epoch`. A
      training that is resumed first tells the epochs that it had before.
    - ``exporting``, once all are trained. What was published is what ``--json`` prints.

    A number that is not finite is null.

    Args:
        descriptor: an open file descriptor such as 2 or 3; None tells nobody.

    Raises:
        KronmodelError: it is not open for writing.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        if descriptor is not None and not _writable(descriptor):
            raise KronmodelError(f"--progress-fd must be a file descriptor that is open for writing, got {descriptor}")

    def plan(self, members: Sequence[Member], data: Dataset) -> None:
        """Tell what will be trained on what."""
        if self._descriptor is None:
            return
        import torch

        from kronmodel.nn.networks import build
        from kronmodel.training.tasks import task_of

        with torch.random.fork_rng([]), torch.device("meta"):  # only shapes are needed
            networks = [(member, build(member.config)) for member in members]
        self._tell(
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
        """Tell how far the training of a member is."""
        own = {"role": member.role, "name": member.name}
        self._tell("step", **own, step=now.step, steps=now.steps, epoch=now.epoch, loss=now.loss)

    def epoch(self, member: Member, epoch: Epoch) -> None:
        """Tell what an epoch gave."""
        self._tell("epoch", role=member.role, name=member.name, **asdict(epoch))

    def exporting(self) -> None:
        """Tell that the training is over."""
        self._tell("exporting")

    def _tell(self, event: str, **fields: Any) -> None:
        """Write one line.

        Raises:
            TrainingError: nobody reads it any more.
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
