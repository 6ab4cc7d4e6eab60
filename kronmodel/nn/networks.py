"""Frozen configurations and the networks built from them: a Kronecker network and its dense counterpart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from kronmodel.nn.activations import activation_moments, get_activation
from kronmodel.nn.conv import ConvConfig, ConvFeatures
from kronmodel.nn.init import Init, check_init
from kronmodel.nn.layers import KroneckerDual
from kronmodel.shapes import Order, Shape, check_orders, check_rank, check_shape

__all__ = ["DenseConfig", "KroneckerConfig", "Network", "build"]


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """A network of dense layers: ``in_features`` to each width of ``hidden`` to ``out_features``.

    With convolutional ``features`` in front, ``in_features`` is how many of them there are.

    Raises:
        ValueError: a width, the activation or the initialisation is not possible, or the features don't fit.
    """

    in_features: int
    hidden: tuple[int, ...]
    out_features: int
    activation: str = "gelu"
    init: Init = "level"
    features: ConvConfig | None = None

    def __post_init__(self) -> None:
        for width in (self.in_features, *self.hidden, self.out_features):
            check_shape("a width", (1, width))
        get_activation(self.activation)
        check_init(self.init)
        _check_features(self.features, self.in_features)


@dataclass(frozen=True, kw_only=True)
class KroneckerConfig:
    """A network of Kronecker dual layers: ``in_shape`` to each shape of ``hidden`` to ``out_shape``.

    The ``rank`` is that of every layer, or a tuple with one for each. With convolutional ``features`` in front,
    ``in_shape`` is the shape in which the head takes them.

    Raises:
        ValueError: a shape, a rank, an order or the activation is not possible, or the features don't fit.
    """

    in_shape: Shape
    hidden: tuple[Shape, ...]
    out_shape: Shape
    rank: int | tuple[int, ...] = 1
    order: Order | tuple[Order, ...] = "left"
    activation: str = "gelu"
    init: Init = "level"
    features: ConvConfig | None = None

    def __post_init__(self) -> None:
        shapes = [check_shape("a shape", shape) for shape in (self.in_shape, *self.hidden, self.out_shape)]
        if len(self.ranks) != len(shapes) - 1:
            raise ValueError(f"rank must be one number, or one for each of {len(shapes) - 1} layers, got {self.rank!r}")
        for rank, in_shape, out_shape in zip(self.ranks, shapes, shapes[1:], strict=False):
            check_rank(rank, in_shape, out_shape)
            check_orders(self.order, rank)
        get_activation(self.activation)
        check_init(self.init)
        _check_features(self.features, math.prod(self.in_shape))

    @property
    def ranks(self) -> tuple[int, ...]:
        """The rank of each layer."""
        return self.rank if isinstance(self.rank, tuple) else (self.rank,) * (len(self.hidden) + 1)

    def dense(self) -> DenseConfig:
        """The counterpart with dense layers of the same widths, the same activation and the same features."""
        return DenseConfig(
            in_features=math.prod(self.in_shape),
            hidden=tuple(math.prod(shape) for shape in self.hidden),
            out_features=math.prod(self.out_shape),
            activation=self.activation,
            init=self.init,
            features=self.features,
        )


class Network(nn.Module):
    """Layers with one activation between them; the last layer's output is the logits.

    Args:
        layers: at least one, each taking as many features as the one before gives.
        activation: its name.
        features: what makes the first layer's input out of images, if there is such a part.

    Shape:
        input ``(batch, in_features)`` or, with convolutions, also ``(batch, channels, height, width)``;
        output ``(batch, out_features)``.
    """

    def __init__(
        self,
        layers: Sequence[KroneckerDual | nn.Linear],
        activation: str,
        features: ConvFeatures | None = None,
    ) -> None:
        super().__init__()
        self.features = features
        self.layers = nn.ModuleList(layers)
        self.activation = activation
        self._activation = get_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(batch, out_features)`` of ``(batch, *input_shape)`` or ``(batch, in_features)``."""
        if self.features is not None:
            x = self.features(x)
        *hidden, last = self.layers
        for layer in hidden:
            x = self._activation(layer(x))
        out: Tensor = last(x)
        return out

    @property
    def parameter_count(self) -> int:
        """Number of trainable values."""
        return _count(self)

    @property
    def parameter_count_with_branch_biases(self) -> int:
        """The same as the paper counts: each branch of a layer with an output bias of its own.

        Their sum is one bias, which is what a layer here has.
        """
        copies = (
            (layer.rank - 1) * layer.bias.numel()
            for layer in self._typed_layers()
            if isinstance(layer, KroneckerDual) and layer.bias is not None
        )
        return _count(self) + sum(copies)

    @property
    def macs_per_sample(self) -> int:
        """Multiply-adds of convolutions and matrix products for one sample, without biases and activations."""
        head = sum(_macs(layer) for layer in self._typed_layers())
        return head if self.features is None else self.features.macs_per_sample + head

    @property
    def in_features(self) -> int:
        """Number of values in a sample."""
        if self.features is not None:
            return math.prod(self.features.config.image_shape)
        first = next(self._typed_layers())
        return first.in_features if isinstance(first, nn.Linear) else math.prod(first.in_shape)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape in which a sample is exported: ``(in_features,)``, or channels, height and width with convolutions."""
        return (self.in_features,) if self.features is None else self.features.config.image_shape

    def layer_cards(self) -> list[dict[str, Any]]:
        """What the model card says of each layer."""
        cards: list[dict[str, Any]] = [] if self.features is None else self.features.layer_cards()
        for layer in self._typed_layers():
            if isinstance(layer, nn.Linear):
                card: dict[str, Any] = {"in_shape": [layer.in_features], "out_shape": [layer.out_features]}
            else:
                card = {
                    "in_shape": list(layer.in_shape),
                    "out_shape": list(layer.out_shape),
                    "rank": layer.rank,
                    "order": list(layer.order),
                    "activation": layer.activation,
                }
            cards.append(
                {"kind": type(layer).__name__, **card, "parameters": _count(layer), "macs_per_sample": _macs(layer)}
            )
        return cards

    def _typed_layers(self) -> Iterator[KroneckerDual | nn.Linear]:
        for layer in self.layers:
            if not isinstance(layer, KroneckerDual | nn.Linear):
                raise TypeError(f"layers must be KroneckerDual or Linear, got {type(layer).__name__}")
            yield layer


def build(config: KroneckerConfig | DenseConfig) -> Network:
    """Build the network of a configuration, freshly initialised from torch's global random state."""
    features = None
    if config.features is not None:
        features = ConvFeatures(config.features, config.activation)
        features.reset_parameters(config.init)
    layers: list[KroneckerDual | nn.Linear] = []
    if isinstance(config, DenseConfig):
        for n, m in pairwise((config.in_features, *config.hidden, config.out_features)):
            linear = nn.Linear(n, m)
            # The same aims as in the Kronecker layers, so that the comparison is not one of initialisations.
            if config.init == "glorot":
                nn.init.xavier_uniform_(linear.weight)
            else:
                second_moment = math.hypot(*activation_moments(config.activation))
                nn.init.normal_(linear.weight, std=1 / (second_moment * math.sqrt(n)))
            nn.init.zeros_(linear.bias)
            layers.append(linear)
    else:
        shapes = pairwise((config.in_shape, *config.hidden, config.out_shape))
        for rank, (in_shape, out_shape) in zip(config.ranks, shapes, strict=True):
            layer = KroneckerDual(in_shape, out_shape, rank, order=config.order, activation=config.activation)
            layer.reset_parameters(config.init)
            layers.append(layer)
    return Network(layers, config.activation, features)


def _check_features(features: ConvConfig | None, in_features: int) -> None:
    if features is not None and features.out_features != in_features:
        raise ValueError(
            f"the first layer must take the {features.out_features:,} features that the convolutions give, "
            f"got {in_features:,}"
        )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _macs(layer: KroneckerDual | nn.Linear) -> int:
    return layer.in_features * layer.out_features if isinstance(layer, nn.Linear) else layer.macs_per_sample
