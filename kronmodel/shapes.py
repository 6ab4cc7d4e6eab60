"""Factor sizes of Kronecker layers: balanced factorisation, validation, parsing, and numbers of multiply-adds."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, get_args

Shape = tuple[int, ...]
Order = Literal["left", "right"]
"""Factor that a branch of a dual layer applies first: the leftmost or the rightmost of its Kronecker product."""
Layer = Literal["dual", "linear"]
"""Kind of a Kronecker layer: with biases and activations between its factors, or without."""
Image = tuple[int, int, int]
"""Shape of an image: channels, height, width."""

__all__ = [
    "Image",
    "Layer",
    "Order",
    "PrimeWidthError",
    "Shape",
    "axes",
    "balanced_shape",
    "check_features",
    "check_linear_rank",
    "check_orders",
    "check_rank",
    "check_shape",
    "check_shapes",
    "dual_macs",
    "image_of",
    "input_shape",
    "linear_macs",
    "max_rank",
    "output_shape",
    "parse_shapes",
    "whole_number",
]

# These limits protect against typing errors that would exhaust the memory.
MAX_WIDTH = 1 << 24
MAX_RANK = 1 << 16
MAX_FACTORS = 12
MAX_RATIO = 2  # largest ratio between two factor sizes of a padded width


class PrimeWidthError(ValueError):
    """Error of a width that is prime and can't be factored without padding.

    Attributes:
        width: the prime width.
        padded: the shape that ``pad=True`` would choose.
    """

    def __init__(self, message: str, width: int, padded: Shape) -> None:
        super().__init__(message)
        self.width, self.padded = width, padded


def whole_number(value: Any) -> int | None:
    """Convert a whole number of Python or numpy to ``int``; return None for any other value, including bools."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _shown(value: Any) -> str:
    """Format an argument for a message, with whole numbers of numpy as Python ints."""
    number = whole_number(value)
    return repr(value if number is None else number)


def check_shape(name: str, shape: Sequence[int]) -> Shape:
    """Check the factor sizes of a layer's input or output.

    Args:
        name: name of the argument, for the message.
        shape: 2 to 12 whole numbers, of Python or numpy.

    Returns:
        The sizes as a tuple of Python ints.

    Raises:
        ValueError: a size is not a whole number or below 1, there are too few or too many, or their product is too big.
    """
    given = tuple(shape) if isinstance(shape, Iterable) else (shape,)
    sizes = tuple(size for size in map(whole_number, given) if size is not None)
    if len(sizes) != len(given) or not 2 <= len(sizes) <= MAX_FACTORS:
        raise ValueError(f"{name} must be 2 to {MAX_FACTORS} whole numbers such as (28, 28), got {given!r}")
    if min(sizes) < 1:
        raise ValueError(f"{name} must have sizes of at least 1, got {sizes!r}")
    if math.prod(sizes) > MAX_WIDTH:
        raise ValueError(f"{name} must be at most {MAX_WIDTH:,} wide, got {sizes!r}")
    return sizes


def check_shapes(in_shape: Sequence[int], out_shape: Sequence[int]) -> tuple[Shape, Shape]:
    """Check the factor sizes of a layer's input and output, which must be equal in number.

    Raises:
        ValueError: a shape is invalid, or the lengths differ.
    """
    checked = check_shape("in_shape", in_shape), check_shape("out_shape", out_shape)
    if len(checked[0]) != len(checked[1]):
        raise ValueError(
            f"in_shape and out_shape must have equally many factors, got {checked[0]!r} and {checked[1]!r}"
        )
    return checked


def check_features(name: str, features: int | None, shape: Shape, *, pad: bool) -> int:
    """Check a layer's number of inputs or outputs: the product of its factor sizes, or fewer with padding.

    Args:
        name: name of the argument, for the message.
        features: number of features; None for the product of the shape.
        shape: checked factor sizes.
        pad: allow fewer features than the product.

    Raises:
        ValueError: ``features`` is not a whole number, differs from the product without ``pad``, or exceeds it.
    """
    width = math.prod(shape)
    if features is None:
        return width
    number = whole_number(features)
    if number is None:
        raise ValueError(f"{name} must be a whole number between 1 and {width}, got {features!r}")
    features = number
    if features == width:
        return width
    if not pad:
        raise ValueError(f"{name} must be {' * '.join(map(str, shape))} = {width}, got {features}; or set pad=True")
    if not 1 <= features < width:
        raise ValueError(f"{name} must be between 1 and {width}, the product of {shape!r}, got {features}")
    return features


