"""Operators of ONNX that reduce or normalise values along axes, as differentiable functions of torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from kronmodel.compress.gradients.arguments import Attributes, Inputs, Operator, integers, needed

__all__ = ["REDUCTIONS"]


def _reduction(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def apply(inputs: Inputs, attributes: Attributes) -> Tensor:
        x = needed(inputs[0])
        axes = integers(inputs, 1, attributes, "axes")
        if not axes and attributes.get("noop_with_empty_axes", 0):
            return x
        return function(x, axes or list(range(x.dim())), bool(attributes.get("keepdims", 1)))

    return apply


def _norm(order: int) -> Operator:
    return _reduction(lambda x, axes, keep: torch.linalg.vector_norm(x, order, axes, keep))


def _softmax(function: Callable[[Tensor, int], Tensor]) -> Operator:
    def apply(inputs: Inputs, attributes: Attributes) -> Tensor:
        x = needed(inputs[0])
        axis = attributes.get("axis", -1)
        if x.dim() > 2 and axis % x.dim() != x.dim() - 1:  # opsets before 13 join the axes behind it
            raise ValueError("a softmax along an axis that is not the last one")
        return function(x, axis)

    return apply


def _layer_normalization(inputs: Inputs, attributes: Attributes) -> Tensor:
    x = needed(inputs[0])
    y = F.layer_norm(x, x.shape[attributes.get("axis", -1) :], eps=attributes.get("epsilon", 1e-5))
    y = y * needed(inputs[1])
    return y if len(inputs) < 3 or inputs[2] is None else y + inputs[2]


def _batch_normalization(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, scale, bias, mean, variance = map(needed, inputs)
    return F.batch_norm(x, mean, variance, scale, bias, eps=attributes.get("epsilon", 1e-5))


def _global(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    return lambda inputs, attributes: function(needed(inputs[0]), list(range(2, needed(inputs[0]).dim())), True)


REDUCTIONS: dict[str, Operator] = {
    "BatchNormalization": _batch_normalization,
    "GlobalAveragePool": _global(torch.mean),
    "GlobalMaxPool": _global(torch.amax),
    "InstanceNormalization": lambda inputs, attributes: F.instance_norm(
        needed(inputs[0]), weight=inputs[1], bias=inputs[2], eps=attributes.get("epsilon", 1e-5)
    ),
    "LayerNormalization": _layer_normalization,
    "LogSoftmax": _softmax(F.log_softmax),
    "ReduceL1": _norm(1),
    "ReduceL2": _norm(2),
    "ReduceLogSumExp": _reduction(torch.logsumexp),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(torch.mean),
    "ReduceMin": _reduction(torch.amin),
    "ReduceSum": _reduction(torch.sum),
    "ReduceSumSquare": _reduction(lambda x, axes, keep: torch.sum(x.square(), axes, keep)),
    "Softmax": _softmax(partial(F.softmax)),
}
"""Functions by the operator's name."""
