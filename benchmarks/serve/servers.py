"""Servers that are measured: installation, start, and the requests that each accepts."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from app.errors import KronError

APPS = Path(__file__).parent / "apps"
ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 90.0
KRONMODEL_REQUIREMENTS = (f"--constraint={ROOT / 'constraints.txt'}", str(ROOT))
RUNTIME_REQUIREMENTS = ("onnxruntime==1.32.0", "numpy==2.4.6")


class Unavailable(KronError):  # noqa: N818
    """A server cannot be installed, or started on this machine; the table is made without it."""


@dataclass(frozen=True)
class Request:
    """HTTP POST request to a server."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


@dataclass(frozen=True, kw_only=True)
class ServerSpec:
    """Installation, command and request formats of a server."""

    name: str
    environment: str  # folder of the virtual environment; several servers may share one
    requirements: Sequence[str] = ()
    command: Callable[[Path, int, Path], list[str]]  # from the Python executable, the port and a scratch folder
    request_builders: dict[str, Callable[[str, Any], Request]]  # by request format; from model name and inputs
    python_path: Path = APPS  # PYTHONPATH of the server


def _json_request(path: str) -> Callable[[str, Any], Request]:
    return lambda model, inputs: Request(path, orjson.dumps({"inputs": inputs}, option=orjson.OPT_SERIALIZE_NUMPY))


def _predict_request(model: str, inputs: Any) -> Request:
    return Request(
        "/api/predict", orjson.dumps({"inputs": inputs, "models": [model]}, option=orjson.OPT_SERIALIZE_NUMPY)
    )


def _tensor_metadata(inputs: Any) -> dict[str, Any]:
    return {"name": "input", "shape": list(inputs.shape), "datatype": "FP32"}


def _v2_json_request(model: str, inputs: Any) -> Request:
    body = {"inputs": [_tensor_metadata(inputs) | {"data": inputs.ravel()}], "outputs": [{"name": "probabilities"}]}
    return Request(f"/v2/models/{model}/infer", orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))


def _v2_binary_request(model: str, inputs: Any) -> Request:
    data = np.ascontiguousarray(inputs, "<f4").tobytes()
    header = orjson.dumps(
        {
            "inputs": [_tensor_metadata(inputs) | {"parameters": {"binary_data_size": len(data)}}],
            "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}],
        }
    )
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(header))}
    return Request(f"/v2/models/{model}/infer", header + data, headers)


def _uvicorn_command(app: str) -> Callable[[Path, int, Path], list[str]]:
    return lambda python, port, scratch: [
        str(python), "-m", "uvicorn", app, "--app-dir", str(APPS), "--port", str(port), "--workers", "1",
        "--loop", "uvloop", "--http", "httptools", "--log-level", "warning", "--no-access-log", "--lifespan", "off",
    ]  # fmt: skip


def _kronmodel_command(python: Path, port: int, scratch: Path) -> list[str]:
    return [str(python), "-m", "app", "--port", str(port), "--models", os.environ["BENCH_MODELS"]]


def _script_command(name: str) -> Callable[[Path, int, Path], list[str]]:
    return lambda python, port, scratch: [str(python), str(APPS / name)]


def _bento_command(python: Path, port: int, scratch: Path) -> list[str]:
    return [
        str(python), "-m", "bentoml", "serve", "bento_app:Service", "--working-dir", str(APPS), "--port", str(port),
        "--host", "127.0.0.1",
    ]  # fmt: skip


def _mlserver_command(python: Path, port: int, scratch: Path) -> list[str]:
    ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    settings = ports | {"host": "127.0.0.1", "parallel_workers": 0, "debug": False, "metrics_endpoint": None}
    (scratch / "settings.json").write_text(json.dumps(settings))
    model = {"name": os.environ["BENCH_NAME"], "implementation": "mlserver_model.OnnxModel"}
    (scratch / "model-settings.json").write_text(json.dumps(model))
    return [str(python), "-m", "mlserver.cli.main", "start", str(scratch)]


