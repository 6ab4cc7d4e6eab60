"""The algebra as pure tensor functions. The matrix that they stand for is never formed."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from kronmodel.shapes import Order, linear_macs

__all__ = ["kron_dual", "kron_linear"]


def kron_linear(x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply by a sum of Kronecker products: ``x @ (Σ_k a[k] ⊗ b[k]).T + bias``, as ``Σ_k a[k] X b[k]ᵀ``.

    Args:
        x: features ``(*, n1 * n2)``.
        a: left factors ``(r, m1, n1)``.
        b: right factors ``(r, m2, n2)``.
        bias: ``(m1 * m2,)`` or None.

    Returns:
        ``(*, m1 * m2)``.

    Raises:
        ValueError: the shapes don't fit each other.
    """
    (_, m1, n1), (_, m2, n2) = _check(x, a, b)
    order, _ = linear_macs((n1, n2), (m1, m2))
    return _two_products(x, a, b, order, bias=bias)


def kron_dual(
    x: Tensor,
    a: Tensor,
    b: Tensor,
    activation: Callable[[Tensor], Tensor],
    *,
    inner_bias: Tensor | None = None,
    bias: Tensor | None = None,
    order: Order = "left",
) -> Tensor:
    """Kronecker product with a bias and an activation between its two factors, summed over the branches.

    ``order="left"``: ``Σ_k φ(a[k] X + c[k]) b[k]ᵀ + d``; ``order="right"``: ``Σ_k a[k] φ(X b[k]ᵀ + c[k]) + d``.

    Args:
        x: features ``(*, n1 * n2)``.
        a: left factors ``(r, m1, n1)``.
        b: right factors ``(r, m2, n2)``.
        activation: elementwise function φ.
        inner_bias: c, ``(r, m1, n2)`` if the left factor comes first, ``(r, n1, m2)`` if the right one does, or None.
        bias: d, ``(m1 * m2,)``, or None.
        order: which factor comes first.

    Returns:
        ``(*, m1 * m2)``.

    Raises:
        ValueError: the shapes don't fit each other, or the order is neither left nor right.

    Reference:
        Hogue, Kirby & Narayan, arXiv 2204.04273.
    """
    (r, m1, n1), (_, m2, n2) = _check(x, a, b)
    if order not in ("left", "right"):
        raise ValueError(f"order must be 'left' or 'right', got {order!r}")
    expected = (r, m1, n2) if order == "left" else (r, n1, m2)
    if inner_bias is not None and inner_bias.shape != expected:
        raise ValueError(f"inner_bias must have shape {expected}, got {tuple(inner_bias.shape)}")

    def middle(z: Tensor) -> Tensor:
        if inner_bias is None:
            return activation(z)
        # To the layout of _two_products: the branches of each row together (left), or side by side (right).
        return activation(z + inner_bias.transpose(0, 1).reshape(z.shape[-2:]))

    return _two_products(x, a, b, order, middle=middle, bias=bias)


def _two_products(
    x: Tensor,
    a: Tensor,
    b: Tensor,
    order: Order,
    *,
    middle: Callable[[Tensor], Tensor] | None = None,
    bias: Tensor | None,
) -> Tensor:
    """Both factors of all branches as two matrix products, with ``middle`` applied to what lies between.

    The branches are interleaved row by row, so that what the first product gives only needs another shape, not
    another order in memory, to let the second one sum over the branches.
    """
    (r, m1, n1), (_, m2, n2) = a.shape, b.shape
    lead = x.shape[:-1]
    x = x.reshape(*lead, n1, n2)
    if order == "left":
        z = a.transpose(0, 1).reshape(m1 * r, n1) @ x  # (*, m1 * r, n2)
        z = middle(z) if middle else z
        y = z.reshape(*lead, m1, r * n2) @ b.transpose(1, 2).reshape(r * n2, m2)  # (*, m1, m2)
    else:
        z = x @ b.reshape(r * m2, n2).T  # (*, n1, r * m2)
        z = middle(z) if middle else z
        y = a.permute(1, 2, 0).reshape(m1, n1 * r) @ z.reshape(*lead, n1 * r, m2)  # (*, m1, m2)
    y = y.reshape(*lead, m1 * m2)
    return y if bias is None else y + bias


def _check(x: Tensor, a: Tensor, b: Tensor) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Check that features and factors fit; return the shapes ``(r, m1, n1)`` and ``(r, m2, n2)``."""
    if a.dim() != 3 or b.dim() != 3 or a.shape[0] != b.shape[0]:
        raise ValueError(
            "factors must have shapes (r, m1, n1) and (r, m2, n2) with one rank r, "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if x.dim() < 1 or x.shape[-1] != a.shape[2] * b.shape[2]:
        n1, n2 = a.shape[2], b.shape[2]
        raise ValueError(f"features must have shape (*, {n1} * {n2} = {n1 * n2}), got {tuple(x.shape)}")
    return (a.shape[0], a.shape[1], a.shape[2]), (b.shape[0], b.shape[1], b.shape[2])
