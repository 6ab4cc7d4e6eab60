"""Kronecker-structured neural networks: train them beside a dense twin, export both to ONNX.

Importing this package is cheap: the names below, which need torch, are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kronmodel.features import ConvConfig, ConvFeatures
    from kronmodel.functional import kron_dual, kron_linear
    from kronmodel.layers import KroneckerDual, KroneckerLinear
    from kronmodel.models import DenseConfig, KroneckerConfig, Network, build

__version__ = "0.1.0"

__all__ = [
    "ConvConfig",
    "ConvFeatures",
    "DenseConfig",
    "KroneckerConfig",
    "KroneckerDual",
    "KroneckerLinear",
    "Network",
    "build",
    "kron_dual",
    "kron_linear",
]

_MODULES = {
    "ConvConfig": "features",
    "ConvFeatures": "features",
    "DenseConfig": "models",
    "KroneckerConfig": "models",
    "KroneckerDual": "layers",
    "KroneckerLinear": "layers",
    "Network": "models",
    "build": "models",
    "kron_dual": "functional",
    "kron_linear": "functional",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
