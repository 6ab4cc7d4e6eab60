"""Compression of trained networks: structured replacements of their matrices, fitted to the layers' outputs.

Importing this package is cheap: the names below, which need torch, are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kronmodel.compress.distillation import distill
    from kronmodel.compress.modules.compress import Compressed, compress
    from kronmodel.compress.report import CompressionReport

__all__ = ["Compressed", "CompressionReport", "compress", "distill"]

_MODULES = {
    "Compressed": "modules.compress",
    "CompressionReport": "report",
    "compress": "modules.compress",
    "distill": "distillation",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
