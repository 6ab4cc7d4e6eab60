"""Integers only: the factor sizes of a layer's width, checked, parsed and counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Shape = tuple[int, int]
Order = Literal["left", "right"]

__all__ = [
    "Order",
    "Shape",
    "check_orders",
    "check_rank",
    "check_shape",
    "dual_macs",
    "factor_pair",
    "linear_macs",
    "max_rank",
    "parse_shapes",
]

MAX_WIDTH = 1 << 24  # a typing error should not ask for the memory of a data centre


def check_shape(name: str, shape: Sequence[int]) -> Shape:
    """Return ``shape`` as a pair of factor sizes, or raise a ``ValueError`` that says what is wrong with it."""
    if len(shape) != 2 or any(isinstance(size, bool) or not isinstance(size, int) for size in shape):
        raise ValueError(f"{name} must be two whole numbers such as (28, 28), got {tuple(shape)!r}")
    if min(shape) < 1:
        raise ValueError(f"{name} must have sizes of at least 1, got {tuple(shape)!r}")
    if math.prod(shape) > MAX_WIDTH:
        raise ValueError(f"{name} must be at most {MAX_WIDTH:,} wide, got {tuple(shape)!r}")
    return (shape[0], shape[1])


def factor_pair(width: int) -> Shape:
    """The most balanced pair of factors of ``width``, smaller first: 784 gives (28, 28), 10 gives (2, 5).

    Raises:
        ValueError: ``width`` is below 1, or a prime above 3, of which (1, width) would compress nothing.
    """
    if width < 1:
        raise ValueError(f"a width must be at least 1, got {width}")
    small = next(size for size in range(math.isqrt(width), 0, -1) if width % size == 0)
    if small == 1 and width > 3:
        raise ValueError(
            f"a width of {width} is prime, so its only factors are 1 and {width}, which compress nothing; "
            f"expected a width with balanced factors, or an explicit shape such as 1x{width}"
        )
    return (small, width // small)


def parse_shapes(text: str) -> tuple[Shape, ...]:
    """Read ``"28x28,16x32"`` into ``((28, 28), (16, 32))``.

    Raises:
        ValueError: the text has another form, or a size is below 1.
    """
    shapes = []
    for part in text.split(","):
        sizes = part.strip().lower().split("x")
        if len(sizes) != 2 or not all(size.isascii() and size.isdigit() for size in sizes):
            raise ValueError(f"expected factor sizes such as 28x28,28x28, got {text!r}")
        shapes.append(check_shape(f"the shape {part.strip()}", [int(size) for size in sizes]))
    return tuple(shapes)


def max_rank(in_shape: Shape, out_shape: Shape) -> int:
    """The Kronecker rank from which a sum of Kronecker products already reaches every matrix."""
    return min(in_shape[0] * out_shape[0], in_shape[1] * out_shape[1])


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


def dual_macs(in_shape: Shape, out_shape: Shape, order: Order) -> int:
    """Multiply-adds per sample of one branch that applies its two factors in the given order."""
    (n1, n2), (m1, m2) = in_shape, out_shape
    return m1 * n1 * n2 + m1 * n2 * m2 if order == "left" else n1 * n2 * m2 + m1 * n1 * m2


def linear_macs(in_shape: Shape, out_shape: Shape) -> tuple[Order, int]:
    """The cheaper order of a Kronecker product without an activation in between, and its multiply-adds."""
    left, right = (dual_macs(in_shape, out_shape, order) for order in ("left", "right"))
    return ("left", left) if left <= right else ("right", right)