def balanced_shape(width: int, *, factors: int = 2, pad: bool = False) -> Shape:
    """Factor a layer's width into sizes as equal as possible, smallest first.

    Args:
        width: number of features, an integer of Python or numpy.
        factors: number of sizes, 2 to 12.
        pad: allow a larger product, so that no size is more than twice another; the layer then pads with zeros.

    Raises:
        ValueError: ``width`` or ``factors`` is not a whole number or out of range.
        PrimeWidthError: ``width`` is a prime above 3 and ``pad`` is not set: ``(1, width)`` would compress nothing.

    Example:
        >>> balanced_shape(768), balanced_shape(768, factors=3), balanced_shape(13, pad=True)
        ((24, 32), (8, 8, 12), (3, 5))
    """
    number, parts = whole_number(width), whole_number(factors)
    if number is None or not 1 <= number <= MAX_WIDTH:
        raise ValueError(f"a width must be a whole number between 1 and {MAX_WIDTH:,}, got {_shown(width)}")
    if parts is None or not 2 <= parts <= MAX_FACTORS:
        raise ValueError(f"factors must be between 2 and {MAX_FACTORS}, got {_shown(factors)}")
    shape = _balanced(number, parts)
    if pad:
        while shape[-1] > MAX_RATIO * shape[0]:
            number += 1
            shape = _balanced(number, parts)
    elif number > 3 and shape[-1] == number:
        padded = balanced_shape(number, factors=parts, pad=True)
        raise PrimeWidthError(
            f"a width of {number} is prime, so its only factors are 1 and {number}, which compress nothing; "
            f"expected a width with balanced factors, or padding (pad=True) to {padded}",
            number,
            padded,
        )
    return shape


def _balanced(width: int, factors: int) -> Shape:
    """Find the most balanced factorisation: smallest maximum, then largest minimum."""
    return min(_factorisations(width, factors, 1), key=lambda shape: (shape[-1], -shape[0]))


