"""Every call of Triton's Python client, unchanged, in its blocking and its asyncio form."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.app.conftest import serving
from tests.app.graphs import LABELS, Array, forward, probabilities
from tests.app.oip_models import LAYERS, OLD_LAYERS, TYPES, publish_all

http = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
aio = pytest.importorskip("tritonclient.http.aio")
utils = pytest.importorskip("tritonclient.utils")

ROWS: Array = np.random.default_rng(6).random((5, 6)).astype(np.float32)
SUPPORTED = {
    "is_server_live", "is_server_ready", "is_model_ready", "get_server_metadata", "get_model_metadata",
    "get_model_config", "get_model_repository_index", "load_model", "unload_model", "get_inference_statistics", "infer",
    "async_infer", "generate_request_body", "parse_response_body", "close", "register_plugin", "unregister_plugin",
    "plugin",
}  # fmt: skip
UNSUPPORTED = {
    "update_trace_settings", "get_trace_settings", "update_log_settings", "get_log_settings",
    "get_system_shared_memory_status", "register_system_shared_memory", "unregister_system_shared_memory",
    "get_cuda_shared_memory_status", "register_cuda_shared_memory", "unregister_cuda_shared_memory",
}  # fmt: skip


@pytest.fixture(scope="module")
def address(http_mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("triton")
    publish_all(folder)
    with serving(folder, version_policy="all", http=http_mode) as running:
        yield httpx.URL(running.address).netloc.decode()


def test_the_client_has_no_other_calls() -> None:
    for client in (http.InferenceServerClient, aio.InferenceServerClient):
        calls = {name for name, _ in inspect.getmembers(client, callable) if not name.startswith("_")}
        assert calls <= SUPPORTED | UNSUPPORTED


class Blocking:
    """The asyncio client with the interface of the blocking one, so that one test drives both."""

    def __init__(self, address: str) -> None:
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._open(address))

    async def _open(self, address: str) -> Any:
        return aio.InferenceServerClient(address)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **options: self._runner.run(getattr(self._client, name)(*args, **options))

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture(params=["blocking", "asyncio"])
def client(request: pytest.FixtureRequest, address: str) -> Iterator[Any]:
    opened = http.InferenceServerClient(address, concurrency=4) if request.param == "blocking" else Blocking(address)
    yield opened
    opened.close()


def given(name: str, values: Array, *, binary: bool = True) -> Any:
    return http.InferInput(name, list(values.shape), utils.np_to_triton_dtype(values.dtype)).set_data_from_numpy(
        values, binary_data=binary
    )


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "9")
    assert not client.is_model_ready("digits", "8")
    assert not client.is_model_ready("nobody")
    assert (
        "binary_tensor_data" in client.get_server_metadata(headers={"X-Mine": "1"}, query_params={"a": 1})["extensions"]
    )
    assert client.get_model_metadata("digits", "9")["versions"] == ["9", "10"]
    assert client.get_model_metadata("two")["inputs"][1] == {"name": "b", "datatype": "INT64", "shape": [-1, 3]}
    assert client.get_model_config("digits", "10")["max_batch_size"] == 1024
    with pytest.raises(
        utils.InferenceServerException, match=r"\[404\] Request for unknown model: got 'nobody', expected one of: "
    ):
        client.get_model_metadata("nobody")


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_infer(client: Any, binary: bool, compression: str | None) -> None:
    rows = np.tile(ROWS, (40, 1))
    outputs = [http.InferRequestedOutput(name, binary_data=binary) for name in ("probabilities", "logits")]
    for version, layers in (("", LAYERS), ("9", OLD_LAYERS)):
        result = client.infer(
            "digits",
            [given("input", rows, binary=binary)],
            model_version=version,
            outputs=outputs,
            request_id="one",
            timeout=10_000_000,
            request_compression_algorithm=compression,
            response_compression_algorithm=compression,
            parameters={"mine": "yes"},
        )
        assert result.get_response()["id"] == "one"
        assert result.get_response()["model_version"] == (version or "10")
        np.testing.assert_allclose(result.as_numpy("logits"), forward(layers, rows), atol=1e-5)
        np.testing.assert_allclose(result.as_numpy("probabilities"), probabilities(layers, rows), atol=1e-5)
        assert result.get_output("logits")["shape"] == [200, 3]
        assert result.as_numpy("nothing") is None


def test_infer_without_naming_outputs(client: Any) -> None:
    result = client.infer("digits", [given("input", ROWS)])
    assert result.get_output("logits")["parameters"] == {"binary_data_size": 60}
    np.testing.assert_allclose(result.as_numpy("probabilities"), probabilities(LAYERS, ROWS), atol=1e-5)


@pytest.mark.parametrize("datatype", TYPES)
@pytest.mark.parametrize("binary", [True, False])
def test_every_datatype(client: Any, datatype: str, binary: bool) -> None:
    if datatype in {"FP16", "BF16"} and not binary:
        return  # have no JSON form
    if datatype == "BYTES":
        values = np.array([["a", "", "grün"], ["\U0001f600", "x" * 1000, " "]], object)
        expected = np.vectorize(str.encode, otypes=[object])(values)
    else:
        values = (ROWS[:2, :3] * 100 - 20).clip(0 if datatype.startswith("U") else -20)
        expected = values = values.astype(utils.triton_to_np_dtype(datatype))
    if datatype == "BF16":  # float32 in the client, cut off by it to the upper half of the bits
        expected = (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    result = client.infer(
        f"echo-{datatype}",
        [http.InferInput("x", list(values.shape), datatype).set_data_from_numpy(values, binary_data=binary)],
        outputs=[http.InferRequestedOutput("y", binary_data=binary)],
    )
    answer = result.as_numpy("y")
    if datatype == "BYTES" and not binary:
        answer = np.vectorize(str.encode, otypes=[object])(answer)
    np.testing.assert_array_equal(answer, expected)


def test_classification(client: Any) -> None:
    for binary in (True, False):
        wanted = http.InferRequestedOutput("probabilities", binary_data=binary, class_count=3)
        classes = client.infer("digits", [given("input", ROWS)], outputs=[wanted]).as_numpy("probabilities")
        assert classes.shape == (5, 3)
        first = classes[0, 0].decode() if binary else classes[0, 0]
        best = int(probabilities(LAYERS, ROWS)[0].argmax())
        assert first.split(":")[1:] == [str(best), LABELS[best]]


def test_several_inputs(client: Any) -> None:
    a, b = ROWS[:, :3].copy(), np.arange(15).reshape(5, 3)
    result = client.infer("two", [given("b", b, binary=False), given("a", a)])
    np.testing.assert_allclose(result.as_numpy("product"), a * b, rtol=1e-6)


def test_errors_reach_the_caller(client: Any) -> None:
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: client.infer("digits", [given("wrong", ROWS)]), r"\[400\] inputs: got 'wrong', expected 'input'"),
        (
            lambda: client.infer("digits", [given("input", ROWS[:, :5].copy())]),
            r"\[400\] input 'input': shape: got \[5, 5\]",
        ),
        (lambda: client.infer("digits", [given("input", ROWS.astype(float))]), r"\[400\] input 'input': datatype"),
        (lambda: client.infer("nobody", [given("input", ROWS)]), r"\[404\] Request for unknown model: got 'nobody'"),
        (lambda: client.infer("digits", [given("input", ROWS)], sequence_id=5), r"\[501\] request: sequence_id"),
        (lambda: client.infer("digits", [given("input", ROWS)], priority=2), r"\[501\] request: priority"),
        (lambda: client.load_model("digits", config="{}"), r"\[501\] load: parameter 'config'"),
        (
            lambda: client.load_model("digits", config="{}", files={"file:1/model.onnx": b"x"}),
            r"\[501\] load: parameter",
        ),
        (lambda: client.load_model("nobody"), r"\[404\] failed to load 'nobody'"),
        (lambda: client.unload_model("nobody"), r"\[404\] models: got 'nobody'"),
        (lambda: client.get_inference_statistics("nobody"), r"\[404\] Request for unknown model: got 'nobody'"),
    ]
    for call, message in calls:
        with pytest.raises(utils.InferenceServerException, match=message):
            call()


def test_what_is_not_supported_fails_with_our_message(client: Any) -> None:
    calls: dict[str, tuple[Any, ...]] = {
        "update_trace_settings": ("digits", {"trace_level": ["OFF"]}),
        "get_trace_settings": (),
        "update_log_settings": ({"log_info": True},),
        "get_log_settings": (),
        "get_system_shared_memory_status": (),
        "register_system_shared_memory": ("region", "/key", 64),
        "unregister_system_shared_memory": ("region",),
        "get_cuda_shared_memory_status": ("region",),
        "register_cuda_shared_memory": ("region", b"handle", 0, 64),
        "unregister_cuda_shared_memory": (),
    }
    assert calls.keys() == UNSUPPORTED
    for name, arguments in calls.items():
        with pytest.raises(utils.InferenceServerException, match=r"\[501\] .*: not supported by this server"):
            getattr(client, name)(*arguments)
    shared = http.InferInput("input", [5, 6], "FP32")
    shared.set_shared_memory("region", 120)
    with pytest.raises(utils.InferenceServerException, match=r"\[501\] input 'input': shared memory is not supported"):
        client.infer("digits", [shared])
    output = http.InferRequestedOutput("logits")
    output.set_shared_memory("region", 60)
    with pytest.raises(utils.InferenceServerException, match=r"\[501\] output 'logits': shared memory"):
        client.infer("digits", [given("input", ROWS)], outputs=[output])


def test_repository_and_statistics(client: Any) -> None:
    def state(version: str = "10") -> str:
        index = {(entry["name"], entry["version"]): entry["state"] for entry in client.get_model_repository_index()}
        found: str = index["digits", version]
        return found

    assert state() == "READY"
    client.unload_model("digits", unload_dependents=True)
    assert (state(), client.is_model_ready("digits")) == ("UNAVAILABLE", False)
    with pytest.raises(
        utils.InferenceServerException, match=r"\[503\] models: digits version 10 is not ready: unloaded"
    ):
        client.infer("digits", [given("input", ROWS)])
    client.load_model("digits")
    assert (state("9"), client.is_model_ready("digits")) == ("READY", True)
    client.infer("digits", [given("input", ROWS)])
    stats = client.get_inference_statistics("digits", "10")["model_stats"][0]
    assert (stats["inference_count"], stats["execution_count"]) == (5, 1)
    assert stats["inference_stats"]["success"]["count"] == 1
    assert stats["dispatch"].keys() == {"run_us", "threaded_us", "inline_rows"}
    assert stats["dispatch"]["run_us"] > 0
    assert len(client.get_inference_statistics("digits")["model_stats"]) == 2
    assert len(client.get_inference_statistics()["model_stats"]) > 10


def test_async_infer_by_greenlets(address: str) -> None:
    with http.InferenceServerClient(address, concurrency=4) as client:
        requests = [client.async_infer("plain", [given("input", ROWS + index)]) for index in range(20)]
        for index, request in enumerate(requests):
            logits = request.get_result().as_numpy("logits")
            np.testing.assert_allclose(logits, forward(LAYERS, ROWS + index), atol=1e-4)


def test_bodies_made_and_read_without_the_client(address: str) -> None:
    body, length = http.InferenceServerClient.generate_request_body([given("input", ROWS)])
    headers = {"Inference-Header-Content-Length": str(length)}
    answer = httpx.post(f"http://{address}/v2/models/plain/infer", content=body, headers=headers)
    result = http.InferenceServerClient.parse_response_body(
        answer.content, header_length=int(answer.headers["Inference-Header-Content-Length"])
    )
    np.testing.assert_allclose(result.as_numpy("logits"), forward(LAYERS, ROWS), atol=1e-5)


def test_bfloat16_beside_other_datatypes(client: Any) -> None:
    values = np.array([[1, -2.5, 384], [0, np.inf, 1e-20]], np.float32)  # the client cuts off what does not fit
    numbers = np.array([[1, -2, 3], [4, 5, 2**62]])
    bf16 = http.InferInput("x", [2, 3], "BF16").set_data_from_numpy(values)
    result = client.infer("half", [bf16, given("number", numbers)])
    cut = (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    np.testing.assert_array_equal(result.as_numpy("float"), cut / 2)
    np.testing.assert_array_equal(result.as_numpy("half"), cut / 2)
    np.testing.assert_array_equal(result.as_numpy("same"), numbers)
    best = http.InferRequestedOutput("half", class_count=1)
    classes = client.infer("half", [bf16, given("number", numbers)], outputs=[best]).as_numpy("half")
    assert [entry.decode() for entry in classes[:, 0]] == ["192.0:2", "inf:1"]
