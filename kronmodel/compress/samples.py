"""Sample inputs of a torch module: any form that a caller has them in, as batches of arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kronmodel.compress.matrices.fitting import HELD_OUT
from kronmodel.errors import DataError

__all__ = ["BATCH", "Batch", "batches_of", "fitted_part", "held_out", "rows_of"]

Batch = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and named arguments of one call of the module."""

BATCH = 200  # samples a batch that a single array is divided into
MAX_BATCHES = 10_000


def batches_of(data: Any, model: nn.Module, samples: int | None = None) -> list[Batch]:
    """Convert sample inputs to batches on the device of a module.

    Args:
        data: a tensor or array of inputs ``(samples, ...)``, which is divided into batches; or an iterable of batches,
            such as a data loader: tensors, arrays, tuples of arguments, or mappings of named arguments. A tuple's or
            mapping's values are the module's arguments, without labels.
        model: the module, which determines the device, and the type of floating-point inputs.
        samples: most samples to take; None for all.

    Raises:
        DataError: there are no samples, or they are of an unsupported type.
    """
    if data is None:
        return []
    parameter = next((each for each in model.parameters() if each.is_floating_point()), None)

    def moved(value: Any) -> Any:
        value = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        if not isinstance(value, Tensor) or parameter is None:
            return value
        return value.to(parameter.device, parameter.dtype if value.is_floating_point() else None)

    given: Iterable[Any]
    if isinstance(data, Tensor | np.ndarray):
        whole = torch.as_tensor(data)
        given = whole[:samples].split(BATCH) if whole.dim() else ()
    elif isinstance(data, Mapping):
        given = (data,)
    elif isinstance(data, Iterable):
        given = data
    else:
        raise DataError(f"data must be a tensor, an array or an iterable of batches, got {type(data).__name__}")
    batches: list[Batch] = []
    taken = 0
    for each in given:
        batch = _batch(each, moved)
        rows = rows_of(batch)
        if rows:
            batches.append(batch)
            taken += rows
        if len(batches) >= MAX_BATCHES or (samples is not None and taken >= samples):
            break
    if not batches:
        raise DataError("data has no samples; expected at least one, or None to use the weights alone")
    return batches


def _batch(given: Any, moved: Callable[[Any], Any]) -> Batch:
    """Return the arguments of one call, with arrays moved to the module's device."""
    if isinstance(given, Mapping):
        return (), {name: moved(value) for name, value in given.items()}
    if isinstance(given, tuple | list):
        return tuple(map(moved, given)), {}
    if isinstance(given, Tensor | np.ndarray):
        return (moved(given),), {}
    raise DataError(
        f"a batch must be a tensor, an array, a tuple of arguments or a mapping, got {type(given).__name__}"
    )


def rows_of(batch: Batch) -> int:
    """Return the number of samples of a batch: the first size of its first tensor."""
    args, kwargs = batch
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.dim():
            return len(value)
    return 0


def held_out(number: int, rows: int) -> int:
    """Return the number of a batch's last samples that no fit sees; of batches of one sample, whole ones are held out.

    Args:
        number: place of the batch among all.
        rows: its samples.
    """
    if rows > 1:
        return max(rows // HELD_OUT, 1)
    return rows if number % HELD_OUT == HELD_OUT - 1 else 0


def fitted_part(number: int, batch: Batch) -> Batch:
    """Return a batch without its held-out samples."""
    rows = rows_of(batch)
    cut = rows - held_out(number, rows)

    def part(value: Any) -> Any:
        return value[:cut] if isinstance(value, Tensor) and value.dim() and len(value) == rows else value

    return tuple(map(part, batch[0])), {name: part(value) for name, value in batch[1].items()}
