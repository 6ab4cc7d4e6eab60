"""Engines, the service and comparisons on a GPU; skipped without one."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from app.inference.devices import available_devices
from app.inference.engine import Engine
from app.inference.session import CPU, CUDA, tensor_device
from tests.app.conftest import ROWS, serving
from tests.app.graphs import classifier, probabilities, publish, weights

pytestmark = pytest.mark.skipif("cuda" not in available_devices(), reason="no GPU that onnxruntime can use")

LAYERS = weights([60, 400, 30])


def test_bound_tensors_on_the_gpu_agree_with_numpy_in_concurrent_threads(tmp_path: Path) -> None:
    engine = Engine(publish(tmp_path, "m", classifier(LAYERS)), device="cuda", threads=1)
    engine.warm_up(max_batch=64)
    assert engine.provider == CUDA
    assert tensor_device(engine.session) == ("cuda", 0)
    assert engine.batchable

    def work(seed: int) -> None:
        for rows in (1, 7, 32, 7):
            values = np.random.default_rng(seed).random((rows, 60)).astype(np.float32)
            outputs = engine.run({"input": values}, ["probabilities"])
            np.testing.assert_allclose(outputs["probabilities"], probabilities(LAYERS, values), atol=1e-5)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(16)))


def test_models_run_on_the_devices_of_the_settings(models: Path) -> None:
    with serving(models, device="cuda", model_devices="small-dense=cpu") as server:
        found = {model["name"]: model["provider"] for model in server.client.get("/api/models").json()["models"]}
        assert found.pop("small-dense") == CPU
        assert set(found.values()) == {CUDA}
        answer: httpx.Response = server.client.post("/api/predict", json={"inputs": ROWS[:3].tolist()})
        assert {result["provider"] for result in answer.json()["results"]} == {CPU, CUDA}


def test_a_comparison_reports_gpu_memory(models: Path) -> None:
    with serving(models, device="cuda") as server:
        asked = {"models": ["small-kronecker", "small-dense"], "seconds": 1, "batch_sizes": [1], "device": "cuda"}
        report = server.client.post("/api/compare", json=asked).json()
    assert [model["provider"] for model in report["models"]] == [CUDA, CUDA]
    assert all(model["memory"]["device_bytes"] for model in report["models"])
