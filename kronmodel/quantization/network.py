"""Networks whose weights are levels of step sizes: what quantisation-aware training gives, and what is exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor

from kronmodel.nn.networks import Network
from kronmodel.quantization.activations import activation_places, forward_quantized
from kronmodel.quantization.config import FLOAT_BITS, QuantizationConfig
from kronmodel.quantization.fake_quantizer import FEATURE_LEVELS
from kronmodel.quantization.storage import StoredTensor, assemble, stored_tensors

__all__ = ["QuantizedNetwork", "StoredValues"]

SCALE_BYTES = 4  # a float32


@dataclass(frozen=True, kw_only=True)
class StoredValues:
    """Values of a stored tensor.

    Attributes:
        tensor: description of the tensor.
        levels: ``(rows, length)``, int8; or float32 if the tensor is stored as floats.
        steps: step size of each row, ``(rows,)``, float16; empty for floats.
    """

    tensor: StoredTensor
    levels: Tensor
    steps: Tensor

    def values(self) -> Tensor:
        """Return the values ``(size,)`` in float32."""
        if self.tensor.bits == FLOAT_BITS:
            return self.levels.flatten()
        return (self.levels.float() * self.steps.float()[:, None]).flatten()


class QuantizedNetwork(Network):
    """Network with weights that are levels of step sizes, and with rounded activations if they are quantised.

    Its parameters have the values of the levels; changing them does not change :attr:`stored`.

    Args:
        network: network whose layers are taken over, and whose parameters are set.
        config: configuration of the quantisation.
        stored: stored values of all parameters.
        scales: step size of the activations of each place, by its name; empty for float activations.
    """

    def __init__(
        self,
        network: Network,
        config: QuantizationConfig,
        stored: Sequence[StoredValues],
        scales: Mapping[str, float],
    ) -> None:
        super().__init__(cast(Any, list(network.layers)), network.activation, network.features)
        self.config = config
        self.stored = list(stored)
        self.scales = dict(scales)
        shapes = {name: parameter.shape for name, parameter in self.named_parameters()}
        self.load_state_dict(
            assemble([each.tensor for each in stored], [each.values() for each in stored], shapes), strict=True
        )

    @classmethod
    def of_shapes(cls, network: Network, config: QuantizationConfig) -> Self:
        """Build the quantised form of a network on the device ``meta``, which has sizes and no values."""
        stored = [
            StoredValues(
                tensor=each,
                levels=torch.empty(each.rows, each.length, device="meta"),
                steps=torch.empty(each.rows, device="meta"),
            )
            for each in stored_tensors(network, config)
        ]
        places = activation_places(network) if config.activation_bits != FLOAT_BITS else []
        return cls(network, config, stored, dict.fromkeys(places, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits ``(batch, out_features)`` of ``(batch, *input_shape)`` or ``(batch, in_features)``."""
        return forward_quantized(self, x, self._round) if self.scales else super().forward(x)

    def _round(self, place: str, features: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            return torch.fake_quantize_per_tensor_affine(features, self.scales[place], 0, *FEATURE_LEVELS)
        # Bytes without sign and with 128 as zero: onnxruntime 1.32 makes them of signed ones on x86, and then fails.
        scale, zero = torch.tensor(self.scales[place]), torch.tensor(-FEATURE_LEVELS[0], dtype=torch.uint8)
        rounded = torch.onnx.ops.symbolic(
            "QuantizeLinear", (features, scale, zero), dtype=torch.uint8, shape=features.shape
        )
        return torch.onnx.ops.symbolic(
            "DequantizeLinear", (rounded, scale, zero), dtype=torch.float32, shape=features.shape
        )

    @property
    def parameter_count(self) -> int:
        """Number of stored weights and biases, without step sizes."""
        return sum(each.tensor.size for each in self.stored)

    @property
    def parameter_count_with_branch_biases(self) -> int:
        """As :attr:`parameter_count`: the paper's count, with a bias for each branch, is of float networks."""
        return self.parameter_count

    @property
    def weight_bytes(self) -> int:
        """Bytes of all stored weights, biases and step sizes, with those of the activations."""
        return sum(each.tensor.bytes for each in self.stored) + SCALE_BYTES * len(self.scales)

    def layer_cards(self) -> list[dict[str, Any]]:
        """Describe each layer for the model card, with the bits of its weights and its stored bytes."""
        cards = super().layer_cards()
        prefixes = [
            *(f"features.convolutions.{index}." for index in range(len(cards) - len(self.layers))),
            *(f"layers.{index}." for index in range(len(self.layers))),
        ]
        for card, prefix in zip(cards, prefixes, strict=True):
            own = [each.tensor for each in self.stored if each.tensor.parameter.startswith(prefix)]
            card["parameters"] = sum(each.size for each in own)
            card["weight_bytes"] = sum(each.bytes for each in own)
            card["bits"] = next(each.bits for each in own if not each.is_bias)
        return cards
