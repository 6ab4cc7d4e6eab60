"""Reading of the arrays of a network from the ONNX file that this library exports: the reverse of its passes.

The graph is followed from its input. What a node gives is described by one of four values: features, half of a
Kronecker layer (after its first product), the sum of a layer's branches, or probabilities. Each operator turns one
into another, or is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from kronmodel.errors import LoadError
from kronmodel.native.network import Activation, DenseArrays, Layer, NetworkArrays
from kronmodel.native.onnx_values import (
    Array,
    Features,
    Half,
    Probabilities,
    Sum,
    UnsupportedError,
    Value,
    as_floats,
    fold,
    kronecker_arrays,
    recover_factor,
)

__all__ = ["read_network", "read_onnx"]


def read_onnx(path: Path) -> NetworkArrays:
    """Read a network from an ONNX file.

    Raises:
        LoadError: the file can't be read, is not ONNX, or holds other layers than dense ones and Kronecker ones of two
            factors; the error names the operator.
    """
    try:
        model = onnx.load(path, format="protobuf")
    except OSError as error:
        raise LoadError(f"{path} can't be read: {error.strerror or error}") from error
    except (DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise LoadError(f"{path} is not an ONNX file, or a file of its weights is missing: {error}") from error
    return read_network(model, str(path))


def read_network(model: onnx.ModelProto, name: str) -> NetworkArrays:
    """Read a network from an ONNX model.

    Args:
        model: the model.
        name: name of the model in errors.

    Raises:
        LoadError: as for :func:`read_onnx`.
    """
    return _Reader(model.graph, name).read()


class _Reader:
    """Reader of one graph; collects the preprocessing, the layers and the postprocessing."""

    def __init__(self, graph: onnx.GraphProto, name: str) -> None:
        self._graph = graph
        self._name = name
        self._constants: dict[str, Array] = {}
        self._values: dict[str, Value] = {}
        self._layers: list[Layer] = []
        self._closed: dict[Sum, tuple[Activation, Features]] = {}
        self._fields: dict[str, Any] = {}

    def read(self) -> NetworkArrays:
        try:
            self._read_input()
        except UnsupportedError as error:
            raise LoadError(f"{self._name}: {error}") from error
        for node in self._graph.node:
            try:
                self._apply(node)
            except (UnsupportedError, ValueError) as error:  # ValueError from numpy, of shapes that don't fit
                where = f"{node.op_type} node that gives {node.output[0] if node.output else ''!r}"
                raise LoadError(
                    f"{self._name}: the native code can't run the {where}: {error}; expected the dense and Kronecker "
                    "layers that kronmodel exports, use onnxruntime for others"
                ) from error
        try:
            outputs = {output.name: self._is_softmax(output.name) for output in self._graph.output}
            return NetworkArrays(**self._fields, layers=tuple(self._layers), outputs=outputs)
        except UnsupportedError as error:
            raise LoadError(f"{self._name}: {error}") from error

    def _read_input(self) -> None:
        for constant in self._graph.initializer:
            self._constants[constant.name] = numpy_helper.to_array(constant)
        inputs = [each for each in self._graph.input if each.name not in self._constants]
        if len(inputs) != 1:
            raise UnsupportedError(f"got {len(inputs)} inputs, expected one")
        tensor = inputs[0].type.tensor_type
        shape = tuple(dim.dim_value for dim in tensor.shape.dim[1:])
        if tensor.elem_type != onnx.TensorProto.FLOAT or not shape or 0 in shape:
            got = onnx.TensorProto.DataType.Name(tensor.elem_type)
            raise UnsupportedError(
                f"the input is {got} (batch, {shape}), expected FLOAT with a batch axis and known sizes"
            )
        self._values[inputs[0].name] = Features(0, shape)
        self._fields |= {"input_name": inputs[0].name, "input_shape": shape}

    def _is_softmax(self, name: str) -> bool:
        """Tell whether an output of the graph is the softmax of the last layer's output or that output itself."""
        value = self._values.get(name)
        if isinstance(value, Sum):
            value = self._close(value, "none")
        layers = value.layers if isinstance(value, Features | Probabilities) else None
        if layers is None or layers != len(self._layers) or not self._layers:
            raise UnsupportedError(f"the output {name!r} is not what the last layer gives, or its softmax")
        if isinstance(value, Features) and (value.shift is not None or len(value.shape) != 1):
            raise UnsupportedError(
                f"the output {name!r} has the shape (batch, {value.shape}), expected (batch, features)"
            )
        return isinstance(value, Probabilities)

    def _apply(self, node: onnx.NodeProto) -> None:
        """Follow a node."""
        if len(node.output) != 1 or node.domain not in ("", "ai.onnx"):
            raise UnsupportedError(f"got {len(node.output)} outputs and the domain {node.domain!r}")
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        names = [name for name in node.input if name]
        if all(name in self._constants for name in names):
            self._constants[node.output[0]] = fold(node, [self._constants[name] for name in names], attributes)
            return
        rule = _RULES.get(node.op_type)
        if rule is None:
            raise UnsupportedError("it is not one of the operators of an exported twin")
        operands = [self._constants[name] if name in self._constants else self._value(name) for name in names]
        self._values[node.output[0]] = rule(self, operands, attributes)

    def _value(self, name: str) -> Value:
        if name not in self._values:
            raise UnsupportedError(f"its input {name!r} is not computed before")
        return self._values[name]

    def _close(self, given: Sum, activation: Activation) -> Features:
        """Finish a layer with its activation, and return its features; a layer that two nodes take is finished once."""
        if given in self._closed:
            if self._closed[given][0] != activation:
                raise UnsupportedError("two activations of one layer")
            return self._closed[given][1]
        if given.source.layers != len(self._layers):
            raise UnsupportedError("the layers are not a sequence")
        width = math.prod(given.shape)
        bias = np.zeros(width) if given.bias is None else given.bias
        if given.parts[0][0] is None:
            weight = given.parts[0][1]
            layer: Layer = DenseArrays(weight=as_floats(weight), bias=as_floats(bias), activation=activation)
        else:
            layer = kronecker_arrays(cast("tuple[tuple[Half, Array], ...]", given.parts), bias, activation)
        if layer.out_features != width or layer.in_features != math.prod(given.source.shape):
            raise UnsupportedError(f"its layer has {layer.out_features:,} outputs, expected {width:,}")
        self._layers.append(layer)
        features = Features(len(self._layers), given.shape)
        self._closed[given] = (activation, features)
        return features

    def reshape(self, operands: Sequence[Any], attributes: dict[str, Any]) -> Value:
        value, target = operands
        if not isinstance(value, Features | Half | Sum):
            raise UnsupportedError("it takes probabilities")
        size = math.prod(value.shape)
        shape = [int(each) for each in np.asarray(target)[1:]]
        if shape.count(-1) == 1:
            shape[shape.index(-1)] = size // max(1, -math.prod(shape))
        if math.prod(shape) != size or int(np.asarray(target)[0]) not in (-1, 0):
            raise UnsupportedError(
                f"it gives samples of the shape {shape}, expected {size:,} values and the batch first"
            )
        if not isinstance(value, Sum) and value.shift is not None:
            value = replace(value, shift=value.shift.reshape(shape))
        reshaped: Value = replace(value, shape=tuple(shape))
        return reshaped

    def matmul(self, operands: Sequence[Any], attributes: dict[str, Any]) -> Value:
        left, right = operands
        is_left = isinstance(left, np.ndarray)
        factor, value = (left, right) if is_left else (right, self._without_activation(left))
        if (
            not isinstance(factor, np.ndarray)
            or not isinstance(value, Features | Half)
            or len(value.shape) not in (1, 2)
        ):
            raise UnsupportedError("expected one constant factor and a matrix of features, once or twice in a layer")
        if math.prod(factor.shape[:-2]) != 1 or (is_left and len(value.shape) == 1):
            raise UnsupportedError(f"its constant has the shape {factor.shape}, expected one matrix")
        factor = factor.reshape(factor.shape[-2:])
        if factor.shape[1 if is_left else 0] != value.shape[0 if is_left else -1]:
            raise UnsupportedError(f"its factor {factor.shape} doesn't fit {value.shape}")
        if len(value.shape) == 1:
            return self.gemm((value, factor), {})
        moved = None
        if value.shift is not None:
            moved = -(factor @ value.shift if is_left else value.shift @ factor)
        shape = (factor.shape[0], value.shape[1]) if is_left else (value.shape[0], factor.shape[1])
        if isinstance(value, Features):
            if value.final:
                raise UnsupportedError("it takes scaled outputs")
            return Half(replace(value, shift=None), not is_left, factor, shape, moved)
        if value.right != is_left:
            raise UnsupportedError("it multiplies the same side twice")
        return Sum(value.source, ((value, factor),), shape, None if moved is None else moved.reshape(-1))

    def _without_activation(self, value: Any) -> Any:
        """Finish a layer whose outputs the next one takes as they are, such as the first factor of a low rank."""
        return self._close(value, "none") if isinstance(value, Sum) and len(value.shape) == 1 else value

    def gemm(self, operands: Sequence[Any], attributes: dict[str, Any]) -> Value:
        value, weight, *bias = operands
        value = self._without_activation(value)
        if not isinstance(weight, np.ndarray) or weight.ndim != 2 or not all(isinstance(b, np.ndarray) for b in bias):
            raise UnsupportedError("expected a constant weight and bias")
        if attributes.get("transA", 0) or attributes.get("alpha", 1.0) != 1 or attributes.get("beta", 1.0) != 1:
            raise UnsupportedError("got transA, alpha or beta")
        weight = weight if attributes.get("transB", 0) else weight.T  # (out, in)
        if not isinstance(value, Features | Half) or len(value.shape) != 1 or weight.shape[1] != value.shape[0]:
            raise UnsupportedError(f"its weight {weight.shape[::-1]} doesn't fit its input")
        total = np.zeros(weight.shape[0])
        if value.shift is not None:
            total = total - weight.astype(np.float64) @ value.shift
        if bias:
            total = total + np.broadcast_to(bias[0].astype(np.float64), (1, len(total)))[0]
        if isinstance(value, Half):
            return Sum(value.source, ((value, recover_factor(value, weight.T)),), (len(total),), total)
        if value.final:
            raise UnsupportedError("it takes scaled outputs")
        return Sum(replace(value, shift=None), ((None, weight),), (len(total),), total)

    def add(self, operands: Sequence[Any], attributes: dict[str, Any]) -> Value:
        computed = [each for each in operands if not isinstance(each, np.ndarray)]
        constants = [each for each in operands if isinstance(each, np.ndarray)]
        if constants:
            return self._add_constant(computed[0], constants[0])
        a, b = computed
        if not isinstance(a, Sum) or not isinstance(b, Sum) or a.source.layers != b.source.layers:
            raise UnsupportedError("expected the branches of one layer")
        if a.shape != b.shape or a.parts[0][0] is None or b.parts[0][0] is None:
            raise UnsupportedError("expected branches of the same shape")
        biases = [each.bias for each in (a, b) if each.bias is not None]
        return replace(a, parts=a.parts + b.parts, bias=sum(biases[1:], biases[0]) if biases else None)

    def _add_constant(self, value: Value, constant: Array) -> Value:
        if isinstance(value, Half) and value.inner is None:
            bias = np.broadcast_to(constant.astype(np.float64), (1, *value.shape))[0]
            return replace(value, bias=bias if value.bias is None else value.bias + bias)
        if isinstance(value, Sum):
            bias = np.broadcast_to(constant.astype(np.float64), (1, *value.shape))[0].reshape(-1)
            return replace(value, bias=bias if value.bias is None else value.bias + bias)
        if isinstance(value, Features) and value.final and "offset" not in self._fields:
            self._fields["offset"] = as_floats(np.broadcast_to(constant, (1, *value.shape))[0])
            return value
        raise UnsupportedError("expected the bias of a layer")

    def sub(self, operands: Sequence[Any], attributes: dict[str, Any]) -> Value:
        value, mean = operands
        if not isinstance(mean, np.ndarray) or self._is_used(value) or "mean" in self._fields:
            raise UnsupportedError("expected the mean of the input's features")
        self._fields["mean"] = as_floats(np.broadcast_to(mean, (1, *value.shape))[0]).reshape(-1)
        self._fields["inverse"] = np.ones_like(self._fields["mean"])
        return cast(Value, value)

    def mul(self, operands: Sequence[Any], attributes: dict[str, Any]) -> Value:
        value, scale = operands if isinstance(operands[1], np.ndarray) else operands[::-1]
        if isinstance(value, Sum):
            value = self._close(value, "none")
            self._fields["scale"] = as_floats(np.broadcast_to(scale, (1, *value.shape))[0])
            return replace(value, final=True)
        if not isinstance(scale, np.ndarray) or self._is_used(value) or "mean" not in self._fields:
            raise UnsupportedError("expected the scale of the input's features, or of the outputs")
        self._fields["inverse"] = as_floats(np.broadcast_to(scale, (1, *value.shape))[0]).reshape(-1)
        return cast(Value, value)

    def pad(self, operands: Sequence[Any], attributes: dict[str, Any]) -> Value:
        value, pads, *fill = operands
        before, after = np.split(np.asarray(pads), 2)
        if self._is_used(value) or len(value.shape) != 1 or before.any() or len(after) != 2 or after[0] or after[1] < 0:
            raise UnsupportedError("expected zeros behind the input's features")
        if attributes.get("mode", b"constant") != b"constant" or (fill and np.any(fill[0])):
            raise UnsupportedError("expected zeros")
        return Features(0, (value.shape[0] + int(after[1]),))

    def _is_used(self, value: Any) -> bool:
        """Tell whether a value is something else than the input's features before the first layer."""
        return not isinstance(value, Features) or value.layers > 0 or value.shift is not None

    def maximum(self, operands: Sequence[Any], attributes: dict[str, Any]) -> Value:
        """Follow ``max(x, -c)``, which is ``relu(x + c) - c``."""
        value, constant = operands if isinstance(operands[1], np.ndarray) else operands[::-1]
        if len(operands) != 2 or not isinstance(constant, np.ndarray) or not isinstance(value, Half | Sum):
            raise UnsupportedError("expected a relu whose bias was moved behind it")
        shift = -np.broadcast_to(constant.astype(np.float64), (1, *value.shape))[0]
        done = self.activate(self._add_constant(value, shift), "relu")
        return replace(done, shift=shift)

    def activate(self, value: Any, activation: Activation) -> Features | Half:
        if isinstance(value, Half) and value.inner is None:
            return replace(value, inner=activation)
        if isinstance(value, Sum):
            return self._close(value, activation)
        raise UnsupportedError("expected an activation behind a product, and one behind each")

    def gelu(self, operands: Sequence[Any], attributes: dict[str, Any]) -> Value:
        if attributes.get("approximate", b"none") != b"none":
            raise UnsupportedError(f"approximate is {attributes['approximate'].decode()}, expected none")
        return self.activate(operands[0], "gelu")

    def softmax(self, operands: Sequence[Any], attributes: dict[str, Any]) -> Value:
        value = self._close(operands[0], "none") if isinstance(operands[0], Sum) else operands[0]
        if (
            not isinstance(value, Features)
            or len(value.shape) != 1
            or value.final
            or attributes.get("axis", -1) not in (-1, 1)
        ):
            raise UnsupportedError("expected the softmax of the last layer's outputs")
        return Probabilities(value.layers)


_RULES: dict[str, Callable[[_Reader, Sequence[Any], dict[str, Any]], Value]] = {
    "Add": _Reader.add,
    "Gelu": _Reader.gelu,
    "Gemm": _Reader.gemm,
    "MatMul": _Reader.matmul,
    "Max": _Reader.maximum,
    "Mul": _Reader.mul,
    "Pad": _Reader.pad,
    "Relu": lambda reader, operands, _: reader.activate(operands[0], "relu"),
    "Reshape": _Reader.reshape,
    "Softmax": _Reader.softmax,
    "Sub": _Reader.sub,
    "Tanh": lambda reader, operands, _: reader.activate(operands[0], "tanh"),
}
