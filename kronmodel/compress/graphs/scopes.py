"""Scopes of an ONNX model: its graph and the subgraphs of If, Loop and Scan, with the names that each defines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx

__all__ = ["Scope", "Value", "is_standard", "node_title", "scopes_of"]


@dataclass(frozen=True)
class Value:
    """A value of a model: its name, and the path of the scope that defines it, because branches may repeat names."""

    path: tuple[str, ...]
    name: str


@dataclass(eq=False)
class Scope:
    """A graph or subgraph, with the scope around it.

    Attributes:
        graph: the graph.
        parent: the scope around it; None for the main graph.
        owner: index of the node in the parent's graph that holds this subgraph.
        attribute: name of that node's attribute.
    """

    graph: onnx.GraphProto
    parent: Scope | None = None
    owner: int = -1
    attribute: str = ""
    _initializers: dict[str, onnx.TensorProto] = field(init=False, repr=False)
    _producers: dict[str, onnx.NodeProto] = field(init=False, repr=False)
    _inputs: set[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._initializers = {each.name: each for each in self.graph.initializer}
        self._producers = {name: node for node in self.graph.node for name in node.output if name}
        self._inputs = {each.name for each in self.graph.input}

    @property
    def path(self) -> tuple[str, ...]:
        """Path from the main graph, one entry for each node around; empty for the main graph."""
        return () if self.parent is None else (*self.parent.path, f"{self.owner}.{self.attribute}")

    def find(self, name: str) -> tuple[Scope, Value] | None:
        """Find the scope that defines a name as seen from this one."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope._initializers or name in scope._producers or name in scope._inputs:
                return scope, Value(scope.path, name)
            scope = scope.parent
        return None

    def names(self) -> Iterator[str]:
        """Iterate over all names that this scope's nodes and values use."""
        for node in self.graph.node:
            yield from (node.name, *node.input, *node.output)
        yield from self._initializers
        for value in (*self.graph.input, *self.graph.output, *self.graph.value_info):
            yield value.name

    def initializer(self, name: str) -> onnx.TensorProto | None:
        """Return an initializer of this scope."""
        return self._initializers.get(name)

    def is_overridable(self, name: str) -> bool:
        """Tell whether an initializer of this scope is an input of its graph, too."""
        return name in self._initializers and name in self._inputs

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Return the node of this scope that computes a value."""
        return self._producers.get(name)


def scopes_of(model: onnx.ModelProto) -> Iterator[Scope]:
    """Iterate over the scopes of a model, each before the scopes inside it."""
    waiting = [Scope(model.graph)]
    while waiting:
        scope = waiting.pop(0)
        yield scope
        for index, node in enumerate(scope.graph.node):
            inner = (each for each in node.attribute if each.HasField("g"))
            waiting += [Scope(each.g, scope, index, each.name) for each in inner]


def is_standard(node: onnx.NodeProto) -> bool:
    """Tell whether a node's operator is one of ONNX itself."""
    return node.domain in ("", "ai.onnx")


def node_title(node: onnx.NodeProto) -> str:
    """Describe a node in messages: operator and name, or its first output if it has no name."""
    return f"{node.op_type} {node.name or ', '.join(node.output)!r}"
