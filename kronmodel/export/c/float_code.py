"""C code of a network in float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kronmodel.export.c.float_steps import float_steps
from kronmodel.export.c.network import TemplateNetwork
from kronmodel.export.c.sections import take
from kronmodel.export.c.source import Writer

__all__ = ["FloatWriter"]


class FloatWriter(Writer):
    """Writer of code in float32.

    Args:
        network: the network.
        name: an identifier of C.
        title: name of the model in comments.
        card: the model card.
        libm: call ``expf`` of ``math.h`` for a softmax; otherwise a polynomial computes it.
    """

    def __init__(
        self, network: TemplateNetwork, name: str, title: str, card: Mapping[str, Any], *, libm: bool = True
    ) -> None:
        super().__init__(network, name, float_steps(network), title, card)
        self.libm = libm and network.is_classifier
        self.numbers = f"float32, {'expf of math.h' if self.libm else 'no library'}"

    def functions(self) -> str:
        """Write the functions that the network needs."""
        kind = "libm" if self.libm else "rational"
        names = ["activation.enum", *(each for each in ("gelu", "tanh") if each in self.options)]
        names += ["activate", *self.used]
        names += [f"exponential.{kind}", "softmax", "largest"] if "softmax" in self.options else []
        return take("float.c", [*names, "checked"], self.options)

    def body(self) -> list[str]:
        """Write the statements of a prediction."""
        network = self.network
        features, front = network.in_features, network.front
        width = features if front.convolutions else network.arrays.layers[0].in_features
        lines = [f"if (checked({features}, in)) return -1;"]
        current, turn = "in", 0
        if front.mean is not None or width > features:
            current, turn = self.reserve("a", "float", 4, width), 1
            lines += self._standardised(current, features, width)
        for index, step in enumerate(self.steps):
            target = "out"
            if not self.is_last(index):
                target = self.reserve("ab"[turn % 2], "float", 4, self.zeros_behind(index).stop)
            arguments = [self.define_step(index, step), current, target]
            if step.function == "branches":
                arguments.append(self.reserve("line", "float", 4, step.line))
            lines.append(f"{step.function}({', '.join(arguments)}); /* {step.about} */")
            lines += _filled(target, self.zeros_behind(index))
            if not self.is_added_to(index):
                current, turn = target, turn + 1
        if not self._members:
            lines.append("(void)scratch;")
        return lines + self._outputs()

    def _standardised(self, to: str, features: int, width: int) -> list[str]:
        front = self.network.front
        value = "in[i]"
        if front.mean is not None and front.inverse is not None:
            mean = self.define("mean", front.mean, "of each input")
            inverse = self.define("inverse", front.inverse, "of each input's standard deviation")
            value = f"(in[i] - {mean}[i]) * {inverse}[i]"
        lines = [f"for (int i = 0; i < {features}; i++) {to}[i] = {value};"]
        return lines + _filled(to, range(features, width))

    def _outputs(self) -> list[str]:
        outputs = self.network.arrays.out_features
        lines = []
        arrays = self.network.arrays
        if arrays.scale is not None and arrays.offset is not None:
            scale = self.define("scale", arrays.scale.reshape(-1), "of each output")
            offset = self.define("offset", arrays.offset.reshape(-1), "of each output")
            lines.append(f"for (int i = 0; i < {outputs}; i++) out[i] = out[i] * {scale}[i] + {offset}[i];")
        if self.network.is_classifier:
            return [*lines, f"softmax({outputs}, out);", f"return largest({outputs}, out);"]
        return [*lines, f"return checked({outputs}, out);"]


def _filled(to: str, places: range) -> list[str]:
    return [f"for (int i = {places.start}; i < {places.stop}; i++) {to}[i] = 0.0f;"] if places else []
