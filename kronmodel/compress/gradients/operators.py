"""Operators of ONNX as differentiable functions of torch: products, reshapes and activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from onnx import helper
from torch import Tensor
from torch.nn import functional as F

__all__ = ["OPERATORS", "Operator"]

Operator = Callable[[Sequence[Tensor | None], Mapping[str, Any]], Tensor]
"""Function of a node's inputs, None for those that are left out, and of its attributes."""


def _needed(value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError("an input that the operator needs is left out")
    return value


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda inputs, attributes: function(_needed(inputs[0]))


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda inputs, attributes: function(_needed(inputs[0]), _needed(inputs[1]))


def _gemm(inputs: Sequence[Tensor | None], attributes: Mapping[str, Any]) -> Tensor:
    a, b = _needed(inputs[0]), _needed(inputs[1])
    a, b = (a.T if attributes.get("transA", 0) else a), (b.T if attributes.get("transB", 0) else b)
    y: Tensor = attributes.get("alpha", 1.0) * (a @ b)
    c = inputs[2] if len(inputs) > 2 else None
    return y if c is None else y + attributes.get("beta", 1.0) * c


def _reshape(inputs: Sequence[Tensor | None], attributes: Mapping[str, Any]) -> Tensor:
    x = _needed(inputs[0])
    sizes = [int(size) for size in _needed(inputs[1]).tolist()]
    if not attributes.get("allowzero", 0):
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(inputs: Sequence[Tensor | None], attributes: Mapping[str, Any]) -> Tensor:
    x = _needed(inputs[0])
    axis = attributes.get("axis", 1) % (x.dim() + 1)
    return x.reshape(int(torch.Size(x.shape[:axis]).numel()), -1)


def _transpose(inputs: Sequence[Tensor | None], attributes: Mapping[str, Any]) -> Tensor:
    x = _needed(inputs[0])
    return x.permute(*attributes.get("perm", range(x.dim())[::-1]))


def _softmax(function: Callable[[Tensor, int], Tensor]) -> Operator:
    def apply(inputs: Sequence[Tensor | None], attributes: Mapping[str, Any]) -> Tensor:
        x = _needed(inputs[0])
        axis = attributes.get("axis", -1)
        if x.dim() > 2 and axis % x.dim() != x.dim() - 1:  # opsets before 13 join the axes behind it
            raise ValueError("a softmax along an axis that is not the last one")
        return function(x, axis)

    return apply


def _cast(inputs: Sequence[Tensor | None], attributes: Mapping[str, Any]) -> Tensor:
    return _needed(inputs[0]).to(
        torch.from_numpy(helper.tensor_dtype_to_np_dtype(attributes["to"]).type(0)[None]).dtype
    )


def _gelu(inputs: Sequence[Tensor | None], attributes: Mapping[str, Any]) -> Tensor:
    return F.gelu(_needed(inputs[0]), approximate=attributes.get("approximate", b"none").decode())


def _clip(inputs: Sequence[Tensor | None], attributes: Mapping[str, Any]) -> Tensor:
    low, high = ([*inputs[1:], None, None])[:2]
    low = attributes.get("min") if low is None else low
    high = attributes.get("max") if high is None else high
    y = _needed(inputs[0])
    y = y if low is None else torch.maximum(y, torch.as_tensor(low, dtype=y.dtype))
    return y if high is None else torch.minimum(y, torch.as_tensor(high, dtype=y.dtype))


OPERATORS: dict[str, Operator] = {
    "Add": _binary(torch.add),
    "Cast": _cast,
    "Clip": _clip,
    "Div": _binary(torch.div),
    "Dropout": _unary(lambda x: x),
    "Elu": lambda inputs, attributes: F.elu(_needed(inputs[0]), attributes.get("alpha", 1.0)),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Flatten": _flatten,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "HardSigmoid": lambda inputs, attributes: (
        attributes.get("alpha", 0.2) * _needed(inputs[0]) + attributes.get("beta", 0.5)
    ).clamp(0, 1),
    "HardSwish": _unary(F.hardswish),
    "Identity": _unary(lambda x: x),
    "LeakyRelu": lambda inputs, attributes: F.leaky_relu(_needed(inputs[0]), attributes.get("alpha", 0.01)),
    "LogSoftmax": _softmax(F.log_softmax),
    "MatMul": _binary(torch.matmul),
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "Pow": _binary(torch.pow),
    "Relu": _unary(F.relu),
    "Reshape": _reshape,
    "Selu": lambda inputs, attributes: (
        attributes.get("gamma", 1.0507009873554805)
        * F.elu(_needed(inputs[0]), attributes.get("alpha", 1.6732632423543772))
    ),
    "Sigmoid": _unary(torch.sigmoid),
    "Softmax": _softmax(F.softmax),
    "Softplus": _unary(F.softplus),
    "Softsign": _unary(F.softsign),
    "Sqrt": _unary(torch.sqrt),
    "Sub": _binary(torch.sub),
    "Tanh": _unary(torch.tanh),
    "Transpose": _transpose,
}
"""Functions by the operator's name; any other can't be differentiated here."""