def _factorisations(width: int, factors: int, least: int) -> Iterator[Shape]:
    """Iterate over all ways to write ``width`` as a product of sizes in rising order, none below ``least``."""
    if factors == 1:
        if width >= least:
            yield (width,)
        return
    for size in range(least, round(width ** (1 / factors)) + 2):
        if width % size == 0:
            for rest in _factorisations(width // size, factors - 1, size):
                yield (size, *rest)


def input_shape(width: int, image_shape: Sequence[int] | None, *, pad: bool) -> Shape:
    """Choose factor sizes for a network's input: height and width of an image, else the most balanced factors.

    Args:
        width: number of features.
        image_shape: ``(height, width)`` or ``(channels, height, width)`` if the features are an image, else None.
        pad: allow a larger product with balanced factors; samples are then padded with zeros.

    Raises:
        PrimeWidthError: the width is prime, and ``pad`` is not set.
    """
    if image_shape is not None and len(image_shape) == 2:
        return (image_shape[0], image_shape[1])
    if pad or _has_factors(width):
        return balanced_shape(width, pad=pad)
    padded = balanced_shape(width, pad=True)
    raise PrimeWidthError(
        f"{width} features have no factors but 1 and {width}, which compress nothing; "
        f"pad=True fills each row up with zeros to {padded}",
        width,
        padded,
    )


def output_shape(width: int) -> Shape:
    """Choose factor sizes for a network's output: the most balanced factors, or ``(1, width)`` for a prime width.

    Outputs are few and can't be padded, so a prime width is accepted.
    """
    return balanced_shape(width) if _has_factors(width) else (1, width)


def _has_factors(width: int) -> bool:
    """Tell whether a width is composite, or too small for its factorisation to matter."""
    return width <= 3 or any(width % size == 0 for size in range(2, math.isqrt(width) + 1))


def image_of(shape: Sequence[int] | None) -> Image:
    """Convert an image shape to channels, height and width.

    Args:
        shape: ``(height, width)`` or ``(channels, height, width)``; None if the data are not images.

    Raises:
        ValueError: the shape is None, or has neither two nor three sizes.
    """
    given = () if shape is None else tuple(shape)
    sizes = tuple(size for size in map(whole_number, given) if size is not None and size >= 1)
    if len(sizes) != len(given) or len(sizes) not in (2, 3):
        raise ValueError(
            "convolutional features need images of shape (height, width) or (channels, height, width), "
            f"got {given or 'data that are no images'}"
        )
    return (1, sizes[0], sizes[1]) if len(sizes) == 2 else (sizes[0], sizes[1], sizes[2])


def parse_shapes(text: str) -> tuple[Shape, ...]:
    """Parse layer shapes: ``"28x28,16x32"`` becomes ``((28, 28), (16, 32))``.

    Raises:
        ValueError: the text does not follow this format, or a size is below 1.
    """
    shapes = []
    for part in text.split(","):
        sizes = part.strip().lower().split("x")
        if len(sizes) < 2 or not all(size.isascii() and size.isdigit() for size in sizes):
            raise ValueError(f"expected factor sizes such as 28x28,28x28, got {text!r}")
        shapes.append(check_shape(f"the shape {part.strip()}", [int(size) for size in sizes]))
    return tuple(shapes)


def max_rank(in_shape: Shape, out_shape: Shape) -> int:
    """Compute the largest useful rank of a linear Kronecker layer: with it, any weight matrix can be represented.

    After a rearrangement, a Kronecker product is an outer product of vectors, one for each factor, with an entry for
    each of its weights. Any tensor is a sum of outer products; the product of all its sizes except the largest bounds
    how many are needed. With two factors the bound is ``min(m1*n1, m2*n2)``. A dual layer has no such bound, because
    its branches are separated by activations.
    """
    weights = [m * n for m, n in zip(out_shape, in_shape, strict=True)]
    return math.prod(weights) // max(weights)


def check_rank(rank: int) -> int:
    """Check the number of branches of a dual layer.

    Raises:
        ValueError: ``rank`` is not a whole number, or below 1 or above 65,536.
    """
    number = whole_number(rank)
    if number is None or not 1 <= number <= MAX_RANK:
        raise ValueError(f"rank must be a whole number between 1 and {MAX_RANK:,}, got {_shown(rank)}")
    return number


def check_linear_rank(rank: int, in_shape: Shape, out_shape: Shape) -> int:
    """Check the rank of a linear layer.

    Raises:
        ValueError: ``rank`` is not a whole number, or below 1 or above :func:`max_rank`.
    """
    number, limit = whole_number(rank), max_rank(in_shape, out_shape)
    if number is None or not 1 <= number <= limit:
        raise ValueError(f"rank must be between 1 and {limit} for {in_shape} -> {out_shape}, got {_shown(rank)}")
    return number


def check_orders(order: Order | Sequence[Order], rank: int) -> tuple[Order, ...]:
    """Return the order of each branch: one order repeated, or the caller's sequence, unchanged.

    Raises:
        ValueError: an order is neither ``"left"`` nor ``"right"``, or there is not one for each branch.
    """
    orders: tuple[Order, ...] = (order,) * rank if isinstance(order, str) else tuple(order)
    if len(orders) != rank or any(each not in get_args(Order) for each in orders):
        raise ValueError(f"order must be 'left', 'right' or one of them for each of {rank} branches, got {order!r}")
    return orders


def axes(order: Order, factors: int) -> tuple[int, ...]:
    """List the indices of the factors in the order in which they are applied: from the left or from the right."""
    forward = tuple(range(factors))
    return forward if order == "left" else forward[::-1]


def dual_macs(in_shape: Shape, out_shape: Shape, order: Order) -> int:
    """Count the multiply-adds of one branch of a dual layer for one sample, with factors applied in a given order."""
    sizes, total = list(in_shape), 0
    for axis in axes(order, len(sizes)):
        total += math.prod(sizes) * out_shape[axis]
        sizes[axis] = out_shape[axis]
    return total


def linear_macs(in_shape: Shape, out_shape: Shape) -> tuple[Order, int]:
    """Choose the cheaper order for a linear Kronecker product; return the order and its multiply-adds per sample."""
    left, right = (dual_macs(in_shape, out_shape, order) for order in ("left", "right"))
    return ("left", left) if left <= right else ("right", right)
