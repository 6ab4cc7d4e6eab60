"""Private torch APIs that this package uses, looked up once at import.

If the installed torch lacks one of them, layers use the slower composite path, with the same values and gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["MISSING", "aten_backward", "mkldnn_linear", "runs_eagerly"]

_missing: list[str] = []


def _find(path: str) -> Any:
    """Look up a dotted path below ``torch``; if it does not exist, record it as missing and return None."""
    found: Any = torch
    for name in path.split("."):
        found = getattr(found, name, None)
        if found is None:
            _missing.append(f"torch.{path}")
            return None
    return found


_is_tracing = _find("_C._is_tracing")
_in_functorch = _find("_C._are_functorch_transforms_active")
_forward_mode = _find("autograd.forward_ad._current_level")
_is_known = None not in (_is_tracing, _in_functorch, _forward_mode)

mkldnn_linear: Callable[..., Tensor] | None = (
    _find("ops.mkldnn._linear_pointwise") if torch.backends.mkldnn.is_available() else None
)
"""oneDNN's ``x @ weight.T``, as torch.compile calls it; None if torch was built without oneDNN."""

aten_backward: dict[str, Callable[..., Tensor] | None] = {
    name: _find(f"ops.aten.{name}_backward.grad_input") for name in ("gelu", "threshold", "tanh")
}
"""Gradient functions of activations that write to a given output tensor."""

MISSING: tuple[str, ...] = tuple(_missing)
"""Names of private APIs that the installed torch lacks."""


def runs_eagerly() -> bool:
    """Tell whether operations run in plain eager mode: no tracing, no torch.func, no forward-mode differentiation.

    Returns False if the installed torch lacks the APIs to find out.
    """
    return bool(_is_known and not _is_tracing() and not _in_functorch() and forward_ad._current_level < 0)
