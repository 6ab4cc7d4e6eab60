"""Fused forward and backward of a two-factor layer on the CPU: six large matrix products, with samples as columns.

The features are stored as ``(n1, n2, batch)``, and a factor multiplies the first axis, for all branches and samples in
one matrix product. The two feature axes are exchanged in operations that read and write every value in any case (adding
a bias, the activation's gradient), so that no extra copy is needed. The output is ``(features, batch)`` in memory.
Between the layers of a network this layout is kept, as a transposed view; elsewhere it is copied to the usual layout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kronmodel.nn._private_torch import mkldnn_linear, runs_eagerly
from kronmodel.nn.activations import InPlace

__all__ = ["MIN_BATCH", "Operation", "dual", "is_applicable", "matmul"]

MIN_BATCH = 16  # in smaller batches the rows are too short for efficient memory access
_MIN_MKLDNN_MACS = 1 << 20  # multiply-adds of a matrix product; below, torch.mm is as fast as oneDNN
_PLAIN = (Tensor, torch.nn.Parameter)  # subclasses may intercept operations


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Multiply ``(n, k)`` by ``(k, m)`` outside of autograd, by the faster of torch's two libraries.

    torch.mm calls MKL, which uses only half of AVX-512 on AMD processors. oneDNN is up to twice as fast there, but a
    call costs 12 µs more; the operation used here is the one that torch.compile generates.
    """
    macs = a.shape[0] * a.shape[1] * b.shape[1]
    if mkldnn_linear is None or a.dtype != torch.float32 or macs < _MIN_MKLDNN_MACS:
        return torch.mm(a, b)
    return mkldnn_linear(a, b.t(), None, "none", [], "")


def is_applicable(x: Tensor, parameters: list[Tensor]) -> bool:
    """Tell whether :func:`dual` supports these tensors and is faster than the composite operations.

    It does not support contexts that intercept operations: tracing, ``torch.func``, forward-mode differentiation and
    autocast.
    """
    # Tracing is checked first: a symbolic batch size must not be compared with a number.
    return (
        not torch.compiler.is_compiling()
        and runs_eagerly()
        and x.dtype in (torch.float32, torch.float64)
        and x.numel() >= MIN_BATCH * x.shape[-1]
        and all(type(each) in _PLAIN and each.is_cpu and each.dtype == x.dtype for each in (x, *parameters))
        and not torch.is_autocast_enabled("cpu")
    )


@dataclass(frozen=True)
class Operation:
    """Non-tensor arguments of the fused layer: order of the factors, activation and composite implementation.

    Attributes:
        left: whether the factor that is applied first acts on the axis n1.
        activation: activation between the two factors; None for a linear layer.
        composite: the layer as a function of ``(x, first, second, inner, bias)`` in differentiable operations, for the
            second-order gradients.
    """

    left: bool
    activation: InPlace | None
    composite: Callable[..., Tensor]


def dual(
    operation: Operation,
    x: Tensor,
    factors: Sequence[Tensor],
    inner: Tensor | None,
    bias: Tensor | None,
    *,
    column_output: bool = False,
) -> Tensor:
    """Apply one factor, a bias and an activation, then the other factor and a bias, summed over the branches.

    Args:
        operation: the order and the activation.
        x: features ``(batch, n1 * n2)``, of any strides; the gradient has the strides of x if those are contiguous
            or a transposed contiguous matrix's.
        factors: the factor that is applied first, ``(r, p, i)``, and the other factor, ``(r, q, j)``.
        inner: ``(r, m1, n2)`` if the left factor comes first, else ``(r, n1, m2)``; or None.
        bias: ``(m1 * m2,)`` or None.
        column_output: keep the result in the column layout ``(features, batch)``, which saves the next layer a copy.

    Returns:
        ``(batch, m1 * m2)``: contiguous, or with ``column_output`` the transpose of a contiguous matrix.
    """
    y: Tensor = _Dual.apply(operation, x, *factors, inner, bias)  # type: ignore[no-untyped-call]
    return y.t() if column_output else y.t().contiguous()


