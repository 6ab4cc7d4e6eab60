"""Factor sizes of layer widths and images: balanced proposals, checks, parsing, multiply-adds. Integers only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

Shape = tuple[int, ...]
Order = Literal["left", "right"]
Image = tuple[int, int, int]
"""Channels, height, width."""

__all__ = [
    "Image",
    "Order",
    "Shape",
    "axes",
    "balanced_shape",
    "check_features",
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
]

MAX_WIDTH = 1 << 24  # a typing error should not ask for the memory of a data centre
MAX_FACTORS = 12
BALANCED = 2  # the largest ratio of two factors that padding is content with


def check_shape(name: str, shape: Sequence[int]) -> Shape:
    """Return ``shape`` as a tuple of factor sizes, or raise a ``ValueError`` that says what is wrong with it."""
    sizes = tuple(shape)
    whole = all(isinstance(size, int) and not isinstance(size, bool) for size in sizes)
    if not whole or not 2 <= len(sizes) <= MAX_FACTORS:
        raise ValueError(f"{name} must be 2 to {MAX_FACTORS} whole numbers such as (28, 28), got {sizes!r}")
    if min(sizes) < 1:
        raise ValueError(f"{name} must have sizes of at least 1, got {sizes!r}")
    if math.prod(sizes) > MAX_WIDTH:
        raise ValueError(f"{name} must be at most {MAX_WIDTH:,} wide, got {sizes!r}")
    return sizes


def check_shapes(in_shape: Sequence[int], out_shape: Sequence[int]) -> tuple[Shape, Shape]:
    """Check both shapes of a layer, and that they have the same number of factors."""
    checked = check_shape("in_shape", in_shape), check_shape("out_shape", out_shape)
    if len(checked[0]) != len(checked[1]):
        raise ValueError(
            f"in_shape and out_shape must have equally many factors, got {checked[0]!r} and {checked[1]!r}"
        )
    return checked


def check_features(name: str, features: int | None, shape: Shape, *, pad: bool) -> int:
    """The number of features that a layer with this shape takes or gives, which only padding may make smaller.

    Raises:
        ValueError: it isn't the product of the shape, and ``pad`` is not set or the shape is too small.
    """
    width = math.prod(shape)
    if features is None or features == width:
        return width
    if not pad:
        raise ValueError(f"{name} must be {' * '.join(map(str, shape))} = {width}, got {features}; or set pad=True")
    if not 1 <= features < width:
        raise ValueError(f"{name} must be between 1 and {width}, the product of {shape!r}, got {features}")
    return features


def balanced_shape(width: int, *, factors: int = 2, pad: bool = False) -> Shape:
    """The most balanced factors of ``width``, smallest first: 784 gives (28, 28), 10 gives (2, 5).

    Args:
        width: number of features.
        factors: how many factors.
        pad: allow a larger product, for widths with no balanced factors: 13 gives (3, 5), for the layer to pad.

    Raises:
        ValueError: ``width`` is below 1; or, without ``pad``, it is a prime above 3, of which (1, width) would
            compress nothing.
    """
    if not 1 <= width <= MAX_WIDTH:
        raise ValueError(f"a width must be between 1 and {MAX_WIDTH:,}, got {width}")
    if not 2 <= factors <= MAX_FACTORS:
        raise ValueError(f"factors must be between 2 and {MAX_FACTORS}, got {factors}")
    if pad:
        shape = _balanced(width, factors)
        while shape[-1] > BALANCED * shape[0]:
            width += 1
            shape = _balanced(width, factors)
        return shape
    shape = _balanced(width, factors)
    if width > 3 and shape[-1] == width:
        raise ValueError(
            f"a width of {width} is prime, so its only factors are 1 and {width}, which compress nothing; "
            f"expected a width with balanced factors, or padding (pad=True) to {balanced_shape(width, pad=True)}"
        )
    return shape


def _balanced(width: int, factors: int) -> Shape:
    """The factorisation with the smallest largest factor, and among those the largest smallest one."""
    return min(_factorisations(width, factors, 1), key=lambda shape: (shape[-1], -shape[0]))


def _factorisations(width: int, factors: int, least: int) -> Iterator[Shape]:
    """All ways to write ``width`` as a product of sizes in rising order, none below ``least``."""
    if factors == 1:
        if width >= least:
            yield (width,)
        return
    for size in range(least, round(width ** (1 / factors)) + 2):
        if width % size == 0:
            for rest in _factorisations(width // size, factors - 1, size):
                yield (size, *rest)


def input_shape(width: int, image_shape: Sequence[int] | None, *, pad: bool) -> Shape:
    """Factor sizes for the features: an image's own, else the most balanced ones.

    Args:
        width: number of features.
        image_shape: ``(height, width)`` or ``(channels, height, width)`` if the features are an image's.
        pad: take the next width that has balanced factors; the row is filled up with zeros.

    Raises:
        ValueError: the width is prime, and padding was not asked for.
    """
    if image_shape is not None and len(image_shape) == 2:
        return (image_shape[0], image_shape[1])
    if pad or _has_factors(width):
        return balanced_shape(width, pad=pad)
    padded = "x".join(map(str, balanced_shape(width, pad=True)))
    raise ValueError(
        f"{width} features have no factors but 1 and {width}, which compress nothing; "
        f"--pad fills each row up with zeros to {padded}"
    )


def output_shape(width: int) -> Shape:
    """Factor sizes for the classes or values to predict: the most balanced ones, else ``(1, width)``.

    Outputs are few and nothing can be padded among them; one output or a prime number of them is no mistake.
    """
    return balanced_shape(width) if _has_factors(width) else (1, width)


def _has_factors(width: int) -> bool:
    """Whether there are factors worth the name, or the width is so small that it doesn't matter."""
    return width <= 3 or any(width % size == 0 for size in range(2, math.isqrt(width) + 1))


