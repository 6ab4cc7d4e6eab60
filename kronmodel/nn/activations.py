"""Activations by name or as functions, their moments for normal inputs, and their forms outside of autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kronmodel.nn._private_torch import aten_backward

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Function",
    "InPlace",
    "activation_moments",
    "activation_name",
    "check_activation_name",
    "get_activation",
    "in_place",
]

Function = Callable[[Tensor], Tensor]
Activation = str | Function
"""A name of :data:`ACTIVATIONS`, or any elementwise function of a tensor, a module included."""

ACTIVATIONS: dict[str, Function] = {"gelu": F.gelu, "relu": F.relu, "tanh": torch.tanh}

# Beyond, a weight of the quadrature is below 1e-19: it adds nothing, and some functions overflow there.
_LAST_NODE = 9.5


@dataclass(frozen=True)
class InPlace:
    """An activation outside of autograd.

    Attributes:
        forward: ``φ(z)``; may overwrite z, if the gradient doesn't need it.
        backward: writes ``g φ'(z)`` for ``(g, z, φ(z), out)``; out may have other strides than g.
    """

    forward: Function
    backward: Callable[[Tensor, Tensor, Tensor, Tensor], object]


def _in_place_forms() -> dict[Function, InPlace]:
    """Pair each named activation with its gradient, where this version of torch has it."""
    gelu, relu, tanh = (aten_backward[name] for name in ("gelu", "threshold", "tanh"))
    forms: dict[Function, InPlace] = {}
    if gelu is not None:
        forms[F.gelu] = InPlace(F.gelu, lambda g, z, h, out: gelu(g, z, grad_input=out))
    if relu is not None:
        forms[F.relu] = InPlace(torch.relu_, lambda g, z, h, out: relu(g, h, 0, grad_input=out))
    if tanh is not None:
        forms[torch.tanh] = InPlace(torch.tanh_, lambda g, z, h, out: tanh(g, h, grad_input=out))
    return forms


_IN_PLACE = _in_place_forms()


def in_place(function: Function) -> InPlace | None:
    """Return the form outside of autograd of a named activation's function, None for any other function."""
    return next((found for known, found in _IN_PLACE.items() if known is function), None)


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
    """Check the activation of a configuration, which has to be a name because configurations are written to files.

    Raises:
        ValueError: it is a function, or the name is unknown.
    """
    if not isinstance(activation, str):
        raise ValueError(
            f"activation of a configuration must be one of the names {', '.join(ACTIVATIONS)}, which can be written "
            f"to a file, got {activation!r}; layers and Network take functions"
        )
    get_activation(activation)


def activation_name(activation: Activation) -> str:
    """Return a name to print: ``"gelu"`` as it is, ``"sin"`` for ``torch.sin``, ``"SiLU"`` for ``nn.SiLU()``."""
    if isinstance(activation, str):
        return activation
    return str(getattr(activation, "__name__", type(activation).__name__))


def activation_moments(activation: Activation, weight: Tensor | None = None) -> tuple[float, float]:
    """Compute mean and standard deviation of ``φ(z)`` for standard normal z, by Gauss-Hermite quadrature.

    Args:
        activation: a name, or a function, which is evaluated.
        weight: of the layer that will call the function: it is evaluated on this device, in this type. On the meta
            device, where nothing has a value, a function counts as the identity.

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
