"""Runs that go on from a place between the nodes give the values of a whole run, with each node computed once."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from kronmodel.compress.graphs import segments
from kronmodel.compress.graphs.segments import Progressive, cut_out
from kronmodel.compress.graphs.workspace import Workspace
from tests.kronmodel.compress.onnx_models import Array, make_model, run, save

RNG = np.random.default_rng(7)
node = helper.make_node
STEPS = 5


def chain(scale: float = 0.5) -> onnx.ModelProto:
    """Five products with a way around each, a value that only constants give, and a value in a branch."""
    weights = {f"w{step}": (scale * RNG.standard_normal((12, 12))).astype(np.float32) for step in range(STEPS)}
    nodes = [node("Neg", ["w0"], ["constant"])]
    for step in range(STEPS):
        before = "x" if step == 0 else f"y{step - 1}"
        nodes += [
            node("MatMul", [before, f"w{step}"], [f"h{step}"]),
            node("Add", [f"h{step}", before], ["y" if step == STEPS - 1 else f"y{step}"]),
        ]
    branch = helper.make_graph([node("MatMul", ["y1", "constant"], ["z"])], "b", [], [onnx.ValueInfoProto(name="z")])
    nodes.append(node("If", ["flag"], ["last"], then_branch=branch, else_branch=branch))
    model = make_model(nodes, weights, ["n", 12])
    model.graph.input.append(helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, []))
    return model


def whole(model: onnx.ModelProto, name: str, feeds: dict[str, Array]) -> Array:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.append(onnx.ValueInfoProto(name=name))
    return np.asarray(run(copy, **feeds)[-1])


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Operators and outputs of each part that is run."""
    seen: list[list[str]] = []

    def recorded(*args: object) -> onnx.ModelProto:
        part = cut_out(*args)  # type: ignore[arg-type]
        seen.append([each.output[0] for each in part.graph.node])
        return part

    monkeypatch.setattr(segments, "cut_out", recorded)
    return seen


def batches() -> list[dict[str, Array]]:
    return [{"x": RNG.standard_normal((rows, 12)).astype(np.float32), "flag": np.array(True)} for rows in (3, 4)]


def test_each_node_is_computed_once_and_all_values_are_those_of_whole_runs(
    tmp_path: Path, parts: list[list[str]]
) -> None:
    model, feeds = chain(), batches()
    with Workspace(save(model, tmp_path)) as workspace:
        runs = Progressive(workspace, "part.onnx")
        for place, name in ((3, "y0"), (5, "y1"), (6, "h2"), (9, "y3"), (11, "last")):
            found = list(runs.runs(workspace.model, [name], feeds, place=place))
            for (value,), each in zip(found, feeds, strict=True):
                np.testing.assert_allclose(value, whole(model, name, each), rtol=1e-5, atol=1e-5)
    computed = [name for part in parts for name in part if name != "constant"]
    assert sorted(computed) == sorted(set(computed))


def test_a_change_before_the_place_starts_again_and_one_behind_it_does_not(
    tmp_path: Path, parts: list[list[str]]
) -> None:
    model, feeds = chain(), batches()
    with Workspace(save(model, tmp_path)) as workspace:
        runs = Progressive(workspace, "part.onnx")
        changed = onnx.ModelProto()
        changed.CopyFrom(workspace.model)
        next(each for each in changed.graph.node if each.output[0] == "h0").input[1] = "w1"
        for graph, changes in (
            (workspace.model, []),
            (changed, [(1, "w1")]),
            (changed, [(1, "w1"), (9, "behind")]),
            (workspace.model, []),
        ):
            found = list(runs.runs(graph, ["y3"], feeds, place=7, changes=changes))
            for (value,), each in zip(found, feeds, strict=True):
                np.testing.assert_allclose(value, whole(graph, "y3", each), rtol=1e-5, atol=1e-5)
    assert ["h0" in part for part in parts] == [True, True, False, True]


def test_an_earlier_place_and_too_many_values_start_at_the_inputs(
    tmp_path: Path, parts: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, feeds = chain(), batches()
    with Workspace(save(model, tmp_path)) as workspace:
        runs = Progressive(workspace, "part.onnx")
        list(runs.runs(workspace.model, ["y2"], feeds, place=6))
        list(runs.runs(workspace.model, ["y0"], feeds, place=2))
        monkeypatch.setattr(segments, "KEPT_BYTES", 100)
        list(runs.runs(workspace.model, ["y2"], feeds, place=6))
        ((value,), _) = runs.runs(workspace.model, ["y"], feeds, place=9)
        np.testing.assert_allclose(value, whole(model, "y", feeds[0]), rtol=1e-5, atol=1e-5)
    assert ["h0" in part for part in parts] == [True, True, False, False]
    assert "h1" in parts[3]  # the values at node 2 are still there, those at node 6 are not
