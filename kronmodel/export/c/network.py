"""Networks that the C templates compute: convolutions in front, then the arrays of dense and Kronecker layers."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kronmodel.errors import ExportError
from kronmodel.native.network import Activation, DenseArrays, KroneckerArrays, NetworkArrays
from kronmodel.native.quantize import Range

__all__ = ["Convolution", "Front", "Stored", "TemplateNetwork", "identifier"]

_KEYWORDS = frozenset(
    re.findall(
        r"\w+",
        """
        auto break case char const continue default do double else enum extern float for goto if inline int
        long register restrict return short signed sizeof static struct switch typedef union unsigned void
        volatile while main class new delete template this private public protected namespace operator try
        catch throw bool true false

        arduino assert complex ctype errno fenv inttypes iso646 limits locale math setjmp signal stdarg stdbool stddef
        stdint stdio stdlib string tgmath time wchar wctype aux con nul prn
        """,
    )
)  # with the names of headers, which the exported one would hide, and of devices of Windows
_LENGTH = 48  # of an identifier; compilers need to tell 63 characters apart, and the functions' names are longer


@dataclass(frozen=True, kw_only=True, eq=False)
class Convolution:
    """Convolution of an image, its activation, and max-pooling.

    Attributes:
        shape: channels, height and width of the input.
        weight: ``(channels, input channels, kernel height, kernel width)``.
        bias: ``(channels,)``.
        strides: down and right.
        pads: rows above and below, columns left and right, of zeros: ``(top, bottom, left, right)``.
        activation: applied before the pooling.
        pool: height and width of the pooling windows, which don't overlap; ``(1, 1)`` for none.
        channels_last: whether the output's order is height, width, channels.
    """

    shape: tuple[int, int, int]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    activation: Activation = "none"
    pool: tuple[int, int] = (1, 1)
    channels_last: bool = False

    @property
    def convolved(self) -> tuple[int, int]:
        """Height and width before the pooling."""
        _, height, width = self.shape
        top, bottom, left, right = self.pads
        kernel_height, kernel_width = self.weight.shape[2:]
        return (
            (height + top + bottom - kernel_height) // self.strides[0] + 1,
            (width + left + right - kernel_width) // self.strides[1] + 1,
        )

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the output."""
        height, width = self.convolved
        return len(self.weight), height // self.pool[0], width // self.pool[1]

    @property
    def macs(self) -> int:
        """Multiply-adds of a sample, those with the zeros of the padding included."""
        height, width = self.convolved
        return height * width * self.weight.size


@dataclass(frozen=True, kw_only=True, eq=False)
class Front:
    """What stands before the layers: standardisation and convolutions.

    Attributes:
        shape: shape of a sample.
        mean: subtracted from a sample first, flat; None for none.
        inverse: multiplied with it afterwards, flat.
        convolutions: one behind the other; may be empty.
    """

    shape: tuple[int, ...]
    mean: NDArray[np.float32] | None
    inverse: NDArray[np.float32] | None
    convolutions: tuple[Convolution, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """Integers that an ONNX file stores in the place of weights.

    Attributes:
        steps: the network with the real value of the number 1 in the place of each weight; 0 for weights in floats.
        bits: the network with the bits of each weight in its place; 0 for weights in floats.
        biases: the network with integers in the place of weights with a number a line, and with the real value of the
            number 1; and both for those with a number a column. 0 for others.
        ranges: of the activations that the file quantises, in the order of its nodes.
    """

    steps: TemplateNetwork
    bits: TemplateNetwork
    biases: tuple[tuple[TemplateNetwork, TemplateNetwork], ...]
    ranges: tuple[Range, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class TemplateNetwork:
    """Network for the templates.

    Attributes:
        front: what stands before the layers.
        arrays: the layers, whose own standardisation is not used.
        input_name: name of the graph's input.
        stored: integers that the file stores; None if all weights are floats.
    """

    front: Front
    arrays: NetworkArrays
    input_name: str
    stored: Stored | None = None

    @property
    def layers(self) -> tuple[Convolution | DenseArrays | KroneckerArrays, ...]:
        """All layers with weights, in their order."""
        return (*self.front.convolutions, *self.arrays.layers)

    @property
    def in_features(self) -> int:
        """Number of values of a sample."""
        return math.prod(self.front.shape)

    def check(self, name: str) -> None:
        """Check that all numbers can be written as C, and that there are any.

        Raises:
            ExportError: a weight is not finite, or a layer has no weights; begins with the name.
        """
        for index, layer in enumerate(self.layers):
            values = [each for each in vars(layer).values() if isinstance(each, np.ndarray) and each.dtype.kind == "f"]
            if not all(np.isfinite(each).all() for each in values):
                raise ExportError(f"{name}: layer {index + 1} has weights that are not finite: train the network again")
            if any(each.size == 0 for each in values):
                raise ExportError(f"{name}: layer {index + 1} has no weights, expected at least one input and output")
        others = (self.front.mean, self.front.inverse, self.arrays.scale, self.arrays.offset)
        if not all(np.isfinite(each).all() for each in others if each is not None):
            raise ExportError(f"{name}: its standardisation has numbers that are not finite: train the network again")

    @property
    def is_classifier(self) -> bool:
        """Whether one of the graph's outputs is a softmax, which the C code gives then."""
        return any(self.arrays.outputs.values())

    @property
    def weights(self) -> int:
        """Number of weights and biases."""
        front = sum(each.weight.size + each.bias.size for each in self.front.convolutions)
        return front + sum(
            value.size
            for layer in self.arrays.layers
            for value in vars(layer).values()
            if isinstance(value, np.ndarray) and value.dtype == np.float32
        )


def identifier(name: str) -> str:
    """Make an identifier of C from any name; one that C or C++ reserves, or begins with a digit, is prefixed."""
    cleaned = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_").lower()[:_LENGTH].rstrip("_")
    return cleaned if re.match("[a-z]", cleaned) and cleaned not in _KEYWORDS else f"model_{cleaned}".rstrip("_")
