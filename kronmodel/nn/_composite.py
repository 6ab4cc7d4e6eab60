"""Layers as standard torch operations, for every device, data type, number of factors and transformation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kronmodel.nn.activations import Function
from kronmodel.shapes import Order, axes

__all__ = ["Branches", "LayerForm", "add", "composite"]

Branches = Mapping[Order, Sequence[int]]
"""Indices of the branches by their order; an order without branches is left out."""

Middle = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class LayerForm:
    """Parameters and functions of one Kronecker layer, in the form in which layers are computed.

    Attributes:
        factors: two or more, each ``(r, m_i, n_i)``.
        branches: indices of the branches of each order.
        activation: elementwise function after each factor but the last; None for a sum of Kronecker products.
        inner: inner biases by order, stacked over the branches of that order; without biases, no or an empty entry.
        bias: ``(m1 * m2 * ...,)`` or None.
        outer: elementwise function of the layer's output, or None.
    """

    factors: Sequence[Tensor]
    branches: Branches
    activation: Function | None = None
    inner: Mapping[Order, Sequence[Tensor]] | None = None
    bias: Tensor | None = None
    outer: Function | None = None


def composite(x: Tensor, layer: LayerForm) -> Tensor:
    """Compute a layer from features ``(*, n1 * n2 * ...)``, all branches of the same order together."""
    parts = []
    for order, indices in layer.branches.items():
        factors = layer.factors
        if len(layer.branches) > 1:
            factors = [_select(factor, indices) for factor in factors]
        biases = None if layer.inner is None else layer.inner.get(order)
        parts.append(_one_order(x, factors, layer.activation, biases or None, order))
    y = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    if layer.bias is not None:
        y = add(y, layer.bias)
    return y if layer.outer is None else layer.outer(y)


def add(z: Tensor, bias: Tensor) -> Tensor:
    """Add a bias in the data type of the features, which autocast has lowered, as in an ``nn.Linear``."""
    return z + (bias if bias.dtype == z.dtype else bias.to(z.dtype))


def _select(factor: Tensor, indices: Sequence[int]) -> Tensor:
    """Select branches of a factor by their indices, as a view if the indices are consecutive."""
    first, last = indices[0], indices[-1]
    if last - first + 1 == len(indices):
        return factor[first : last + 1]
    return torch.stack([factor[index] for index in indices])


def _one_order(
    x: Tensor,
    factors: Sequence[Tensor],
    activation: Function | None,
    inner_biases: Sequence[Tensor] | None,
    order: Order,
) -> Tensor:
    def middle(index: int, z: Tensor) -> Tensor:
        if inner_biases is not None:
            # Bring the bias from (r, s1, s2, ...) to the layout and the shape of the preceding product's output.
            z = add(z, inner_biases[index].transpose(0, 1).reshape(z.shape[x.dim() - 1 :]))
        return z if activation is None else activation(z)

    return _products(x, factors, order, middle)


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
