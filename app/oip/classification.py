"""The classification extension: the largest values of an output, with their indices and labels."""

from collections.abc import Sequence
from math import prod

import numpy as np

from app.inference.datatypes import Array, is_bfloat16


def classify(values: Array, count: int, labels: Sequence[str] | None, *, batched: bool) -> Array:
    """The `count` largest values in descending order, as `value:index` or `value:index:label`.

    Args:
        values: numbers of any shape.
        count: how many values; at most the number of classes are returned.
        labels: names of the classes; ignored if there are not as many as classes.
        batched: the first axis of `values` is the batch.

    Returns:
        An array of str, ``(batch, count)`` if `batched`, else ``(count,)``. Equal values are ordered by their indices.
    """
    if is_bfloat16(values):
        values = values.astype(np.float32)
    rows = values.reshape(len(values), prod(values.shape[1:])) if batched else values.reshape(1, values.size)
    classes = rows.shape[1]
    count = min(count, classes)
    names = labels if labels is not None and len(labels) == classes else None
    ranked = np.where(np.isnan(rows), -np.inf, rows) if rows.dtype.kind == "f" else rows
    # A stable ascending sort of the reversed rows, read from its end: equal values stay in the order of their indices.
    best = classes - 1 - np.argsort(ranked[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :count]
    texts = np.empty((len(rows), count), object)
    for row, indices in enumerate(best.tolist()):
        for rank, index in enumerate(indices):
            label = "" if names is None else f":{names[index]}"
            texts[row, rank] = f"{rows[row, index]!s}:{index}{label}"
    return texts if batched else texts[0]