def _is_column_layout(x: Tensor) -> bool:
    return x.t().is_contiguous() and not x.is_contiguous()


class _Dual(torch.autograd.Function):
    """Autograd function of the fused layer, from ``(batch, features)`` to ``(features, batch)``."""

    @staticmethod
    def forward(ctx: Any, operation: Operation, *inputs: Any) -> Tensor:
        x, first, second, inner, bias = inputs
        (r, p, i), (_, q, j), batch = first.shape, second.shape, x.shape[0]
        wide = second.transpose(0, 1).reshape(q, r * j)
        columns = x.t().contiguous()
        if not operation.left:
            columns = columns.view(j, i, batch).transpose(0, 1).contiguous()
        columns = columns.view(i, j * batch)

        z = x.new_empty(r, j, p, batch)
        product = matmul(first.reshape(r * p, i), columns).view(r, p, j, batch).transpose(1, 2)
        if inner is None:
            z.copy_(product)
        else:
            torch.add(product, (inner.transpose(1, 2) if operation.left else inner).unsqueeze(-1), out=z)
        h = z if operation.activation is None else operation.activation.forward(z)

        product = matmul(wide, h.view(r * j, p * batch)).view(q, p, batch)
        product = product.transpose(0, 1) if operation.left else product
        y: Tensor = x.new_empty(p * q, batch)
        if bias is None:
            y.view(product.shape).copy_(product)
        else:
            torch.add(product, bias.view(*product.shape[:2], 1), out=y.view(product.shape))
        ctx.operation = operation
        ctx.save_for_backward(*inputs, columns, wide, z, h)
        return y  # not a view, because views from a custom function can't be modified in place

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        operation, (*inputs, columns, wide, z, h) = ctx.operation, ctx.saved_tensors
        if torch.is_grad_enabled():
            return (None, *_differentiable(operation.composite, inputs, ctx.needs_input_grad[1:], gradients[0].t()))
        x, first, second, inner, bias = inputs
        (r, p, i), (_, q, j), batch = first.shape, second.shape, x.shape[0]
        g = gradients[0].contiguous()
        g_bias = None if bias is None else g.sum(1)
        g = g.view(p, q, batch).transpose(0, 1).reshape(q, p * batch) if operation.left else g.view(q, p * batch)

        g_wide = matmul(g, h.view(r * j, p * batch).t())
        g_h = matmul(wide.t(), g).view(r, j, p, batch)
        g_z = x.new_empty(r, p, j, batch)
        if operation.activation is None:
            g_z.transpose(1, 2).copy_(g_h)
        else:
            operation.activation.backward(g_h, z, h, g_z.transpose(1, 2))
        g_inner = None
        if inner is not None:
            g_inner = g_z.sum(3) if operation.left else g_z.sum(3).transpose(1, 2).contiguous()

        g_z = g_z.view(r * p, j * batch)
        g_first = matmul(g_z, columns.t()).view(r, p, i)
        g_x = None
        if ctx.needs_input_grad[1]:
            g_x = matmul(first.reshape(r * p, i).t(), g_z).view(i, j, batch)
            g_x = (g_x if operation.left else g_x.transpose(0, 1).contiguous()).view(i * j, batch).t()
            g_x = g_x if _is_column_layout(x) else g_x.contiguous()
        # Contiguous like the parameters: autograd would otherwise copy it, and users may call ``view`` on a gradient.
        g_second = g_wide.view(q, r, j).transpose(0, 1).contiguous()
        return None, g_x, g_first, g_second, g_inner, g_bias


def _differentiable(
    composite: Callable[..., Tensor], inputs: list[Tensor | None], needed: tuple[bool, ...], gradient: Tensor
) -> list[Tensor | None]:
    """Compute gradients with the composite operations, so that they can be differentiated again."""
    wanted = [each for each, need in zip(inputs, needed, strict=False) if need and each is not None]
    found = iter(torch.autograd.grad(composite(*inputs), wanted, gradient, create_graph=True))
    return [next(found) if need and each is not None else None for each, need in zip(inputs, needed, strict=False)]
