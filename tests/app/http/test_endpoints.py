"""The driver of raw endpoints: every request is counted exactly once, whichever step it ends in."""

import asyncio
import gzip
import json
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

import pytest

from app.errors import BadRequest, KronError, TimedOut, UnsupportedEncoding
from app.http.endpoints import answer
from app.main import create_app
from app.routes.infer import RawInferRequest
from app.service import Service
from app.settings import Settings
from tests.app.graphs import classifier, publish, weights

PATH = "/v2/models/wide/infer"


def body(rows: int, columns: int = 6, **parameters: object) -> bytes:
    tensor = {"name": "input", "shape": [rows, columns], "datatype": "FP32", "data": [0.5] * rows * columns}
    return json.dumps({"inputs": [tensor], "parameters": parameters}).encode()


def run(folder: Path, test: Callable[[Service], Coroutine[None, None, None]], hidden: Sequence[int] = ()) -> None:
    publish(folder, "wide", classifier(weights([6, *hidden, 1000])))

    async def main() -> None:
        app = create_app(Settings(models=folder, reports="off"), up_when_loaded=True)
        async with app.router.lifespan_context(app):
            await test(app.state.service)

    asyncio.run(main())


def counts(service: Service) -> tuple[int, int]:
    """Requests answered and failed."""
    stages = service.repository.get("wide").statistics.dump()["inference_stats"]
    failures = [line for line in service.metrics.text().decode().splitlines() if "request_failure{" in line]
    success, failed = stages["success"]["count"], stages["fail"]["count"]
    assert sum(int(line.rpartition(" ")[2]) for line in failures) == failed
    assert f'nv_inference_request_success{{model="wide",version="1"}} {success}\n' in service.metrics.text().decode()
    return success, failed


@pytest.mark.parametrize(
    ("headers", "content", "error"),
    [
        ({b"content-encoding": b"br"}, body(1), UnsupportedEncoding),
        ({b"content-encoding": b"gzip"}, body(1), BadRequest),
        ({}, body(1, 5), BadRequest),
    ],
)
def test_a_failure_of_any_step_counts_once(
    tmp_path: Path, headers: dict[bytes, bytes], content: bytes, error: type[KronError]
) -> None:
    async def test(service: Service) -> None:
        with pytest.raises(error):
            await answer(RawInferRequest, service, PATH, headers, content)
        assert counts(service) == (0, 1)

    run(tmp_path, test)


def test_a_request_that_times_out_counts_once(tmp_path: Path) -> None:
    """The run takes a tenth of a second, so that it is not over before its timeout of a microsecond is noticed."""

    async def test(service: Service) -> None:
        with pytest.raises(TimedOut):
            await answer(RawInferRequest, service, PATH, {}, body(1000, timeout=1))
        assert counts(service) == (0, 1)

    run(tmp_path, test, hidden=[2000, 2000])


def test_an_answer_counts_once_also_with_compression(tmp_path: Path) -> None:
    async def test(service: Service) -> None:
        headers = {b"content-encoding": b"gzip", b"accept-encoding": b"gzip"}
        answered = await answer(RawInferRequest, service, PATH, headers, gzip.compress(body(2)))
        assert dict(answered.headers)[b"content-encoding"] == b"gzip"
        assert json.loads(gzip.decompress(answered.body))["model_name"] == "wide"
        assert counts(service) == (1, 0)

    run(tmp_path, test)


def test_a_request_that_is_cancelled_while_its_answer_is_compressed_counts_once(tmp_path: Path) -> None:
    """The model has answered: the client that disconnected afterwards is no failure of the model."""

    async def test(service: Service) -> None:
        task = asyncio.create_task(answer(RawInferRequest, service, PATH, {b"accept-encoding": b"gzip"}, body(200)))
        while counts(service) == (0, 0):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert counts(service) == (1, 0)

    run(tmp_path, test)
