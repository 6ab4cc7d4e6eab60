"""Reading of ONNX graphs for the C templates: convolutions in front, then what ``kronmodel.native`` reads."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from kronmodel.errors import ExportError, LoadError
from kronmodel.export.c.network import Convolution, Front, Stored, TemplateNetwork
from kronmodel.export.c.stored import unfold
from kronmodel.native.network import Activation
from kronmodel.native.onnx_reader import read_network

__all__ = ["read_template_network"]

_ACTIVATIONS: dict[str, Activation] = {"Relu": "relu", "Tanh": "tanh", "Gelu": "gelu"}


def read_template_network(model: onnx.ModelProto, name: str) -> TemplateNetwork:
    """Read a network that the templates compute from an ONNX model, with the integers that it stores.

    Raises:
        ExportError: a node is none of those that ``kronmodel train`` exports; the error names it.
    """
    graph = unfold(model, name)
    if graph is None:
        return _read(model, name)
    stored = Stored(
        steps=_read(graph.steps, name),
        bits=_read(graph.bits, name),
        biases=tuple((_read(levels, name), _read(steps, name)) for levels, steps in graph.biases),
        ranges=graph.ranges,
    )
    return replace(_read(graph.values, name), stored=stored)


def _read(model: onnx.ModelProto, name: str) -> TemplateNetwork:
    front = _FrontReader(model.graph, name)
    graph = front.read()
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    rest.graph.CopyFrom(graph)
    try:
        arrays = read_network(rest, name)
    except LoadError as error:
        reason = str(error).removeprefix(f"{name}: ").replace("the native code can't run", "there is no template for")
        raise ExportError(f"{name}: {reason.partition('; expected the dense')[0]}") from error
    shape = front.shape
    mean, inverse = (front.mean, front.inverse) if front.convolutions else (arrays.mean, arrays.inverse)
    return TemplateNetwork(
        front=Front(shape=shape, mean=mean, inverse=inverse, convolutions=tuple(front.convolutions)),
        arrays=arrays,
        input_name=front.input_name,
    )


class _FrontReader:
    """Reader of the nodes before the first layer, if there are convolutions among them."""

    def __init__(self, graph: onnx.GraphProto, name: str) -> None:
        self._graph = graph
        self._name = name
        self._constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
        self.mean: NDArray[np.float32] | None = None
        self.inverse: NDArray[np.float32] | None = None
        self.convolutions: list[Convolution] = []
        inputs = [each for each in graph.input if each.name not in self._constants]
        if len(inputs) != 1:
            raise ExportError(f"{name}: got {len(inputs)} inputs, expected one; export a graph with one input")
        self.input_name = inputs[0].name
        tensor = inputs[0].type.tensor_type
        self.shape = tuple(dim.dim_value for dim in tensor.shape.dim[1:])
        if tensor.elem_type != onnx.TensorProto.FLOAT or not self.shape or 0 in self.shape:
            got = onnx.TensorProto.DataType.Name(tensor.elem_type)
            raise ExportError(f"{name}: the input is {got} (batch, {self.shape}), expected FLOAT of known sizes")

    def read(self) -> onnx.GraphProto:
        """Follow the nodes up to the flattened features; return the graph behind them."""
        graph = onnx.GraphProto()
        graph.CopyFrom(self._graph)
        if not any(node.op_type == "Conv" for node in graph.node):
            return graph
        shape: tuple[int, ...] = self.shape
        current, used = self.input_name, 0
        for node in graph.node:
            if node.input[0] != current or sum(current in other.input for other in graph.node) != 1:
                break
            if self.convolutions and node.op_type == "Reshape" and self._is_matrix(node, shape):
                shape = (math.prod(shape),)  # the first Kronecker layer's own node, which gets flat features
                break
            attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
            taken = self._apply(node, attributes, shape)
            if taken is None:
                break
            shape, current, used = taken, node.output[0], used + 1
            if len(shape) == 1 and self.convolutions:
                break
        if len(shape) != 1 or not self.convolutions:
            node = graph.node[used]
            raise ExportError(
                f"{self._name}: there is no template for the {node.op_type} node that gives {node.output[0]!r}: "
                "expected convolutions, each with an activation and max-pooling, and a Reshape to features behind them"
            )
        del graph.node[:used]
        del graph.input[:]
        graph.input.append(helper.make_tensor_value_info(current, onnx.TensorProto.FLOAT, ["batch", *shape]))
        return graph

    def _apply(
        self, node: onnx.NodeProto, attributes: dict[str, Any], shape: tuple[int, ...]
    ) -> tuple[int, ...] | None:
        """Take a node; return the shape that it gives, or None if it is none of the front."""
        if node.op_type == "Identity":
            return shape
        if node.op_type == "Conv":
            return self._convolution(node, attributes, shape)
        if not self.convolutions:
            return shape if self._standardises(node, shape) else None
        if node.op_type in ("Reshape", "Flatten"):
            return self._flattened(node, attributes, shape)
        last = self.convolutions[-1]
        changes = None if last.channels_last else self._changes(node, attributes, last)
        if changes is None:
            return None
        self.convolutions[-1] = last = Convolution(**{**vars(last), **changes})
        channels, height, width = last.out_shape
        return (height, width, channels) if last.channels_last else (channels, height, width)

    def _standardises(self, node: onnx.NodeProto, shape: tuple[int, ...]) -> bool:
        """Take a node before the first convolution: the subtraction of means, then the product with a scale."""
        if node.op_type not in ("Sub", "Mul") or node.input[1] not in self._constants:
            return False
        values = np.broadcast_to(self._constants[node.input[1]], (1, *shape))[0].astype(np.float32).reshape(-1)
        if (node.op_type == "Sub") != (self.mean is None):
            return False
        if self.mean is None:
            self.mean, self.inverse = values, np.ones_like(values)
        else:
            self.inverse = values
        return True

    def _is_matrix(self, node: onnx.NodeProto, shape: tuple[int, ...]) -> bool:
        """Tell whether a Reshape gives the matrix of features of a Kronecker layer."""
        target = self._constants[node.input[1]].tolist() if node.input[1] in self._constants else []
        return len(target) == 3 and target[0] in (-1, 0) and math.prod(target[1:]) == math.prod(shape)

    def _flattened(
        self, node: onnx.NodeProto, attributes: dict[str, Any], shape: tuple[int, ...]
    ) -> tuple[int, ...] | None:
        target = [0, math.prod(shape)]
        if node.op_type == "Reshape":
            target = self._constants[node.input[1]].tolist() if node.input[1] in self._constants else []
        fits = len(target) == 2 and target[1] in (-1, math.prod(shape)) and attributes.get("axis", 1) == 1
        return (math.prod(shape),) if fits else None

    def _changes(self, node: onnx.NodeProto, attributes: dict[str, Any], last: Convolution) -> dict[str, Any] | None:
        """Return the fields of the last convolution that a node behind it sets; None if it sets none."""
        if node.op_type in _ACTIVATIONS and last.activation == "none":
            # Pooling first is the same for the others, which rise everywhere.
            pooled_gelu = last.pool != (1, 1) and node.op_type == "Gelu"
            plain = attributes.get("approximate", b"none") == b"none"
            return {"activation": _ACTIVATIONS[node.op_type]} if plain and not pooled_gelu else None
        if node.op_type == "MaxPool" and last.pool == (1, 1):
            return self._pooling(attributes)
        if node.op_type == "Transpose" and list(attributes.get("perm", ())) == [0, 2, 3, 1]:
            return {"channels_last": True}
        return None

    def _convolution(
        self, node: onnx.NodeProto, attributes: dict[str, Any], shape: tuple[int, ...]
    ) -> tuple[int, ...] | None:
        weight, *bias = [self._constants.get(name) for name in node.input[1:] if name] or [None]
        strides, pads = attributes.get("strides", (1, 1)), attributes.get("pads", (0, 0, 0, 0))
        plain = (
            len(shape) == 3
            and (len(strides), len(pads)) == (2, 4)
            and min(strides) > 0
            and min(pads) >= 0
            and not any(each.channels_last for each in self.convolutions)
            and weight is not None
            and weight.shape[1:2] == shape[:1]
            and all(each is not None for each in bias)
            and attributes.get("group", 1) == 1
            and set(attributes.get("dilations", (1,))) == {1}
            and attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
        )
        if not plain or weight is None:
            return None
        top, left, bottom, right = pads
        down, across = strides
        convolution = Convolution(
            shape=(shape[0], shape[1], shape[2]),
            weight=weight.astype(np.float32),
            bias=np.zeros(len(weight), np.float32) if not bias else np.asarray(bias[0], np.float32),
            strides=(down, across),
            pads=(top, bottom, left, right),
        )
        self.convolutions.append(convolution)
        return convolution.out_shape

    def _pooling(self, attributes: dict[str, Any]) -> dict[str, Any] | None:
        kernel = list(attributes["kernel_shape"])
        plain = (
            list(attributes.get("strides", (1, 1))) == kernel
            and not any(attributes.get("pads", ()))
            and set(attributes.get("dilations", (1,))) == {1}
            and not attributes.get("ceil_mode", 0)
            and attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
        )
        return {"pool": (kernel[0], kernel[1])} if plain and len(kernel) == 2 else None
