"""Consecutive Kronecker layers by the native kernel (``kronmodel/native/kernel.c``), as one operator of torch.

``torch.ops.kronmodel.layers`` and ``layers_backward`` are custom operators with fake implementations and a gradient
formula, for torch.compile. Outside of it, an autograd function calls the same implementations without the dispatcher,
which takes 0.15 ms more for the lists of a small network's parameters: a tenth of its training step.

The kernel computes float32 on CPUs, layers with two factors, and the named activations. Everything else is left to the
composite operations, as are contexts that intercept operations: tracing, export, ``torch.func``, forward-mode
differentiation and autocast.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kronmodel.nn._composite import LayerForm, composite
from kronmodel.nn._kernel import PARAMETERS, Layout, has_library, layout_of, library
from kronmodel.nn._private_torch import runs_eagerly
from kronmodel.nn.activations import Function
from kronmodel.shapes import Order

__all__ = ["Chain", "apply", "chain_of", "is_applicable"]

KEPT_BYTES = 48 << 20
"""The largest memory in which the forward pass keeps values for the backward pass; more are computed again. That takes
up to a quarter more time, but no more memory than a dense network of width 784 takes for 1,024 samples. Values of GELU
that are computed again differ by rounding: with its slopes, other formulas are faster. A network of a batch size always
does one of both, so that its training repeats to the bit."""

_ACTIVATIONS: tuple[Function | None, ...] = (None, F.relu, F.gelu, torch.tanh)  # by their numbers in kernel.h
_ORDERS: tuple[Order, ...] = ("left", "right")
_PLAIN = (Tensor, torch.nn.Parameter)  # subclasses may intercept operations


@dataclass(frozen=True)
class Chain:
    """Consecutive layers as the kernel takes them.

    Attributes:
        spec: integers that describe the layers: see :func:`_decode`.
        parameters: tensors of all layers.
        shapes: of the parameters, at the time of ``spec``.
    """

    spec: tuple[int, ...]
    parameters: list[Tensor]
    shapes: list[torch.Size]


def chain_of(layers: Sequence[LayerForm]) -> Chain | None:
    """Encode layers that the kernel computes; None if it has not their number of factors, or their activations."""
    if not all(map(_supports, layers)):
        return None
    spec, parameters = _encode(layers)
    return Chain(tuple(spec), parameters, [each.shape for each in parameters])


def is_applicable(x: Tensor, chain: Chain) -> bool:
    """Tell whether :func:`apply` supports these tensors and the context of the call."""
    if torch.compiler.is_compiling():
        if torch.compiler.is_exporting():
            return False
    elif not runs_eagerly():
        return False
    return (
        not torch.is_autocast_enabled("cpu")
        and _is_plain(x)
        and all(map(_is_plain, chain.parameters))
        and [each.shape for each in chain.parameters] == chain.shapes
        and has_library()
    )


def _supports(layer: LayerForm) -> bool:
    known = _number(layer.activation) is not None and _number(layer.outer) is not None
    return known and len(layer.factors) == 2


def _is_plain(tensor: Tensor) -> bool:
    return type(tensor) in _PLAIN and tensor.dtype == torch.float32 and tensor.is_cpu


def _number(activation: Function | None) -> int | None:
    """Return the kernel's number of an activation, or None for an unknown one."""
    for number, known in enumerate(_ACTIVATIONS):
        if known is activation:
            return number
    return None


def apply(x: Tensor, chain: Chain) -> Tensor:
    """Compute consecutive layers.

    Args:
        x: features ``(*, n1 * n2)`` of the first layer.
        chain: at least one layer.

    Returns:
        ``(*, m1 * m2)`` of the last layer, contiguous.
    """
    rows = x if x.dim() == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    y: Tensor
    if torch.compiler.is_compiling():
        y = torch.ops.kronmodel.layers(rows, chain.parameters, list(chain.spec), False)[0]
    elif not torch.is_grad_enabled():
        y = _layers(rows, chain.parameters, chain.spec, False)[0]
    else:
        y = _Layers.apply(rows, chain.spec, *chain.parameters)  # type: ignore[no-untyped-call]
    return y if x.dim() == 2 else y.reshape(*x.shape[:-1], y.shape[1])


