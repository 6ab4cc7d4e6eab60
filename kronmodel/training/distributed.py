"""One training in several processes, as ``torchrun`` starts them: each takes a part of every batch.

Batches and weights are those of a single process; only the order in which floating-point numbers are added differs.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from kronmodel.errors import KronmodelError, TrainingError

__all__ = ["ALONE", "Group", "joined"]

PATIENCE = timedelta(minutes=10)  # the main process may evaluate and save that long while the others wait
LOST = "kronmodel/lost"
EXIT_FAILED = 2


@dataclass(frozen=True, kw_only=True)
class Group:
    """The processes of a run. Each has the whole data set and the same weights.

    Attributes:
        rank: number of this process, from 0; process 0 is the main one, which evaluates, prints, saves and publishes.
        size: number of processes.
    """

    rank: int
    size: int

    @property
    def is_main(self) -> bool:
        """Whether this is the main process."""
        return self.rank == 0

    def take_device(self, device: str) -> None:
        """Select a CUDA device of its own for each of several processes.

        Raises:
            KronmodelError: there are more processes on this machine than GPUs.
            ValueError: the device is one for a single process.
        """
        if self.size == 1 or device == "cpu":
            return
        if device != "cuda":
            raise ValueError(f"device must be cpu or cuda in a run of several processes, got {device!r}")
        mine = int(os.environ["LOCAL_RANK"])
        if mine >= torch.cuda.device_count():
            raise KronmodelError(f"each process needs a GPU: got {torch.cuda.device_count()}, expected over {mine}")
        torch.cuda.set_device(mine)

    def part_of(self, batch: Tensor) -> tuple[Tensor, float]:
        """Select this process's samples of a batch ``(n,)``, and compute the weight of their mean loss.

        Gradients are averaged over processes, so the mean of ``k`` samples counts ``k * size / n``. A process for
        which nothing is left takes a sample at weight 0: every process must take part in every step.
        """
        mine = batch[self.rank :: self.size]
        if len(mine) == 0:
            return batch[:1], 0.0
        return mine, len(mine) * self.size / len(batch)

    def parallel(self, network: nn.Module) -> nn.Module:
        """Wrap a network for training, so that its gradients are averaged over the processes."""
        return network if self.size == 1 else nn.parallel.DistributedDataParallel(network)

    def mean(self, value: Tensor) -> Tensor:
        """Average a tensor over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(value)
            value /= self.size
        return value

    def from_main(self, value: Any) -> Any:
        """Send the main process's value to every process, by pickle; only processes of one run exchange it."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Translate a broken connection to the other processes, or SIGTERM, into a ``TrainingError``.

        Raises:
            TrainingError: in a run of several processes, one of them is gone.
        """
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not _is_of_the_connection(error):
                raise
            _ignore_sigterm()
            raise TrainingError(f"another of the {self.size} processes of this run is gone") from error
        except SystemExit as error:
            if self.size == 1:
                raise
            _ignore_sigterm()
            raise TrainingError(
                "stopped by SIGTERM (torchrun sends it if another process of this run is gone)"
            ) from error

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Run this block in the main process before the others, so that only one of them downloads."""
        if self.size > 1 and not self.is_main:
            dist.barrier()
        try:
            yield
        finally:
            if self.size > 1 and self.is_main:
                dist.barrier()


ALONE = Group(rank=0, size=1)


@contextmanager
def joined(device: str) -> Iterator[Group]:
    """Join the other processes of this run, if the environment says that there are any, and leave them at the end.

    Of several processes that fail, only the first reports its error.

    Args:
        device: ``"cpu"`` (gloo) or ``"cuda"`` (nccl).

    Raises:
        TrainingError: another process of the run is gone, or can't be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    # DistributedDataParallel imports it, and its functions keep the group of that moment as a default argument. While
    # there is none yet they keep none: its threads would outlive the interpreter, and abort (see pytorch's #179291).
    import torch.distributed.nn

    try:
        store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
        dist.init_process_group(
            "nccl" if device.startswith("cuda") and torch.cuda.is_available() else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=PATIENCE,
        )
    except (dist.DistError, RuntimeError, ValueError) as error:
        raise TrainingError(f"the processes of this run can't find each other: {error}") from error
    group = Group(rank=rank, size=size)
    with _sigterm_restored(), warnings.catch_warnings():
        # DistributedDataParallel warns of gradients in another layout than its own; factors of one row or column have
        # two equal layouts.
        warnings.filterwarnings("ignore", message="Grad strides do not match")
        try:
            with group.connected():
                yield group
            gc.collect()  # networks are cycles, and those in training hold the group
        except (KronmodelError, ValueError):
            _ignore_sigterm()
            if not _is_first_failure(store):
                raise SystemExit(EXIT_FAILED) from None
            raise
        finally:
            dist.destroy_process_group()


@contextmanager
def _sigterm_restored() -> Iterator[None]:
    """Restore the handler of SIGTERM after this block."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None and _in_main_thread():
            signal.signal(signal.SIGTERM, handler)


def _ignore_sigterm() -> None:
    """Ignore SIGTERM, so that torchrun doesn't stop this process before it has reported its error."""
    if _in_main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _in_main_thread() -> bool:
    """Return whether this is the main thread, the only one in which Python changes signal handlers."""
    return threading.current_thread() is threading.main_thread()


def _is_first_failure(store: Any) -> bool:
    """Return whether no other process of the run has failed before; true if the store can't be reached any more."""
    try:
        return int(store.add(LOST, 1)) == 1
    except (dist.DistError, RuntimeError):
        return True


def _is_of_the_connection(error: RuntimeError) -> bool:
    """Return whether an error is one of the connection; gloo's are plain runtime errors that name its source files."""
    return isinstance(error, dist.DistError) or "gloo" in str(error) or "onnection" in str(error)
