"""Shadow mode: which requests are scored, how, and that answers never wait for it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.app.cli.test_main import run
from tests.app.conftest import DENSE, KRONECKER, ROWS, Serving, serving, wait_until
from tests.app.graphs import classifier, heavy, probabilities, publish, weights


@pytest.fixture(scope="module")
def shadowed(models: Path) -> Iterator[Serving]:
    with serving(models, shadow="small-kronecker=small-dense", shadow_share=1, reports="off") as server:
        yield server


def predict(server: Serving, model: str, rows: Any) -> Any:
    answer = server.client.post("/api/predict", json={"inputs": rows.tolist(), "models": [model]})
    assert answer.is_success
    return answer.json()["results"][0]


def report(server: Serving) -> Any:
    return server.client.get("/api/shadow").json()


def test_the_primarys_requests_are_scored_on_the_shadow(shadowed: Serving) -> None:
    assert report(shadowed)["disagreement_rate"] is None
    rows = 3 * np.random.default_rng(5).standard_normal((40, 6)).astype(np.float32)
    parts = [rows[:7], rows[7:9], rows[9:]]
    for number, part in enumerate(parts, start=1):
        answered = predict(shadowed, "small-kronecker", part)
        assert answered["model"] == "small-kronecker"
        assert len(answered["outputs"]) == len(part)
        wait_until(lambda expected=number: report(shadowed)["requests"] == expected)  # type: ignore[misc]  # a default
    predict(shadowed, "small-dense", rows)  # the shadow model's own requests are not scored
    found = report(shadowed)
    a, b = probabilities(KRONECKER, rows), probabilities(DENSE, rows)
    different = int((a.argmax(axis=1) != b.argmax(axis=1)).sum())
    assert 0 < different < len(rows)
    assert (found["primary"], found["shadow"], found["share"]) == ("small-kronecker", "small-dense", 1)
    assert (found["requests"], found["rows"], found["dropped"], found["failed"]) == (3, len(rows), 0, 0)
    assert found["disagreements"] == different
    assert found["disagreement_rate"] == pytest.approx(different / len(rows))
    assert found["largest_probability_drift"] == pytest.approx(np.abs(a - b).max(), abs=1e-5)
    assert found["largest_difference"] is None
    assert min(found["primary_p50_us"], found["shadow_p50_us"]) > 0
    assert abs(found["difference_p50_us"]) <= max(found["primary_p50_us"], found["shadow_p50_us"]) * 10
    metrics = shadowed.client.get("/metrics").text
    assert f'kron_shadow_rows_total{{shadow="small-dense"}} {len(rows)}\n' in metrics
    assert f'kron_shadow_disagreements_total{{shadow="small-dense"}} {different}\n' in metrics
    assert 'kron_shadow_requests_total{shadow="small-dense"} 3\n' in metrics
    assert 'kron_shadow_largest_drift{shadow="small-dense"} 0.' in metrics


def test_the_open_inference_protocol_is_scored_too(shadowed: Serving) -> None:
    before = report(shadowed)
    rows = np.random.default_rng(6).random((3, 6)).astype(np.float32)
    tensor = {"name": "input", "shape": [3, 6], "datatype": "FP32", "data": rows.ravel().tolist()}
    for wanted in ({}, {"outputs": [{"name": "logits"}]}):
        answer = shadowed.client.post("/v2/models/small-kronecker/infer", json={"inputs": [tensor]} | wanted)
        assert answer.is_success, answer.text
    wait_until(lambda: report(shadowed)["requests"] > before["requests"])
    after = report(shadowed)  # a request for logits alone is not scored, since the head reads probabilities
    assert (after["requests"], after["rows"]) == (before["requests"] + 1, before["rows"] + 3)
    assert after["failed"] == 0


@pytest.mark.parametrize("which", ["three", "other"])
def test_a_scored_request_keeps_neither_model_alive(tmp_path: Path, which: str) -> None:
    publish(tmp_path, "three", classifier(KRONECKER))
    publish(tmp_path, "other", classifier(DENSE))
    with serving(tmp_path, shadow="three=other", shadow_share=1, reports="off") as server:
        predict(server, "three", ROWS)
        wait_until(lambda: report(server)["requests"] == 1)
        assert server.client.post(f"/v2/repository/models/{which}/unload").is_success  # which waits for its end, 30 s
        index = server.client.post("/v2/repository/index").json()
        assert {entry["name"]: entry["reason"] for entry in index}[which] == "unloaded"


def test_the_report_says_that_shadow_mode_is_off(server: Serving) -> None:
    found = report(server)
    assert (found["primary"], found["shadow"], found["requests"]) == (None, None, 0)


def test_requests_do_not_wait_for_a_slow_shadow(tmp_path: Path) -> None:
    publish(tmp_path, "quick", heavy(width=512, products=1))
    publish(tmp_path, "slow", heavy(width=512, products=1000))
    rows = np.random.default_rng(0).random((4, 512)).astype(np.float32)
    with serving(tmp_path, shadow="quick=slow", shadow_share=1, reports="off") as server:
        sent = 0

        def one_was_dropped() -> bool:
            nonlocal sent
            for _ in range(40):
                predict(server, "quick", rows)
            sent += 40
            return bool(report(server)["dropped"])

        wait_until(one_was_dropped)
        wait_until(lambda: report(server)["requests"] >= 2)
        found = report(server)
        assert found["requests"] + found["dropped"] <= sent
        assert found["disagreements"] is None
        assert found["largest_difference"] == 0.0  # both return their input
        assert found["difference_p50_us"] > 0
        metrics = server.client.get("/metrics").text
        assert f'kron_shadow_skipped_total{{reason="dropped"}} {found["dropped"]}\n' in metrics


def test_only_a_fraction_is_scored_and_a_shadow_with_other_classes_counts_as_failed(
    models: Path, tmp_path: Path
) -> None:
    publish(tmp_path, "three", classifier(KRONECKER))
    publish(tmp_path, "four", classifier(weights([6, 4])))
    with serving(tmp_path, shadow="three=four", shadow_share=1) as server:
        predict(server, "three", ROWS)
        wait_until(lambda: report(server)["failed"] == 1)
        assert report(server)["requests"] == 0
    with serving(models, shadow="padded=plain", shadow_share=1e-9) as server:
        for _ in range(5):
            predict(server, "padded", ROWS)
        assert report(server)["requests"] == 0


@pytest.mark.parametrize(
    ("shadow", "message"),
    [
        ("plain", "--shadow: got 'plain', expected"),
        (
            "plain=nobody",
            "--shadow (KRON_SHADOW): got 'plain=nobody', expected A=B with two different models of: heavy",
        ),
        ("plain=plain", "--shadow (KRON_SHADOW): got 'plain=plain', expected A=B with two different models"),
        ("plain=heavy", "expected models that take the same rows: plain takes 6 values, heavy 512"),
    ],
)
def test_a_bad_shadow_is_one_line_and_exit_code_2(models: Path, shadow: str, message: str) -> None:
    done = run("--port", "0", "--models", models, "--shadow", shadow)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def table_model(factor: float, *, first: str = "size") -> onnx.ModelProto:
    """Model of a number and a category: logits (factor * number, 1) for a flat, else (0, 1)."""
    nodes = [
        helper.make_node("Equal", ["kind", "flat"], ["is_flat"]),
        helper.make_node("Where", ["is_flat", first, "zero"], ["number"]),
        helper.make_node("Cast", ["number"], ["single"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["single", "w"], ["products"]),
        helper.make_node("Add", ["products", "b"], ["logits"]),
    ]
    inputs = [
        helper.make_tensor_value_info(first, TensorProto.DOUBLE, ["batch", 1]),
        helper.make_tensor_value_info("kind", TensorProto.STRING, ["batch", 1]),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])]
    constants = {
        "flat": np.array([["flat"]], object), "zero": np.zeros((1, 1)),
        "w": np.array([[factor, 0]], np.float32), "b": np.array([[0, 1]], np.float32),
    }  # fmt: skip
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "table", inputs, outputs, tensors),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    columns = [{"name": first, "kind": "number"}, {"name": "kind", "kind": "category", "values": ["flat"]}]
    card = {"task": "classification", "labels": ["a", "b"], "input": {"kind": "features", "columns": columns}}
    helper.set_model_props(model, {"kronmodel": json.dumps(card)})
    return model


def test_models_of_a_tables_columns_are_scored(tmp_path: Path) -> None:
    publish(tmp_path, "one", table_model(1))
    publish(tmp_path, "two", table_model(0.25))
    rows = [{"size": size, "kind": kind} for size in (0.5, 2, 8) for kind in ("flat", "house")]
    with serving(tmp_path, shadow="one=two", shadow_share=1, reports="off") as server:
        answer = server.client.post("/api/predict", json={"rows": rows, "models": ["one"]})
        assert answer.is_success, answer.text
        assert [each["label"] for each in answer.json()["results"][0]["outputs"]] == ["b", "b", "a", "b", "a", "b"]
        wait_until(lambda: report(server)["requests"] == 1)
        found = report(server)
        assert (found["rows"], found["disagreements"], found["failed"]) == (6, 1, 0)  # only at a flat of size 2
        tensors = [
            {"name": "size", "shape": [2, 1], "datatype": "FP64", "data": [2, 2]},
            {"name": "kind", "shape": [2, 1], "datatype": "BYTES", "data": ["flat", "flat"]},
        ]
        assert server.client.post("/v2/models/one/infer", json={"inputs": tensors}).is_success
        wait_until(lambda: report(server)["requests"] == 2)
        assert (report(server)["disagreements"], report(server)["failed"]) == (3, 0)


def test_a_shadow_of_other_columns_is_refused(tmp_path: Path) -> None:
    publish(tmp_path, "one", table_model(1))
    publish(tmp_path, "other", table_model(1, first="area"))
    done = run("--port", "0", "--models", tmp_path, "--shadow", "one=other")
    assert done.returncode == 2
    assert "one takes kind (BYTES), size (FP64), other area (FP64), kind (BYTES)" in done.stderr.splitlines()[-1]
