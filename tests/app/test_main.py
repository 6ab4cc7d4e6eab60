"""The application before it is ready, and its answers to unexpected errors."""

import asyncio
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from fastapi import FastAPI
from onnx import TensorProto, helper, numpy_helper

from app.main import create_app
from app.service import Service
from app.settings import Settings
from tests.app.graphs import model, publish


def client_of(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


def test_not_ready_until_the_models_are_loaded_and_never_without_models(tmp_path: Path) -> None:
    async def main() -> None:
        app = create_app(Settings.read({"KRON_MODELS": str(tmp_path)}))
        async with client_of(app) as client:
            assert (await client.get("/v2/health/live")).json() == {"live": True}
            ready = await client.get("/v2/health/ready")
            assert ready.status_code == 503
            assert ready.json() == {"ready": False, "error": "the models are still loading"}
            answer = await client.post("/api/predict", json={"inputs": [[1]]})
            assert answer.status_code == 503
            assert answer.json() == {"error": "the models are still loading"}
            assert answer.headers["Retry-After"] == "1"
            async with app.router.lifespan_context(app):
                while "still loading" in (answer := await client.get("/v2/health/ready")).json()["error"]:
                    await asyncio.sleep(0.01)
                assert answer.status_code == 503
                assert answer.json()["error"].startswith("no models to serve in ")
                assert (await client.get("/v2/health/live")).is_success

    asyncio.run(main())


def test_an_unexpected_error_while_loading_ends_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(settings: Settings) -> None:
        raise LookupError("unexpected")

    monkeypatch.setattr("app.service.check_serving_devices", broken)
    loaded: list[Service] = []

    async def main() -> None:
        app = create_app(Settings.read({"KRON_MODELS": str(tmp_path)}), loaded.append, up_when_loaded=True)
        async with asyncio.timeout(30), client_of(app) as client, app.router.lifespan_context(app):
            answer = await client.get("/v2/health/ready")
            assert answer.status_code == 503
            assert answer.json()["error"] == "loading failed: LookupError: unexpected"

    asyncio.run(main())
    assert [str(service.failure) for service in loaded] == ["loading failed: LookupError: unexpected"]
    assert "loading failed" in caplog.text


def test_an_unexpected_error_has_the_shape_of_others_and_no_detail(tmp_path: Path) -> None:
    async def broken() -> None:
        raise LookupError("a secret")

    async def main() -> None:
        app = create_app(Settings.read({"KRON_MODELS": str(tmp_path)}))
        app.add_api_route("/broken", broken)
        async with client_of(app) as client:
            answer = await client.get("/broken")
            assert answer.status_code == 500
            assert answer.json() == {"error": "internal error; see the service's log"}
            assert 'kron_failures_total{reason="InternalError"} 1\n' in (await client.get("/metrics")).text

    asyncio.run(main())


def fails_on(*rows: int) -> onnx.ModelProto:
    """A model that divides by zero for batches of these numbers of rows."""
    nodes = [helper.make_node("Shape", ["input"], ["rows"], start=0, end=1)]
    for number in rows:
        nodes += [
            helper.make_node("Sub", ["rows", f"n{number}"], [f"difference{number}"]),
            helper.make_node("Div", ["nothing", f"difference{number}"], [f"zero{number}"]),
        ]
    nodes += [
        helper.make_node("Concat", [f"zero{number}" for number in rows], ["zeros"], axis=0),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["zero"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["input", "zero"], ["out"]),
    ]
    specs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("input", "out")]
    values = [("nothing", 0), *((f"n{number}", number) for number in rows)]
    constants = [numpy_helper.from_array(np.array([value]), name) for name, value in values]
    return model(nodes, specs[0], [specs[1]], constants)


