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

__all__ = ["ACTIVATIONS", "Init", "activation_moments", "check_init", "get_activation"]

Activation = Callable[[Tensor], Tensor]
Init = Literal["level", "glorot"]

ACTIVATIONS: dict[str, Activation] = {"gelu": F.gelu, "relu": F.relu, "tanh": torch.tanh}


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


def check_init(init: str) -> None:
    """Raise a ``ValueError`` if there is no such initialisation."""
    if init not in get_args(Init):
        raise ValueError(f"init must be one of {', '.join(get_args(Init))}, got {init!r}")
