"""Rules of If, Loop and Scan: all rows take the same branch and the same number of steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import onnx

from app.models.row_independence.graph import GraphAnalysis, Scope
from app.models.row_independence.node import Node, axis_in, rank_of
from app.models.row_independence.sizes import named
from app.models.row_independence.values import RowsInteract, Shape, Value

_PASSES = 6  # over a body, until its state does not change any more
ControlFlow: TypeAlias = Callable[[GraphAnalysis, Node, Scope, int], Sequence[Value]]


def branches(analysis: GraphAnalysis, node: Node, scope: Scope, depth: int) -> Sequence[Value]:
    """If: the branch that a known condition takes, or what both branches have in common."""
    condition = node.input(0)
    graphs = {name: node.attribute(name) for name in ("then_branch", "else_branch")}
    if condition.known is not None and condition.known[0].number is not None:
        taken = graphs["then_branch" if condition.known[0].number else "else_branch"]
        return analysis.run(taken, {}, scope, depth=depth + 1)
    results = [analysis.run(graph, {}, scope, depth=depth + 1) for graph in graphs.values()]
    if not condition.constant:
        if all(value.constant for result in results for value in result) and condition.rows is None:
            return [Value(sized=True)] * node.outputs
        raise RowsInteract("takes one branch for all rows", certain=True)
    label = _label(node)
    return [_common(a, b, f"{label} {place}") for place, (a, b) in enumerate(zip(*results, strict=True))]


def _label(node: Node) -> str:
    """A name for the sizes that a node makes, which no other node has."""
    return f"{node.scope} {node.op} {'/'.join(node.proto.output)}"


def _common(a: Value, b: Value, name: str) -> Value:
    """What is known about a value that is one of two."""
    for value in (a, b):
        if value.mixed is not None:
            return Value(mixed=value.mixed)
    if a.rows != b.rows or a.sized != b.sized:
        raise RowsInteract("returns values of which some have no rows, or rows on other axes")
    shape: Shape | None = None
    if a.shape is not None and b.shape is not None and len(a.shape) == len(b.shape):
        shape = tuple(
            x if x == y else named(f"{name}/{axis}") for axis, (x, y) in enumerate(zip(a.shape, b.shape, strict=True))
        )
    if a.rows is not None and shape is None:
        raise RowsInteract("returns rows of different ranks")
    if a.shape != b.shape and any(size.depends_on_batch for size in (*(a.shape or ()), *(b.shape or ()))):
        both = zip(a.shape or (), b.shape or (), strict=False)
        if any(x != y and (x.depends_on_batch or y.depends_on_batch) for x, y in both):
            raise RowsInteract("returns values of different numbers of rows")
    return Value(shape=shape, rows=a.rows, sized=a.sized, known=a.known if a.known == b.known else None)


def _start(value: Value) -> Value:
    """A value that the body replaces in each step, so that its elements are not known."""
    return replace(value, known=None, array=None, limit=None)


def loop(analysis: GraphAnalysis, node: Node, scope: Scope, depth: int) -> Sequence[Value]:
    """Loop with a number of steps and a condition that do not depend on the rows."""
    node.require_constant(0, 1)
    body: onnx.GraphProto = node.attribute("body")
    names = [each.name for each in body.input]
    state = [_start(value) for value in node.inputs[2:] if value is not None]
    first = [Value(shape=()), Value(shape=())]
    state, results = _repeat(analysis, node, names, (first, state, []), scope, depth)
    condition, *scanned = results[0], *results[1 + len(state) :]
    if not condition.constant:
        raise RowsInteract("ends when a condition of the rows is met", certain=condition.rows is not None)
    return [*state, *(_stacked(value, 0, f"{_label(node)} step") for value in scanned)]


def _repeat(  # noqa: PLR0917
    analysis: GraphAnalysis,
    node: Node,
    names: Sequence[str],
    inputs: tuple[Sequence[Value], Sequence[Value], Sequence[Value]],
    scope: Scope,
    depth: int,
) -> tuple[list[Value], list[Value]]:
    """Analyse a body until its state does not change; return the state and the results of the last pass.

    Args:
        analysis: of the model.
        node: with the body.
        names: of the body's inputs.
        inputs: values of the inputs before the state, of the state before the first step, and of those after it.
        scope: values around the body.
        depth: number of graphs around the node.
    """
    first, state, last = inputs
    skip = 1 if node.op == "Loop" else 0  # its body returns the condition first
    before = list(state)
    for _ in range(_PASSES):
        values = dict(zip(names, [*first, *before, *last], strict=True))
        results = analysis.run(node.attribute("body"), values, scope, depth=depth + 1)
        after = results[skip : skip + len(before)]
        joined = [
            _common(a, _start(b), f"{_label(node)} {place}")
            for place, (a, b) in enumerate(zip(before, after, strict=True))
        ]
        if joined == before:
            return before, results
        before = joined
    raise RowsInteract("has a state whose shape changes from step to step")


def _stacked(value: Value, axis: int, name: str) -> Value:
    """The values of all steps, joined along a new axis."""
    if value.mixed is not None:
        return Value(mixed=value.mixed)
    if value.shape is None:
        if value.rows is not None:
            raise RowsInteract("returns rows of unknown rank")
        return Value(sized=value.sized)
    place = axis_in(axis, len(value.shape) + 1)
    shape = (*value.shape[:place], named(name), *value.shape[place:])
    rows = None if value.rows is None else value.rows.at(value.rows.axis + (value.rows.axis >= place))
    return Value(shape=shape, rows=rows, sized=value.sized)


def scan(analysis: GraphAnalysis, node: Node, scope: Scope, depth: int) -> Sequence[Value]:
    """Scan along axes that are not those of the rows."""
    if node.version < 9:
        raise RowsInteract("is of an operator set before 9")
    body: onnx.GraphProto = node.attribute("body")
    scanned = node.attribute("num_scan_inputs")
    values = [node.input(index) for index in range(len(node.inputs))]
    state = [_start(value) for value in values[: len(values) - scanned]]
    axes = node.attribute("scan_input_axes", [0] * scanned)
    steps = []
    for value, axis in zip(values[len(values) - scanned :], axes, strict=True):
        rank = rank_of(value)
        place = axis_in(axis, rank)
        if value.sized or value.shape is None or (value.rows is not None and value.rows.axis == place):
            raise RowsInteract("takes a step for each row", certain=True)
        rows = None if value.rows is None else value.rows.at(value.rows.axis - (value.rows.axis > place))
        steps.append(Value(shape=(*value.shape[:place], *value.shape[place + 1 :]), rows=rows))
    names = [each.name for each in body.input]
    state, results = _repeat(analysis, node, names, ([], state, steps), scope, depth)
    outputs = results[len(state) :]
    output_axes = node.attribute("scan_output_axes", [0] * len(outputs))
    return [
        *state,
        *(_stacked(value, axis, f"{_label(node)} step") for value, axis in zip(outputs, output_axes, strict=True)),
    ]


CONTROL_FLOW: Mapping[str, ControlFlow] = {"If": branches, "Loop": loop, "Scan": scan}
