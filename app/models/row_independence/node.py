"""A node of the graph as the rules of the operators see it: attributes, and the known inputs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import onnx

from app.models.row_independence.sizes import Size, named
from app.models.row_independence.values import RowsInteract, Shape, Value


class Node:
    """A node with what is known about its inputs.

    Args:
        proto: the node.
        version: of its domain's operator set.
        inputs: None for an optional input that is left out.
        shapes: inferred shapes by the name of the value; None for an unknown size.
        scope: distinguishes values of one name in different graphs, or in different passes of one.
    """

    def __init__(
        self,
        proto: onnx.NodeProto,
        version: int,
        inputs: Sequence[Value | None],
        shapes: Mapping[str, tuple[int | None, ...]],
        scope: str = "",
    ) -> None:
        self.proto = proto
        self.op = proto.op_type
        self.version = version
        self.inputs = list(inputs)
        self._attributes = {attribute.name: attribute for attribute in proto.attribute}
        self._shapes = shapes
        self.scope = scope

    @property
    def outputs(self) -> int:
        """Number of outputs, unused ones included."""
        return len(self.proto.output)

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute."""
        found = self._attributes.get(name)
        return default if found is None else onnx.helper.get_attribute_value(found)

    def text(self, name: str, default: str = "") -> str:
        """The value of an attribute that is a text."""
        value = self.attribute(name, default)
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

    def has(self, index: int) -> bool:
        """Whether an input is there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def input(self, index: int) -> Value:
        """An input that has to be there."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise RowsInteract(f"lacks its input {index}")
        return value

    @property
    def present(self) -> list[Value]:
        """The inputs that are there."""
        return [value for value in self.inputs if value is not None]

    def require_constant(self, *indices: int) -> None:
        """Check that inputs, if they are there, depend neither on the rows nor on their number."""
        for index in indices:
            if self.has(index) and not self.input(index).constant:
                raise RowsInteract(f"has an input ({self.proto.input[index]!r:.60}) that depends on the rows")

    def known(self, index: int) -> Shape | None:
        """The elements of an integer input; None if they are not known, or it is not there."""
        return self.input(index).known if self.has(index) else None

    def integers(self, index: int) -> list[int] | None:
        """The elements of an integer input that are plain numbers; None if one of them is not."""
        elements = self.known(index)
        if elements is None or any(size.symbols for size in elements):
            return None
        return [size.factor for size in elements]

    def integers_of(self, name: str, index: int, place: str) -> list[int] | None:
        """Integers that an attribute or, in later operator sets, an input holds; None if neither is there.

        Raises:
            RowsInteract: the input's elements are not known.
        """
        if name in self._attributes:
            value = self.attribute(name)
            return [int(value)] if isinstance(value, int) else [int(each) for each in value]
        if not self.has(index):
            return None
        elements = self.integers(index)
        if elements is None:
            raise RowsInteract(f"has {place} that are computed")
        return elements

    def inferred(self, output: int) -> tuple[int | None, ...] | None:
        """The inferred shape of an output."""
        return self._shapes.get(self.proto.output[output])

    def free_size(self, output: int, axis: int) -> Size:
        """A size of an output that is not known, and does not depend on the number of rows."""
        return named(f"{self.scope} output {self.proto.output[output]}/{axis}")


Rule: TypeAlias = Callable[[Node], Sequence[Value]]


def rank_of(value: Value) -> int:
    """The rank of a value.

    Raises:
        RowsInteract: it is not known.
    """
    return len(value.sizes)


def axis_in(axis: int, rank: int) -> int:
    """An axis counted from the front.

    Raises:
        RowsInteract: there is no such axis.
    """
    if not -rank <= axis < rank:
        raise RowsInteract(f"has the axis {axis} of {rank} axes")
    return axis % rank
