"""Networks with quantised activations: the operands of all matrix products, in the places where they are rounded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from kronmodel.nn.activations import Function, get_activation
from kronmodel.nn.base import KroneckerLayer
from kronmodel.nn.functional import apply_layers
from kronmodel.nn.networks import Network

__all__ = ["activation_places", "forward_quantized"]

Quantizer = Callable[[str, Tensor], Tensor]
"""Function that rounds the features of a place, which it takes by its name."""


def activation_places(network: Network) -> list[str]:
    """List the names of the places where features are rounded: in front of every product of a matrix or convolution."""
    places = ["input"]
    if network.features is not None:
        places += [f"features.{index}" for index in range(len(network.features.convolutions))]
    last = len(network.layers) - 1
    for index, layer in enumerate(network.layers):
        if isinstance(layer, KroneckerLayer):
            places.append(f"layers.{index}.inner")
        if index < last:
            places.append(f"layers.{index}.output")
    return places


def forward_quantized(network: Network, x: Tensor, quantize: Quantizer) -> Tensor:
    """Compute a network's logits with rounded features: the network's input, and each layer's inner and outer features.

    Args:
        network: network built from a configuration.
        x: as for the network itself.
        quantize: rounds the features of each place of :func:`activation_places`.
    """

    def rounded(place: str, function: Function | None) -> Function:
        return lambda z: quantize(place, z if function is None else function(z))

    activation = get_activation(network.activation)
    x = quantize("input", x)
    if network.features is not None:
        count = len(network.features.convolutions)
        x = network.features(x, [rounded(f"features.{index}", activation) for index in range(count)])
    last = len(network.layers) - 1
    for index, layer in enumerate(network.layers):
        outer = rounded(f"layers.{index}.output", activation) if index < last else None
        form = layer.joined(outer) if isinstance(layer, KroneckerLayer) else None
        if form is not None:
            x = apply_layers(x, [replace(form, activation=rounded(f"layers.{index}.inner", form.activation))])
        else:
            x = layer(x)
            x = x if outer is None else outer(x)
    return x
