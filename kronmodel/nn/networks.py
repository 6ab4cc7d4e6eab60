"""Network configurations, Kronecker and dense, and the networks built from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import is_
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn

from kronmodel.nn._composite import LayerForm
from kronmodel.nn.activations import (
    Activation,
    activation_moments,
    activation_name,
    check_activation_name,
    get_activation,
)
from kronmodel.nn.base import KroneckerLayer
from kronmodel.nn.conv import ConvConfig, ConvFeatures
from kronmodel.nn.functional import Part, apply_layers, apply_parts, split_layers
from kronmodel.nn.init import Init, check_init
from kronmodel.nn.layers import KroneckerDual, KroneckerLinear
from kronmodel.shapes import Layer, Order, Shape, check_linear_rank, check_orders, check_rank, check_shape

__all__ = ["DenseConfig", "KroneckerConfig", "Network", "build"]

EXPORTED_BYTES = 4  # of a float32


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """Configuration of a network of dense layers.

    Attributes:
        in_features: number of inputs; with convolutions in front, their number of output features.
        hidden: widths of the hidden layers.
        out_features: number of outputs.
        activation: activation between the layers: gelu, relu or tanh. A name, since configurations are saved to files.
        init: weight initialisation, as in the Kronecker network: ``"level"`` keeps the variance of pre-activations
            constant through depth, ``"glorot"`` is Keras's default.
        features: convolutions in front of the first layer, if there are any.

    Raises:
        ValueError: a width, the activation or the initialisation is invalid, or ``features`` doesn't match
            ``in_features``.
    """

    in_features: int
    hidden: tuple[int, ...]
    out_features: int
    activation: str = "gelu"
    init: Init = "level"
    features: ConvConfig | None = None

    def __post_init__(self) -> None:
        given = (self.in_features, *self.hidden, self.out_features)
        widths = [check_shape("a width", (1, width))[1] for width in given]
        _set(self, in_features=widths[0], hidden=tuple(widths[1:-1]), out_features=widths[-1])
        check_activation_name(self.activation)
        check_init(self.init)
        _check_features(self.features, self.in_features)


@dataclass(frozen=True, kw_only=True)
class KroneckerConfig:
    """Configuration of a network of Kronecker layers.

    Attributes:
        in_shape: factor sizes of the input; with convolutions in front, of their output features.
        hidden: factor sizes of each hidden layer.
        out_shape: factor sizes of the output.
        rank: rank of every layer, or a tuple with one for each.
        layer: ``"dual"`` for layers with biases and activations between their factors, ``"linear"`` for sums of
            Kronecker products.
        order: factor that the branches of dual layers apply first, ``"left"`` or ``"right"``; one for all branches or
            one for each. Linear layers always use the cheaper order.
        activation: activation between and inside the layers: gelu, relu or tanh. A name, since configurations are saved
            to files.
        init: weight initialisation: ``"level"`` for zero-mean orthogonal factors, which keep the variance of
            pre-activations constant through depth, ``"glorot"`` for Keras's default.
        features: convolutions in front of the first layer, if there are any.

    Raises:
        ValueError: a shape, a rank, an order, the layer or the activation is invalid, or ``features`` doesn't match
            ``in_shape``.
    """

    in_shape: Shape
    hidden: tuple[Shape, ...]
    out_shape: Shape
    rank: int | tuple[int, ...] = 1
    layer: Layer = "dual"
    order: Order | tuple[Order, ...] = "left"
    activation: str = "gelu"
    init: Init = "level"
    features: ConvConfig | None = None

    def __post_init__(self) -> None:
        shapes = [check_shape("a shape", shape) for shape in (self.in_shape, *self.hidden, self.out_shape)]
        if self.layer not in get_args(Layer):
            raise ValueError(f"layer must be one of {', '.join(get_args(Layer))}, got {self.layer!r}")
        if self.layer == "linear" and self.order != "left":
            raise ValueError(
                f"order is for dual layers, whose activations stand between the factors, got {self.order!r} for linear "
                "ones; leave it out"
            )
        layers = len(shapes) - 1
        given = tuple(self.rank) if isinstance(self.rank, Iterable) else (self.rank,) * layers
        if len(given) != layers:
            raise ValueError(f"rank must be one number, or one for each of {layers} layers, got {self.rank!r}")
        ranks = tuple(
            check_rank(rank) if self.layer == "dual" else check_linear_rank(rank, in_shape, out_shape)
            for rank, (in_shape, out_shape) in zip(given, pairwise(shapes), strict=True)
        )
        for rank in ranks:
            check_orders(self.order, rank)
        _set(
            self,
            in_shape=shapes[0],
            hidden=tuple(shapes[1:-1]),
            out_shape=shapes[-1],
            rank=ranks if isinstance(self.rank, Iterable) else ranks[0],
            order=self.order if isinstance(self.order, str) else tuple(self.order),
        )
        check_activation_name(self.activation)
        check_init(self.init)
        _check_features(self.features, math.prod(self.in_shape))

    @property
    def ranks(self) -> tuple[int, ...]:
        """Rank of each layer."""
        return self.rank if isinstance(self.rank, tuple) else (self.rank,) * (len(self.hidden) + 1)

    def dense(self) -> DenseConfig:
        """Return the configuration of the dense counterpart: same widths, activation, initialisation and features."""
        return DenseConfig(
            in_features=math.prod(self.in_shape),
            hidden=tuple(math.prod(shape) for shape in self.hidden),
            out_features=math.prod(self.out_shape),
            activation=self.activation,
            init=self.init,
            features=self.features,
        )


class Network(nn.Module):
    """Feed-forward network of Kronecker or dense layers with an activation between them, which returns logits.

    Args:
        layers: at least one layer; each has as many inputs as the layer before has outputs.
        activation: activation between the layers: gelu, relu, tanh, or any elementwise function; a module is
            registered with its parameters.
        features: convolutions that compute the first layer's input from images, if there are any.

    Shape:
        input ``(batch, in_features)`` or, with convolutions, also ``(batch, channels, height, width)``;
        output ``(batch, out_features)``, contiguous.

    Cost:
        :attr:`parameter_count` trainable values, :attr:`macs_per_sample` multiply-adds a sample.

    Raises:
        ValueError: there is no layer, or the activation is unknown.
        TypeError: a layer is neither a Kronecker layer nor an ``nn.Linear``.

    Example:
        >>> layers = [KroneckerDual((28, 28), (16, 16), rank=2), KroneckerLinear((16, 16), (2, 5))]
        >>> Network(layers, torch.sin)(torch.zeros(7, 784)).shape
        torch.Size([7, 10])
    """

    activation: Activation
    _split: tuple[Sequence[LayerForm], Sequence[Part]] = ((), ())  # of the last call

    def __init__(
        self,
        layers: Sequence[KroneckerDual | KroneckerLinear | nn.Linear],
        activation: Activation,
        features: ConvFeatures | None = None,
    ) -> None:
        super().__init__()
        get_activation(activation)
        if not layers:
            raise ValueError("a network needs at least one layer, got none")
        self.features = features
        self.layers = nn.ModuleList(layers)
        self.activation = activation
        list(self._typed_layers())  # raises a TypeError for an unsupported layer

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits ``(batch, out_features)`` of ``(batch, *input_shape)`` or ``(batch, in_features)``."""
        if self.features is not None:
            x = self.features(x)
        activation = get_activation(self.activation)
        joined: list[LayerForm] = []  # consecutive layers, computed at once
        for index, layer in enumerate(self.layers):  # of any type: compression replaces layers by others
            outer = activation if index + 1 < len(self.layers) else None
            form = layer.joined(outer) if isinstance(layer, KroneckerLayer) else None
            if form is not None:
                joined.append(form)
                continue
            x = self._compute(x, joined)
            joined = []
            x = layer(x)
            x = x if outer is None else outer(x)
        return self._compute(x, joined)

    def _compute(self, x: Tensor, joined: list[LayerForm]) -> Tensor:
        """Compute consecutive layers; how they are split is kept for the next call with the same ones."""
        if torch.compiler.is_compiling():
            return apply_layers(x, joined)
        kept, parts = self._split
        if len(kept) != len(joined) or not all(map(is_, kept, joined)):
            self._split = joined, split_layers(joined)
            parts = self._split[1]
        return apply_parts(x, parts)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_split"}

    @property
    def parameter_count(self) -> int:
        """Number of trainable values."""
        return _count(self)

    @property
    def parameter_count_with_branch_biases(self) -> int:
        """Number of trainable values as the paper counts them, with an output bias for each branch of a dual layer.

        Since the branches are summed, a layer here has a single output bias, equivalent to the sum of the paper's.
        """
        copies = (
            (layer.rank - 1) * layer.bias.numel()
            for layer in self._typed_layers()
            if isinstance(layer, KroneckerDual) and layer.bias is not None
        )
        return _count(self) + sum(copies)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all trainable values as they are exported."""
        return EXPORTED_BYTES * self.parameter_count

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
        width: int = cast(Any, self.layers[0]).in_features
        return width

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a sample in the exported graph: ``(in_features,)``, or channels, height, width with convolutions."""
        return (self.in_features,) if self.features is None else self.features.config.image_shape

    def layer_cards(self) -> list[dict[str, Any]]:
        """Describe each layer for the model card, with activation functions by their names."""
        cards: list[dict[str, Any]] = [] if self.features is None else self.features.layer_cards()
        for layer in self._typed_layers():
            if isinstance(layer, nn.Linear):
                card: dict[str, Any] = {"in_shape": [layer.in_features], "out_shape": [layer.out_features]}
            else:
                card = {"in_shape": list(layer.in_shape), "out_shape": list(layer.out_shape), "rank": layer.rank}
            if isinstance(layer, KroneckerDual):
                card |= {"order": list(layer.order), "activation": activation_name(layer.activation)}
            cards.append(
                {"kind": type(layer).__name__, **card, "parameters": _count(layer), "macs_per_sample": _macs(layer)}
            )
        return cards

    def _typed_layers(self) -> Iterator[KroneckerDual | KroneckerLinear | nn.Linear]:
        for layer in self.layers:
            if not isinstance(layer, KroneckerDual | KroneckerLinear | nn.Linear):
                raise TypeError(f"layers must be KroneckerDual, KroneckerLinear or Linear, got {type(layer).__name__}")
            yield layer


