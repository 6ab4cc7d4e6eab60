"""Quantised weights in ONNX files: integers with DequantizeLinear in place of the float initialisers.

The exporter and the passes transpose and reshape weights. To know afterwards which weight stands where, the network is
exported with the number of each weight as its value.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from kronmodel.errors import ExportError
from kronmodel.quantization.config import FLOAT_BITS
from kronmodel.quantization.network import StoredValues

__all__ = ["FOLDED_WEIGHTS", "numbered", "store_weights"]

FIRST_NUMBER = 1 << 23  # from here to 2**24, float32 holds whole numbers exactly, and no other constant is as large
MOST_WEIGHTS = 1 << 23
TYPES = {8: TensorProto.INT8, 4: TensorProto.INT4, 2: TensorProto.INT2}
OPSETS = {8: 21, 4: 21, 2: 25}  # the first with the type, or with all that the other types need
IR_VERSIONS = {21: 10, 25: 13}

FOLDED_WEIGHTS = (
    "kronmodel.folded_weights"  # metadata by which the service has onnxruntime fold the chains when it loads
)

Numbers = Mapping[str, NDArray[np.int64]]


@contextmanager
def numbered(module: nn.Module) -> Iterator[Numbers]:
    """Set every parameter of a module to consecutive numbers for a ``with`` block.

    Yields:
        The numbers of each parameter, in its shape, by its name.

    Raises:
        ExportError: the module has more parameters than float32 can number.
    """
    parameters = dict(module.named_parameters())
    sizes = [parameter.numel() for parameter in parameters.values()]
    if sum(sizes) > MOST_WEIGHTS:
        raise ExportError(f"quantised networks are exported with at most {MOST_WEIGHTS:,} weights, got {sum(sizes):,}")
    numbers, start = {}, FIRST_NUMBER
    kept = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    with torch.no_grad():
        for (name, parameter), size in zip(parameters.items(), sizes, strict=True):
            numbers[name] = np.arange(start, start + size).reshape(parameter.shape)
            parameter.copy_(torch.from_numpy(numbers[name]))
            start += size
    try:
        yield numbers
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                parameters[name].copy_(value)


def store_weights(model: onnx.ModelProto, numbers: Numbers, stored: Sequence[StoredValues], prefix: str) -> None:
    """Replace the numbers in a model's initialisers by the quantised weights that they stand for, in place.

    An initialiser becomes a chain of nodes on constants, which onnxruntime computes when it loads the model: its last
    node has the initialiser's name.

    Args:
        model: the model, exported within :func:`numbered`.
        numbers: numbers of the parameters.
        stored: stored values of all parameters.
        prefix: of the parameters' names among the numbers.

    Raises:
        ExportError: an initialiser has weights of one parameter in an order that is no permutation of its axes.
    """
    by_parameter: dict[str, list[StoredValues]] = {}
    for each in stored:
        by_parameter.setdefault(each.tensor.parameter, []).append(each)
    chains = _Chains()
    graph = model.graph
    kept = []
    for initializer in graph.initializer:
        found = numpy_helper.to_array(initializer)
        if found.dtype != np.float32 or not found.size or not (found >= FIRST_NUMBER).all():
            kept.append(initializer)
            continue
        wanted = found.astype(np.int64)
        name = next(name for name, values in numbers.items() if wanted.min() in values)
        chains.add(initializer.name, wanted, numbers[name], by_parameter[name.removeprefix(prefix)])
    nodes = [*chains.named(), *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend([*kept, *chains.constants])
    graph.node.extend(nodes)
    model.metadata_props.add(key=FOLDED_WEIGHTS, value="1")
    bits = {each.tensor.bits for each in stored} - {FLOAT_BITS}
    opset = max((OPSETS[each] for each in bits), default=0)
    for entry in model.opset_import:
        if entry.domain in {"", "ai.onnx"} and entry.version < opset:
            entry.version = opset
            model.ir_version = max(model.ir_version, IR_VERSIONS[opset])


class _Chains:
    """Builder of the nodes and constants that compute weights from their stored values."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._sums: dict[str, str] = {}  # names of the parameters' values in their own shape

    def add(
        self, output: str, wanted: NDArray[np.int64], numbers: NDArray[np.int64], parts: Sequence[StoredValues]
    ) -> None:
        """Add a chain whose result takes the place of an initialiser.

        Args:
            output: name of the initialiser.
            wanted: numbers in the order and shape of the initialiser: of a parameter, or of some of its branches.
            numbers: numbers in the parameter's own shape.
            parts: stored values of the parameter.

        Raises:
            ExportError: the numbers are in an order that is no permutation of the parameter's axes.
        """
        parameter, shape = parts[0].tensor.parameter, parts[0].tensor.shape
        value = self._sums.get(parameter)
        if value is None:
            value, *others = [self._values(each) for each in parts]
            for other in others:
                value = self._node("Add", [value, other])
            self._sums[parameter] = value
        numbers = numbers.reshape(shape)
        branches = [index for index, each in enumerate(numbers) if np.isin(each, wanted).all()]
        if len(branches) < len(numbers):
            chosen = self._constant(f"{output}.branches", np.array(branches, np.int64))
            value = self._node("Gather", [value, chosen], axis=0)
            numbers = numbers[branches]
        axes = _permutation(numbers, wanted)
        if axes is None:
            raise ExportError(f"the exported graph reorders the weights of {parameter} unexpectedly")
        if axes != tuple(range(numbers.ndim)):
            value = self._node("Transpose", [value], perm=list(axes))
        if tuple(numbers.shape[axis] for axis in axes) != wanted.shape:
            value = self._reshape(value, wanted.shape)
        self._rename(value, output)

    def named(self) -> list[onnx.NodeProto]:
        """Return the nodes, without those that give another name to a value that has no other use."""
        uses = Counter(name for node in self.nodes for name in node.input)
        given = {
            node.input[0]: node.output[0]
            for node in self.nodes
            if node.op_type == "Identity" and uses[node.input[0]] == 1
        }
        computed = {name for node in self.nodes for name in node.output}
        found = []
        for node in self.nodes:
            if node.op_type == "Identity" and node.input[0] in given and node.input[0] in computed:
                continue
            node.output[:] = [given.get(name, name) for name in node.output]
            found.append(node)
        return found

    def _values(self, part: StoredValues) -> str:
        """Add the nodes that compute a stored tensor's values in its own shape, and return the name of the result."""
        tensor, name = part.tensor, part.tensor.name
        if tensor.bits == FLOAT_BITS:
            return self._constant(f"{name}.values", part.levels.numpy().reshape(tensor.own_shape))
        own = tensor.own_shape
        shape = own if own[0] == tensor.rows or tensor.rows == 1 else (tensor.rows, tensor.length)
        one = own[0] != tensor.rows and tensor.rows == 1  # a step size for all
        steps = part.steps.numpy().reshape(() if one else (tensor.rows,))
        levels = f"{name}.levels"
        content = _packed(part.levels.numpy().ravel(), tensor.bits)
        self.constants.append(helper.make_tensor(levels, TYPES[tensor.bits], shape, content, raw=True))
        scales = self._node("Cast", [self._constant(f"{name}.steps", steps)], to=TensorProto.FLOAT)
        value = self._node("DequantizeLinear", [levels, scales], **({} if one else {"axis": 0}))
        return value if shape == own else self._reshape(value, own)

    def _reshape(self, value: str, shape: Sequence[int]) -> str:
        return self._node("Reshape", [value, self._shape(shape)])

    def _shape(self, shape: Sequence[int]) -> str:
        """Return the name of a constant with a shape, which all reshapes to it share."""
        name = "shape_" + "x".join(map(str, shape))
        if all(each.name != name for each in self.constants):
            self._constant(name, np.array(shape, np.int64))
        return name

    def _node(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        output = f"w{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def _constant(self, name: str, values: NDArray[np.generic]) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def _rename(self, value: str, output: str) -> None:
        """Give a computed value the name of the initialiser that it replaces."""
        last = self.nodes[-1] if self.nodes else None
        if last is not None and last.output[0] == value and value not in self._sums.values():
            last.output[0] = output
        else:
            self.nodes.append(helper.make_node("Identity", [value], [output]))


def _packed(levels: NDArray[np.int8], bits: int) -> bytes:
    """Pack levels into bytes, the first into the lowest bits."""
    count = 8 // bits
    padded = np.pad(levels.view(np.uint8) & ((1 << bits) - 1), (0, -levels.size % count)).reshape(-1, count)
    shifts = np.arange(count, dtype=np.uint8) * bits
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(padded << shifts, axis=1).astype(np.uint8)
    return packed.tobytes()


def _permutation(numbers: NDArray[np.int64], wanted: NDArray[np.int64]) -> tuple[int, ...] | None:
    """Find the order of axes with which numbers, flattened, are in a wanted order; None if there is none."""
    flat = wanted.ravel()
    for axes in itertools.permutations(range(numbers.ndim)):
        if np.array_equal(numbers.transpose(axes).ravel(), flat):
            return axes
    return None
