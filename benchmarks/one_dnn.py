"""Dense networks whose matrix products use oneDNN, as the Kronecker layers do, instead of the BLAS behind torch.mm."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from kronmodel.nn._fused_cpu import matmul

__all__ = ["with_one_dnn"]


def with_one_dnn(network: nn.Module) -> nn.Module:
    """Copy of a network whose ``nn.Linear`` layers multiply by oneDNN, forward and backward."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = _OneDnnLinear
    return network


class _OneDnnLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _OneDnnProduct.apply(x, self.weight)  # type: ignore[no-untyped-call]
        return y + self.bias


class _OneDnnProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x, weight = inputs
        ctx.save_for_backward(x, weight)
        return matmul(x, weight.t())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (x, weight), (gradient,) = ctx.saved_tensors, gradients
        return matmul(gradient, weight) if ctx.needs_input_grad[0] else None, matmul(gradient.t(), x)
