"""The trial of a model on made-up inputs: how many rows it takes, and whether its rows keep apart."""

import asyncio
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, parser

from app.inference import trial
from app.inference.datatypes import Tensor
from app.inference.engine import Engine
from app.inference.made_up import POISON, MadeUp, ways
from app.models.verification import VerificationResult, verify
from app.settings import Settings
from tests.app import oip_models
from tests.app.graphs import publish

DAY = 86_400.0


def of(text: str) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}')


def engine(folder: Path, made: onnx.ModelProto) -> Engine:
    return Engine(publish(folder, "m", made), device="cpu", threads=1)


def verified(folder: Path, made: onnx.ModelProto, **options: object) -> VerificationResult:
    path = publish(folder, "m", made)
    return asyncio.run(verify([path], Settings.model_validate(options)))[path]


def test_made_up_rows_differ_and_are_the_same_each_time() -> None:
    tensors = [
        Tensor("f", "FP32", (-1, 4, -1)),
        Tensor("i", "INT64", (-1, 3)),
        Tensor("s", "BYTES", (-1, 2)),
        Tensor("b", "BOOL", (-1, 2)),
        Tensor("h", "BF16", (-1, 2)),
    ]
    way = next(iter(ways(tensors, has_batch_axis=True)))
    rows = [0, 1, 2, 3, 4]
    feeds = way.inputs(tensors, rows, has_batch_axis=True)
    assert {name: values.shape for name, values in feeds.items()} == {
        "f": (5, 4, 5),
        "i": (5, 3),
        "s": (5, 2),
        "b": (5, 2),
        "h": (5, 2),
    }
    assert len({row.tobytes() for row in feeds["f"]}) == len({row.tobytes() for row in feeds["i"]}) == len(rows)
    assert (feeds["f"][0] >= 0).all()
    assert (feeds["f"][1] < 0).all()
    assert np.abs(feeds["f"][2]).max() > 100
    for row in rows:
        (alone,) = way.inputs(tensors[1:2], [row], has_batch_axis=True).values()
        np.testing.assert_array_equal(alone, feeds["i"][row : row + 1])
    (poison,) = way.inputs(tensors[:1], [POISON], has_batch_axis=True).values()
    assert np.isnan(poison).any()
    assert np.isinf(poison).any()
    assert MadeUp(1, 1).inputs(tensors[2:3], [3], has_batch_axis=True)["s"].tolist() == [["", ""]]


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (of("g (int64[n,4] x) => (int64[n,4] y) <int64 a = {0}> { y = CumSum (x, a) }"), "another output 'y' together"),
        (
            of(
                """g (float[n,4] x) => (float[n,4] y) <float one = {1}, float k = {255}> {
                   m = ReduceMax <keepdims = 0> (x) b = Greater (m, one) d = Div (x, k) y = Where (b, d, x) }"""
            ),
            "another output 'y' together",
        ),
        # only NaN in another row is seen
        (
            of(
                """g (float[n,4] x) => (float[n,4] y) <float zero = {0}> {
                   i = IsNaN (x) f = Cast <to = 1> (i) m = ReduceMax <keepdims = 0> (f) y = Add (x, m) }"""
            ),
            "another output 'y' together",
        ),
        (oip_models.centred(), "another output 'y' together"),
        (oip_models.two(), None),
        (oip_models.halved(), None),
        (oip_models.echo(TensorProto.STRING, ["n", 2]), None),
    ],
)
def test_rows_that_interact_are_found_by_runs_alone(tmp_path: Path, made: onnx.ModelProto, reason: str | None) -> None:
    model = engine(tmp_path, made)
    first = trial.run_one_row(model)
    found = trial.find_disagreement(model, first, 32, lambda: DAY)
    assert (found is None) if reason is None else (reason in (found or ""))


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("g (float[samples] x) => (float[1,1,m] y) <int64[2] a = {0,1}, int64[3] s = {2,1,400}> { "
         "u = Unsqueeze (x, a) w = ConstantOfShape (s) y = Conv (u, w) }", 512),
        ("g (float[n,1,h,w] x) => (float[n,1,a,b] y) { y = MaxPool <kernel_shape = [9,9]> (x) }", 64),
        ("g (float[n,s] x) => (float[n,s] y) { y = Relu (x) }", 5),
    ],
)  # fmt: skip
def test_free_sizes_are_tried_until_the_model_runs(tmp_path: Path, text: str, sizes: int) -> None:
    first = trial.run_one_row(engine(tmp_path, of(text)))
    assert (first.failure, first.way.free_size) == (None, sizes)


