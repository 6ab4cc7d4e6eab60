"""Kronecker layers as pure tensor functions, which never form the dense weight matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from kronmodel.nn import _fused_cpu
from kronmodel.nn.activations import Activation, Function, get_activation, in_place
from kronmodel.nn.nearest import nearest_kronecker
from kronmodel.shapes import Order, Shape, axes, check_orders, linear_macs

__all__ = [
    "apply_branches",
    "branches_by_order",
    "inner_shapes",
    "kron_dual",
    "kron_linear",
    "linear_product",
    "nearest_kronecker",
]

Middle = Callable[[int, Tensor], Tensor]
Branches = Mapping[Order, Sequence[int]]
"""Indices of the branches by their order; an order without branches is left out."""


def kron_linear(x: Tensor, factors: Sequence[Tensor], bias: Tensor | None = None) -> Tensor:
    """Multiply features by a sum of Kronecker products: ``x @ (Σ_k F1[k] ⊗ F2[k] ⊗ ...).T + bias``.

    With two factors this is ``Σ_k A_k X B_kᵀ``; with more, one mode product for each axis.

    Args:
        x: features ``(*, n1 * n2 * ...)``.
        factors: two or more, each ``(r, m_i, n_i)``.
        bias: ``(m1 * m2 * ...,)`` or None.

    Returns:
        ``(*, m1 * m2 * ...)``, contiguous.

    Cost:
        multiply-adds a sample as :func:`kronmodel.shapes.linear_macs` counts them, times r.

    Raises:
        ValueError: the shapes don't fit each other.

    Example:
        >>> kron_linear(torch.zeros(7, 784), [torch.zeros(2, 16, 28), torch.zeros(2, 32, 28)]).shape
        torch.Size([7, 512])
    """
    _check(x, factors)
    return linear_product(x, factors, bias)


def kron_dual(
    x: Tensor,
    factors: Sequence[Tensor],
    activation: Activation,
    *,
    inner_biases: Sequence[Tensor] | Sequence[Sequence[Tensor]] | None = None,
    bias: Tensor | None = None,
    order: Order | Sequence[Order] = "left",
) -> Tensor:
    """Apply Kronecker factors with a bias and an activation after each but the last, summed over the branches.

    With two factors a branch is ``φ(A_k X + C_k) B_kᵀ`` in the order ``"left"`` and ``A_k φ(X B_kᵀ + C_k)`` in the
    order ``"right"``; ``bias`` is added to their sum.

    Args:
        x: features ``(*, n1 * n2 * ...)``.
        factors: two or more, each ``(r, m_i, n_i)``.
        activation: elementwise function φ, or the name of one: gelu, relu or tanh.
        inner_biases: with one order for all branches, one tensor for each factor but the last to be applied, of shapes
            ``(r, *shape)`` for the shapes that :func:`inner_shapes` lists. With an order for each branch, one such
            sequence for each branch, of shapes without ``r``. None for no inner biases.
        bias: ``(m1 * m2 * ...,)`` or None.
        order: ``"left"`` if the first factor is applied first, ``"right"`` if the last one is; or one for each branch.

    Returns:
        ``(*, m1 * m2 * ...)``, contiguous.

    Cost:
        multiply-adds a sample as :func:`kronmodel.shapes.dual_macs` counts them for each branch.

    Raises:
        ValueError: the shapes don't fit each other, an order is unknown, or the activation is.

    Example:
        >>> factors = [torch.zeros(2, 4, 28), torch.zeros(2, 8, 28)]
        >>> kron_dual(torch.zeros(7, 784), factors, torch.tanh, order=["left", "right"]).shape
        torch.Size([7, 32])

    Reference:
        Hogue, Kirby & Narayan, arXiv 2204.04273.
    """
    in_shape, out_shape = _check(x, factors)
    orders = check_orders(order, len(factors[0]))
    branches = branches_by_order(orders)
    inner: dict[Order, Sequence[Tensor]] = {}
    if inner_biases is not None and isinstance(order, str):
        shared = cast("Sequence[Tensor]", inner_biases)
        _check_inner(shared, [(len(orders), *shape) for shape in inner_shapes(in_shape, out_shape, order)])
        inner = {order: shared}
    elif inner_biases is not None:
        each = cast("Sequence[Sequence[Tensor]]", inner_biases)
        if len(each) != len(orders):
            raise ValueError(f"inner_biases must be one sequence for each of {len(orders)} branches, got {len(each)}")
        for index, (biases, own_order) in enumerate(zip(each, orders, strict=True)):
            _check_inner(biases, inner_shapes(in_shape, out_shape, own_order), f" of branch {index}")
        inner = {
            own_order: [torch.stack(step) for step in zip(*(each[index] for index in indices), strict=True)]
            for own_order, indices in branches.items()
        }
    return apply_branches(x, factors, get_activation(activation), inner, bias=bias, branches=branches)


def inner_shapes(in_shape: Shape, out_shape: Shape, order: Order) -> list[Shape]:
    """List the shapes of one branch's inner biases: the shapes of the features after each factor except the last."""
    sizes, shapes = list(in_shape), []
    for axis in axes(order, len(sizes))[:-1]:
        sizes[axis] = out_shape[axis]
        shapes.append(tuple(sizes))
    return shapes


