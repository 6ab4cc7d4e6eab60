"""The classification extension: an output as its largest values, with their indices and labels."""

from collections.abc import Sequence
from math import prod

import numpy as np

from app.inference.bfloat16 import is_bfloat16
from app.inference.datatypes import Array


def classify(values: Array, count: int, labels: Sequence[str] | None, *, batched: bool) -> Array:
    """The largest values in descending order as `value:index` or `value:index:label`.

    Args:
        values: numbers of any shape; the first axis is the batch if `batched`.
        count: how many; clipped to the number of classes.
        labels: of the classes; left out where there are not as many as classes.
        batched: the first axis is the batch.

    Shape:
        array of str ``(batch, count)`` if `batched`, else ``(count,)``. Equal values are in the order of their indices.
    """
    if is_bfloat16(values):
        values = values.astype(np.float32)
    rows = values.reshape(len(values), prod(values.shape[1:])) if batched else values.reshape(1, values.size)
    classes = rows.shape[1]
    count = min(count, classes)
    names = labels if labels is not None and len(labels) == classes else None
    ranked = np.where(np.isnan(rows), -np.inf, rows) if rows.dtype.kind == "f" else rows
    # Sorted backwards and from behind, so that the first of equal values stays the first.
    best = classes - 1 - np.argsort(ranked[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :count]
    texts = np.empty((len(rows), count), object)
    for row, indices in enumerate(best.tolist()):
        for rank, index in enumerate(indices):
            label = "" if names is None else f":{names[index]}"
            texts[row, rank] = f"{rows[row, index]!s}:{index}{label}"
    return texts if batched else texts[0]
