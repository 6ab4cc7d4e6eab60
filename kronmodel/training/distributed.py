"""Data-parallel training in several processes under ``torchrun``, each of which computes a part of every batch.

Batches and weights equal those of a training in a single process, except for the order of floating-point additions.
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

PATIENCE = timedelta(minutes=10)  # timeout of the other processes while the main process evaluates and saves
LOST = "kronmodel/lost"
EXIT_FAILED = 2


@dataclass(frozen=True, kw_only=True)
class Group:
    """Process group of a training run; each process has the whole data set and the same weights.

    Attributes:
        rank: number of this process, from 0; process 0, the main process, evaluates, prints, saves and publishes.
        size: number of processes.
    """

    rank: int
    size: int

    @property
    def is_main(self) -> bool:
        """Whether this process is the main process of the run."""
        return self.rank == 0

    def take_device(self, device: str) -> None:
        """Select a separate CUDA device for each process of the run on this machine.

        Raises:
            KronmodelError: there are more processes on this machine than GPUs.
            ValueError: the device names a single GPU, such as ``"cuda:1"``, in a run of several processes.
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

        Gradients are averaged over the processes, so the mean over ``k`` samples has the weight ``k * size / n``. If a
        batch has fewer samples than processes, a process without samples uses one at weight 0, because every process
        must take part in every step.
        """
        mine = batch[self.rank :: self.size]
        if len(mine) == 0:
            return batch[:1], 0.0
        return mine, len(mine) * self.size / len(batch)

    def parallel(self, network: nn.Module) -> nn.Module:
        """Wrap a network for data-parallel training, in which gradients are averaged over the processes."""
        return network if self.size == 1 else nn.parallel.DistributedDataParallel(network)

    def mean(self, value: Tensor) -> Tensor:
        """Average a tensor over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(value)
            value /= self.size
        return value

    def from_main(self, value: Any) -> Any:
        """Broadcast a value from the main process to all processes, by pickle, which is safe within a single run."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Convert SIGTERM or a lost connection to another process of the run to a ``TrainingError``.

        Raises:
            TrainingError: in a run of several processes, another process has ended.
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
        """Run a ``with`` block in the main process before the others, so that only one process downloads data."""
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
    """Join the process group that the environment variables of ``torchrun`` describe, and leave it after the block.

    Without these variables the group is this process alone. If several processes fail, only the first reports its
    error.

    Args:
        device: ``"cpu"`` (gloo) or ``"cuda"`` (nccl).

    Raises:
        TrainingError: another process of the run has ended, or can't be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    # DistributedDataParallel imports this module, whose functions store the process group at import time as a default
    # argument. Importing it before there is a group prevents that: the group's threads would otherwise outlive the
    # interpreter and abort (pytorch issue #179291).
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
        # DistributedDataParallel warns of gradients whose strides differ from its own. For factors of one row or column
        # the two layouts are equivalent.
        warnings.filterwarnings("ignore", message="Grad strides do not match")
        try:
            with group.connected():
                yield group
            gc.collect()  # wrapped networks are reference cycles that keep the group alive
        except (KronmodelError, ValueError):
            _ignore_sigterm()
            if not _is_first_failure(store):
                raise SystemExit(EXIT_FAILED) from None
            raise
        finally:
            dist.destroy_process_group()


@contextmanager
def _sigterm_restored() -> Iterator[None]:
    """Restore the current handler of SIGTERM after a ``with`` block."""
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
    """Tell whether this is the main thread, the only one in which Python allows changes of signal handlers."""
    return threading.current_thread() is threading.main_thread()


def _is_first_failure(store: Any) -> bool:
    """Tell whether this process is the first of the run to fail; true if the store can no longer be reached."""
    try:
        return int(store.add(LOST, 1)) == 1
    except (dist.DistError, RuntimeError):
        return True


def _is_of_the_connection(error: RuntimeError) -> bool:
    """Tell whether an error is a connection error; gloo raises plain runtime errors that name its source files."""
    return isinstance(error, dist.DistError) or "gloo" in str(error) or "onnection" in str(error)
