"""Where to train: a device that is really there, and how many CPU threads."""

from __future__ import annotations

import os

import torch

from kronmodel.errors import KronmodelError

__all__ = ["use_device"]


def use_device(device: str, threads: int | None) -> None:
    """Check that a device is there and works, and set the number of CPU threads.

    Args:
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        threads: at least 1; None leaves torch's choice, one for each core that this process may use.

    Raises:
        KronmodelError: the device is not there.
        ValueError: the name or number is not possible.
    """
    try:
        kind = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device must be cpu, cuda or cuda:N, got {device!r}") from None
    if kind.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu, cuda or cuda:N, got {device!r}")
    if kind.type == "cuda" and (kind.index or 0) >= torch.cuda.device_count():
        raise KronmodelError(
            f"device {device} is not there: torch {torch.__version__} sees {torch.cuda.device_count()}"
        )
    if threads is not None:
        limit = os.cpu_count() or 1
        if not 1 <= threads <= limit:
            raise ValueError(f"threads must be between 1 and {limit}, got {threads}")
        torch.set_num_threads(threads)
