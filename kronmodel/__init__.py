"""Kronecker-structured neural networks: train them beside a dense twin, export both to ONNX.

Importing this package is cheap: the names below, which need torch, are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kronmodel.estimators import KroneckerClassifier, KroneckerRegressor
    from kronmodel.export.exporter import to_onnx
    from kronmodel.export.saved import load
    from kronmodel.nn.conv import ConvConfig, ConvFeatures
    from kronmodel.nn.functional import kron_dual, kron_linear
    from kronmodel.nn.layers import KroneckerDual, KroneckerLinear
    from kronmodel.nn.networks import DenseConfig, KroneckerConfig, Network, build
    from kronmodel.shapes import balanced_shape
    from kronmodel.twin import train_twin

__version__ = "0.1.0"

__all__ = [
    "ConvConfig",
    "ConvFeatures",
    "DenseConfig",
    "KroneckerClassifier",
    "KroneckerConfig",
    "KroneckerDual",
    "KroneckerLinear",
    "KroneckerRegressor",
    "Network",
    "balanced_shape",
    "build",
    "kron_dual",
    "kron_linear",
    "load",
    "to_onnx",
    "train_twin",
]

_MODULES = {
    "ConvConfig": "nn.conv",
    "ConvFeatures": "nn.conv",
    "DenseConfig": "nn.networks",
    "KroneckerClassifier": "estimators",
    "KroneckerConfig": "nn.networks",
    "KroneckerDual": "nn.layers",
    "KroneckerLinear": "nn.layers",
    "KroneckerRegressor": "estimators",
    "Network": "nn.networks",
    "balanced_shape": "shapes",
    "build": "nn.networks",
    "kron_dual": "nn.functional",
    "kron_linear": "nn.functional",
    "load": "export.saved",
    "to_onnx": "export.exporter",
    "train_twin": "twin",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
