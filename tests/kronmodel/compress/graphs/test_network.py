"""Moments of layers while onnxruntime runs the model, against numpy; the error of the outputs."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from kronmodel.compress.graphs.layers import GraphLayer
from kronmodel.compress.graphs.network import GraphNetwork
from kronmodel.compress.graphs.samples import Samples
from kronmodel.compress.graphs.segments import Progressive
from kronmodel.compress.graphs.taps import tap, tap_names, tapped_rows
from kronmodel.compress.graphs.workspace import Workspace
from kronmodel.compress.matrices.structures import low_rank
from tests.kronmodel.compress.graphs.test_rewrite import branches
from tests.kronmodel.compress.onnx_models import Array, layers_of, make_model, random_fit, run, save

RNG = np.random.default_rng(1)
node = helper.make_node


def samples_of(arrays: dict[str, Array], constant: dict[str, Array] | None = None, batch: int = 4) -> Samples:
    return Samples(
        arrays=arrays, constant=constant or {}, batch=batch, fixed=False, by_call=False, labels=None, task=None,
        origin="here",
    )  # fmt: skip


def network_of(workspace: Workspace, samples: Samples) -> GraphNetwork:
    constants, layers, _ = layers_of(workspace)
    example = next(samples.take(np.arange(1)).batches())
    return GraphNetwork(
        workspace, constants, layers, samples=samples, example=example, progress=lambda step, done, total: None
    )


def rows_of(
    workspace: Workspace, layers: list[GraphLayer], feeds: dict[str, Array], most: int
) -> list[tuple[GraphLayer, Array, int]]:
    runs = Progressive(workspace, "part.onnx").runs(tap(workspace.model, layers), tap_names(layers), [feeds], place=0)
    return [found[1:] for found in tapped_rows(layers, runs, lambda layer: most)]


def two_layers(tmp_path: Path) -> tuple[Path, Array, Array]:
    first, second = (RNG.standard_normal(shape).astype(np.float32) for shape in ((40, 30), (30, 50)))
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Tanh", ["h"], ["t"]), node("MatMul", ["t", "v"], ["y"])]
    return save(make_model(nodes, {"w": first, "v": second}, ["n", "t", 40]), tmp_path), first, second


def test_moments_of_the_original_and_behind_a_replaced_layer(tmp_path: Path) -> None:
    path, first, second = two_layers(tmp_path)
    x = RNG.standard_normal((34, 3, 40)).astype(np.float32)  # eight batches of 4 and one of 2
    with Workspace(path) as workspace:
        network = network_of(workspace, samples_of({"x": x}))
        assert [layer.applications for layer in network.layers] == [3, 3]
        fit = random_fit(low_rank(40, 30, 4))
        for replaced in (False, True):
            if replaced:
                network.replace(0, fit)
            data = network.data_of(1)
            assert data is not None
            assert data.held_out is not None
            new = x @ (fit.matrix().T if replaced else first)
            parts = np.zeros(34, bool)
            parts[28:32] = True  # the last one of every eight runs
            for moments, chosen in ((data.fit, ~parts), (data.held_out, parts)):
                inputs = np.tanh(new[chosen]).reshape(-1, 30)
                outputs = (np.tanh(x[chosen] @ first) @ second).reshape(-1, 50)
                assert moments.count == len(inputs)
                np.testing.assert_allclose(moments.xx, inputs.T @ inputs, rtol=1e-3, atol=1e-2)
                assert moments.yx is not None
                np.testing.assert_allclose(moments.yx, outputs.T @ inputs, rtol=1e-3, atol=2e-2)


def test_the_error_of_the_outputs_is_that_on_the_held_out_samples(tmp_path: Path) -> None:
    path, first, second = two_layers(tmp_path)
    x = RNG.standard_normal((34, 3, 40)).astype(np.float32)
    with Workspace(path) as workspace:
        network = network_of(workspace, samples_of({"x": x}))
        assert network.output_error() == 0
        fit = random_fit(low_rank(40, 30, 4))
        network.replace(0, fit)
        before, after = (np.tanh(x[28:32] @ matrix) @ second for matrix in (first, fit.matrix().T))
        expected = np.linalg.norm(after - before) / np.linalg.norm(before)
        assert network.output_error() == pytest.approx(expected, rel=1e-3)
        network.replace(0, None)
        assert network.output_error() == 0


@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        ((1, 1), {}),
        ((3, 2), {"strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2]}),
        ((4, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
        ((5,), {"auto_pad": "SAME_UPPER"}),
        ((3,), {"auto_pad": "VALID", "strides": [2]}),
    ],
)
def test_patches_times_the_weight_are_the_convolution(
    kernel: tuple[int, ...], attributes: dict[str, Any], tmp_path: Path
) -> None:
    size = (9, 8)[: len(kernel)]
    weight = RNG.standard_normal((31, 40, *kernel)).astype(np.float32)
    model = make_model([node("Conv", ["x", "w"], ["y"], **attributes)], {"w": weight}, ["n", 40, *size])
    x = RNG.standard_normal((2, 40, *size)).astype(np.float32)
    with Workspace(save(model, tmp_path)) as workspace:
        _, layers, _ = layers_of(workspace)
        ((_, rows, count),) = rows_of(workspace, layers, {"x": x}, 10**6)
        ((_, drawn, same),) = rows_of(workspace, layers, {"x": x}, 5)
    expected = np.moveaxis(run(model, x=x)[0], 1, -1).reshape(-1, 31)
    assert count == same == len(rows) == len(expected)
    np.testing.assert_allclose(rows @ layers[0].weight.T, expected, atol=1e-3)
    assert len(drawn) == 5
    assert all((rows == each).all(1).any() for each in drawn)


def test_layers_in_branches_and_loops_are_seen_where_they_run(tmp_path: Path) -> None:
    path = save(branches(), tmp_path)
    x = RNG.standard_normal((3, 84)).astype(np.float32)
    with Workspace(path) as workspace:
        _, layers, _ = layers_of(workspace)
        seen = {}
        for turn, flag in enumerate((True, True, False)):
            for layer, rows, _ in rows_of(workspace, layers, {"x": x, "flag": np.array(flag)}, 99):
                seen[turn, layer.title] = len(rows)
                if len(rows):
                    np.testing.assert_array_equal(rows[:3], x)
    for turn, (then, other) in enumerate(((3, 0), (3, 0), (0, 3))):
        assert seen[turn, "MatMul 'then layer'"] == then
        assert seen[turn, "MatMul 'else layer'"] == other
        assert seen[turn, "MatMul 'loop layer'"] == 6  # twice


def test_a_branch_that_no_sample_takes_is_fitted_to_its_weights(tmp_path: Path) -> None:
    path = save(branches(), tmp_path)
    with Workspace(path) as workspace:
        samples = samples_of({"x": RNG.standard_normal((12, 84)).astype(np.float32)}, {"flag": np.array(True)})
        network = network_of(workspace, samples)
        titles = [layer.name for layer in network.layers]
        data = network.data_of(titles.index("MatMul 'else layer'"))
        assert data is not None
        assert data.fit.count == 1
        assert data.fit.diagonal


def test_weights_are_outside_of_the_model_until_it_is_saved(tmp_path: Path) -> None:
    weights = {"w": (300, 200), "s": (3,), "v": (1, 129, 45), "t": ()}
    arrays = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in weights.items()}
    inner = helper.make_graph(
        [node("Add", ["big", "big"], ["z"])],
        "branch",
        [],
        [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [40, 50])],
        [onnx.numpy_helper.from_array(RNG.standard_normal((40, 50)).astype(np.float32), "big")],
    )
    nodes = [node("MatMul", ["x", "w"], ["y"]), node("If", ["f"], ["b"], then_branch=inner, else_branch=inner)]
    model = make_model(nodes, {**arrays, "f": np.array(True)}, ["n", 300])
    helper.set_model_props(model, {"a": "b" * 300})
    path = save(model, tmp_path)
    with Workspace(path) as workspace:
        assert workspace.model.ByteSize() < 2500
        whole = workspace.save(workspace.model, "whole.onnx")
        assert onnx.load(whole) == onnx.load(path)
        assert whole.stat().st_size == path.stat().st_size
        folder = workspace.folder
    assert not folder.exists()


def test_few_samples_are_run_in_batches_so_small_that_some_judge_the_fits() -> None:
    few = samples_of({"x": np.arange(60).reshape(60, 1)}, batch=32).in_runs(8)
    judges, fitted = few.part(8), few.other_part(8)
    assert sorted([*judges.arrays["x"][:, 0], *fitted.arrays["x"][:, 0]]) == list(range(60))
    assert 0 < len(judges) < len(fitted)
    assert len(samples_of({"x": np.zeros((5, 1))}, batch=32).in_runs(8).part(8)) == 5  # too few to split


def test_only_structures_that_the_nodes_can_take_are_considered(tmp_path: Path) -> None:
    """Fits of Kronecker products and Monarch matrices take most of the time, so none is made in vain."""
    weights = {"k": RNG.standard_normal((40, 8, 3, 3)), "w": RNG.standard_normal((36, 40)), "v": np.ones((40, 30))}
    nodes = [
        node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["c"], ["p"]),
        node("MatMul", ["c", "w"], ["m"]),
        node("Flatten", ["p"], ["f"]),
        node("MatMul", ["f", "v"], ["y"]),
    ]
    model = make_model(nodes, {name: array.astype(np.float32) for name, array in weights.items()}, ["n", 8, 20, 36])
    with Workspace(save(model, tmp_path)) as workspace:
        network = network_of(workspace, samples_of({"x": RNG.standard_normal((3, 8, 20, 36)).astype(np.float32)}))
    kinds = {layer.weight.shape: set(layer.structures) - {"dense", "low-rank"} for layer in network.layers}
    assert kinds == {(40, 72): set(), (40, 36): {"kronecker"}, (30, 40): {"kronecker", "monarch"}}
