"""The first and the last shape of a Kronecker network, from the widths that the data has."""

from __future__ import annotations

import math

from kronmodel.data.dataset import Dataset
from kronmodel.shapes import Shape, proposed_shape

__all__ = ["input_shape", "output_shape"]


def input_shape(data: Dataset, *, pad: bool) -> Shape:
    """Factor sizes for the features: an image's own, else the most balanced ones.

    Args:
        data: what the network will be trained on.
        pad: take the next width that has balanced factors; the row is filled up with zeros.

    Raises:
        ValueError: the width is prime, and padding was not asked for.
    """
    width = data.features
    if data.image_shape is not None and len(data.image_shape) == 2:
        return (data.image_shape[0], data.image_shape[1])
    if pad or _has_factors(width):
        return proposed_shape(width, pad=pad)
    padded = "x".join(map(str, proposed_shape(width, pad=True)))
    raise ValueError(
        f"{width} features have no factors but 1 and {width}, which compress nothing; "
        f"--pad fills each row up with zeros to {padded}"
    )


def output_shape(width: int) -> Shape:
    """Factor sizes for the classes or values to predict: the most balanced ones, else ``(1, width)``.

    Outputs are few and nothing can be padded among them; one output or a prime number of them is no mistake.
    """
    return proposed_shape(width) if _has_factors(width) else (1, width)


def _has_factors(width: int) -> bool:
    """Whether there are factors worth the name, or the width is so small that it doesn't matter."""
    return width <= 3 or any(width % size == 0 for size in range(2, math.isqrt(width) + 1))