def image_of(shape: Sequence[int] | None) -> Image:
    """Channels, height and width of an image whose shape is ``(height, width)`` or ``(channels, height, width)``.

    Raises:
        ValueError: it is neither, or None: the data are no images.
    """
    given = () if shape is None else tuple(shape)
    sizes = (1, *given) if len(given) == 2 else given
    if len(sizes) != 3 or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
        raise ValueError(
            "convolutional features need images of shape (height, width) or (channels, height, width), "
            f"got {given or 'data that are no images'}"
        )
    return (sizes[0], sizes[1], sizes[2])


def parse_shapes(text: str) -> tuple[Shape, ...]:
    """Read ``"28x28,16x32"`` into ``((28, 28), (16, 32))``.

    Raises:
        ValueError: the text has another form, or a size is below 1.
    """
    shapes = []
    for part in text.split(","):
        sizes = part.strip().lower().split("x")
        if len(sizes) < 2 or not all(size.isascii() and size.isdigit() for size in sizes):
            raise ValueError(f"expected factor sizes such as 28x28,28x28, got {text!r}")
        shapes.append(check_shape(f"the shape {part.strip()}", [int(size) for size in sizes]))
    return tuple(shapes)


def max_rank(in_shape: Shape, out_shape: Shape) -> int:
    """A Kronecker rank that reaches every matrix: more terms are of no use.

    Rearranged, a Kronecker product is an outer product of vectors with one entry for each weight of a factor, and a
    tensor is a sum of as many outer products as its sizes but the largest multiply to.
    """
    weights = [m * n for m, n in zip(out_shape, in_shape, strict=True)]
    return math.prod(weights) // max(weights)


def check_rank(rank: int, in_shape: Shape, out_shape: Shape) -> int:
    """Return ``rank``, or raise a ``ValueError`` if it is below 1 or above the useful maximum."""
    limit = max_rank(in_shape, out_shape)
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= limit:
        raise ValueError(f"rank must be between 1 and {limit} for {in_shape} -> {out_shape}, got {rank!r}")
    return rank


def check_orders(order: Order | Sequence[Order], rank: int) -> tuple[Order, ...]:
    """Spread one order over all branches, or check that there is one for each branch."""
    orders: tuple[Order, ...] = (order,) * rank if isinstance(order, str) else tuple(order)
    if len(orders) != rank or any(each not in ("left", "right") for each in orders):
        raise ValueError(f"order must be 'left', 'right' or one of them for each of {rank} branches, got {order!r}")
    return orders


def axes(order: Order, factors: int) -> tuple[int, ...]:
    """The axes in the order in which their factors are applied: from the left, or from the right."""
    forward = tuple(range(factors))
    return forward if order == "left" else forward[::-1]


def dual_macs(in_shape: Shape, out_shape: Shape, order: Order) -> int:
    """Multiply-adds per sample of one branch that applies its factors in the given order."""
    sizes, total = list(in_shape), 0
    for axis in axes(order, len(sizes)):
        total += math.prod(sizes) * out_shape[axis]
        sizes[axis] = out_shape[axis]
    return total


def linear_macs(in_shape: Shape, out_shape: Shape) -> tuple[Order, int]:
    """The cheaper order of a Kronecker product without an activation in between, and its multiply-adds."""
    left, right = (dual_macs(in_shape, out_shape, order) for order in ("left", "right"))
    return ("left", left) if left <= right else ("right", right)
