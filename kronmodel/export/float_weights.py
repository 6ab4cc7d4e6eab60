"""Float form of an ONNX file with quantised weights: the same network, for programs without integer weights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from kronmodel.errors import ExportError
from kronmodel.export.card import read_card, set_card
from kronmodel.export.stored_weights import FOLDED_WEIGHTS
from kronmodel.native.onnx_values import UnsupportedError, fold

__all__ = ["with_float_weights"]

STORED = (".levels", ".values")
LAYER = re.compile(r"(layers|features\.convolutions)\.([0-9]{1,4})\.")
FLOAT_BYTES = 4


def with_float_weights(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Replace quantised weights by float32 initialisers with the same values, and describe them in the model card.

    Quantised activations are rounded to the same values by Div, Round, Clip and Mul: beside QuantizeLinear, onnxruntime
    would quantise the weights again.

    Args:
        model: model that ``kronmodel train --bits`` exported.
        name: of the model in errors.

    Raises:
        ExportError: the model has no quantised weights, or they can't be computed.
    """
    if all(entry.key != FOLDED_WEIGHTS for entry in model.metadata_props):
        raise ExportError(f"{name} has no quantised weights; expected a file that `kronmodel train --bits` wrote")
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    known: dict[str, NDArray[Any]] = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    weights = _Weights(known)
    rest = []
    for node in graph.node:
        if not node.input or not all(each in known for each in node.input):
            rest.append(onnx.NodeProto.FromString(node.SerializeToString()))
            continue
        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        try:
            known[node.output[0]] = fold(node, [known[each] for each in node.input], attributes)
        except (UnsupportedError, ValueError, TypeError, IndexError, KeyError) as error:
            raise ExportError(f"{name}: the weights of {node.output[0]} can't be computed: {error}") from error
        weights.add(node, known[node.output[0]].size)
    rest = _rounded(rest, known)
    used = sorted(known.keys() & {each for node in rest for each in node.input})
    del graph.node[:], graph.initializer[:]
    graph.node.extend(rest)
    graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(known[each]), each) for each in used)
    others = [(each.key, each.value) for each in model.metadata_props if each.key != FOLDED_WEIGHTS]
    del made.metadata_props[:]
    for key, value in others:
        made.metadata_props.add(key=key, value=value)
    card = read_card(model)
    if card is not None:
        set_card(made, _described(card, weights.sizes()))
    return made


def _rounded(nodes: Sequence[onnx.NodeProto], known: dict[str, NDArray[Any]]) -> list[onnx.NodeProto]:
    """Replace the quantisation of activations by operators on floats, whose bounds are added to the constants."""
    found = []
    quantized = set()
    for node in nodes:
        if node.op_type == "QuantizeLinear" and len(node.input) == 3 and all(each in known for each in node.input[1:]):
            x, scale, zero = node.input
            output = node.output[0]
            quantized.add(output)
            bounds = np.iinfo(known[zero].dtype)
            for end, value in (("low", bounds.min), ("high", bounds.max)):
                known[f"{output}.{end}"] = np.float32(value) - known[zero].astype(np.float32)
            found += [
                onnx.helper.make_node("Div", [x, scale], [f"{output}.scaled"]),
                onnx.helper.make_node("Round", [f"{output}.scaled"], [f"{output}.rounded"]),
                onnx.helper.make_node("Clip", [f"{output}.rounded", f"{output}.low", f"{output}.high"], [output]),
            ]
        elif node.op_type == "DequantizeLinear" and node.input[0] in quantized:
            found.append(onnx.helper.make_node("Mul", list(node.input[:2]), list(node.output)))
        else:
            found.append(node)
    return found


class _Weights:
    """Numbers of values of a network's parameters, which the constants of its file are parts or sums of.

    The graph may hold a parameter in another form, such as a factor's product with an identity.

    Args:
        constants: names of the file's constants with their values.
    """

    def __init__(self, constants: Mapping[str, NDArray[Any]]) -> None:
        self._parameters = {name: values.size for name, values in constants.items() if name.endswith(STORED)}
        self._layers = {name: found.group() for name in self._parameters if (found := LAYER.match(name))}
        self._made_of = {name: name for name in self._parameters}

    def add(self, node: onnx.NodeProto, size: int) -> None:
        """Follow the parameters through a node whose output has so many values; a sum of two is one parameter."""
        parts = list(dict.fromkeys(self._made_of[each] for each in node.input if each in self._made_of))
        if not parts:
            return
        whole = parts[0]
        if node.op_type == "Add" and len(parts) == 2:
            del self._parameters[parts[1]]
            self._parameters[whole] = size
        self._made_of[node.output[0]] = whole

    def sizes(self) -> Counter[str]:
        """Sum up the sizes of each layer's parameters, by the beginning of their names."""
        found: Counter[str] = Counter()
        for name, size in self._parameters.items():
            found[self._layers.get(name, "")] += size
        return found


def _described(card: dict[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Give a card the numbers of weights and bytes of the float network.

    Args:
        card: card of the quantised network.
        sizes: number of weights of each layer by the beginning of its parameters' names.
    """
    if not isinstance(card.get("layers"), list) or not all(isinstance(each, dict) for each in card["layers"]):
        raise ExportError("the model card has no list of layers; expected that of `kronmodel train`")
    convolutions = sum(layer.startswith("features") for layer in sizes)
    layers = []
    for index, described in enumerate(card["layers"]):
        at = index - convolutions
        size = sizes.get(f"features.convolutions.{index}." if at < 0 else f"layers.{at}.", 0)
        without = {key: value for key, value in described.items() if key != "bits"}
        layers.append({**without, "parameters": size, "weight_bytes": FLOAT_BYTES * size})
    total = sum(layer["parameters"] for layer in layers)
    counts = {"parameters": total, "parameters_with_branch_biases": total, "weight_bytes": FLOAT_BYTES * total}
    kept = {key: value for key, value in card.items() if key != "c"}  # sizes of the C code with integers
    return {**kept, "layers": layers, **counts}
