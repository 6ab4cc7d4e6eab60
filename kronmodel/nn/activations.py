"""Activations by name or as functions, and their moments for normal inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Function",
    "activation_moments",
    "activation_name",
    "check_activation_name",
    "get_activation",
]

Function = Callable[[Tensor], Tensor]
Activation = str | Function
"""A name of :data:`ACTIVATIONS`, or any elementwise function of a tensor, a module included."""

ACTIVATIONS: dict[str, Function] = {"gelu": F.gelu, "relu": F.relu, "tanh": torch.tanh}

# Nodes farther out have quadrature weights below 1e-19: they add nothing, and some functions overflow there.
_LAST_NODE = 9.5


def get_activation(activation: Activation) -> Function:
    """Return the function of an activation that is given by name or as a function.

    Raises:
        ValueError: the name is unknown, or ``activation`` is neither a name nor callable.
    """
    if isinstance(activation, str) and activation in ACTIVATIONS:
        return ACTIVATIONS[activation]
    if isinstance(activation, str) or not callable(activation):
        raise ValueError(
            f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}; "
            "any other is passed as a function or module, such as torch.sin or nn.SiLU()"
        )
    return activation


def check_activation_name(activation: str) -> None:
    """Check that the activation in a configuration is a known name; configurations are saved, functions can't be.

    Raises:
        ValueError: the activation is a function, or the name is unknown.
    """
    if not isinstance(activation, str):
        raise ValueError(
            f"activation of a configuration must be one of the names {', '.join(ACTIVATIONS)}, which can be written "
            f"to a file, got {activation!r}; layers and Network take functions"
        )
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")


def activation_name(activation: Activation) -> str:
    """Return an activation's display name: ``"gelu"``, ``"sin"`` for ``torch.sin``, ``"SiLU"`` for ``nn.SiLU()``."""
    if isinstance(activation, str):
        return activation
    return str(getattr(activation, "__name__", type(activation).__name__))


def activation_moments(activation: Activation, weight: Tensor | None = None) -> tuple[float, float]:
    """Compute mean and standard deviation of ``φ(z)`` for standard normal z, by Gauss-Hermite quadrature.

    Args:
        activation: a name, or a function, which is evaluated.
        weight: weight of the layer that will call the function, which is evaluated on its device, in its data type. On
            the meta device, whose tensors have no values, a function counts as the identity.

    Raises:
        ValueError: the function is not elementwise, or its values are constant or not finite.
    """
    if isinstance(activation, str):
        return _named_moments(activation)
    if weight is None:
        weight = torch.empty(0, dtype=torch.float64, device="cpu")
    return (0.0, 1.0) if weight.is_meta else _moments(activation, weight)


@cache
def _named_moments(name: str) -> tuple[float, float]:
    return _moments(get_activation(name), torch.empty(0, dtype=torch.float64, device="cpu"))


def _moments(function: Function, like: Tensor) -> tuple[float, float]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(199)
    central = np.abs(nodes) < _LAST_NODE
    nodes, weights = nodes[central], weights[central]
    with torch.no_grad():
        values = function(torch.tensor(nodes, dtype=like.dtype, device=like.device))
    if values.shape != nodes.shape:
        raise ValueError(f"activation must be elementwise: expected shape {nodes.shape}, got {tuple(values.shape)}")
    heights = values.double().cpu().numpy()
    name = activation_name(function)
    if not np.isfinite(heights).all():
        raise ValueError(f"activation must have finite values for inputs up to {_LAST_NODE}, {name} has others")
    mean = float(np.average(heights, weights=weights))
    std = math.sqrt(float(np.average((heights - mean) ** 2, weights=weights)))
    if std == 0:
        raise ValueError(f"activation must not be constant, which {name} is")
    return mean, std
