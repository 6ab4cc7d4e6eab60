"""Tensors of a network as they are stored: rows of levels with a step size each, or floats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kronmodel.nn.base import KroneckerLayer
from kronmodel.nn.networks import Network
from kronmodel.quantization.config import FLOAT_BITS, QuantizationConfig

__all__ = ["STEP_BYTES", "StoredTensor", "assemble", "stored_tensors"]

STEP_BYTES = 2  # a float16


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Tensor of a network's file: a parameter, or the vector of one axis of a bias that is a sum of vectors.

    Attributes:
        parameter: name of the network's parameter.
        shape: shape of the parameter; of a sum of vectors ``(branches, s1, s2, ...)``, an output bias with one branch.
        axis: axis of the shape that the vectors of the branches lie along; None for the whole parameter.
        rows: number of rows, each with a step size.
        length: values in a row.
        bits: bits of a value; 32 for floats, which have no step sizes.
    """

    parameter: str
    shape: tuple[int, ...]
    axis: int | None = None
    rows: int
    length: int
    bits: int

    @property
    def name(self) -> str:
        """Name of the tensor in a file."""
        return self.parameter if self.axis is None else f"{self.parameter}.{self.axis}"

    @property
    def is_bias(self) -> bool:
        """Whether the values are biases."""
        return "bias" in self.parameter

    @property
    def size(self) -> int:
        """Number of values."""
        return self.rows * self.length

    @property
    def levels(self) -> tuple[int, int]:
        """Lowest and highest level of a value."""
        return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1

    @property
    def bytes(self) -> int:
        """Bytes of the values, packed without gaps, and of the step sizes."""
        steps = 0 if self.bits == FLOAT_BITS else self.rows * STEP_BYTES
        return -(-self.size * self.bits // 8) + steps

    @property
    def own_shape(self) -> tuple[int, ...]:
        """Shape of the values, with an axis for each of ``shape`` so that vectors of several axes can be added."""
        if self.axis is None:
            return self.shape
        return tuple(size if at in (0, self.axis) else 1 for at, size in enumerate(self.shape))


def stored_tensors(network: Network, config: QuantizationConfig) -> list[StoredTensor]:
    """List the tensors that a network is stored as; those of one parameter follow each other.

    Rows share a step size: rows of each factor and branch, of dense weights, output channels of convolutions, the inner
    biases of a branch, or an output bias.

    Raises:
        ValueError: the configuration has another number of layers.
    """
    layers = _layers(network)
    found = []
    for (prefix, layer), bits in zip(layers, config.layer_bits(len(layers)), strict=True):
        last = layer is network.layers[-1]
        for name, parameter in layer.named_parameters(prefix):
            shape = tuple(parameter.shape)
            if "bias" not in name[len(prefix) :]:
                rows = math.prod(shape[:-1]) if len(shape) == 3 else shape[0]
                found.append(_whole(name, shape, rows, bits))
            elif isinstance(layer, KroneckerLayer) and config.bias_form == "row-column":
                found += _bias_vectors(name, shape, layer, config.bias_bits, last=last)
            else:
                found.append(_whole(name, shape, shape[0] if len(shape) > 1 else 1, config.bias_bits))
    return found


def _layers(network: Network) -> list[tuple[str, nn.Module]]:
    """List the layers with weights, convolutions first, with the prefix of their parameters' names."""
    convolutions: Iterable[nn.Module] = [] if network.features is None else network.features.convolutions
    return [
        *((f"features.convolutions.{index}", each) for index, each in enumerate(convolutions)),
        *((f"layers.{index}", each) for index, each in enumerate(network.layers)),
    ]


def _whole(name: str, shape: tuple[int, ...], rows: int, bits: int) -> StoredTensor:
    return StoredTensor(parameter=name, shape=shape, rows=rows, length=math.prod(shape) // rows, bits=bits)


def _bias_vectors(
    name: str, shape: tuple[int, ...], layer: KroneckerLayer, bits: int, *, last: bool
) -> Iterator[StoredTensor]:
    """Describe a Kronecker layer's bias as a vector for each axis of the features; an output layer's stays whole."""
    inner = len(shape) > 1  # (branches, *features)
    if not inner and (last or shape[0] != math.prod(layer.out_shape)):
        yield _whole(name, shape, 1, bits)
        return
    full = shape if inner else (1, *layer.out_shape)
    for axis in range(1, len(full)):
        yield StoredTensor(parameter=name, shape=full, axis=axis, rows=full[0], length=full[axis], bits=bits)


def assemble(
    tensors: Sequence[StoredTensor], values: Sequence[Tensor], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Build a network's parameters from the values of its stored tensors, differentiably.

    Args:
        tensors: stored tensors; those of one parameter follow each other.
        values: values of each, ``(size,)``.
        shapes: shapes of the parameters by their names.
    """
    found: dict[str, Tensor] = {}
    for tensor, flat in zip(tensors, values, strict=True):
        part = flat.view(tensor.own_shape)
        name = tensor.parameter
        found[name] = found[name] + part if name in found else part
    return {name: value.reshape(shapes[name]) for name, value in found.items()}
