"""Fused forward and backward of a two-factor layer on the CPU: six large matrix products, with samples as columns.

With the features as ``(n1, n2, batch)`` a factor multiplies whichever axis lies first, all branches and samples in one
product. The axes change places where every value is touched anyway, in adding a bias and in the activation's gradient:
nothing is copied for it. The output has the usual shape ``(batch, features)`` and the strides of its transpose, so
that the next layer needs no copy of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from kronmodel.nn.activations import InPlace

__all__ = ["MIN_BATCH", "Plan", "dual", "matmul", "pays"]

# torch.mm goes to MKL, which on AMD's processors leaves half of AVX-512 unused; oneDNN, which torch ships too and which
# torch.compile calls through this very operation, is up to twice as fast there. A call costs 12 µs more.
_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
_WORTH_IT = 1 << 20  # multiply-adds


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` of ``(n, k)`` and ``(k, m)``, outside of autograd."""
    if _LINEAR is None or a.dtype != torch.float32 or a.shape[0] * a.shape[1] * b.shape[1] < _WORTH_IT:
        return torch.mm(a, b)
    out: Tensor = _LINEAR(a, b.t(), None, "none", [], "")
    return out


MIN_BATCH = 16  # below, the batch is too short a row to be read and written in one go


def pays(x: Tensor, parameters: list[Tensor]) -> bool:
    """Whether :func:`dual` can take these tensors here, and is the faster way.

    It can't where something else looks into the operations: tracing, ``torch.func``, forward-mode differentiation,
    autocast.
    """
    return (
        x.dtype in (torch.float32, torch.float64)
        and x.numel() >= MIN_BATCH * x.shape[-1]
        and all(type(each) in _PLAIN and each.is_cpu and each.dtype == x.dtype for each in (x, *parameters))
        and not torch.compiler.is_compiling()
        and not torch._C._is_tracing()
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )


_PLAIN = (Tensor, torch.nn.Parameter)


@dataclass(frozen=True)
class Plan:
    """What a layer does, beside its tensors.

    Attributes:
        left: whether the first factor to be applied works on the axis n1.
        activation: after that factor; None for none.
        composite: the layer as a function of ``(x, first, second, inner, bias)`` in differentiable operations, for the
            gradients of gradients.
    """

    left: bool
    activation: InPlace | None
    composite: Callable[..., Tensor]


def dual(plan: Plan, x: Tensor, factors: Sequence[Tensor], inner: Tensor | None, bias: Tensor | None) -> Tensor:
    """Apply one factor, a bias and an activation, then the other factor and a bias, summed over the branches.

    Args:
        plan: the order, the activation.
        x: features ``(batch, n1 * n2)``.
        factors: the one that is applied first, ``(r, p, i)``, and the other one, ``(r, q, j)``.
        inner: ``(r, m1, n2)`` if the left factor comes first, else ``(r, n1, m2)``; or None.
        bias: ``(m1 * m2,)`` or None.

    Returns:
        ``(batch, m1 * m2)``, with the strides of its transpose.
    """
    y: Tensor = _Dual.apply(plan, x, *factors, inner, bias)  # type: ignore[no-untyped-call]
    return y.t()


class _Dual(torch.autograd.Function):
    """From ``(batch, features)`` to ``(features, batch)``."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, *inputs: Any) -> Tensor:
        x, first, second, inner, bias = inputs
        (r, p, i), (_, q, j), batch = first.shape, second.shape, x.shape[0]
        wide = second.transpose(0, 1).reshape(q, r * j)
        columns = x.t().contiguous()
        if not plan.left:
            columns = columns.view(j, i, batch).transpose(0, 1).contiguous()
        columns = columns.view(i, j * batch)

        z = x.new_empty(r, j, p, batch)
        product = matmul(first.reshape(r * p, i), columns).view(r, p, j, batch).transpose(1, 2)
        if inner is None:
            z.copy_(product)
        else:
            torch.add(product, (inner.transpose(1, 2) if plan.left else inner).unsqueeze(-1), out=z)
        h = z if plan.activation is None else plan.activation.forward(z)

        product = matmul(wide, h.view(r * j, p * batch)).view(q, p, batch)
        product = product.transpose(0, 1) if plan.left else product
        y: Tensor = x.new_empty(p * q, batch)
        if bias is None:
            y.view(product.shape).copy_(product)
        else:
            torch.add(product, bias.view(*product.shape[:2], 1), out=y.view(product.shape))
        ctx.plan = plan
        ctx.save_for_backward(*inputs, columns, wide, z, h)
        return y  # not a view: those of a custom function may not be changed in place

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        plan, (*inputs, columns, wide, z, h) = ctx.plan, ctx.saved_tensors
        if torch.is_grad_enabled():
            return (None, *_differentiable(plan.composite, inputs, ctx.needs_input_grad[1:], gradients[0].t()))
        x, first, second, inner, bias = inputs
        (r, p, i), (_, q, j), batch = first.shape, second.shape, x.shape[0]
        g = gradients[0].contiguous()
        g_bias = None if bias is None else g.sum(1)
        g = g.view(p, q, batch).transpose(0, 1).reshape(q, p * batch) if plan.left else g.view(q, p * batch)

        g_wide = matmul(g, h.view(r * j, p * batch).t())
        g_h = matmul(wide.t(), g).view(r, j, p, batch)
        g_z = x.new_empty(r, p, j, batch)
        if plan.activation is None:
            g_z.transpose(1, 2).copy_(g_h)
        else:
            plan.activation.backward(g_h, z, h, g_z.transpose(1, 2))
        g_inner = None
        if inner is not None:
            g_inner = g_z.sum(3) if plan.left else g_z.sum(3).transpose(1, 2)

        g_z = g_z.view(r * p, j * batch)
        g_first = matmul(g_z, columns.t()).view(r, p, i)
        g_x = None
        if ctx.needs_input_grad[1]:
            g_x = matmul(first.reshape(r * p, i).t(), g_z).view(i, j, batch)
            g_x = (g_x if plan.left else g_x.transpose(0, 1).contiguous()).view(i * j, batch).t()
        return None, g_x, g_first, g_wide.view(q, r, j).transpose(0, 1), g_inner, g_bias


def _differentiable(
    composite: Callable[..., Tensor], inputs: list[Tensor | None], needed: tuple[bool, ...], gradient: Tensor
) -> list[Tensor | None]:
    """The gradients as functions of the inputs that can be differentiated again."""
    wanted = [each for each, need in zip(inputs, needed, strict=False) if need and each is not None]
    found = iter(torch.autograd.grad(composite(*inputs), wanted, gradient, create_graph=True))
    return [next(found) if need and each is not None else None for each, need in zip(inputs, needed, strict=False)]
