"""Configuration of quantisation-aware training: bits of weights, biases and activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["FLOAT_BITS", "BiasForm", "QuantizationConfig", "parse_bits"]

FLOAT_BITS = 32
WEIGHT_BITS = (2, 4, 8, FLOAT_BITS)
BYTE_BITS = (8, FLOAT_BITS)
MAX_LAYERS = 1000

BiasForm = Literal["full", "row-column"]
"""Form of the biases of Kronecker layers: one number for each feature, or a vector for each axis of the features."""


@dataclass(frozen=True, kw_only=True)
class QuantizationConfig:
    """Configuration of the fake quantisation of a network.

    Attributes:
        bits: bits of a weight, 8, 4 or 2, or 32 for float; one number for all layers, or one for each layer with
            weights, convolutions included.
        bias_bits: bits of a bias, 8, or 32 for float.
        bias_form: ``"full"``, or ``"row-column"`` for biases of Kronecker layers that are the sum of a vector for each
            axis of the features, which the output layer's bias is not.
        activation_bits: bits of the input and of the features between the matrix products, 8, or 32 for float.
        epochs: last epochs of the training in which weights are quantised; 0 for all epochs.

    Raises:
        ValueError: a number of bits is none of these, or there is nothing to quantise.
    """

    bits: int | tuple[int, ...]
    bias_bits: int = 8
    bias_form: BiasForm = "full"
    activation_bits: int = FLOAT_BITS
    epochs: int = 0

    def __post_init__(self) -> None:
        given = self.bits if isinstance(self.bits, Sequence) else (self.bits,)
        if not 1 <= len(given) <= MAX_LAYERS or not all(_is_one_of(each, WEIGHT_BITS) for each in given):
            raise ValueError(
                f"bits must be 8, 4 or 2, or 32 for float, or one of them for each layer, got {self.bits!r}"
            )
        if not isinstance(self.bits, int):
            object.__setattr__(self, "bits", tuple(self.bits))
        for name in ("bias_bits", "activation_bits"):
            if not _is_one_of(getattr(self, name), BYTE_BITS):
                raise ValueError(f"{name} must be 8, or 32 for float, got {getattr(self, name)!r}")
        if self.bias_form not in get_args(BiasForm):
            raise ValueError(f"bias_form must be one of {', '.join(get_args(BiasForm))}, got {self.bias_form!r}")
        if isinstance(self.epochs, bool) or not isinstance(self.epochs, int) or self.epochs < 0:
            raise ValueError(f"quantize_epochs must be a whole number of at least 0, got {self.epochs!r}")

    @property
    def is_float(self) -> bool:
        """Whether all weights are float."""
        return all(bits == FLOAT_BITS for bits in (self.bits if isinstance(self.bits, tuple) else (self.bits,)))

    def layer_bits(self, layers: int) -> tuple[int, ...]:
        """Return the bits of each of a number of layers.

        Raises:
            ValueError: there is a list of bits whose length is another one.
        """
        if isinstance(self.bits, int):
            return (self.bits,) * layers
        if len(self.bits) != layers:
            raise ValueError(f"bits must be one number, or one for each of {layers} layers, got {self.bits!r}")
        return self.bits

    def first_epoch(self, epochs: int) -> int:
        """Return the number, from 1, of the first of ``epochs`` epochs with quantised weights."""
        return max(1, epochs - self.epochs + 1) if self.epochs else 1

    def first_activation_epoch(self, epochs: int) -> int | None:
        """Return the number of the first epoch with quantised activations; None if they are float.

        Activations are quantised in the last tenth of the epochs with quantised weights, at least one, because the
        native kernel computes float activations several times faster.
        """
        if self.activation_bits == FLOAT_BITS:
            return None
        quantized = epochs - self.first_epoch(epochs) + 1
        return epochs - max(1, quantized // 10) + 1

    def first_full_epoch(self, epochs: int) -> int:
        """Return the number of the first epoch in which weights and activations are as in the final network."""
        return self.first_activation_epoch(epochs) or self.first_epoch(epochs)


def _is_one_of(bits: object, allowed: Sequence[int]) -> bool:
    return type(bits) is int and bits in allowed


def parse_bits(text: str) -> int | tuple[int, ...]:
    """Parse bits: ``"4"`` for every layer becomes 4, ``"4,2,8"`` with one for each becomes ``(4, 2, 8)``.

    Raises:
        ValueError: the text is not a list of 2, 4, 8 and 32.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part in tuple(map(str, WEIGHT_BITS)) for part in parts):
        raise ValueError(f"bits must be 8, 4 or 2, or 32 for float, or one for each layer such as 4,4,8, got {text!r}")
    return int(parts[0]) if len(parts) == 1 else tuple(map(int, parts))
