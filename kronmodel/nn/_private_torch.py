"""Private torch APIs that this package uses, looked up once at import.

If the installed torch lacks one of them, layers use the slower composite path, with the same values and gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad

__all__ = ["MISSING", "runs_eagerly"]

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
_dispatch_modes = _find("_C._len_torch_dispatch_stack")
_function_modes = _find("_C._len_torch_function_stack")
_is_known = None not in (_is_tracing, _in_functorch, _forward_mode, _dispatch_modes, _function_modes)

MISSING: tuple[str, ...] = tuple(_missing)
"""Names of private APIs that the installed torch lacks."""


def runs_eagerly() -> bool:
    """Tell whether operations run in plain eager mode, so that code outside of torch may compute some of them.

    That is without tracing, torch.func, forward-mode differentiation and modes that see each operation, such as torch's
    counter of floating-point operations. Returns False if the installed torch lacks the APIs to find out.
    """
    return bool(
        _is_known
        and not _is_tracing()
        and not _in_functorch()
        and forward_ad._current_level < 0
        and not _dispatch_modes()
        and not _function_modes()
    )
