"""Files of the C export: source code, a header of weights, and an Arduino library."""

from __future__ import annotations

import importlib.metadata
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kronmodel.errors import ExportError
from kronmodel.export.c.arrays import array, comment
from kronmodel.export.c.float_code import FloatWriter
from kronmodel.export.c.float_steps import float_steps
from kronmodel.export.c.integer_code import IntegerWriter
from kronmodel.export.c.integer_steps import IntegerNetwork, integer_steps, quantize_network
from kronmodel.export.c.model import CModel
from kronmodel.export.c.network import TemplateNetwork
from kronmodel.export.c.source import Source, Writer

__all__ = ["BITS", "arduino_files", "source_files", "weights_header", "write_source", "writer_of"]

BITS = (8, 4)
VERSION = importlib.metadata.version("kronmodel")


def write_source(model: CModel, name: str, bits: int | None, *, libm: bool = True) -> Source:
    """Write the C code of a model by the templates.

    Args:
        model: the model.
        name: an identifier of C.
        bits: of the weights, with integer arithmetic; None for float32, or for the integers that the file stores.
        libm: call ``expf`` of ``math.h`` in float32.

    Raises:
        ExportError: the templates can't compute the model, or there are no samples to quantise it with.
    """
    network = _network(model)
    _check_bits(model, network, bits)
    return writer_of(network, model.samples, bits, name=name, title=model.name, card=model.card, libm=libm).write()


def writer_of(
    network: TemplateNetwork,
    samples: Callable[[], NDArray[np.float32]],
    bits: int | None,
    *,
    name: str,
    title: str,
    card: Mapping[str, Any],
    libm: bool,
) -> Writer:
    """Choose the arithmetic of a network, and return the writer of its code.

    Args:
        network: the network.
        samples: returns real inputs ``(n, *shape)``.
        bits: as for :func:`write_source`.
        name: an identifier of C.
        title: name of the model in comments.
        card: the model card.
        libm: as for :func:`write_source`.
    """
    integers = _integers(network, samples, bits)
    if integers is None:
        return FloatWriter(network, name, title, card, libm=libm)
    return IntegerWriter(network, integers, name, title, card)


def _integers(
    network: TemplateNetwork, samples: Callable[[], NDArray[np.float32]], bits: int | None
) -> IntegerNetwork | None:
    """Quantise the network if bits are wanted or stored; None for float32."""
    if network.stored is not None:
        return quantize_network(network, samples, BITS[0])
    return None if bits is None else quantize_network(network, samples, bits, bits)


def _check_bits(model: CModel, network: TemplateNetwork, bits: int | None) -> None:
    if bits is not None and network.stored is not None:
        raise ExportError(f"{model.path} stores its weights as integers already: leave out --bits")


def _network(model: CModel) -> TemplateNetwork:
    if model.network is None:
        raise ExportError(f"{model.reason}; export it with --to c, which has another generator for such graphs")
    model.network.check(str(model.path))
    return model.network


def source_files(source: Source) -> dict[str, str]:
    """Return the C file and its header by their names."""
    return {f"{source.name}.c": source.code, f"{source.name}.h": source.header}


def weights_header(model: CModel, name: str, bits: int | None) -> tuple[str, int]:
    """Write a header with the arrays only, and return it with their bytes.

    Raises:
        ExportError: as for :func:`write_source`.
    """
    network = _network(model)
    upper = f"{name.upper()}_WEIGHTS_H"
    _check_bits(model, network, bits)
    integers = _integers(network, model.samples, bits)
    steps = float_steps(network) if integers is None else integer_steps(integers)
    lines = [f"{model.name}: weights, written by kronmodel {VERSION}.", ""]
    texts, size = [], 0
    for index, step in enumerate(steps):
        prefix = f"{name}_{index + 1}"
        fields = ", ".join(f"{key} = {value}".replace("{name}", prefix) for key, value in step.fields.items())
        lines += [f"{prefix}: {step.about}"]
        lines += textwrap.wrap(fields, 110, initial_indent="    ", subsequent_indent="    ", break_long_words=False)
        for key, (values, about) in step.arrays.items():
            texts.append(array(f"{prefix}_{key}", values, about))
            size += values.nbytes
    arrays = network.arrays
    front = network.front
    others = {"mean": front.mean, "inverse": front.inverse, "scale": arrays.scale, "offset": arrays.offset}
    for key, constants in others.items():
        if constants is not None:
            flat = np.asarray(constants, np.float32).reshape(-1)
            texts.append(
                array(f"{name}_{key}", flat, "of each input" if key in ("mean", "inverse") else "of each output")
            )
            size += flat.nbytes
    text = "\n".join([
        comment(lines), f"#ifndef {upper}\n#define {upper}\n", "#include <stdint.h>\n", *texts, "#endif\n",
    ])  # fmt: skip
    return text, size


def arduino_files(model: CModel, source: Source) -> Mapping[str, str]:
    """Return the files of an Arduino library by their paths in its folder."""
    name = source.name
    title = "".join(c if c.isprintable() else " " for c in model.name).strip() or name
    classifier = model.network is not None and model.network.is_classifier
    upper = name.upper()
    gives = (
        f'    int label = {name}_predict(in, out);\n    Serial.print("label ");\n    Serial.print(label);\n'
        f'    Serial.print(", probability ");\n    Serial.println(label < 0 ? 0.0f : out[label]);\n'
        if classifier
        else f"    {name}_predict(in, out);\n    Serial.println(out[0]);\n"
    )
    sketch = (
        f"// Predicts zeros, again and again: put your own values into `in`.\n#include <{name}.h>\n\n"
        f"static float in[{upper}_INPUTS];\nstatic float out[{upper}_OUTPUTS];\n\n"
        "void setup() {\n    Serial.begin(115200);\n}\n\n"
        "void loop() {\n    unsigned long start = micros();\n"
        f'{gives}    Serial.print(micros() - start);\n    Serial.println(" us");\n    delay(1000);\n}}\n'
    )
    properties = {
        "name": name, "version": "1.0.0", "author": "kronmodel", "maintainer": "kronmodel",
        "sentence": f"The neural network {title}.",
        "paragraph": f"C code that kronmodel {VERSION} exported: {source.weight_bytes} bytes of weights, "
        f"{source.scratch_bytes} bytes of memory.",
        "category": "Data Processing", "url": "https://arxiv.org/abs/2204.04273", "architectures": "*",
        "includes": f"{name}.h",
    }  # fmt: skip
    return {
        "library.properties": "".join(f"{key}={value}\n" for key, value in properties.items()),
        **{f"src/{file}": text for file, text in source_files(source).items()},
        f"examples/{name}_predict/{name}_predict.ino": sketch,
    }
