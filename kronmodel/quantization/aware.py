"""Training form of a network: float values and step sizes, from which each pass computes the quantised weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kronmodel.nn.networks import Network
from kronmodel.quantization.activations import activation_places, forward_quantized
from kronmodel.quantization.config import FLOAT_BITS, QuantizationConfig
from kronmodel.quantization.fake_quantizer import (
    FEATURE_LEVELS,
    Grid,
    fake_quantize,
    fake_quantize_features,
    initial_steps,
    levels,
    quantized_steps,
)
from kronmodel.quantization.network import QuantizedNetwork, StoredValues
from kronmodel.quantization.storage import StoredTensor, assemble, stored_tensors

__all__ = ["QuantizationAwareNetwork"]

CALIBRATION_VALUES = 1 << 17  # features of a place that the first step size of its activations is chosen for


class QuantizationAwareNetwork(nn.Module):
    """Network in quantisation-aware training.

    All float values are one vector, and all step sizes another: one fake quantisation for the whole network takes a
    fraction of a millisecond, and an optimizer has a few tensors. The network computes with the resulting weights, so
    that the native kernel is used as for float weights. Quantised activations are rounded between the products, by
    torch's operations.

    Args:
        network: network whose layers and values are taken over; it is not to be used afterwards.
        config: configuration of the quantisation.
    """

    def __init__(self, network: Network, config: QuantizationConfig) -> None:
        super().__init__()
        self.config = config
        self._template = [network]  # in a list, so that its parameters are not this module's
        self._shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
        tensors = stored_tensors(network, config)
        self._tensors = tensors
        self._quantized = [each for each in tensors if each.bits != FLOAT_BITS]
        self._floats = [each for each in tensors if each.bits == FLOAT_BITS]
        start = {name: parameter.detach() for name, parameter in network.named_parameters()}
        vectors = {each.name: _start(each, start[each.parameter]) for each in tensors}
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        self.values = nn.Parameter(torch.cat([vectors[each.name] for each in self._quantized]))
        self.log_steps = nn.Parameter(torch.zeros(sum(each.rows for each in self._quantized)))
        self.floats = nn.Parameter(torch.cat([vectors[each.name] for each in self._floats])) if self._floats else None
        self.places = activation_places(network) if config.activation_bits != FLOAT_BITS else []
        self.log_scales = nn.Parameter(torch.zeros(len(self.places))) if self.places else None
        self._register_grid()
        self.quantizes_weights = self.quantizes_activations = False

    def _register_grid(self) -> None:
        """Register rows and levels of the values; they follow from the configuration, so no checkpoint keeps them."""
        lengths = torch.tensor([each.length for each in self._quantized for _ in range(each.rows)])
        bounds = torch.tensor([each.levels for each in self._quantized for _ in range(each.rows)], dtype=torch.float32)
        rows = torch.arange(len(lengths)).repeat_interleave(lengths)
        for name, buffer in (
            ("_rows", rows),
            ("_low", bounds[rows, 0]),
            ("_high", bounds[rows, 1]),
            ("_scale", 1 / (lengths * bounds[:, 1]).sqrt()),
        ):
            self.register_buffer(name, buffer, persistent=False)

    @property
    def grid(self) -> Grid:
        """Rows and levels of the quantised values."""
        rows, low, high, scale = (self.get_buffer(name) for name in ("_rows", "_low", "_high", "_scale"))
        return Grid(rows, low, high, scale)

    @property
    def step_sizes(self) -> list[nn.Parameter]:
        """Parameters that are logarithms of step sizes, which weight decay would pull towards a step size of 1."""
        return [self.log_steps, *([] if self.log_scales is None else [self.log_scales])]

    @property
    def in_features(self) -> int:
        """Number of values in a sample."""
        return self._template[0].in_features

    def start_epoch(self, epoch: int, epochs: int, x: Tensor) -> None:
        """Quantise weights and activations from their epochs on, and choose their first step sizes.

        Args:
            epoch: number of the epoch that begins, from 1.
            epochs: number of epochs of the training.
            x: inputs ``(n, ...)``, of which the first are used to choose the step sizes of the activations.
        """
        first, first_activation = self.config.first_epoch(epochs), self.config.first_activation_epoch(epochs)
        if epoch == first:
            self._choose_steps()
        self.quantizes_weights = epoch >= first
        if first_activation is not None and epoch == first_activation:
            self._choose_scales(x[:1024])
        self.quantizes_activations = first_activation is not None and epoch >= first_activation

    @torch.no_grad()
    def _choose_steps(self) -> None:
        parts = self.values.split([each.size for each in self._quantized])
        steps = [
            initial_steps(part.view(each.rows, each.length), *each.levels)
            for each, part in zip(self._quantized, parts, strict=True)
        ]
        self.log_steps.copy_(torch.cat(steps).log())

    @torch.no_grad()
    def _choose_scales(self, x: Tensor) -> None:
        assert self.log_scales is not None
        found: dict[str, Tensor] = {}

        def record(place: str, features: Tensor) -> Tensor:
            values = features.flatten()
            stride = max(1, len(values) // CALIBRATION_VALUES)
            sample = torch.cat([values[::stride], found[place]]) if place in found else values[::stride]
            found[place] = sample
            return features

        training = self.training
        self.eval()
        self._call(x, record)
        self.train(training)
        steps = [initial_steps(found[place][None], *FEATURE_LEVELS) for place in self.places]
        self.log_scales.copy_(torch.cat(steps).log())

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits ``(batch, out_features)`` of ``(batch, *input_shape)`` or ``(batch, in_features)``."""
        if not self.quantizes_activations:
            return self._call(x, None)
        assert self.log_scales is not None
        if self.training:
            scales = dict(zip(self.places, self.log_scales.unbind(), strict=True))
            return self._call(x, lambda place, z: fake_quantize_features(z, scales[place]))
        fixed = self._scales()
        return self._call(
            x, lambda place, z: torch.fake_quantize_per_tensor_affine(z, fixed[place], 0, *FEATURE_LEVELS)
        )

    def _call(self, x: Tensor, quantize: Callable[[str, Tensor], Tensor] | None) -> Tensor:
        network = self._template[0]
        if network.training != self.training:
            network.train(self.training)
        if quantize is None:
            result: Tensor = functional_call(network, self._parameters_now(), (x,))
        else:
            result = functional_call(_Quantized(network, quantize), self._parameters_now("network."), (x,))
        return result

    def _parameters_now(self, prefix: str = "") -> dict[str, Tensor]:
        """Compute the network's parameters from the values and step sizes, by their names."""
        log_steps: Tensor = self.log_steps
        if self.log_scales is not None and not self.quantizes_activations:
            log_steps = log_steps + 0 * self.log_scales.sum()  # so that every parameter has a gradient in every process
        if self.quantizes_weights:
            values = fake_quantize(self.values, log_steps, self.grid)
        else:
            values = self.values + 0 * log_steps.sum()
        parts = dict(zip(self._quantized, values.split([each.size for each in self._quantized]), strict=True))
        if self.floats is not None:
            parts |= zip(self._floats, self.floats.split([each.size for each in self._floats]), strict=True)
        found = assemble(self._tensors, [parts[each] for each in self._tensors], self._shapes)
        return {prefix + name: tensor for name, tensor in found.items()}

    def _scales(self) -> dict[str, float]:
        scales = [] if self.log_scales is None else quantized_steps(self.log_scales.detach()).tolist()
        return dict(zip(self.places, scales, strict=True))

    @torch.no_grad()
    def quantized(self) -> QuantizedNetwork:
        """Return the network with the weights as they are stored, on the CPU; the module is of no use afterwards."""
        steps = quantized_steps(self.log_steps).cpu()
        grid = self.grid
        every = levels(self.values, quantized_steps(self.log_steps)[grid.rows], grid.low, grid.high).cpu()
        sizes, rows = ([getattr(each, name) for each in self._quantized] for name in ("size", "rows"))
        stored = {
            each: StoredValues(
                tensor=each, levels=own.view(each.rows, each.length).to(torch.int8), steps=step.to(torch.float16)
            )
            for each, own, step in zip(self._quantized, every.split(sizes), steps.split(rows), strict=True)
        }
        if self.floats is not None:
            floats = self.floats.cpu().split([each.size for each in self._floats])
            for each, own in zip(self._floats, floats, strict=True):
                stored[each] = StoredValues(
                    tensor=each, levels=own.view(each.rows, each.length).clone(), steps=torch.empty(0)
                )
        network = self._template[0]
        for parameter in network.parameters():
            parameter.requires_grad_(True)
        return QuantizedNetwork(network, self.config, [stored[each] for each in self._tensors], self._scales())


class _Quantized(nn.Module):
    """Module of a network with rounded activations, for a functional call."""

    def __init__(self, network: Network, quantize: Callable[[str, Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.quantize = network, quantize

    def forward(self, x: Tensor) -> Tensor:
        return forward_quantized(self.network, x, self.quantize)


def _start(tensor: StoredTensor, value: Tensor) -> Tensor:
    """Return the first values of a stored tensor, flat: the parameter, or its part in a sum of vectors.

    The nearest sum of vectors has the means over all other axes, less the mean that would be counted several times.
    """
    if tensor.axis is None:
        return value.flatten()
    full = value.view(tensor.shape)  # (branches, s1, s2, ...)
    axes = range(1, full.dim())
    means = full.mean([axis for axis in axes if axis != tensor.axis])  # (branches, size)
    return (means - means.mean(1, keepdim=True) * (1 - 1 / len(axes))).flatten()
