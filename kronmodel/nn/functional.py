"""Kronecker layers as pure tensor functions, which never form the dense weight matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from kronmodel.nn import _native
from kronmodel.nn._composite import Branches, LayerForm, composite
from kronmodel.nn.activations import Activation, get_activation
from kronmodel.nn.nearest import nearest_kronecker
from kronmodel.shapes import Order, Shape, axes, check_orders, linear_macs

__all__ = [
    "Part",
    "apply_layers",
    "apply_parts",
    "branches_by_order",
    "inner_shapes",
    "kron_dual",
    "kron_linear",
    "linear_order",
    "nearest_kronecker",
    "split_layers",
]

Part = tuple[Sequence[LayerForm], _native.Chain | None]
"""Consecutive layers, and how the native kernel takes them; None if it doesn't."""


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
    return apply_layers(x, [LayerForm(factors, linear_order(factors), bias=bias)])


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
    return apply_layers(x, [LayerForm(factors, branches, get_activation(activation), inner, bias)])


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


def linear_order(factors: Sequence[Tensor]) -> Branches:
    """Choose the cheaper order for a sum of Kronecker products, for all branches."""
    in_shape, out_shape = (tuple(factor.shape[side] for factor in factors) for side in (2, 1))
    return {linear_macs(in_shape, out_shape)[0]: range(len(factors[0]))}


def apply_layers(x: Tensor, layers: Sequence[LayerForm]) -> Tensor:
    """Compute consecutive layers without argument checks: by the native kernel where it applies, else by torch.

    Args:
        x: features ``(*, n1 * n2 * ...)`` of the first layer.
        layers: each takes as many features as the layer before gives.
    """
    return apply_parts(x, split_layers(layers))


def split_layers(layers: Sequence[LayerForm]) -> list[Part]:
    """Split layers into parts for :func:`apply_parts`, each to be computed at once, by the native kernel if it can."""
    parts, start = [], 0
    for end in range(1, len(layers) + 1):
        # The kernel hands features on as they lie in memory, padded by the row: only where both layers have these rows.
        if end == len(layers) or not _continues(layers[end - 1], layers[end]):
            part = layers[start:end]
            parts.append((part, _native.chain_of(part)))
            start = end
    return parts


def apply_parts(x: Tensor, parts: Sequence[Part]) -> Tensor:
    """Compute layers that :func:`split_layers` has split."""
    for layers, chain in parts:
        if chain is not None and _native.is_applicable(x, chain):
            x = _native.apply(x, chain)
        else:
            for layer in layers:
                x = composite(x, layer)
    return x


def _continues(before: LayerForm, after: LayerForm) -> bool:
    """Tell whether a layer's output has the factor sizes of the next layer's input."""
    return all(one.shape[1] == other.shape[2] for one, other in zip(before.factors, after.factors, strict=False))


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
