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


class GraphModule(nn.Module):
    """Part of an ONNX graph that computes one output from one input, node by node in torch.

    Args:
        model: the model; only its main graph is used.
        array: returns the values of a stored tensor.
        output: name of the output to compute.
        trainable: tells by the name of a stored tensor of 32-bit floats whether it becomes a parameter.

    Attributes:
        weights: the parameters by the names of the stored tensors.

    Raises:
        KronmodelError: a node on the way to the output is not differentiable here, or there are several inputs.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        array: Callable[[TensorProto], NDArray[Any]],
        output: str,
        trainable: Callable[[str], bool],
    ) -> None:
        super().__init__()
        graph = model.graph
        stored = {tensor.name: tensor for tensor in graph.initializer}
        producers = {name: node for node in graph.node for name in node.output}
        self._output = output
        self._nodes: list[tuple[onnx.NodeProto, Mapping[str, Any]]] = []
        self._constants: dict[str, Tensor] = {}
        self.weights: dict[str, nn.Parameter] = {}
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
            if node.op_type == "Constant" and "value" in attributes:
                self._constants[node.output[0]] = _tensor(numpy_helper.to_array(attributes["value"]))
            elif node.domain in ("", "ai.onnx") and node.op_type in OPERATORS:
                self._nodes.append((node, attributes))
            else:
                raise KronmodelError(f"the gradient of {node.op_type} {node.name!r} is not known here")
        for name in sorted(needed & stored.keys()):
            values = _tensor(array(stored[name]))
            if trainable(name) and values.dtype == torch.float32:
                self.weights[name] = nn.Parameter(values)
                self.register_parameter(f"weight{len(self.weights)}", self.weights[name])
            else:
                self._constants[name] = values
        inputs = {value.name for value in graph.input} - stored.keys()
        if len(inputs) != 1:
            raise KronmodelError(f"the model has {len(inputs)} inputs, expected one for its gradients")
        (self._input,) = inputs

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output for a batch of inputs."""
        values: dict[str, Tensor] = {**self._constants, **self.weights, self._input: x}
        for node, attributes in self._nodes:
            inputs = [values[name] if name else None for name in node.input]
            values[node.output[0]] = OPERATORS[node.op_type](inputs, attributes)
        return values[self._output]


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(array))