def test_a_model_that_fails_at_run_time_is_500_with_the_reason(tmp_path: Path) -> None:
    """It fails on the row that is made up at load, too, so the inputs need not be the reason."""
    publish(tmp_path, "breaks", fails_on(1, 40))

    async def main() -> None:
        app = create_app(Settings.read({"KRON_MODELS": str(tmp_path)}))
        async with client_of(app) as client, app.router.lifespan_context(app):
            while not (await client.get("/v2/health/ready")).is_success:
                await asyncio.sleep(0.01)
            tensor = {"name": "input", "datatype": "FP32"}
            for rows, status in ((39, 200), (40, 500)):
                body = {"inputs": [tensor | {"shape": [rows, 3], "data": [1] * 3 * rows}]}
                answer = await client.post("/v2/models/breaks/infer", json=body)
                assert answer.status_code == status, answer.text
            assert answer.json()["error"].startswith("onnxruntime failed: ")
            metrics = (await client.get("/metrics")).text
            assert 'nv_inference_request_failure{model="breaks",version="1",reason="BACKEND"} 1\n' in metrics
            assert 'kron_failures_total{reason="ModelError"} 1\n' in metrics
            (stats,) = (await client.get("/v2/models/breaks/stats")).json()["model_stats"]
            assert [stats["inference_stats"][how]["count"] for how in ("success", "fail")] == [1, 1]
            assert stats["inference_stats"]["fail"]["ns"] > 0

    asyncio.run(main())


def test_inputs_that_a_model_fails_on_while_it_runs_on_others_are_400(tmp_path: Path) -> None:
    publish(tmp_path, "picky", fails_on(40))

    async def main() -> None:
        app = create_app(Settings.read({"KRON_MODELS": str(tmp_path)}))
        async with client_of(app) as client, app.router.lifespan_context(app):
            while not (await client.get("/v2/health/ready")).is_success:
                await asyncio.sleep(0.01)
            assert (await client.post("/api/predict", json={"inputs": [[1, 2, 3]] * 39})).is_success
            answer = await client.post("/api/predict", json={"inputs": [[1, 2, 3]] * 40})
            assert answer.status_code == 400
            assert "the model fails on 'input' of shape [40, 3], and runs on [1, 3]" in answer.json()["error"]
            assert (await client.post("/api/predict", json={"inputs": [[1, 2, 3]]})).is_success
            metrics = (await client.get("/metrics")).text
            assert 'kron_failures_total{reason="InputsRefused"} 1\n' in metrics

    asyncio.run(main())


def test_a_run_out_of_memory_counts_as_a_failure_of_the_model(tmp_path: Path) -> None:
    """The model adds the sum of 2^45 zeros, 128 TiB, for each row beyond 39."""
    nodes = [
        helper.make_node("Shape", ["input"], ["rows"], start=0, end=1),
        helper.make_node("Sub", ["rows", "most"], ["difference"]),
        helper.make_node("Max", ["difference", "none"], ["more"]),
        helper.make_node("Mul", ["more", "many"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Add", ["input", "zero"], ["out"]),
    ]
    specs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("input", "out")]
    values = (("most", 39), ("none", 0), ("many", 2**45))
    publish(
        tmp_path,
        "hungry",
        model(
            nodes, specs[0], [specs[1]], [numpy_helper.from_array(np.array([value]), name) for name, value in values]
        ),
    )

    async def main() -> None:
        app = create_app(Settings.read({"KRON_MODELS": str(tmp_path)}))
        async with client_of(app) as client, app.router.lifespan_context(app):
            while not (await client.get("/v2/health/ready")).is_success:
                await asyncio.sleep(0.01)
            assert (await client.post("/api/predict", json={"inputs": [[1, 2, 3]] * 39})).is_success
            answer = await client.post("/api/predict", json={"inputs": [[1, 2, 3]] * 40})
            assert answer.status_code == 500
            assert answer.json()["error"].startswith("onnxruntime failed: ")
            metrics = (await client.get("/metrics")).text
            assert 'kron_failures_total{reason="OutOfMemory"} 1\n' in metrics
            assert 'nv_inference_request_failure{model="hungry",version="1",reason="BACKEND"} 1\n' in metrics

    asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/api/sweeps", "GET, HEAD, POST"),
        ("/api/sweeps/0", "GET, HEAD, DELETE"),
        ("/api/trainings/options", "GET, HEAD"),
        ("/v2/models/m/infer", "POST"),
        ("/v2/logging", "GET, HEAD, POST"),
        ("/", "GET, HEAD"),
    ],
)
def test_allow_names_all_methods_of_a_path(tmp_path: Path, path: str, allow: str) -> None:
    async def main() -> None:
        async with client_of(create_app(Settings.read({"KRON_MODELS": str(tmp_path)}))) as client:
            answer = await client.request("PUT", path)
            assert (answer.status_code, answer.headers["Allow"]) == (405, allow)
            assert answer.json() == {"error": f"method: got PUT, expected {allow}"}

    asyncio.run(main())