SERVERS = (
    ServerSpec(
        name="kronmodel",
        environment="kronmodel",  # separate, since .venv has torch and more
        requirements=KRONMODEL_REQUIREMENTS,
        command=_kronmodel_command,
        python_path=ROOT,
        request_builders={
            "/api/predict": _predict_request,
            "/v2 JSON": _v2_json_request,
            "/v2 binary": _v2_binary_request,
        },
    ),
    ServerSpec(
        name="bare ASGI echo",
        environment="kronmodel",
        requirements=KRONMODEL_REQUIREMENTS,
        command=_uvicorn_command("echo:app"),
        request_builders={"": _predict_request},
    ),
    ServerSpec(
        name="FastAPI, naive",
        environment="naive",
        requirements=(
            "fastapi==0.165.0",
            "uvicorn==0.54.0",
            "uvloop==0.23.0",
            "httptools==0.9.0",
            *RUNTIME_REQUIREMENTS,
        ),
        command=_uvicorn_command("naive:app"),
        request_builders={"": _json_request("/predict")},
    ),
    ServerSpec(
        name="MLServer",
        environment="mlserver",
        requirements=("mlserver==1.7.1", "onnxruntime==1.32.0"),
        command=_mlserver_command,
        request_builders={"/v2 JSON": _v2_json_request},
    ),
    ServerSpec(
        name="LitServe",
        environment="litserve",
        requirements=("litserve==0.2.19", *RUNTIME_REQUIREMENTS),
        command=_script_command("litserve_app.py"),
        request_builders={"": _json_request("/predict")},
    ),
    ServerSpec(
        name="BentoML",
        environment="bentoml",
        requirements=("bentoml==1.4.38", *RUNTIME_REQUIREMENTS),
        command=_bento_command,
        request_builders={"": _json_request("/predict")},
    ),
    ServerSpec(
        name="Ray Serve",
        environment="ray",
        requirements=("ray[serve]==2.60.0", *RUNTIME_REQUIREMENTS),
        command=_script_command("ray_app.py"),
        request_builders={"": _json_request("/predict")},
    ),
)


def install(spec: ServerSpec, environments: Path) -> Path:
    """Create a server's virtual environment if it is missing or has other requirements.

    Returns:
        Path of the environment's Python executable.

    Raises:
        Unavailable: pip cannot install the requirements.
    """
    folder = environments / spec.environment
    # The file holds the requirements that are installed; it is written last.
    python, ready_file = folder / "bin" / "python", folder / ".ready"
    requirements = "\n".join(spec.requirements)
    if python.exists() and ready_file.exists() and ready_file.read_text() == requirements:
        return python
    print(f"installing {spec.name} into {folder} ...", file=sys.stderr, flush=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *spec.requirements]
    for command in ([sys.executable, "-m", "venv", str(folder)], pip):
        completed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
        if completed.returncode:
            lines = completed.stderr.splitlines()
            errors = [line for line in lines if line.startswith("ERROR")] or lines
            raise Unavailable(f"its installation failed: {errors[-1][:200] if errors else completed.returncode}")
    ready_file.write_text(requirements)
    return python


class RunningServer:
    """Server process with its children, started by the constructor, which waits until the server is ready.

    Args:
        spec: of the server.
        python: executable of its virtual environment.
        scratch: folder to create for its files and log.
        environment: environment variables.
        readiness_request: sent until its response has status 200.

    Raises:
        Unavailable: the server has exited, or is not ready in time.
    """

    def __init__(
        self, spec: ServerSpec, python: Path, scratch: Path, environment: dict[str, str], readiness_request: Request
    ) -> None:
        scratch.mkdir(parents=True)
        self.port = free_port()
        self._log = scratch / "log.txt"
        with self._log.open("wb") as log:
            started = time.monotonic()
            self._process = subprocess.Popen(
                spec.command(python, self.port, scratch),
                env={
                    **environment,
                    "BENCH_PORT": str(self.port),
                    "PYTHONPATH": str(spec.python_path),
                    "BENTOML_HOME": str(scratch),
                },
                cwd=scratch,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while self.send(readiness_request) != 200:
            if self._process.poll() is not None or time.monotonic() - started > START_TIMEOUT_S:
                self.stop()
                lines = self._log.read_text(errors="replace").strip().splitlines() or ["its log is empty"]
                raise Unavailable(f"it did not start: {lines[-1][:200]}")
            time.sleep(0.02)
        self.ready_s = time.monotonic() - started
        print(f"{spec.name}: ready after {self.ready_s:.1f} s", file=sys.stderr, flush=True)

    def send(self, request: Request) -> int:
        """Send one request and return the status of the response, or 0 if there is none."""
        url = f"http://127.0.0.1:{self.port}{request.path}"
        try:
            post = urllib.request.Request(url, request.body, request.headers)
            with urllib.request.urlopen(post, timeout=20) as response:
                response.read()
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def usage(self) -> tuple[float, int]:
        """CPU seconds and resident bytes of the process and all its descendants, counting shared pages in each."""
        ticks, pages = 0, 0
        for pid in self._process_ids():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            ticks += int(fields[11]) + int(fields[12])
            pages += int(fields[21])
        return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        """Terminate the process, kill the descendants that it leaves, and wait for its end."""
        pids = self._process_ids()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
        for pid in [*pids, self._process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()

    def _process_ids(self) -> list[int]:
        """Ids of the process and all its descendants."""
        found, pending = [], [self._process.pid]
        while pending:
            pid = pending.pop()
            found.append(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    pending += [int(child) for child in children.read_text().split()]
                except OSError:
                    continue
        return found


def free_port() -> int:
    """TCP port of 127.0.0.1 that is not in use at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