def branches_by_order(orders: Sequence[Order]) -> dict[Order, tuple[int, ...]]:
    """Group the indices of branches by their order; an order without branches has no entry."""
    every: tuple[Order, ...] = ("left", "right")
    groups = {order: tuple(index for index, each in enumerate(orders) if each == order) for order in every}
    return {order: indices for order, indices in groups.items() if indices}


def linear_product(
    x: Tensor, factors: Sequence[Tensor], bias: Tensor | None = None, *, column_output: bool = False
) -> Tensor:
    """Compute :func:`kron_linear` without argument checks, with the factors applied in the cheaper order.

    Args:
        x: features ``(*, n1 * n2 * ...)``.
        factors: two or more, each ``(r, m_i, n_i)``.
        bias: ``(m1 * m2 * ...,)`` or None.
        column_output: allow a result whose batch axis is innermost in memory, as a following Kronecker layer reads it.
    """
    in_shape, out_shape = ([factor.shape[side] for factor in factors] for side in (2, 1))
    order, _ = linear_macs(tuple(in_shape), tuple(out_shape))
    return _apply(x, factors, None, None, bias=bias, order=order, column_output=column_output)


def apply_branches(
    x: Tensor,
    factors: Sequence[Tensor],
    activation: Function,
    inner: Mapping[Order, Sequence[Tensor]],
    *,
    bias: Tensor | None,
    branches: Branches,
    column_output: bool = False,
) -> Tensor:
    """Compute :func:`kron_dual` without argument checks, all branches of the same order together.

    Args:
        x: features ``(*, n1 * n2 * ...)``.
        factors: two or more, each ``(r, m_i, n_i)``.
        activation: elementwise function.
        inner: inner biases by order, stacked over the branches of that order; without biases, no or an empty entry.
        bias: ``(m1 * m2 * ...,)`` or None.
        branches: indices of the branches of each order.
        column_output: allow a result whose batch axis is innermost in memory, as a following Kronecker layer reads it.
    """
    if len(branches) == 1:
        (order,) = branches
        # The bias is added within the operation, which saves a pass over the output.
        return _apply(x, factors, activation, inner.get(order), bias=bias, order=order, column_output=column_output)
    parts = [
        _apply(
            x,
            [_select(factor, indices) for factor in factors],
            activation,
            inner.get(order),
            bias=None,
            order=order,
            column_output=column_output,
        )
        for order, indices in branches.items()
    ]
    y = parts[0] + parts[1]
    return y if bias is None else y + bias


def _select(factor: Tensor, indices: Sequence[int]) -> Tensor:
    """Select branches of a factor by their indices, as a view if the indices are consecutive."""
    first, last = indices[0], indices[-1]
    if last - first + 1 == len(indices):
        return factor[first : last + 1]
    return torch.stack([factor[index] for index in indices])


