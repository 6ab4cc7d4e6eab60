"""C code of a network in integer arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from kronmodel.export.c.arrays import array, floats
from kronmodel.export.c.integer_steps import IntegerNetwork, integer_steps
from kronmodel.export.c.network import TemplateNetwork
from kronmodel.export.c.sections import take
from kronmodel.export.c.source import Writer
from kronmodel.export.c.steps import Step

__all__ = ["IntegerWriter", "activation_table", "power_table"]


def activation_table(name: str) -> list[int]:
    """Return the table of ``interpolated``: of tanh, or of max(x, 0) - GELU(x), at 0, 1/32 .. 4 in units of 2^-15."""
    function = math.tanh if name == "tanh" else lambda x: x * 0.5 * math.erfc(x / math.sqrt(2))
    return [round(function(index / 32) * 2**15) for index in range(129)]


def power_table() -> list[int]:
    """Return the table of ``exponential``: 1, 2^(-1/32) .. 1/2 in units of 1/65535."""
    return [round(2 ** (-index / 32) * 65535) for index in range(33)]


class IntegerWriter(Writer):
    """Writer of code in integer arithmetic.

    Args:
        network: the network.
        integers: the network, quantised.
        name: an identifier of C.
        title: name of the model in comments.
        card: the model card.
    """

    def __init__(
        self, network: TemplateNetwork, integers: IntegerNetwork, name: str, title: str, card: Mapping[str, Any]
    ) -> None:
        super().__init__(network, name, integer_steps(integers), title, card)
        self.integers = integers
        self.bits = max(integers.bits)
        bits = " and ".join(map(str, integers.bits))
        self.numbers = f"integers, weights of {bits} bits, activations of 8 bits; no floats but inputs and outputs"

    def functions(self) -> str:
        """Write the functions that the network needs."""
        tables = []
        for name in ("gelu", "tanh"):
            if name in self.options:
                about = "max(x, 0) - GELU(x)" if name == "gelu" else name
                values = np.array(activation_table(name), np.uint16)
                tables.append(array(f"{name}_table", values, f"{about} at 0, 1/32 .. 4, in units of 2^-15"))
        if "softmax" in self.options:
            values = np.array(power_table(), np.uint16)
            tables.append(array("power_table", values, "1, 2^(-1/32) .. 1/2"))
        given, fraction = self.integers.given, self.integers.fraction
        constants = (
            f"#define FRACTION {fraction}\n#define INPUT_ZERO {given.zero * 2**16 + 2**15} /* and a half, to round */\n"
        )
        curves = [each for each in ("gelu", "tanh") if each in self.options]
        names = ["head", *(["interpolated"] if curves else []), *curves, "activate", "scaled", "unpacked", "bias"]
        names += self.used
        names += ["softmax"] if "softmax" in self.options else []
        options = self.options | ({"packed"} if min(self.integers.bits) < 8 or self._has_packed_biases() else set())
        scales = ("_full_scale", "_line_scale", "_column_scale")
        if any(key.endswith(scales) for step in self.steps for key in step.arrays):
            options.add("levels")
        return "\n".join([constants, *tables, take("integer.c", [*names, "quantize_input"], options)])

    def _has_packed_biases(self) -> bool:
        return any(values.dtype == np.uint8 for step in self.steps for values, _ in step.arrays.values())

    def body(self) -> list[str]:
        """Write the statements of a prediction."""
        network = self.network
        features = network.in_features
        width = features if network.front.convolutions else network.arrays.layers[0].in_features
        current, turn = self.reserve("a", "uint8_t", 1, width), 1
        lines = self._inputs(current, features, width)
        outputs = "NULL"
        for index, step in enumerate(self.steps):
            is_last, in_sums = self.is_last(index), self.is_last(index) or self.is_added_to(index)
            target = "NULL"
            if not is_last:
                target = self.reserve("ab"[turn % 2], "uint8_t", 1, self.zeros_behind(index).stop)
            sums = self.reserve("sums", "int32_t", 4, step.size) if in_sums or step.adds else "NULL"
            outputs = sums
            given = "NULL" if in_sums else target
            room = self._room(step)
            arguments = [self.define_step(index, step), current, given]
            if step.function == "branches":
                arguments += [sums, self.reserve("line", "int32_t", 4, step.line),
                              self.reserve("hidden", "int16_t", 2, step.hidden), room]  # fmt: skip
            else:
                arguments += [sums, room] if step.function == "dense" else [room]
            lines.append(f"{step.function}({', '.join(arguments)}); /* {step.about} */")
            lines += _filled(target, self.zeros_behind(index), self.integers.parts[index].ranges.result.zero)
            if not self.is_added_to(index):
                current, turn = target, turn + 1
        return lines + self._outputs(outputs)

    def _room(self, step: Step) -> str:
        """Reserve memory for unpacked weights, if they are packed."""
        weights = [step.arrays[key][0] for key in ("u", "v", "weight") if key in step.arrays]
        packed = any(values.dtype == np.uint8 for values in weights)
        return self.reserve("room", "int8_t", 1, step.room if packed else 0)

    def _inputs(self, to: str, features: int, width: int) -> list[str]:
        front, given = self.network.front, self.integers.given
        value = f"in[i] * {next(iter(floats([given.inverse * 2**16])))}"
        if front.mean is not None and front.inverse is not None:
            mean = self.define("mean", front.mean, "of each input")
            scale = (front.inverse * np.float32(given.inverse * 2**16)).astype(np.float32)
            value = f"(in[i] - {mean}[i]) * {self.define('inverse', scale, 'steps of each input')}[i]"
        lines = [
            f"for (int i = 0; i < {features}; i++)",
            f"    if (quantize_input({value}, &{to}[i])) return -1;",
        ]
        return lines + _filled(to, range(features, width), given.zero)

    def _outputs(self, sums: str) -> list[str]:
        arrays = self.network.arrays
        outputs = arrays.out_features
        if self.network.is_classifier:
            return [f"return softmax({outputs}, {sums}, out);"]
        unit = 2.0**-self.integers.fraction
        value = f"(float){sums}[i] * {next(iter(floats([unit])))}"
        if arrays.scale is not None and arrays.offset is not None:
            scale = self.define("scale", (arrays.scale.reshape(-1) * unit).astype(np.float32), "of each output")
            offset = self.define("offset", arrays.offset.reshape(-1), "of each output")
            value = f"(float){sums}[i] * {scale}[i] + {offset}[i]"
        return [f"for (int i = 0; i < {outputs}; i++) out[i] = {value};", "return 0;"]


def _filled(to: str, places: range, value: int) -> list[str]:
    return [f"for (int i = {places.start}; i < {places.stop}; i++) {to}[i] = {value};"] if places else []
