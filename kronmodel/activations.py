"""Activations by name, and how weights are first drawn so that they suit them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["ACTIVATIONS", "Init", "activation_gain", "check_init", "get_activation"]

Activation = Callable[[Tensor], Tensor]
Init = Literal["level", "glorot"]

ACTIVATIONS: dict[str, Activation] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu, "tanh": torch.tanh}


def get_activation(name: str) -> Activation:
    """The activation of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]


@cache
def activation_gain(name: str) -> float:
    """The g for which ``g * φ(z)`` has second moment 1 when z is standard normal: √2 for relu.

    Weights with variance ``g² / fan_in`` behind the activation then give pre-activations of variance 1 again,
    at any depth (He et al., arXiv 1502.01852, for any activation). By Gauss-Hermite quadrature.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(199)
    values = get_activation(name)(torch.from_numpy(nodes)).numpy()
    return 1 / math.sqrt(float((weights * values**2).sum() / weights.sum()))


def check_init(init: str) -> None:
    """Raise a ``ValueError`` if there is no such initialisation."""
    if init not in get_args(Init):
        raise ValueError(f"init must be one of {', '.join(get_args(Init))}, got {init!r}")