def test_integers_are_made_smaller_until_they_are_indices_of_the_table(tmp_path: Path) -> None:
    table = of("g (int64[n,3] x) => (float[n,3,1] y) <float[3,1] t = {1,2,3}> { y = Gather (t, x) }")
    first = trial.run_one_row(engine(tmp_path, table))
    assert (first.failure, first.way.bound) == (None, 3)


def test_each_input_has_integers_as_large_as_it_takes(tmp_path: Path) -> None:
    """As for a language model: token ids, and types that are 0 or 1."""
    rows = np.arange(200, dtype=np.float32).reshape(200, 1)
    made = oip_models.graph(
        [
            helper.make_node("Gather", ["words", "ids"], ["a"]),
            helper.make_node("Gather", ["kinds", "types"], ["b"]),
            helper.make_node("Add", ["a", "b"], ["y"]),
        ],
        [(name, TensorProto.INT64, ["batch", "length"]) for name in ("types", "ids")],
        [("y", TensorProto.FLOAT, ["batch", "length", 1])],
        {"words": rows, "kinds": rows[:2]},
    )
    model = engine(tmp_path, made)
    first = trial.run_one_row(model)
    assert (first.way.bound, first.way.larger) == (2, {"ids": 100})
    assert trial.find_disagreement(model, first, 32, lambda: DAY) is None
    assert first.way.inputs(model.inputs, [0], has_batch_axis=True)["ids"].tolist() == [[0, 1, 2, 3, 99]]


def test_a_slow_model_is_not_tried_with_several_rows(tmp_path: Path) -> None:
    model = engine(tmp_path, oip_models.echo(TensorProto.FLOAT, ["n", 2]))
    first = trial.run_one_row(model)
    slow = trial.Trial(first.outputs, None, 5.0, first.way)
    assert trial.largest_batch(model, slow, 1024, lambda: 20.0) == (
        1,
        "a run of one row takes 5.0 s, too long to try several rows together",
    )
    assert trial.largest_batch(model, slow, 1024, lambda: 60.0) == (4, "32 rows together would take about 160 s")
    assert trial.largest_batch(model, slow, 3, lambda: DAY) == (3, "")
    assert "too long to compare rows" in (trial.find_disagreement(model, slow, 4, lambda: 60.0) or "")


def wide() -> onnx.ModelProto:
    """The largest of 4 million sums of each row, which take 16 MB."""
    return of(
        """g (float[n,1] x) => (float[n,1] y) <int64[2] s = {1,4000000}> { w = ConstantOfShape (s)
           z = Add (x, w) e = Neg (z) y = ReduceMax <axes = [1]> (e) }"""
    )


def test_rows_are_halved_until_their_run_fits_the_memory_of_the_smoke_test(tmp_path: Path) -> None:
    found = verified(tmp_path, wide(), trial_bytes=2**28, trial_seconds=3000)
    assert found.error is None
    assert found.independent
    assert 1 < found.trial_rows < 32
    assert found.trial_reason.startswith("32 rows together fail: onnxruntime failed: ")


def test_a_hang_of_several_rows_does_not_refuse_a_model(tmp_path: Path) -> None:
    """The number of steps is 2^60 for two rows, and none for one."""
    endless = of(
        """g (float[n,1] x) => (float[n,1] y)
           <int64 one = {1}, int64 zero = {0}, int64 many = {1152921504606846976}, bool go = {1}> {
           s = Shape (x) n = Gather (s, zero) more = Sub (n, one) steps = Mul (more, many)
           y = Loop (steps, go, x) <body = b (int64 i, bool c, float[n,1] a) => (bool d, float[n,1] e) {
           d = Identity (c) e = Add (a, a) }> }"""
    )
    found = verified(tmp_path, endless, trial_seconds=3)
    assert (found.error, found.ran, found.trial_rows) == (None, True, 0)
    assert found.trial_reason == "the smoke test ended while it ran several rows together"
    assert found.memory_bytes is None or found.memory_bytes >= 0
