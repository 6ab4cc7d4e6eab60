"""Steps of a network's C code: each a constant structure with its arrays, and a call of a template's function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.export.c.network import Convolution
from kronmodel.native.network import DenseArrays, KroneckerArrays

__all__ = ["Branches", "Step", "branches_of", "convolution_fields", "describe"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call.

    Attributes:
        function: of the template: ``dense``, ``branches`` or ``convolution``.
        about: what is computed, for people.
        arrays: constant arrays by the end of their names.
        fields: of the structure, as text of C; ``{name}`` stands for the prefix of the arrays' names.
        size: values that it gives.
        line: values that it keeps of one line of its output.
        hidden: values that it keeps of one line between its factors; with integers only.
        room: weights that it unpacks at once; with integers only.
        structures: constant arrays of structures by the end of their names: type, number, text.
        adds: whether it adds to what the step before has written.
        activations: names of the activations that it applies.
        macs: multiply-adds.
    """

    function: str
    about: str
    arrays: Mapping[str, tuple[NDArray[Any], str]]
    fields: Mapping[str, Any]
    size: int
    line: int = 0
    hidden: int = 0
    room: int = 0
    structures: Mapping[str, tuple[str, int, str]] = field(default_factory=dict)
    adds: bool = False
    activations: Sequence[str] = ()
    macs: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Branches:
    """Branches of one order, with lines as rows of Y in ``"left"`` ones and as columns in ``"right"`` ones.

    Attributes:
        right: the order.
        u: factor that is applied first, ``(count, lines, depth)``.
        v: other factor, ``(count, outputs, width)``.
        c: inner bias ``(count, lines, width)``; or None.
        is_first: whether no other branches of the layer stand before these.
        is_last: whether none stand behind these.
    """

    right: bool
    u: NDArray[Any]
    v: NDArray[Any]
    c: NDArray[np.float32] | None
    is_first: bool
    is_last: bool

    @property
    def shape(self) -> dict[str, int]:
        """Fields of the structure: sizes and distances."""
        (count, lines, depth), (_, outputs, width) = self.u.shape, self.v.shape
        sizes = {"count": count, "lines": lines, "depth": depth, "width": width, "outputs": outputs}
        if self.right:
            return sizes | {"x_depth": 1, "x_width": depth, "y_line": 1, "y_output": lines}
        return sizes | {"x_depth": width, "x_width": 1, "y_line": outputs, "y_output": 1}

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        (count, lines, depth), (_, outputs, width) = self.u.shape, self.v.shape
        return int(count * lines * width * (depth + outputs))


def branches_of(layer: KroneckerArrays) -> Iterator[Branches]:
    """Split a Kronecker layer into its left and its right branches."""
    left = int((~layer.right).sum())
    rank = len(layer.right)
    if left:
        yield Branches(
            right=False, u=layer.first[:left], v=layer.second[:left], c=layer.left_bias,
            is_first=True, is_last=left == rank,
        )  # fmt: skip
    if left < rank:
        bias = None if layer.right_bias is None else layer.right_bias.transpose(0, 2, 1)
        yield Branches(right=True, u=layer.second[left:], v=layer.first[left:], c=bias, is_first=not left, is_last=True)


def convolution_fields(layer: Convolution) -> dict[str, int]:
    """Return the sizes of a convolution as fields of its structure."""
    channels, height, width = layer.shape
    filters, _, kernel_height, kernel_width = layer.weight.shape
    _, out_height, out_width = layer.out_shape
    pixels = out_height * out_width
    return {
        "channels": channels, "height": height, "width": width, "filters": filters, "kernel_height": kernel_height,
        "kernel_width": kernel_width, "stride_down": layer.strides[0], "stride_right": layer.strides[1],
        "top": layer.pads[0], "left": layer.pads[2], "pool_height": layer.pool[0], "pool_width": layer.pool[1],
        "out_height": out_height, "out_width": out_width,
        "y_filter": 1 if layer.channels_last else pixels, "y_pixel": filters if layer.channels_last else 1,
    }  # fmt: skip


def describe(layer: Convolution | DenseArrays | KroneckerArrays) -> str:
    """Describe a layer in a line, such as ``Kronecker 28x28 -> 28x28, rank 2, gelu between the factors, gelu``."""
    if isinstance(layer, Convolution):
        filters, _, height, width = layer.weight.shape
        pool = f", max-pooling {_by(*layer.pool)}" if layer.pool != (1, 1) else ""
        return (
            f"convolution {_by(height, width)} of {_by(*layer.shape)} -> {_by(*layer.out_shape)}, {filters} filters"
            f"{_named(layer.activation)}{pool}"
        )
    if isinstance(layer, DenseArrays):
        return f"dense {layer.in_features} -> {layer.out_features}{_named(layer.activation)}"
    (rank, m1, n1), (_, m2, n2) = layer.first.shape, layer.second.shape
    inner = f", {layer.inner} between the factors" if layer.inner != "none" else ""
    return f"Kronecker {_by(n1, n2)} -> {_by(m1, m2)}, rank {rank}{inner}{_named(layer.activation)}"


def _by(*sizes: int) -> str:
    return "x".join(map(str, sizes))


def _named(activation: str) -> str:
    return "" if activation == "none" else f", {activation}"
