"""Callback of ``kronmodel train``: progress on the terminal, as JSON lines and as a CSV log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from kronmodel.cli.console import training_progress
from kronmodel.cli.jsonl import Messages
from kronmodel.data.dataset import Dataset
from kronmodel.training.history import Epoch, EpochLog
from kronmodel.training.loop import Progress
from kronmodel.training.members import Member
from kronmodel.training.ranks import RankSearch, search_ranks
from kronmodel.twin import TrainingCallback

__all__ = ["CommandCallback", "search_ranks_of"]


class CommandCallback(TrainingCallback):
    """Training callback of the command line: progress bar, JSON lines and CSV log. A context manager: closes the log.

    Args:
        console: shows the progress bar.
        note: prints a line for the user.
        descriptor: open file descriptor that receives JSON lines, or None.
        log: CSV file that receives a line for each epoch, or None.

    Raises:
        KronmodelError: the descriptor or the log can't be written to.
    """

    def __init__(
        self, console: Console, note: Callable[[str], None], *, descriptor: int | None, log: Path | None
    ) -> None:
        self._note = note
        self._console = console
        self._messages = Messages(descriptor)
        self._log = EpochLog(log)
        self.members: Sequence[Member] = ()
        self._show: Callable[[Progress], None] = lambda progress: None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._log.__exit__(kind, error, at)

    def on_message(self, line: str) -> None:
        """Print a message of the training for the user."""
        self._note(line)

    def on_start(self, members: Sequence[Member], data: Dataset) -> None:
        """Write the event ``plan``, and print the numbers of training and test samples."""
        self.members = members
        self._messages.plan(members, data)
        train, test = len(data.x_train), len(data.x_test)
        self.on_message(f"{data.name}: {train:,} training and {test:,} test samples from {data.origin}")

    @contextmanager
    def training(self, member: Member) -> Iterator[None]:
        """Show the progress bar of a network's training; without a terminal, print a line for each epoch."""
        with training_progress(self._console, member.name, member.training.epochs) as self._show:
            yield

    def on_step(self, member: Member, progress: Progress) -> None:
        """Advance the progress bar, and write the event ``step``."""
        self._show(progress)
        self._messages.step(member, progress)

    def on_epoch(self, member: Member, epoch: Epoch) -> None:
        """Write a line to the CSV log, and the event ``epoch``."""
        self._log.add(member.name, epoch)
        self._messages.epoch(member, epoch)

    def on_export(self) -> None:
        """Write the event ``exporting``, and show that the export begins."""
        self._messages.exporting()
        self.on_message("exporting to ONNX and comparing with torch ...")


def search_ranks_of(
    members: Sequence[Member], data: Dataset, models: Mapping[str, Mapping[str, Any]], report: Callable[[str], None]
) -> RankSearch | None:
    """Search for a rank at which the Kronecker network of a twin is not clearly worse; None if it is not, or alone.

    Args:
        members: configurations of the trained networks.
        data: data set of the twin.
        models: summary of each network by its role.
        report: receives messages for the user.
    """
    member = next((each for each in members if each.role == "kronecker"), None)
    if member is None or "dense" not in models:
        return None
    mine, dense = (models[role]["test_metric"] for role in ("kronecker", "dense"))
    return search_ranks(
        member,
        data,
        metric=mine["name"],
        score=mine["value"],
        dense=dense["value"],
        dense_parameters=models["dense"]["parameters"],
        report=report,
    )
