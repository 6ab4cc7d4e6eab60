"""Convolutional feature extractor: convolutions and pooling in front of dense or Kronecker layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from kronmodel.nn.activations import Activation, Function, activation_moments, activation_name, get_activation
from kronmodel.nn.init import Init, check_init
from kronmodel.shapes import Image, image_of, whole_number

__all__ = ["ConvConfig", "ConvFeatures", "parse_channels"]

KERNEL = 3
POOL = 2
MAX_CHANNELS = 1 << 16  # protects against typing errors that would exhaust the memory


def parse_channels(text: str) -> tuple[int, ...]:
    """Parse the channels of convolutions: ``"16,64,256"`` becomes ``(16, 64, 256)``.

    Raises:
        ValueError: the text is not a list of whole numbers separated by commas.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise ValueError(f"expected channels such as 16,64,256, got {text!r}")
    return tuple(int(part) for part in parts)


@dataclass(frozen=True, kw_only=True)
class ConvConfig:
    """Configuration of convolutional features: 3x3 convolutions, each followed by an activation and 2x2 max-pooling.

    Activation and initialisation belong to the configuration of the whole network.

    Attributes:
        image_shape: channels, height and width of the input.
        channels: number of output channels of each convolution.
        dropout: probability with which a feature is zeroed in training.

    Raises:
        ValueError: a size or the probability is out of range, or the image is too small to be halved so often.
    """

    image_shape: Image
    channels: tuple[int, ...]
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if len(self.image_shape) != 3:
            raise ValueError(f"image_shape must be (channels, height, width), got {self.image_shape!r}")
        channels = tuple(each for each in map(whole_number, self.channels) if each and 1 <= each <= MAX_CHANNELS)
        if not channels or len(channels) != len(self.channels):
            raise ValueError(
                f"channels must be whole numbers between 1 and {MAX_CHANNELS} such as (16, 64, 256), "
                f"got {self.channels!r}"
            )
        # Converted to Python ints, so that equal configurations are serialised identically.
        object.__setattr__(self, "image_shape", image_of(self.image_shape))
        object.__setattr__(self, "channels", channels)
        if not (math.isfinite(self.dropout) and 0 <= self.dropout < 1):
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout!r}")
        if min(self.image_shape[1:]) < POOL ** len(self.channels):
            _, height, width = self.image_shape
            raise ValueError(
                f"{len(self.channels)} convolutions halve the image as often: expected at least "
                f"{POOL ** len(self.channels)} pixels each way, got {height}x{width}"
            )

    @property
    def shapes(self) -> tuple[Image, ...]:
        """Channels, height and width of the input, then of each convolution's output after pooling."""
        _, height, width = self.image_shape
        halved = ((height // POOL**depth, width // POOL**depth) for depth in range(1, len(self.channels) + 1))
        return (self.image_shape, *((each, *size) for each, size in zip(self.channels, halved, strict=True)))

    @property
    def out_features(self) -> int:
        """Number of output features."""
        return math.prod(self.shapes[-1])


class ConvFeatures(nn.Module):
    """Convolutional feature extractor: 3x3 convolutions, each with activation and 2x2 max-pooling, then dropout.

    Args:
        config: sizes and dropout.
        activation: gelu, relu, tanh, or any elementwise function; a module is registered with its parameters.

    Shape:
        input ``(batch, channels, height, width)``, or ``(batch, channels * height * width)`` in the same order;
        output ``(batch, out_features)``, flattened channel-last: feature ``(row * columns + column) * channels +
        channel``, as in Keras, whose networks the paper trained. Which features share a row of the Kronecker head's
        input matrix depends on it.

    Cost:
        ``9 * in * out`` weights and ``out`` biases per convolution; one multiply-add per weight and pixel, including
        those on the zero padding.

    Raises:
        ValueError: the activation is unknown, or an input has another shape.

    Example:
        >>> ConvFeatures(ConvConfig(image_shape=(3, 32, 32), channels=(16, 64, 256)))(torch.zeros(7, 3, 32, 32)).shape
        torch.Size([7, 4096])

    Reference:
        Hogue, Kirby & Narayan, arXiv 2204.04273: channels 16, 64 and 256, relu, dropout 0.2.
    """

    activation: Activation

    def __init__(self, config: ConvConfig, activation: Activation = "relu") -> None:
        super().__init__()
        self.config = config
        get_activation(activation)
        self.activation = activation
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before[0], after[0], KERNEL, padding="same")
            for before, after in zip(config.shapes, config.shapes[1:], strict=False)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.reset_parameters()

    def reset_parameters(self, init: Init = "level") -> None:
        """Reinitialise the kernels at random, and set the biases to zero.

        Args:
            init: ``"level"`` keeps the mean square of pre-activations constant through the layers: He's
                initialisation, with the second moment of the activation in use.
                ``"glorot"``: uniform with variance ``2 / (fan_in + fan_out)``: Keras's default, presumably the paper's.
        """
        check_init(init)
        second_moment = math.hypot(*activation_moments(self.activation, self._typed()[0].weight))
        for convolution in self._typed():
            if init == "glorot":
                nn.init.xavier_uniform_(convolution.weight)
            else:
                fan_in = convolution.weight[0].numel()
                nn.init.normal_(convolution.weight, std=1 / (second_moment * math.sqrt(fan_in)))
            if convolution.bias is not None:
                nn.init.zeros_(convolution.bias)

    def forward(self, x: Tensor, activations: Sequence[Function] | None = None) -> Tensor:
        """Compute features ``(batch, out_features)`` of ``(batch, channels, height, width)``, or of flat images.

        Args:
            x: the images.
            activations: a function behind each convolution, in place of the activation of all.
        """
        if activations is None:
            activations = [get_activation(self.activation)] * len(self.convolutions)
        shape = self.config.image_shape
        if x.dim() == 2 and x.shape[1] == math.prod(shape):
            x = x.reshape(x.shape[0], *shape)
        if x.dim() != 4 or x.shape[1:] != shape:
            raise ValueError(
                f"images must have shape (batch, {', '.join(map(str, shape))}) or (batch, {math.prod(shape)}), "
                f"got {tuple(x.shape)}"
            )
        for convolution, activation in zip(self.convolutions, activations, strict=True):
            # Channels innermost in memory: a training step on a CPU takes a third less time, and flattening copies
            # nothing. Equals contiguous(memory_format=channels_last), but in operations that vmap supports.
            x = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
            x = convolution(x)  # (batch, c, h, w)
            x = F.max_pool2d(activation(x), POOL)  # (batch, c, h // 2, w // 2)
        features: Tensor = self.dropout(x.permute(0, 2, 3, 1).flatten(1))  # (batch, h * w * c)
        return features

    @property
    def macs_per_sample(self) -> int:
        """Number of multiply-adds of all convolutions for one image."""
        return sum(card["macs_per_sample"] for card in self.layer_cards())

    def layer_cards(self) -> list[dict[str, Any]]:
        """Describe each convolution for the model card; ``out_shape`` is the shape after pooling."""
        cards = []
        for convolution, before, after in zip(self._typed(), self.config.shapes, self.config.shapes[1:], strict=False):
            kernel = convolution.weight.numel()
            bias = 0 if convolution.bias is None else convolution.bias.numel()
            cards.append(
                {
                    "kind": "Conv2d",
                    "in_shape": list(before),
                    "out_shape": list(after),
                    "kernel": [KERNEL, KERNEL],
                    "padding": "same",
                    "pool": [POOL, POOL],
                    "activation": activation_name(self.activation),
                    "parameters": kernel + bias,
                    "macs_per_sample": kernel * before[1] * before[2],
                }
            )
        return cards

    def _typed(self) -> list[nn.Conv2d]:
        return [each for each in self.convolutions if isinstance(each, nn.Conv2d)]

    def extra_repr(self) -> str:
        """Describe the features for ``repr``."""
        name = activation_name(self.activation)
        return f"{self.config.image_shape} -> {self.config.out_features}, activation={name!r}"
