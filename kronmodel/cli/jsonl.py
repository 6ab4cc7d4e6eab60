"""Progress of a training, written as JSON lines to an open file descriptor for another program to read."""

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
    """Writer of a training's events as JSON lines; each is an object whose key ``event`` names its kind.

    - ``plan``, once, before the first step: ``members``, each with ``role``, ``name``, ``epochs``, ``parameters``,
      ``weight_bytes``, ``macs_per_sample`` and the ``layers`` of its model card; ``metric``; ``data``, the fields of
      ``kronmodel data``.
    - ``step``, about ten times a second: ``role``, ``name``, ``step`` of ``steps``, ``epoch``, ``loss``.
    - ``epoch``, after each epoch: ``role``, ``name`` and the fields of :class:`~kronmodel.training.history.Epoch`. A
      resumed training first repeats its earlier epochs.
    - ``exporting``, once, when all networks are trained. The published models are not an event: ``--json`` prints them.

    A number that is not finite is written as null.

    Args:
        descriptor: an open file descriptor such as 2 or 3; None writes nothing.

    Raises:
        KronmodelError: the descriptor is not open for writing.
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
        from kronmodel.quantization.network import QuantizedNetwork
        from kronmodel.training.tasks import task_of

        networks = []
        for member in members:
            with torch.random.fork_rng([]), torch.device("meta"):  # only shapes are needed
                network = build(member.config)
            if (quantization := member.training.quantization) is not None:
                network = QuantizedNetwork.of_shapes(network, quantization)
            networks.append((member, network))
        self._write(
            "plan",
            members=[
                {
                    "role": member.role,
                    "name": member.name,
                    "epochs": member.training.epochs,
                    "parameters": network.parameter_count,
                    "weight_bytes": network.weight_bytes,
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
        """Write the event that all networks are trained and the export begins."""
        self._write("exporting")

    def _write(self, event: str, **fields: Any) -> None:
        """Write an event as one JSON line.

        Raises:
            TrainingError: the reading program has closed its end of the pipe.
        """
        if self._descriptor is None:
            return
        line = json.dumps({"event": event} | {name: _finite(value) for name, value in fields.items()}) + "\n"
        left = memoryview(line.encode())
        try:
            while left:  # a pipe may accept only a part of a long line per write
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