def build(config: KroneckerConfig | DenseConfig) -> Network:
    """Build the network of a configuration, with weights drawn from torch's global random state."""
    features = None
    if config.features is not None:
        features = ConvFeatures(config.features, config.activation)
        features.reset_parameters(config.init)
    layers = _dense_layers(config) if isinstance(config, DenseConfig) else _kronecker_layers(config)
    return Network(list(layers), config.activation, features)


def _dense_layers(config: DenseConfig) -> Iterator[nn.Linear]:
    """Create dense layers with an initialisation equivalent to the Kronecker layers', for a fair comparison."""
    for n, m in pairwise((config.in_features, *config.hidden, config.out_features)):
        linear = nn.Linear(n, m)
        if config.init == "glorot":
            nn.init.xavier_uniform_(linear.weight)
        else:
            second_moment = math.hypot(*activation_moments(config.activation))
            nn.init.normal_(linear.weight, std=1 / (second_moment * math.sqrt(n)))
        nn.init.zeros_(linear.bias)
        yield linear


def _kronecker_layers(config: KroneckerConfig) -> Iterator[KroneckerDual | KroneckerLinear]:
    shapes = pairwise((config.in_shape, *config.hidden, config.out_shape))
    for rank, (in_shape, out_shape) in zip(config.ranks, shapes, strict=True):
        if config.layer == "linear":
            linear = KroneckerLinear(in_shape, out_shape, rank)
            linear.reset_parameters(1 / activation_moments(config.activation)[1], config.init)
            yield linear
        else:
            dual = KroneckerDual(in_shape, out_shape, rank, order=config.order, activation=config.activation)
            dual.reset_parameters(config.init)
            yield dual


def _set(config: DenseConfig | KroneckerConfig, **fields: Any) -> None:
    """Set fields of a frozen configuration to their checked values, converted to Python ints and tuples."""
    for name, value in fields.items():
        object.__setattr__(config, name, value)


def _check_features(features: ConvConfig | None, in_features: int) -> None:
    if features is not None and features.out_features != in_features:
        raise ValueError(
            f"the first layer must take the {features.out_features:,} features that the convolutions give, "
            f"got {in_features:,}"
        )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _macs(layer: KroneckerDual | KroneckerLinear | nn.Linear) -> int:
    return layer.in_features * layer.out_features if isinstance(layer, nn.Linear) else layer.macs_per_sample
