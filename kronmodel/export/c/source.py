"""Source code of a network: one C file and its header."""

from __future__ import annotations

import importlib.metadata
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray

from kronmodel.export.c.arrays import array, comment, structure
from kronmodel.export.c.network import TemplateNetwork
from kronmodel.export.c.steps import Step

__all__ = ["Source", "Writer"]

RULE = 116  # columns of a title
VERSION = importlib.metadata.version("kronmodel")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Text of a network's C code.

    Attributes:
        name: prefix of its functions and types.
        code: text of the C file.
        header: text of the header.
        weight_bytes: of the network's constant arrays; tables of functions are code.
        scratch_bytes: of what a prediction needs beside the stack, its inputs and its outputs.
        libm: whether it calls functions of ``math.h``.
        macs: multiply-adds of a prediction.
        bits: of the weights, 32 for float32; the most, if they differ.
    """

    name: str
    code: str
    header: str
    weight_bytes: int
    scratch_bytes: int
    libm: bool
    macs: int
    bits: int


class Writer(ABC):
    """Writer of a network's source code.

    Args:
        network: the network.
        name: an identifier of C, the prefix of its functions.
        steps: the calls that compute it.
        title: name of the model in comments.
        card: the model card.
    """

    numbers: str  # how it computes, for people
    libm = False
    bits = 32  # of the weights

    def __init__(
        self, network: TemplateNetwork, name: str, steps: Sequence[Step], title: str, card: Mapping[str, Any]
    ) -> None:
        self.network, self.name, self.steps, self.title, self.card = network, name, steps, title, card
        activations = {each for step in steps for each in step.activations}
        self.options: set[str] = {each for each in ("gelu", "tanh") if each in activations}
        if network.is_classifier:
            self.options.add("softmax")
        self.used = [each for each in ("dense", "branches", "convolution") if each in {s.function for s in steps}]
        self._constants: list[Callable[[], str]] = []  # each writes a definition
        self._weight_bytes = 0
        self._members: dict[str, tuple[str, int, int]] = {}  # of the scratch memory: type, bytes of a value, number

    @abstractmethod
    def functions(self) -> str:
        """Write the functions that the network needs."""

    @abstractmethod
    def body(self) -> list[str]:
        """Write the statements of a prediction."""

    def figures(self) -> tuple[int, int]:
        """Compute the bytes of the constants and of the scratch memory, without the code; a writer does it once."""
        self.body()
        self.functions()
        return self._weight_bytes, self._scratch_bytes()

    def _scratch_bytes(self) -> int:
        """Return the size of the structure, whose largest numbers stand first: only its end is padded."""
        sizes = [size for _, size, _ in self._members.values()]
        used, most = sum(size * number for _, size, number in self._members.values()), max(sizes, default=1)
        return -(-used // most) * most

    def write(self) -> Source:
        """Write the code; a writer does it once."""
        body = self.body()
        functions = self.functions()
        scratch = self._scratch_bytes()
        code = "\n".join([
            comment([
                f"{self.title}: a neural network as C99 code without dynamic memory, used as {self.name}.h says.",
                f"Written by kronmodel {VERSION}: change the model and export it again rather than this file.",
            ]),
            f'#include "{self.name}.h"\n',
            *(["#include <math.h>"] if self.libm else []),
            "#include <stddef.h>\n",
            _rule("Arithmetic"), functions,
            _rule("Weights"), "\n".join(each() for each in self._constants), _rule("Network"),
            f"int {self.name}_predict_with(const float *in, float *out, {self.name}_scratch *scratch)",
            "{", *(f"    {line}" for line in body), "}\n",
            f"#ifndef {self.name.upper()}_NO_STATIC_SCRATCH",
            f"int {self.name}_predict(const float *in, float *out)",
            "{", f"    static {self.name}_scratch scratch;",
            f"    return {self.name}_predict_with(in, out, &scratch);", "}", "#endif\n",
        ])  # fmt: skip
        return Source(
            name=self.name,
            code=code,
            header=self._header(scratch),
            weight_bytes=self._weight_bytes,
            scratch_bytes=scratch,
            libm=self.libm,
            macs=sum(step.macs for step in self.steps),
            bits=self.bits,
        )

    def define(self, name: str, values: NDArray[Any], about: str) -> str:
        """Define a constant array; return its name."""
        self._constants.append(partial(array, name, values, about))
        self._weight_bytes += values.nbytes
        return name

    def reserve(self, name: str, kind: str, size: int, number: int) -> str:
        """Reserve scratch memory of a number of values; return the expression for it, NULL for none."""
        if number == 0:
            return "NULL"
        self._members[name] = (kind, size, max(self._members.get(name, (kind, size, 0))[2], number))
        return f"scratch->{name}"

    def define_step(self, index: int, step: Step) -> str:
        """Define the structure of a step and its arrays; return a pointer to it."""
        name = f"step_{index + 1}"
        for key, (values, about) in step.arrays.items():
            self.define(f"{name}_{key}", values, about)
        for key, (kind, number, text) in step.structures.items():
            self._constants.append(partial(str, f"static const struct {kind} {name}_{key}[{number}] = {{{text}}};\n"))
        fields = {key: str(value).replace("{name}", name) for key, value in step.fields.items()}
        self._constants.append(partial(structure, step.function, name, fields, step.about))
        return f"&{name}"

    def is_last(self, index: int) -> bool:
        """Tell whether a step, or those that add to it, gives the network's outputs."""
        return all(step.adds for step in self.steps[index + 1 :])

    def is_added_to(self, index: int) -> bool:
        """Tell whether the next step adds to what a step gives."""
        return index + 1 < len(self.steps) and self.steps[index + 1].adds

    def zeros_behind(self, index: int) -> range:
        """Return the places behind a step's outputs that the next layer takes as zeros; those behind convolutions."""
        size, convolutions = self.steps[index].size, len(self.network.front.convolutions)
        return range(size, self.network.arrays.layers[0].in_features if index + 1 == convolutions else size)

    def _header(self, scratch: int) -> str:
        name, upper = self.name, self.name.upper()
        network = self.network
        outputs = network.arrays.out_features
        shape = " x ".join(map(str, network.front.shape))
        named, given = self.card.get("labels"), self.card.get("preprocessing")
        labels = [str(each) for each in named] if isinstance(named, list) else []
        if network.is_classifier:
            gives = f"{outputs} probabilities. Returns the index of the largest one, or -1 if an input is not a number."
        else:
            gives = f"{outputs} values. Returns 0, or -1 if an input is not a number."
        ordered = sorted(self._members.items(), key=lambda item: -item[1][1])
        members = [f"    {kind} {member}[{number}];" for member, (kind, _, number) in ordered]
        lines = [
            f"{self.title}: a neural network as C99 code, without dynamic memory.",
            "",
            *(f"  {step.about}" for step in self.steps),
            "",
            f"Arithmetic: {self.numbers}.",
            f"{network.weights:,} weights in {self._weight_bytes:,} bytes; {scratch:,} bytes of scratch; "
            f"{sum(step.macs for step in self.steps):,} multiply-adds.",
            "",
            f"    float in[{upper}_INPUTS], out[{upper}_OUTPUTS];",
            "    ...",
            f"    int {'label' if network.is_classifier else 'failed'} = {name}_predict(in, out);",
            "",
            f"in: {network.in_features} values ({shape}){'' if given is None else f'. {_text(given)}'}",
            f"out: {gives}",
            f"{name}_predict has static scratch memory: one call at a time. {name}_predict_with takes the caller's. "
            f"With {upper}_NO_STATIC_SCRATCH defined, only the latter is compiled.",
        ]
        return "\n".join([
            comment(lines),
            f"#ifndef {upper}_H\n#define {upper}_H\n",
            "#include <stdint.h>\n",
            f"#define {upper}_INPUTS {network.in_features}",
            f"#define {upper}_OUTPUTS {outputs}",
            f"#define {upper}_SCRATCH_BYTES sizeof({name}_scratch)",
            *([f"#define {upper}_LABELS {{{', '.join(map(_string, labels))}}}"] if len(labels) == outputs else []),
            "\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n",
            "/* Scratch memory of one prediction. */",
            "typedef struct {", *(members or ["    char unused;"]), f"}} {name}_scratch;\n",
            f"int {name}_predict(const float *in, float *out);",
            f"int {name}_predict_with(const float *in, float *out, {name}_scratch *scratch);",
            "\n#ifdef __cplusplus\n}\n#endif\n\n#endif\n",
        ])  # fmt: skip


def _rule(title: str) -> str:
    return f"/* ---- {title} {'-' * (RULE - len(title) - 11)} */\n"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)[:200]


def _string(text: str) -> str:
    """Write a string constant of C in UTF-8."""
    characters = []
    for byte in text.encode(errors="replace"):
        plain = 32 <= byte < 127 and chr(byte) not in '"\\?'
        characters.append(chr(byte) if plain else f"\\{byte:03o}")
    return f'"{"".join(characters)}"'
