"""The algebra as pure tensor functions. The matrix that they stand for is never formed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from kronmodel.nn import _fused_cpu
from kronmodel.nn.activations import Activation, in_place
from kronmodel.shapes import Order, Shape, axes, linear_macs

__all__ = ["apply", "inner_shapes", "kron_dual", "kron_linear"]

Middle = Callable[[int, Tensor], Tensor]


def kron_linear(x: Tensor, factors: Sequence[Tensor], bias: Tensor | None = None) -> Tensor:
    """Multiply by a sum of Kronecker products: ``x @ (Σ_k F1[k] ⊗ F2[k] ⊗ ...).T + bias``.

    With two factors that is ``Σ_k A_k X B_kᵀ``, with more it is one mode product for each axis.

    Args:
        x: features ``(*, n1 * n2 * ...)``.
        factors: two or more, each ``(r, m_i, n_i)``.
        bias: ``(m1 * m2 * ...,)`` or None.

    Returns:
        ``(*, m1 * m2 * ...)``.

    Raises:
        ValueError: the shapes don't fit each other.
    """
    in_shape, out_shape = _check(x, factors)
    order, _ = linear_macs(in_shape, out_shape)
    return apply(x, factors, None, None, bias=bias, order=order)


def kron_dual(
    x: Tensor,
    factors: Sequence[Tensor],
    activation: Callable[[Tensor], Tensor],
    *,
    inner_biases: Sequence[Tensor] | None = None,
    bias: Tensor | None = None,
    order: Order = "left",
) -> Tensor:
    """Kronecker product with a bias and an activation after each factor but the last, summed over the branches.

    With two factors and ``order="left"``: ``Σ_k φ(A_k X + C_k) B_kᵀ + D``; with ``order="right"``:
    ``Σ_k A_k φ(X B_kᵀ + C_k) + D``.

    Args:
        x: features ``(*, n1 * n2 * ...)``.
        factors: two or more, each ``(r, m_i, n_i)``.
        activation: elementwise function φ.
        inner_biases: one for each factor but the last to be applied, of the shapes that :func:`inner_shapes` gives
            behind ``r``; or None.
        bias: D, ``(m1 * m2 * ...,)``, or None.
        order: whether the first factor is applied first, and the last one last, or the other way round.

    Returns:
        ``(*, m1 * m2 * ...)``.

    Raises:
        ValueError: the shapes don't fit each other, or the order is neither left nor right.

    Reference:
        Hogue, Kirby & Narayan, arXiv 2204.04273.
    """
    in_shape, out_shape = _check(x, factors)
    if order not in ("left", "right"):
        raise ValueError(f"order must be 'left' or 'right', got {order!r}")
    if inner_biases is not None:
        expected = [(factors[0].shape[0], *shape) for shape in inner_shapes(in_shape, out_shape, order)]
        if [tuple(each.shape) for each in inner_biases] != expected:
            got = [tuple(each.shape) for each in inner_biases]
            raise ValueError(f"inner_biases must have shapes {expected}, got {got}")

    return apply(x, factors, activation, inner_biases, bias=bias, order=order)


def inner_shapes(in_shape: Shape, out_shape: Shape, order: Order) -> list[Shape]:
    """The shapes between the factors: of the features after each factor but the last has been applied."""
    sizes, shapes = list(in_shape), []
    for axis in axes(order, len(sizes))[:-1]:
        sizes[axis] = out_shape[axis]
        shapes.append(tuple(sizes))
    return shapes


def apply(
    x: Tensor,
    factors: Sequence[Tensor],
    activation: Activation | None,
    inner_biases: Sequence[Tensor] | None,
    *,
    bias: Tensor | None,
    order: Order,
) -> Tensor:
    """Both functions without their checks, in the way that is the faster one here; no activation makes it linear."""
    inner = inner_biases or None
    fused = None if activation is None else in_place(activation)
    parameters = [*factors, *(inner or ()), *(() if bias is None else (bias,))]
    if len(factors) != 2 or (activation is not None and fused is None) or not _fused_cpu.pays(x, parameters):
        return _composite(x, factors, activation, inner, bias=bias, order=order)
    left = order == "left"
    both = factors if left else factors[::-1]

    def composite(x: Tensor, first: Tensor, second: Tensor, inner: Tensor | None, bias: Tensor | None) -> Tensor:
        factors = (first, second) if left else (second, first)
        return _composite(x, factors, activation, None if inner is None else [inner], bias=bias, order=order)

    plan = _fused_cpu.Plan(left, fused, composite)
    y = _fused_cpu.dual(plan, x.reshape(-1, x.shape[-1]), both, None if inner is None else inner[0], bias)
    return y if x.dim() == 2 else y.reshape(*x.shape[:-1], y.shape[1])


def _composite(
    x: Tensor,
    factors: Sequence[Tensor],
    activation: Activation | None,
    inner_biases: Sequence[Tensor] | None,
    *,
    bias: Tensor | None,
    order: Order,
) -> Tensor:
    """In operations that autograd, torch.func, torch.compile and the exporter know, for any number of factors."""

    def middle(index: int, z: Tensor) -> Tensor:
        if inner_biases is not None:
            # From (r, s1, s2, ...) to the layout of _products, in the shape that the last product left it in.
            z = z + inner_biases[index].transpose(0, 1).reshape(z.shape[x.dim() - 1 :])
        return z if activation is None else activation(z)

    y = _products(x, factors, order, middle)
    return y if bias is None else y + bias


def _products(x: Tensor, factors: Sequence[Tensor], order: Order, middle: Middle) -> Tensor:
    """All branches of all factors as one matrix product for each axis, with ``middle`` applied between them.

    In between, the features lie as ``(*, s1, r, s2, ...)``: with the branches behind the first axis the first product
    from the left gives what the next one takes, and the last one sums over the branches, by another shape alone. With
    two factors nothing is ever reordered in memory, in either order.
    """
    lead, sizes, rank = x.shape[:-1], [factor.shape[2] for factor in factors], factors[0].shape[0]
    first, *between, last = axes(order, len(factors))
    z = middle(0, _expand(x, factors[first], lead, sizes, first))
    sizes[first] = factors[first].shape[1]
    for index, axis in enumerate(between, start=1):
        before, after = math.prod(sizes[1:axis]), math.prod(sizes[axis + 1 :])
        z = factors[axis].unsqueeze(1) @ z.reshape(*lead, sizes[0], rank, before, sizes[axis], after)
        sizes[axis] = factors[axis].shape[1]
        z = middle(index, z)
    return _contract(z, factors[last], lead, sizes, last)


def _expand(x: Tensor, factor: Tensor, lead: Sequence[int], sizes: Sequence[int], axis: int) -> Tensor:
    """Apply the first factor ``(r, m, n)`` of every branch: features to the layout ``(*, s1, r, s2, ...)``."""
    rank, m, n = factor.shape
    # Every size in full, here and below: an empty batch leaves no room for -1.
    if axis == 0:
        return factor.transpose(0, 1).reshape(m * rank, n) @ x.reshape(*lead, n, math.prod(sizes[1:]))
    z = x.reshape(*lead, *sizes) @ factor.reshape(rank * m, n).T  # (*, n1, n2, ..., r * m)
    return z if axis == 1 else z.reshape(*lead, *sizes[:-1], rank, m).movedim(-2, len(lead) + 1)


def _contract(z: Tensor, factor: Tensor, lead: Sequence[int], sizes: Sequence[int], axis: int) -> Tensor:
    """Apply the last factor ``(r, m, n)`` and sum over the branches: the layout ``(*, s1, r, s2, ...)`` to features."""
    rank, m, n = factor.shape
    rest = math.prod(sizes) // n
    if axis == 0:
        y = factor.permute(1, 2, 0).reshape(m, n * rank) @ z.reshape(*lead, n * rank, rest)  # (*, m1, s2 * ...)
    else:
        if axis > 1:
            z = z.reshape(*lead, sizes[0], rank, rest // sizes[0], n).transpose(-3, -2)  # (*, s1, s2 * ..., r, n)
        y = z.reshape(*lead, rest, rank * n) @ factor.transpose(1, 2).reshape(rank * n, m)  # (*, s1 * s2 * ..., m)
    return y.reshape(*lead, m * rest)


def _check(x: Tensor, factors: Sequence[Tensor]) -> tuple[Shape, Shape]:
    """Check that features and factors fit; return the shapes ``(n1, n2, ...)`` and ``(m1, m2, ...)``."""
    if len(factors) < 2 or any(factor.dim() != 3 or factor.shape[0] != factors[0].shape[0] for factor in factors):
        got = ", ".join(str(tuple(factor.shape)) for factor in factors) or "none"
        raise ValueError(f"factors must be two or more of shapes (r, m_i, n_i) with one rank r, got {got}")
    in_shape = tuple(factor.shape[2] for factor in factors)
    if x.dim() < 1 or x.shape[-1] != math.prod(in_shape):
        sizes = " * ".join(map(str, in_shape))
        raise ValueError(f"features must have shape (*, {sizes} = {math.prod(in_shape)}), got {tuple(x.shape)}")
    return in_shape, tuple(factor.shape[1] for factor in factors)
