"""Readiness of a service of several workers at its start, and refused connections at its end."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.app.conftest import PATIENT, environment, serving, wait_until
from tests.app.graphs import classifier, publish, weights

ROW = {"inputs": [[0.5] * 6], "models": ["plain"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    publish(tmp_path, "plain", classifier(weights([6, 3])))
    return tmp_path


def test_a_service_is_ready_only_once_every_worker_can_answer(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "app", "--port", str(port), "--models", str(folder), "--workers", "4"]
    with subprocess.Popen(command, env=environment(**PATIENT), stdout=subprocess.DEVNULL) as process:
        try:

            def ready() -> bool:
                try:
                    return httpx.get(f"{address}/v2/health/ready").is_success
                except httpx.TransportError:
                    return False

            wait_until(ready, seconds=120)
            answers = {httpx.post(f"{address}/api/predict", json=ROW, timeout=60).status_code for _ in range(32)}
            assert answers == {200}
        finally:
            process.send_signal(signal.SIGINT)


def test_new_connections_are_refused_after_the_drain_while_a_request_is_still_read(folder: Path) -> None:
    with serving(folder, workers=2, drain_seconds=0.5, expected_code=0) as server:
        host, port = server.address.removeprefix("http://").split(":")
        body = json.dumps(ROW).encode()
        with socket.create_connection((host, int(port))) as slow:
            head = f"POST /api/predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
            slow.sendall(head.encode() + body[:5])
            server.client.get("/v2/health/live")  # the workers have begun to read
            server.client.close()
            server.process.send_signal(signal.SIGTERM)

            def refused() -> bool:
                try:
                    socket.create_connection((host, int(port))).close()
                except ConnectionRefusedError:
                    return True
                return False

            wait_until(refused)
            slow.sendall(body[5:])
            assert slow.recv(100).startswith(b"HTTP/1.1 200 ")
        _, errors = server.process.communicate(timeout=40)
        assert "Traceback" not in errors
