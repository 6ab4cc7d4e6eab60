"""Native code for CPUs: C sources that this machine's compiler builds on first use, and what is computed by them.

Importing this package is cheap: the names below, which need onnx, are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kronmodel.native.predictor import Predictor, load

__all__ = ["Predictor", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.predictor"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
