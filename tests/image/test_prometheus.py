"""Prometheus scrapes the running container, and each query of the Grafana dashboard has an answer under load."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.app.conftest import wait_until
from tests.browser.service import free_port
from tests.image.container import Container

DEPLOY = Path(__file__).parents[2] / "deploy"
PATIENCE_SECONDS = 90.0
FAILURES = frozenset({"Failed requests", "Errors by reason"})


@pytest.fixture
def prometheus(models: Path, tmp_path: Path) -> Iterator[tuple[Container, httpx.Client]]:
    program = shutil.which("prometheus")
    if program is None:
        reason = "Prometheus is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with Container(models, "--env", "KRON_INSECURE_NO_KEYS=true") as container:
        text = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
        assert "kronmodel:8000" in text
        config = tmp_path / "prometheus.yml"
        config.write_text(text.replace("kronmodel:8000", f"localhost:{container.port}").replace(": 5s", ": 1s"))
        port = free_port()
        command = [program, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
        with subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                    yield container, client
            finally:
                process.terminate()


def test_each_panel_of_the_dashboard_has_data(prometheus: tuple[Container, httpx.Client]) -> None:
    container, client = prometheus
    panels = json.loads((DEPLOY / "grafana" / "kronmodel.json").read_text())["panels"]
    queries = [(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]
    assert len(queries) > 10

    def results(expression: str) -> list[object]:
        for variable, value in (("$__rate_interval", "10s"), ("$model", ".*"), ("$job", ".*")):
            expression = expression.replace(variable, value)
        try:
            answer = client.get("/api/v1/query", params={"query": expression})
        except httpx.ConnectError:  # it is starting
            return []
        if answer.status_code == 503:  # so it is still
            return []
        assert answer.is_success, answer.text
        return [series for series in answer.json()["data"]["result"] if series["value"][1] != "NaN"]

    with container.client() as service:

        def predict() -> None:
            service.post("/api/predict", json={"inputs": [[0.5] * 784] * 3}).raise_for_status()

        def fail() -> None:
            assert service.post("/v2/models/mnist-dense/infer", json={"inputs": []}).status_code == 400

        def has_data(call: Callable[[], None], expression: str) -> bool:
            call()
            return bool(results(expression))

        for title, expression in queries:
            wait_until(partial(has_data, fail if title in FAILURES else predict, expression), PATIENCE_SECONDS)