def _encode(layers: Sequence[LayerForm]) -> tuple[list[int], list[Tensor]]:
    """Split layers into integers and tensors: see :func:`_decode`."""
    spec: list[int] = []
    parameters: list[Tensor] = []
    for layer in layers:
        first, second = layer.factors
        inner_number, outer_number = _number(layer.activation), _number(layer.outer)
        assert inner_number is not None and outer_number is not None  # noqa: PT018 (see is_applicable)
        (rank, m1, n1), (_, m2, n2) = first.shape, second.shape
        orders = [0] * rank
        for index in layer.branches.get("right", ()):
            orders[index] = 1
        inner = layer.inner or {}
        left, right = inner.get("left"), inner.get("right")
        present = (1 if left else 0) + (2 if right else 0) + (0 if layer.bias is None else 4)
        spec += (n1, n2, m1, m2, rank, inner_number, outer_number, present, *orders)
        parameters += (first, second)
        if left:
            parameters.append(left[0])
        if right:
            parameters.append(right[0])
        if layer.bias is not None:
            parameters.append(layer.bias)
    return spec, parameters


def _decode(spec: Sequence[int], parameters: Sequence[Tensor]) -> list[LayerForm]:
    """Restore the layers that :func:`_encode` split."""
    layers, given, at = [], iter(parameters), 0
    while at < len(spec):
        rank, inner_number, outer_number, present = spec[at + 4 : at + 8]
        orders = spec[at + 8 : at + 8 + rank]
        branches: dict[Order, list[int]] = {}
        for number, order in enumerate(_ORDERS):
            if number in orders:
                branches[order] = [index for index, each in enumerate(orders) if each == number]
        factors = (next(given), next(given))
        inner: dict[Order, list[Tensor]] = {}
        if present & 1:
            inner["left"] = [next(given)]
        if present & 2:
            inner["right"] = [next(given)]
        bias = next(given) if present & 4 else None
        functions = _ACTIVATIONS[inner_number], _ACTIVATIONS[outer_number]
        layers.append(LayerForm(factors, branches, functions[0], inner, bias, functions[1]))
        at += 8 + rank
    return layers


def _layers(x: Tensor, parameters: Sequence[Tensor], spec: Sequence[int], keep: bool) -> tuple[Tensor, Tensor]:
    """Compute layers ``(batch, features)``; return their output, and what is kept for the backward pass."""
    layout = layout_of(tuple(spec))
    return _forward(x, layout, layout.pack(parameters, library()), keep)