def _apply(
    x: Tensor,
    factors: Sequence[Tensor],
    activation: Function | None,
    inner_biases: Sequence[Tensor] | None,
    *,
    bias: Tensor | None,
    order: Order,
    column_output: bool,
) -> Tensor:
    """Apply the factors in a given order with the faster implementation; without an activation, the layer is linear."""
    inner = inner_biases or None
    fused = None if activation is None else in_place(activation)
    parameters = [*factors, *(inner or ()), *(() if bias is None else (bias,))]
    if len(factors) != 2 or (activation is not None and fused is None) or not _fused_cpu.is_applicable(x, parameters):
        return _composite(x, factors, activation, inner, bias=bias, order=order)
    left = order == "left"
    both = factors if left else factors[::-1]

    def composite(x: Tensor, first: Tensor, second: Tensor, inner: Tensor | None, bias: Tensor | None) -> Tensor:
        factors = (first, second) if left else (second, first)
        return _composite(x, factors, activation, None if inner is None else [inner], bias=bias, order=order)

    y = _fused_cpu.dual(
        _fused_cpu.Operation(left, fused, composite),
        x.reshape(-1, x.shape[-1]),
        both,
        None if inner is None else inner[0],
        bias,
        column_output=column_output,
    )
    return y if x.dim() == 2 else y.reshape(*x.shape[:-1], y.shape[1])


def _composite(
    x: Tensor,
    factors: Sequence[Tensor],
    activation: Function | None,
    inner_biases: Sequence[Tensor] | None,
    *,
    bias: Tensor | None,
    order: Order,
) -> Tensor:
    """Compute a layer with any number of factors from standard torch operations, for transformations and exporters."""

    def middle(index: int, z: Tensor) -> Tensor:
        if inner_biases is not None:
            # Bring the bias from (r, s1, s2, ...) to the layout and the shape of the preceding product's output.
            z = z + inner_biases[index].transpose(0, 1).reshape(z.shape[x.dim() - 1 :])
        return z if activation is None else activation(z)

    y = _products(x, factors, order, middle)
    return y if bias is None else y + bias


def _products(x: Tensor, factors: Sequence[Tensor], order: Order, middle: Middle) -> Tensor:
    """Apply the factors of all branches as one matrix product for each axis, with ``middle`` applied between them.

    Between the products the layout is ``(*, s1, r, s2, ...)``. With the branch axis behind the first feature axis, a
    reshape without a copy is enough to pass the first product's output (from the left) to the next product, and to let
    the last product sum over the branches. With two factors no data is reordered in memory, in either order.
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
    """Apply the first factor ``(r, m, n)`` of all branches; the result has the layout ``(*, s1, r, s2, ...)``."""
    rank, m, n = factor.shape
    # All sizes are explicit, here and below, because -1 can't be inferred for an empty batch.
    if axis == 0:
        return factor.transpose(0, 1).reshape(m * rank, n) @ x.reshape(*lead, n, math.prod(sizes[1:]))
    z = x.reshape(*lead, *sizes) @ factor.reshape(rank * m, n).T  # (*, n1, n2, ..., r * m)
    return z if axis == 1 else z.reshape(*lead, *sizes[:-1], rank, m).movedim(-2, len(lead) + 1)


def _contract(z: Tensor, factor: Tensor, lead: Sequence[int], sizes: Sequence[int], axis: int) -> Tensor:
    """Apply the last factor ``(r, m, n)`` to features in layout ``(*, s1, r, s2, ...)``, and sum over the branches."""
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
    """Check the shapes of features and factors; return the factor sizes ``(n1, n2, ...)`` and ``(m1, m2, ...)``."""
    if len(factors) < 2 or any(factor.dim() != 3 or factor.shape[0] != factors[0].shape[0] for factor in factors):
        got = ", ".join(str(tuple(factor.shape)) for factor in factors) or "none"
        raise ValueError(f"factors must be two or more of shapes (r, m_i, n_i) with one rank r, got {got}")
    in_shape = tuple(factor.shape[2] for factor in factors)
    if x.dim() < 1 or x.shape[-1] != math.prod(in_shape):
        sizes = " * ".join(map(str, in_shape))
        raise ValueError(f"features must have shape (*, {sizes} = {math.prod(in_shape)}), got {tuple(x.shape)}")
    return in_shape, tuple(factor.shape[1] for factor in factors)


def _check_inner(biases: Sequence[Tensor], expected: Sequence[Shape], of: str = "") -> None:
    """Check the shapes of the inner biases of all branches, or of a single branch."""
    got = [tuple(each.shape) for each in biases]
    if got != list(expected):
        raise ValueError(f"inner_biases{of} must have shapes {list(expected)}, got {got}")
