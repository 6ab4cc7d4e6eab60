"""The running service under test: started by `python -m app` on a folder of cases, called over sockets."""

import json
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from types import TracebackType
from typing import Any

import onnx

from tests.conformance.cases import Case

OPTIONS = (
    "--port=0", "--instances=1", "--threads=1", "--max-models=1000", "--load-seconds=3600", "--reports=:memory:",
    "--log-level=warning", "--max-body-bytes=268435456", "--predict-seconds=120", "--keep-alive-seconds=600",
    "--device=cpu", "--drain-seconds=0", "--trial-seconds=60", "--max-batch=65536",
)  # fmt: skip
HTTP_SECONDS = 180
# Served beside the cases: a service without any model does not start, and all cases may be refused.
ANCHOR = onnx.helper.make_model(
    onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "anchor",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
    ),
    opset_imports=[onnx.helper.make_opsetid("", 17)],
    ir_version=8,
).SerializeToString()


class ServiceError(Exception):
    """The service did not start, died, or broke the protocol."""


class Service:
    """A service of the given cases, for the duration of a `with` block.

    Args:
        cases: what to serve.
        options: further options of `kronserve`.
    """

    def __init__(self, cases: Iterable[Case], options: Sequence[str] = ()) -> None:
        self._cases = list(cases)
        self._options = options
        self._connections: list[socket.socket] = []

    def __enter__(self) -> "Service":
        self._folder = tempfile.TemporaryDirectory(prefix="conformance-")
        models = Path(self._folder.name, "models")
        sources = {case.name: case.model for case in self._cases}
        for name, model in {"anchor": ANCHOR, **sources}.items():
            folder = models / name / "1"
            folder.mkdir(parents=True)
            if isinstance(model, bytes):
                (folder / "model.onnx").write_bytes(model)
            else:
                shutil.copy(model, folder / "model.onnx")
        self._log = Path(self._folder.name, "log").open("w+")
        # In a session of its own, so that Ctrl-C reaches this process first, which then stops the service.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "app", f"--models={models}", *OPTIONS, *self._options],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        return self

    def wait_until_ready(self) -> None:
        """Wait for the address that the service prints once its models are loaded."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := re.search(r"http://([\d.]+):(\d+)", line):
                self._address = found[1], int(found[2])
                return
        raise ServiceError(f"the service did not start; its log: {self.log()[-4000:]}")

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        for connection in self._connections:
            connection.close()
        was_alive = self.is_alive()
        if was_alive:
            os.kill(self._process.pid, signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        log = self.log()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()
        self._folder.cleanup()
        if error is None and not was_alive:
            raise ServiceError(f"the service died; its log: {log[-4000:]}")

    def is_alive(self) -> bool:
        """Whether its process has not ended."""
        return self._process.poll() is None

    def log(self) -> str:
        """What the service has logged so far."""
        return Path(self._log.name).read_text(errors="replace")

    def get(self, path: str) -> tuple[int, Any]:
        """Send a GET request; status and JSON."""
        return self._json(b"GET", path, b"")

    def post(self, path: str, body: bytes) -> tuple[int, Any]:
        """Send a POST request of JSON; status and JSON."""
        return self._json(b"POST", path, body)

    def _json(self, method: bytes, path: str, body: bytes) -> tuple[int, Any]:
        (answer,) = self.exchange([_request(method, path, body, {})])
        return answer[0], json.loads(answer[2])

    def infer(
        self, name: str, requests: Sequence[tuple[bytes, int | None]]
    ) -> list[tuple[int, Mapping[str, str], bytes]]:
        """Send inference requests at the same time, each in its own connection.

        Several requests are written while the service is stopped, so that all of them are there when it continues.

        Args:
            name: of the model.
            requests: for each its body and the length of the JSON in it; None if all of it is JSON.

        Returns:
            For each status, headers and body.
        """
        return self.exchange(
            [
                _request(
                    b"POST",
                    f"/v2/models/{name}/infer",
                    body,
                    {} if length is None else {"Inference-Header-Content-Length": str(length)},
                )
                for body, length in requests
            ]
        )

    def exchange(self, requests: Sequence[bytes]) -> list[tuple[int, Mapping[str, str], bytes]]:
        """Send whole requests at the same time, and read the answers."""
        while len(self._connections) < len(requests):
            opened = socket.create_connection(self._address, timeout=HTTP_SECONDS)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections.append(opened)
        connections = self._connections[: len(requests)]
        try:
            self._send(connections, requests)
            return [self._receive(index, connection) for index, connection in enumerate(connections)]
        except (OSError, HTTPException) as error:
            for connection in self._connections:
                connection.close()
            self._connections = []
            raise ServiceError(f"no answer ({error!r}); exit code {self._process.poll()}") from error

    def _send(self, connections: Sequence[socket.socket], requests: Sequence[bytes]) -> None:
        if len(requests) == 1:
            connections[0].sendall(requests[0])
            return
        rest = {connection: memoryview(request) for connection, request in zip(connections, requests, strict=True)}
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            for connection in connections:  # as much as the buffers of the sockets hold
                connection.setblocking(False)
                while rest[connection]:
                    try:
                        rest[connection] = rest[connection][connection.send(rest[connection]) :]
                    except BlockingIOError:
                        break
        finally:
            os.kill(self._process.pid, signal.SIGCONT)
        with selectors.DefaultSelector() as selector:
            for connection in connections:
                if rest[connection]:
                    selector.register(connection, selectors.EVENT_WRITE)
            while selector.get_map():
                ready = selector.select(HTTP_SECONDS)
                if not ready:
                    raise TimeoutError("the service does not read the requests")
                for key, _ in ready:
                    connection = key.fileobj  # type: ignore[assignment]
                    rest[connection] = rest[connection][connection.send(rest[connection][: 2**20]) :]
                    if not rest[connection]:
                        selector.unregister(connection)
        for connection in connections:
            connection.settimeout(HTTP_SECONDS)

    def _receive(self, index: int, connection: socket.socket) -> tuple[int, Mapping[str, str], bytes]:
        response = HTTPResponse(connection)
        response.begin()
        answer = response.status, {key.lower(): value for key, value in response.getheaders()}, response.read()
        if response.will_close:
            connection.close()
            opened = socket.create_connection(self._address, timeout=HTTP_SECONDS)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[index] = opened
        return answer


def _request(method: bytes, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    head = [f"{method.decode()} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    if body:
        head.append(
            "Content-Type: application/" + ("octet-stream" if headers else "json"),
        )
    head += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*head, "", ""]).encode() + body
