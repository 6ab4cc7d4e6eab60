"""The interface of an ONNX graph: its inputs and outputs with the names of their axes, and the axis of the batch.

Imports numpy only, since the measuring processes import it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.inference.datatypes import BF16, BYTES, NAME_BY_ONNX_TYPE, ROW_DTYPES

Size = int | str | None  # a fixed size, the name of a free one, or a free one without a name
FLOATS = frozenset({*ROW_DTYPES, BF16})  # a quantised model may use another precision than its original


@dataclass(frozen=True, slots=True)
class GraphTensor:
    """An input or output of a graph.

    Args:
        name: in the graph.
        datatype: in the Open Inference Protocol; onnxruntime's type for a map or a sequence.
        shape: a size for each axis; empty for a scalar, and for a tensor of unknown rank.
    """

    name: str
    datatype: str
    shape: tuple[Size, ...]

    @classmethod
    def of(cls, node: Any) -> "GraphTensor":
        """Describe a node of onnxruntime, which has no type hints."""
        shape = tuple(size if isinstance(size, str) or (isinstance(size, int) and size >= 0) else None
                      for size in node.shape or ())  # fmt: skip
        return cls(node.name, NAME_BY_ONNX_TYPE.get(node.type, node.type), shape)

    @property
    def is_tensor(self) -> bool:
        """Whether it is a tensor, not a map or a sequence."""
        return self.datatype in NAME_BY_ONNX_TYPE.values()

    @property
    def shape_text(self) -> str:
        """The shape as messages show it, with `?` for a free size without a name."""
        return f"[{', '.join('?' if size is None else str(size) for size in self.shape)}]"


@dataclass(frozen=True, slots=True)
class Interface:
    """The inputs and outputs of a graph."""

    inputs: tuple[GraphTensor, ...]
    outputs: tuple[GraphTensor, ...]

    @classmethod
    def of(cls, session: Any) -> "Interface":
        """Describe the interface of an onnxruntime session."""
        return cls(
            tuple(GraphTensor.of(node) for node in session.get_inputs()),
            tuple(GraphTensor.of(node) for node in session.get_outputs()),
        )

    @property
    def row_shape(self) -> tuple[int, ...] | None:
        """The shape of a row of a graph that takes one tensor of floats with rows of fixed sizes; else None."""
        if len(self.inputs) != 1 or self.inputs[0].datatype not in ROW_DTYPES:
            return None
        sizes = self.inputs[0].shape[1:]
        fixed = tuple(size for size in sizes if isinstance(size, int) and size > 0)
        return fixed if sizes and len(fixed) == len(sizes) else None

    @property
    def takes_columns(self) -> bool:
        """Whether each input is a column of a table: float64 or texts, `[batch, 1]`."""
        return bool(self.inputs) and all(
            tensor.datatype in (BYTES, "FP64")
            and len(tensor.shape) == 2
            and not isinstance(tensor.shape[0], int)
            and tensor.shape[1] == 1
            for tensor in self.inputs
        )

    @property
    def fixed_batch(self) -> int | None:
        """The only batch size that the graph takes by its shapes, 1 for a graph without a batch; None for any size."""
        if self._free_first is not None:
            return None
        return self._fixed_first or 1

    @property
    def batch_axes(self) -> Mapping[str, int]:
        """The axis of the batch of each input that has one, by name.

        It is the first axis where that is free, and the axis of the same name in other inputs, for example in a state
        [layers, batch, features]. In a graph of fixed sizes it is the axis of the size of the first one.
        """
        axes = {tensor.name: self._batch_axis(tensor) for tensor in self.inputs}
        return {name: axis for name, axis in axes.items() if axis is not None}

    @property
    def _free_first(self) -> GraphTensor | None:
        """The input whose free first axis is the batch. An input of one axis, for example a waveform, is no batch."""
        return next((each for each in self.inputs if len(each.shape) > 1 and not isinstance(each.shape[0], int)), None)

    @property
    def _fixed_first(self) -> int | None:
        sizes = (each.shape[0] for each in self.inputs if len(each.shape) > 1)
        return next((size for size in sizes if isinstance(size, int) and size > 0), None)

    def _batch_axis(self, tensor: GraphTensor) -> int | None:
        leading, shape = self._free_first, tensor.shape
        if leading is not None:
            if shape and not isinstance(shape[0], int):
                return 0
            name = leading.shape[0]
            if name is not None:
                return shape.index(name) if name in shape else None
            free = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
            return free[0] if len(free) == 1 else None
        size = self._fixed_first
        if size is None or len(shape) < 1 + (size == 1) or size not in shape:
            return None
        return shape.index(size)


def common_interface(names: Sequence[str], interfaces: Sequence[Interface]) -> Interface:
    """The interface that several models share, with the sizes that one of them fixes.

    Floats of any precision count as the same datatype.

    Args:
        names: of the models.
        interfaces: of the models, in the same order.

    Raises:
        ValueError: with a message that says what differs.
    """
    common = interfaces[0]
    for name, other in zip(names[1:], interfaces[1:], strict=True):
        own = {tensor.name for tensor in common.inputs}
        if own != {tensor.name for tensor in other.inputs}:
            raise ValueError(
                f"models: got the inputs {_names(common.inputs)} of {names[0]} and {_names(other.inputs)} of {name}, "
                "expected models with the same inputs"
            )
        theirs = {tensor.name: tensor for tensor in other.inputs}
        inputs = [_merged("input", names[0], tensor, name, theirs[tensor.name]) for tensor in common.inputs]
        for a, b in paired_outputs(common.outputs, other.outputs):
            _merged("output", names[0], a, name, b)
        common = Interface(tuple(inputs), common.outputs)
    return common


def paired_outputs(a: Sequence[GraphTensor], b: Sequence[GraphTensor]) -> list[tuple[GraphTensor, GraphTensor]]:
    """The tensors of two models that belong together: outputs of one name, or of one position without common names."""
    later = {tensor.name: tensor for tensor in b}
    pairs = [(tensor, later[tensor.name]) for tensor in a if tensor.name in later] or list(zip(a, b, strict=False))
    return [(first, second) for first, second in pairs if first.is_tensor and second.is_tensor]


def _merged(kind: str, name: str, tensor: GraphTensor, other_name: str, other: GraphTensor) -> GraphTensor:
    """One tensor with the fixed sizes of both.

    Raises:
        ValueError: their datatypes or sizes differ.
    """
    if tensor.datatype != other.datatype and not {tensor.datatype, other.datatype} <= FLOATS:
        raise ValueError(
            f"models: got the {kind} {tensor.name!r} as {tensor.datatype} of {name} and {other.datatype} of "
            f"{other_name}, expected the same datatype"
        )
    pairs = list(zip(tensor.shape, other.shape, strict=False))
    fits = len(tensor.shape) == len(other.shape) or () in (tensor.shape, other.shape)
    if not fits or any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs):
        raise ValueError(
            f"models: got the {kind} {tensor.name!r} as {tensor.shape_text} of {name} and {other.shape_text} of "
            f"{other_name}, expected the same shape"
        )
    sizes = tuple(b if isinstance(b, int) else a for a, b in pairs) or tensor.shape or other.shape
    return GraphTensor(tensor.name, tensor.datatype, sizes)


def _names(tensors: Sequence[GraphTensor]) -> str:
    return ", ".join(tensor.name for tensor in tensors)[:300] or "none"
