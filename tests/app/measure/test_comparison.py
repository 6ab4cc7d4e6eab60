"""Reports of comparisons by a real server, of models whose differences are known."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnxruntime import quantization

from app.inference import session
from tests.app.conftest import DENSE, KRONECKER, PADDING, ROWS, serving
from tests.app.events import events, stream
from tests.app.graphs import CARD, classifier, forward, probabilities, publish, weights

pytestmark = [pytest.mark.alone, pytest.mark.slow]

Report = dict[str, Any]


@pytest.fixture(scope="module")
def seen(client: httpx.Client) -> list[tuple[str, Any]]:
    """All events of one comparison of the default twin and a padded model."""
    names = ["small-kronecker", "small-dense", "padded"]
    depths = ["session", "queue", "http"]
    with stream(client, models=names, batch_sizes=[1, 32], threads=1, depths=depths, seconds=4) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        return list(events(response))


@pytest.fixture(scope="module")
def report(seen: list[tuple[str, Any]]) -> Report:
    name, data = seen[-1]
    assert name == "report"
    return dict(data)


def test_progress_counts_up_to_the_report(seen: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in seen]
    assert names == ["started"] + ["progress"] * (len(seen) - 2) + ["report"]
    progress = [data for _, data in seen[1:-1]]
    assert progress[0]["stage"] == "inputs"
    assert progress[1]["stage"] == "memory small-kronecker"
    assert [step["done"] for step in progress] == sorted(step["done"] for step in progress)
    assert progress[-1]["done"] == progress[-1]["total"]


def test_report_holds_environment_configuration_and_models(report: Report) -> None:
    assert report["settings"]["batch_sizes"] == [1, 32]
    assert report["settings"]["inputs"] == "samples of small-kronecker"
    assert report["environment"]["threads"] == 1
    assert report["environment"]["niceness"] == 10
    assert report["environment"]["provider"] == "CPUExecutionProvider"
    assert report["environment"]["onnxruntime"]
    assert [model["model"] for model in report["models"]] == ["small-kronecker", "small-dense", "padded"]
    kronecker, dense, padded = report["models"]
    assert (kronecker["role"], dense["role"], padded["role"]) == ("kronecker", "dense", None)
    assert kronecker["macs_per_sample"] == CARD["macs_per_sample"]
    assert kronecker["c"] == CARD["c"]
    assert padded["c"] is None
    assert kronecker["test_metric"] == CARD["test_metric"]
    assert padded["test_metric"] is None
    assert padded["initializer_bytes"] > PADDING


def test_latency_is_ordered_and_complete(report: Report) -> None:
    for model in report["models"]:
        assert [latency["batch_size"] for latency in model["latency"]] == [1, 32]
        for latency in model["latency"]:
            assert 0 < latency["p50_us"] <= latency["p90_us"] <= latency["p95_us"]
            assert (latency["p99_us"] is None) == (latency["n"] < 1000)
            assert latency["samples_per_s"] > 0
        assert model["load_ms"] > 0
        assert model["first_run_ms"] > 0


def test_the_layers_are_measured_apart_and_outer_layers_take_longer(report: Report) -> None:
    assert report["settings"]["depths"] == ["session", "queue", "http"]
    assert 3 <= report["settings"]["service_series"] <= 5
    for model in report["models"]:
        assert {latency["depth"] for latency in model["latency"]} == {"session"}
        service = {(latency["depth"], latency["batch_size"]): latency for latency in model["service_latency"]}
        assert set(service) == {(depth, size) for depth in ("queue", "http") for size in (1, 32)}
        for size in (1, 32):
            assert 0 < service["queue", size]["p50_us"] < service["http", size]["p50_us"]
            assert service["queue", size]["n"] == service["http", size]["n"] > 0
    assert [pair["depth"] for pair in report["pairs"]] == ["session"] * 6
    assert [pair["depth"] for pair in report["service_pairs"]] == ["queue"] * 6 + ["http"] * 6
    assert "over HTTP" in report["service_pairs"][-1]["sentence"]


def test_the_interval_of_a_median_contains_it(report: Report) -> None:
    for model in report["models"]:
        for latency in (*model["latency"], *model["service_latency"]):
            assert latency["p50_low_us"] <= latency["p50_us"] <= latency["p50_high_us"]


def test_very_different_models_are_distinguished(report: Report) -> None:
    pairs = {(pair["a"], pair["b"], pair["batch_size"]): pair for pair in report["pairs"]}
    assert len(pairs) == 6
    pair = pairs["small-kronecker", "small-dense", 32]  # 18 weights and 163,600
    assert pair["verdict"] == "faster"
    assert 1.05 < pair["low"] <= pair["ratio"] <= pair["high"]
    assert pair["sentence"].startswith("At batch size 32, small-kronecker is ")
    assert "times as fast as small-dense" in pair["sentence"]
    assert pairs["small-dense", "padded", 32]["verdict"] == "slower"
    p50 = {model["model"]: model["latency"][1]["p50_us"] for model in report["models"]}
    assert pair["ratio"] == pytest.approx(p50["small-dense"] / p50["small-kronecker"], rel=0.01)


def test_memory_of_a_padded_model_is_larger_by_about_its_padding(report: Report) -> None:
    def added(model: Report, key: str) -> int:
        return int(model["memory"][key] - model["memory"]["baseline_rss_bytes"])

    kronecker, _, padded = report["models"]
    # onnxruntime may keep the tensor of the file beside its own copy.
    assert 0.9 * PADDING < added(padded, "loaded_rss_bytes") - added(kronecker, "loaded_rss_bytes") < 2.5 * PADDING
    assert added(padded, "peak_rss_bytes") >= added(padded, "loaded_rss_bytes")
    for model in report["models"]:
        memory = model["memory"]
        assert memory["session_bytes"] == max(0, memory["loaded_rss_bytes"] - memory["baseline_rss_bytes"])
        assert memory["arena_bytes"] == max(0, memory["settled_rss_bytes"] - memory["loaded_rss_bytes"])
        assert memory["peak_rss_bytes"] >= memory["settled_rss_bytes"]
        assert memory["device_bytes"] is None
    assert "no compression reduces that" in report["memory_sentence"]
    assert "a process with padded takes" in report["memory_sentence"]
    baselines = [model["memory"]["baseline_rss_bytes"] for model in report["models"]]
    assert max(baselines) < 1.1 * min(baselines)  # each in a new process that has loaded the same packages


def test_predicted_ratios_are_reported_beside_measured_ones(report: Report) -> None:
    first = report["predictions"][0]
    assert (first["a"], first["b"]) == ("small-kronecker", "small-dense")
    assert first["macs_ratio"] == pytest.approx(1.0)  # both fixtures carry the same card
    dense = report["models"][1]["initializer_bytes"]
    assert first["memory"]["predicted_ratio"] == pytest.approx(
        dense / report["models"][0]["initializer_bytes"], rel=0.01
    )
    assert [time["batch_size"] for time in first["time"]] == [1, 32]
    assert first["time"][1]["measured_ratio"] == report["pairs"][3]["ratio"]
    assert report["predictions"][1]["macs_ratio"] is None  # the padded one has no card


def test_the_samples_of_a_model_are_said_to_be_a_part_of_the_test_set(report: Report) -> None:
    quality = report["quality"]
    assert (quality["source"], quality["rows"], quality["labelled"]) == ("samples", len(ROWS), True)
    assert quality["name"] == "samples of small-kronecker"
    assert quality["sentence"].startswith("On the 40 samples of small-kronecker, a part of the test set: ")
    labels = np.arange(len(ROWS)) % 3
    for model, layers in zip(quality["models"], (KRONECKER, DENSE, KRONECKER), strict=True):
        best = forward(layers, ROWS).argmax(axis=1)
        assert model["accuracy"] == pytest.approx((best == labels).mean())
        assert model["accuracy_low"] < model["accuracy"] < model["accuracy_high"]
        for true, row in enumerate(model["confusion"]):
            assert row == [int(((labels == true) & (best == predicted)).sum()) for predicted in range(3)]
    pair = quality["pairs"][0]
    a, b = probabilities(KRONECKER, ROWS), probabilities(DENSE, ROWS)
    assert pair["agreement"] == pytest.approx((a.argmax(axis=1) == b.argmax(axis=1)).mean())
    assert pair["largest_probability_drift"] == pytest.approx(np.abs(a - b).max(), abs=1e-4)
    assert quality["pairs"][1]["agreement"] == 1.0  # the padded one computes the same


def test_the_same_model_twice_is_not_distinguishable(tmp_path: Path) -> None:
    layers = weights([6, 300, 300, 3])
    for name in ("one", "two"):
        publish(tmp_path, name, classifier(layers))
    with serving(tmp_path) as server:
        answer = server.client.post("/api/compare", json={"models": ["one", "two"], "batch_sizes": [1, 8]})
        assert answer.status_code == 200
        report = answer.json()
        assert [pair["verdict"] for pair in report["pairs"]] == ["not distinguishable"] * 2
        assert "are not distinguishable" in report["pairs"][0]["sentence"]
        made_up = "input FP32 [batch, 6] random numbers from 0 to 1 (seed 0)"
        assert report["settings"]["inputs"] == f"made up from the models' metadata: {made_up}"
        assert report["inputs"] == {
            "source": "generated", "name": report["settings"]["inputs"], "rows": 8, "notes": []
        }  # fmt: skip
        assert {each["output"]: each["largest"] for each in report["differences"]} == {"logits": 0, "probabilities": 0}
        server.wait_until_childless()


def test_the_baseline_of_memory_is_an_empty_model() -> None:
    made = onnx.load_from_string(session.EMPTY_MODEL)
    onnx.checker.check_model(made, full_check=True)
    assert [node.op_type for node in made.graph.node] == ["Identity"]


def test_models_with_eight_bit_weights_are_compared(tmp_path: Path) -> None:
    layers = weights([6, 300, 300, 3], seed=4)
    full = publish(tmp_path, "full", classifier(layers))
    publish(tmp_path, "eight-bit", quantized(full))
    with serving(tmp_path) as server:
        body = {"models": ["full", "eight-bit"], "batch_sizes": [4], "seconds": 0.2}
        report = server.client.post("/api/compare", json=body).json()
    sizes = [model["initializer_bytes"] for model in report["models"]]
    assert 3.5 * sizes[1] < sizes[0] < 4.1 * sizes[1]
    assert [model["latency"][0]["n"] > 0 for model in report["models"]] == [True, True]
    assert report["quality"] is None  # there are no samples
    assert [each["output"] for each in report["differences"]] == ["logits", "probabilities"]
    assert all(0 < each["mean"] < each["largest"] < 0.2 for each in report["differences"])


def quantized(path: Path) -> bytes:
    """The model with weights of eight bits, quantized by onnxruntime."""
    made = path.with_name("quantized")
    quantization.quantize_dynamic(path, made, weight_type=quantization.QuantType.QInt8)
    return made.read_bytes()
