"""ONNX graph as a torch module with its weights as parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from kronmodel.compress.gradients.operators import OPERATORS
from kronmodel.errors import KronmodelError

__all__ = ["GraphModule"]

CONSTANTS = ("value", "value_float", "value_floats", "value_int", "value_ints")  # attributes of a Constant
SEVERAL = "Split"  # the operator of which more than the first output is known


class GraphModule(nn.Module):
    """Part of an ONNX graph that computes one output, node by node in torch.

    Args:
        model: the model; only its main graph is used.
        array: returns the values of a stored tensor.
        output: name of the output to compute.
        trainable: tells by the name of a stored tensor of 32-bit floats whether it becomes a parameter.
        shared: constants of another module that this one uses, too, by name.

    Attributes:
        weights: the parameters by the names of the stored tensors.
        constants: the other tensors, likewise.
        inputs: names of the inputs.
        values: number of floating-point values that the last call computed.

    Raises:
        KronmodelError: a node on the way to the output is not differentiable here.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        array: Callable[[TensorProto], NDArray[Any]],
        output: str,
        trainable: Callable[[str], bool],
        shared: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        graph = model.graph
        stored = {tensor.name: tensor for tensor in graph.initializer}
        producers = {name: node for node in graph.node for name in node.output}
        self._output = output
        self._nodes: list[tuple[onnx.NodeProto, Mapping[str, Any]]] = []
        self.constants: dict[str, Tensor] = {}
        self.weights: dict[str, nn.Parameter] = {}
        self.values = 0
        needed, wanted = set(), [output]
        while wanted:
            name = wanted.pop()
            if name and name not in needed:
                needed.add(name)
                if name in producers:
                    wanted += producers[name].input
        for node in graph.node:
            if not needed.intersection(node.output):
                continue
            attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
            constant = next((attributes[name] for name in CONSTANTS if name in attributes), None)
            is_known = node.op_type == SEVERAL or not needed.intersection(node.output[1:])
            if node.op_type == "Constant" and constant is not None:
                self.constants[node.output[0]] = _constant(constant)
            elif node.domain in ("", "ai.onnx") and node.op_type in OPERATORS and is_known:
                self._nodes.append((node, {**attributes, "outputs": len(node.output)}))
            else:
                raise KronmodelError(f"the gradient of {node.op_type} {node.name!r} is not known here")
        for name in sorted(needed & stored.keys()):
            known = (shared or {}).get(name)
            values = _tensor(array(stored[name])) if known is None else known
            if trainable(name) and values.dtype == torch.float32:
                self.weights[name] = nn.Parameter(values)
                self.register_parameter(f"weight{len(self.weights)}", self.weights[name])
            else:
                self.constants[name] = values
        self.inputs = [value.name for value in graph.input if value.name not in stored]
        last = {name: place for place, (node, _) in enumerate(self._nodes) for name in node.input}
        self._done = [
            [name for name in {*node.input} if last[name] == place] for place, (node, _) in enumerate(self._nodes)
        ]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Compute the output for a batch of inputs, in the order of the graph's."""
        values: dict[str, Tensor] = {**self.constants, **self.weights, **dict(zip(self.inputs, inputs, strict=True))}
        self.values = 0
        for (node, attributes), done in zip(self._nodes, self._done, strict=True):
            given = [values[name] if name else None for name in node.input]
            found = OPERATORS[node.op_type](given, attributes)
            for name, value in zip(node.output, [found] if isinstance(found, Tensor) else found, strict=False):
                values[name] = value
                self.values += value.numel() if value.is_floating_point() else 0
            for name in done:
                if name != self._output:
                    values.pop(name, None)
        return values[self._output]


def _constant(value: Any) -> Tensor:
    if isinstance(value, TensorProto):
        return _tensor(numpy_helper.to_array(value))
    array = np.asarray(value)
    return _tensor(array.astype(np.float32 if array.dtype.kind == "f" else np.int64))


def _tensor(array: NDArray[Any]) -> Tensor:
    if array.dtype.name == "bfloat16":  # which torch takes only as bits
        return torch.from_numpy(np.array(array).view(np.int16)).view(torch.bfloat16)
    try:
        return torch.from_numpy(np.array(array))
    except TypeError as error:
        raise KronmodelError(f"constants of {array.dtype} are not known in torch") from error
