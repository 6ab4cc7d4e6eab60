"""Operators of ONNX as differentiable functions of torch: arithmetic, products, activations; the table of all."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch
from onnx import helper
from torch import Tensor
from torch.nn import functional as F

from kronmodel.compress.gradients.arguments import Attributes, Inputs, Operator, needed
from kronmodel.compress.gradients.arrangements import ARRANGEMENTS
from kronmodel.compress.gradients.convolutions import CONVOLUTIONS
from kronmodel.compress.gradients.reductions import REDUCTIONS

__all__ = ["OPERATORS"]


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda inputs, attributes: function(needed(inputs[0]))


def _all(function: Callable[..., Tensor]) -> Operator:
    return lambda inputs, attributes: function(*map(needed, inputs))


def _variadic(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda inputs, attributes: reduce(function, map(needed, inputs))


def _gemm(inputs: Inputs, attributes: Attributes) -> Tensor:
    a, b = needed(inputs[0]), needed(inputs[1])
    a, b = (a.T if attributes.get("transA", 0) else a), (b.T if attributes.get("transB", 0) else b)
    y: Tensor = attributes.get("alpha", 1.0) * (a @ b)
    c = inputs[2] if len(inputs) > 2 else None
    return y if c is None else y + attributes.get("beta", 1.0) * c


def _div(a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


def _cast(inputs: Inputs, attributes: Attributes) -> Tensor:
    kind = helper.tensor_dtype_to_np_dtype(attributes["to"])
    is_brain = kind.name == "bfloat16"
    return needed(inputs[0]).to(torch.bfloat16 if is_brain else torch.from_numpy(np.zeros(1, kind)).dtype)


def _gelu(inputs: Inputs, attributes: Attributes) -> Tensor:
    return F.gelu(needed(inputs[0]), approximate=attributes.get("approximate", b"none").decode())


def _clip(inputs: Inputs, attributes: Attributes) -> Tensor:
    low, high = ([*inputs[1:], None, None])[:2]
    low = attributes.get("min") if low is None else low
    high = attributes.get("max") if high is None else high
    y = needed(inputs[0])
    y = y if low is None else torch.maximum(y, torch.as_tensor(low, dtype=y.dtype))
    return y if high is None else torch.minimum(y, torch.as_tensor(high, dtype=y.dtype))


def _scaled(function: Callable[[Tensor, Any], Tensor], name: str, default: float) -> Operator:
    return lambda inputs, attributes: function(needed(inputs[0]), attributes.get(name, default))


OPERATORS: dict[str, Operator] = {
    **ARRANGEMENTS,
    **CONVOLUTIONS,
    **REDUCTIONS,
    "Abs": _unary(torch.abs),
    "Add": _all(torch.add),
    "And": _all(torch.logical_and),
    "Cast": _cast,
    "Ceil": _unary(torch.ceil),
    "Celu": _scaled(F.celu, "alpha", 1.0),
    "Clip": _clip,
    "Cos": _unary(torch.cos),
    "Div": _all(_div),
    "Dropout": _unary(lambda x: x),
    "Einsum": lambda inputs, attributes: torch.einsum(attributes["equation"].decode(), *map(needed, inputs)),
    "Elu": _scaled(F.elu, "alpha", 1.0),
    "Equal": _all(torch.eq),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Floor": _unary(torch.floor),
    "Gelu": _gelu,
    "Gemm": _gemm,
    "Greater": _all(torch.gt),
    "GreaterOrEqual": _all(torch.ge),
    "HardSigmoid": lambda inputs, attributes: (
        attributes.get("alpha", 0.2) * needed(inputs[0]) + attributes.get("beta", 0.5)
    ).clamp(0, 1),
    "HardSwish": _unary(F.hardswish),
    "Identity": _unary(lambda x: x),
    "LeakyRelu": _scaled(F.leaky_relu, "alpha", 0.01),
    "Less": _all(torch.lt),
    "LessOrEqual": _all(torch.le),
    "Log": _unary(torch.log),
    "MatMul": _all(torch.matmul),
    "Max": _variadic(torch.maximum),
    "Min": _variadic(torch.minimum),
    "Mish": _unary(F.mish),
    "Mul": _all(torch.mul),
    "Neg": _unary(torch.neg),
    "Not": _unary(torch.logical_not),
    "Or": _all(torch.logical_or),
    "PRelu": _all(lambda x, slope: torch.where(x < 0, x * slope, x)),
    "Pow": _all(lambda x, exponent: torch.pow(x, exponent.to(x.dtype))),
    "Reciprocal": _unary(torch.reciprocal),
    "Relu": _unary(F.relu),
    "Selu": lambda inputs, attributes: (
        attributes.get("gamma", 1.0507009873554805)
        * F.elu(needed(inputs[0]), attributes.get("alpha", 1.6732632423543772))
    ),
    "Sigmoid": _unary(torch.sigmoid),
    "Sin": _unary(torch.sin),
    "Softplus": _unary(F.softplus),
    "Softsign": _unary(F.softsign),
    "Sqrt": _unary(torch.sqrt),
    "Sub": _all(torch.sub),
    "Sum": _variadic(torch.add),
    "Tanh": _unary(torch.tanh),
    "Where": _all(torch.where),
}
"""Functions by the operator's name; any other can't be differentiated here."""
