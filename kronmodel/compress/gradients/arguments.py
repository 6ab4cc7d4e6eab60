"""Inputs and attributes of ONNX nodes, as the operators in torch take them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

__all__ = ["Attributes", "Inputs", "Operator", "integers", "needed"]

Inputs = Sequence[Tensor | None]
"""Inputs of a node, None for those that are left out."""

Attributes = Mapping[str, Any]
"""Attributes of a node, and the number of its outputs as ``outputs``."""

Operator = Callable[[Inputs, Attributes], Tensor | Sequence[Tensor]]
"""Function of a node's inputs and attributes: its output, or all of several."""


def needed(value: Tensor | None) -> Tensor:
    """Return an input that must be there."""
    if value is None:
        raise ValueError("an input that the operator needs is left out")
    return value


def integers(inputs: Inputs, place: int, attributes: Attributes, name: str) -> list[int] | None:
    """Read integers, such as axes: from an input, or in older opsets from an attribute; None if they are left out."""
    given = inputs[place] if len(inputs) > place else None
    if given is not None:
        return [int(each) for each in given.flatten().tolist()]
    return [int(each) for each in attributes[name]] if name in attributes else None