def _forward(x: Tensor, layout: Layout, packed: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
    batch = x.shape[0]
    x = x.contiguous()
    y = torch.empty(batch, layout.out_features)
    kept = torch.empty(batch * layout.kept if keep else 0)
    address = kept.data_ptr() if keep else None
    _check(library().kron_forward(packed.data_ptr(), batch, x.data_ptr(), y.data_ptr(), address, layout.threads(batch)))
    return y, kept


def _layers_backward(  # noqa: PLR0917 (an operator's arguments)
    gradient: Tensor, x: Tensor, parameters: Sequence[Tensor], kept: Tensor, spec: Sequence[int], x_needed: bool
) -> list[Tensor]:
    """Compute the gradients of the parameters, and of x in front of them (empty unless needed)."""
    layout = layout_of(tuple(spec))
    return _backward(gradient, x, parameters, layout, layout.pack(parameters, library()), kept, x_needed)


def _backward(  # noqa: PLR0917
    gradient: Tensor, x: Tensor, parameters: Sequence[Tensor], layout: Layout, packed: Tensor, kept: Tensor,
    x_needed: bool,
) -> list[Tensor]:  # fmt: skip
    batch = x.shape[0]
    gradient, x = gradient.contiguous(), x.contiguous()
    addresses = array("q", bytes(8 * PARAMETERS * layout.count))
    # Each of these is a third of the time of torch.empty(shape); a parameter may have any strides, a gradient not.
    gradients = [torch.empty_like(each if each.is_contiguous() else each.contiguous()) for each in parameters]
    for slot, each in zip(layout.gradient_slots, gradients, strict=True):
        addresses[slot] = each.data_ptr()
    x_gradient = torch.empty(x.shape) if x_needed else torch.empty(0)
    _check(
        library().kron_backward(
            packed.data_ptr(),
            batch,
            x.data_ptr(),
            gradient.data_ptr(),
            kept.data_ptr() if kept.numel() else None,
            x_gradient.data_ptr() if x_needed else None,
            addresses.buffer_info()[0],
            layout.threads(batch),
        )
    )
    return [x_gradient, *gradients]


def _check(result: int) -> None:
    if result:
        raise MemoryError("not enough memory for the native kernel")


class _Layers(torch.autograd.Function):
    """Autograd function of consecutive layers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, spec: tuple[int, ...], *parameters: Tensor) -> Tensor:
        layout = layout_of(spec)
        keep = any(ctx.needs_input_grad) and 4 * x.shape[0] * layout.kept <= KEPT_BYTES
        packed = layout.pack(parameters, library())
        y, kept = _forward(x, layout, packed, keep)
        ctx.spec, ctx.layout = spec, layout
        ctx.save_for_backward(x, kept, packed, *parameters)  # which tells parameters that have changed in between
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, kept, packed, *parameters = ctx.saved_tensors
        needed = (ctx.needs_input_grad[0], *ctx.needs_input_grad[2:])
        found: Sequence[Tensor | None]
        if torch.is_grad_enabled():
            found = _differentiable(gradients[0], x, parameters, ctx.spec, needed)
        else:
            found = _backward(gradients[0], x, parameters, ctx.layout, packed, kept, needed[0])
        return (found[0] if needed[0] else None, None, *found[1:])


def _differentiable(
    gradient: Tensor, x: Tensor, parameters: Sequence[Tensor], spec: Sequence[int], needed: Sequence[bool]
) -> Sequence[Tensor | None]:
    """Compute gradients with the composite operations, so that they can be differentiated again."""
    y = x
    for layer in _decode(spec, parameters):
        y = composite(y, layer)
    wanted = [each for each, need in zip((x, *parameters), needed, strict=True) if need]
    found = iter(torch.autograd.grad(y, wanted, gradient, create_graph=True))
    return [next(found) if need else None for need in needed]


# ---- Operators for torch.compile -------------------------------------------------------------------------------------

_operators = torch.library.Library("kronmodel", "FRAGMENT")
_operators.define("layers(Tensor x, Tensor[] parameters, int[] spec, bool keep) -> (Tensor, Tensor)")
_operators.define(
    "layers_backward(Tensor gradient, Tensor x, Tensor[] parameters, Tensor kept, int[] spec, bool x_needed)"
    " -> Tensor[]"
)
_operators.impl("layers", _layers, "CPU")
_operators.impl("layers_backward", _layers_backward, "CPU")


def _fake_layers(x: Tensor, parameters: Sequence[Tensor], spec: Sequence[int], keep: bool) -> tuple[Tensor, Tensor]:
    layout, batch = layout_of(tuple(spec)), x.shape[0]
    return x.new_empty(batch, layout.out_features), x.new_empty(batch * layout.kept if keep else 0)


def _fake_backward(  # noqa: PLR0917
    gradient: Tensor, x: Tensor, parameters: Sequence[Tensor], kept: Tensor, spec: Sequence[int], x_needed: bool
) -> list[Tensor]:
    return [x.new_empty(x.shape if x_needed else (0,)), *(each.new_empty(each.shape) for each in parameters)]


def _set_up(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, parameters, ctx.spec, _ = inputs
    ctx.save_for_backward(x, output[1], *parameters)


def _operator_backward(ctx: Any, gradient: Tensor, _: Tensor) -> Any:
    x, kept, *parameters = ctx.saved_tensors
    needed = (ctx.needs_input_grad[0], *ctx.needs_input_grad[1])
    if torch.is_grad_enabled():
        x_gradient, *found = _differentiable(gradient, x, parameters, ctx.spec, needed)
    else:
        backward = torch.ops.kronmodel.layers_backward
        x_gradient, *found = backward(gradient, x, parameters, kept, ctx.spec, needed[0])
    return x_gradient if needed[0] else None, found, None, None


torch.library.register_fake("kronmodel::layers", _fake_layers, lib=_operators)
torch.library.register_fake("kronmodel::layers_backward", _fake_backward, lib=_operators)
torch.library.register_autograd("kronmodel::layers", _operator_backward, setup_context=_set_up, lib=_operators)
