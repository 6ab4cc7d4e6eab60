"""Activations by name, their moments, and their forms outside of autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "InPlace",
    "activation_moments",
    "get_activation",
    "in_place",
]

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Activation] = {"gelu": F.gelu, "relu": F.relu, "tanh": torch.tanh}


@dataclass(frozen=True)
class InPlace:
    """An activation outside of autograd.

    Attributes:
        forward: ``φ(z)``; may overwrite z, if the gradient doesn't need it.
        backward: writes ``g φ'(z)`` for ``(g, z, φ(z), out)``; out may have other strides than g.
    """

    forward: Activation
    backward: Callable[[Tensor, Tensor, Tensor, Tensor], object]


_aten = torch.ops.aten
_IN_PLACE: dict[Activation, InPlace] = {
    F.gelu: InPlace(F.gelu, lambda g, z, h, out: _aten.gelu_backward.grad_input(g, z, grad_input=out)),
    F.relu: InPlace(torch.relu_, lambda g, z, h, out: _aten.threshold_backward.grad_input(g, h, 0, grad_input=out)),
    torch.tanh: InPlace(torch.tanh_, lambda g, z, h, out: _aten.tanh_backward.grad_input(g, h, grad_input=out)),
}


def in_place(activation: Activation) -> InPlace | None:
    """The same function outside of autograd, if it is one of ours."""
    return next((found for known, found in _IN_PLACE.items() if known is activation), None)


def get_activation(name: str) -> Activation:
    """The activation of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]


@cache
def activation_moments(name: str) -> tuple[float, float]:
    """Mean and standard deviation of ``φ(z)`` for standard normal z, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(199)
    values = get_activation(name)(torch.from_numpy(nodes)).numpy()
    mean = float(np.average(values, weights=weights))
    return mean, math.sqrt(float(np.average((values - mean) ** 2, weights=weights)))
