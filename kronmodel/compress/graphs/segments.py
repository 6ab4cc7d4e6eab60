"""Runs of an ONNX model that go on from a place between its nodes, with the values there kept from the runs before."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from kronmodel.compress.graphs.samples import Array
from kronmodel.compress.graphs.session import open_session, run
from kronmodel.compress.graphs.workspace import Workspace
from kronmodel.errors import KronmodelError

__all__ = ["KEPT_BYTES", "Progressive", "cut_out"]

KEPT_BYTES = 256 << 20  # values between two nodes, for all runs together; above, runs start at the model's inputs


class Progressive:
    """Runs of a model on the same samples, each up to a later node than the one before.

    Layers are fitted in the model's order, and everything before a layer stays as it is while the layers after it are
    fitted. So the values at the last layer are kept, and each node is computed about once for all layers.

    Args:
        workspace: holds the model.
        name: file name of the parts of the model that are run.
    """

    def __init__(self, workspace: Workspace, name: str) -> None:
        self._workspace, self._name = workspace, name
        self._graph = workspace.model.graph
        self._changing = _changing(self._graph)
        self._place = 0
        self._changes: frozenset[tuple[int, object]] = frozenset()
        self._values: list[dict[str, Array]] = []

    def runs(
        self,
        model: onnx.ModelProto,
        outputs: Sequence[str],
        batches: Iterable[Mapping[str, Array]],
        *,
        place: int,
        changes: Collection[tuple[int, object]] = (),
    ) -> Iterator[list[Array]]:
        """Run a model on all samples, from the last place on if nothing before that has changed.

        Args:
            model: the workspace's model with more outputs, and perhaps with other nodes for its layers.
            outputs: names of the values to compute, by nodes from ``place`` on, or used by them.
            batches: inputs of each run.
            place: index of a node of the workspace's model; the values before it are kept for the next call.
            changes: the layers that are replaced: index of the first node, and the replacement.

        Yields:
            The values of each run.

        Raises:
            KronmodelError: onnxruntime refuses the model, or a run fails.
        """
        if place < self._place or {each for each in changes if each[0] < self._place} != self._changes:
            self._place, self._values = 0, []
        given, wanted = self._values, self._between(place)
        kept: list[dict[str, Array]] | None = []
        session: _Session | None = None
        size = 0
        for turn, feeds in enumerate(batches):
            values = {**feeds, **(given[turn] if given else {})}
            if session is None:
                session = _Session(self._workspace, self._name, model, [*outputs, *wanted], given[:1])
                try:
                    arrays = session.run(values)
                except KronmodelError:  # such as values of a type that numpy does not have
                    wanted, kept = [], None
                    session = _Session(self._workspace, self._name, model, outputs, given[:1])
                    arrays = session.run(values)
            else:
                arrays = session.run(values)
            if kept is not None:
                kept.append(dict(zip(wanted, arrays[len(outputs) :], strict=True)))
                size += sum(each.nbytes if isinstance(each, np.ndarray) else KEPT_BYTES for each in kept[-1].values())
                kept = None if size >= KEPT_BYTES else kept
            yield arrays[: len(outputs)]
        if kept is not None:
            self._place, self._values = place, kept
            self._changes = frozenset(each for each in changes if each[0] < place)

    def _between(self, place: int) -> list[str]:
        """List the values that nodes before a place compute from the inputs, and that later nodes use."""
        computed = {name for node in self._graph.node[:place] for name in node.output} & self._changing
        return sorted(computed & {name for node in self._graph.node[place:] for name in _used(node)})


class _Session:
    """Part of a model in onnxruntime."""

    def __init__(
        self,
        workspace: Workspace,
        name: str,
        model: onnx.ModelProto,
        outputs: Sequence[str],
        given: Sequence[Mapping[str, Array]],
    ) -> None:
        part = cut_out(model, outputs, given[0] if given else {})
        self._outputs = outputs
        self._session = open_session(workspace.write(part, name))
        self._inputs = [each.name for each in self._session.get_inputs()]

    def run(self, values: Mapping[str, Array]) -> list[Array]:
        feeds = {name: values[name] for name in self._inputs}
        arrays: list[Array] = run(self._session, feeds, "the model", self._outputs)
        return arrays


def cut_out(model: onnx.ModelProto, outputs: Sequence[str], given: Mapping[str, Array]) -> onnx.ModelProto:
    """Copy the part of a model that computes some values from its inputs and from values that are given.

    Args:
        model: the model.
        outputs: names of values of its main graph.
        given: values of its main graph by name; nothing that only they need is in the part.
    """
    graph = model.graph
    producers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    needed: set[int] = set()
    seen: set[str] = set()
    waiting = list(outputs)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        index = producers.get(name)
        if name not in given and index is not None and index not in needed:
            needed.add(index)
            waiting += _used(graph.node[index])
    part = onnx.ModelProto(ir_version=model.ir_version)
    part.opset_import.extend(model.opset_import)
    part.functions.extend(model.functions)
    part.graph.name = graph.name
    part.graph.node.extend(graph.node[index] for index in sorted(needed))
    part.graph.initializer.extend(each for each in graph.initializer if each.name in seen)
    part.graph.sparse_initializer.extend(each for each in graph.sparse_initializer if each.values.name in seen)
    part.graph.input.extend(each for each in graph.input if each.name in seen)
    part.graph.input.extend(
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
        for name, array in given.items()
        if name in seen
    )
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    return part


def _used(node: onnx.NodeProto) -> Iterator[str]:
    """Iterate over the values that a node uses, also in its subgraphs."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from (each.name for each in graph.output)
            for inner in graph.node:
                yield from _used(inner)


def _changing(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the values that depend on the graph's inputs."""
    found = {each.name for each in graph.input} - {each.name for each in graph.initializer}
    for node in graph.node:
        if not found.isdisjoint(_used(node)):
            found.update(name for name in node.output if name)
    return found
