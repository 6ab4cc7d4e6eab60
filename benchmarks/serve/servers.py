"""The servers of the table: how each is installed, started and asked."""

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
STARTS_WITHIN_S = 90.0
OURS = (f"--constraint={ROOT / 'constraints.txt'}", str(ROOT))
RUNTIME = ("onnxruntime==1.32.0", "numpy==2.4.6")


class Unavailable(KronError):  # noqa: N818
    """A server cannot be installed or started here; the table says so and goes on."""


@dataclass(frozen=True)
class Request:
    """What a client sends."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A server."""

    name: str
    environment: str  # the folder of its virtual environment
    requirements: Sequence[str] = ()
    command: Callable[[Path, int, Path], list[str]]  # python, port, scratch folder
    rows: dict[str, Callable[[str, Any], Request]]  # ways to ask, by name: model, inputs
    path: Path = APPS  # what Python finds there is the server's


def _json_rows(path: str) -> Callable[[str, Any], Request]:
    return lambda model, inputs: Request(path, orjson.dumps({"inputs": inputs}, option=orjson.OPT_SERIALIZE_NUMPY))


def _own(model: str, inputs: Any) -> Request:
    return Request(
        "/api/predict", orjson.dumps({"inputs": inputs, "models": [model]}, option=orjson.OPT_SERIALIZE_NUMPY)
    )


def _tensor(inputs: Any) -> dict[str, Any]:
    return {"name": "input", "shape": list(inputs.shape), "datatype": "FP32"}


def _v2(model: str, inputs: Any) -> Request:
    body = {"inputs": [_tensor(inputs) | {"data": inputs.ravel()}], "outputs": [{"name": "probabilities"}]}
    return Request(f"/v2/models/{model}/infer", orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))


def _v2_binary(model: str, inputs: Any) -> Request:
    blob = np.ascontiguousarray(inputs, "<f4").tobytes()
    head = orjson.dumps(
        {
            "inputs": [_tensor(inputs) | {"parameters": {"binary_data_size": len(blob)}}],
            "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}],
        }
    )
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Request(f"/v2/models/{model}/infer", head + blob, headers)


def _uvicorn(app: str) -> Callable[[Path, int, Path], list[str]]:
    return lambda python, port, scratch: [
        str(python), "-m", "uvicorn", app, "--app-dir", str(APPS), "--port", str(port), "--workers", "1",
        "--loop", "uvloop", "--http", "httptools", "--log-level", "warning", "--no-access-log", "--lifespan", "off",
    ]  # fmt: skip


def _ours(python: Path, port: int, scratch: Path) -> list[str]:
    return [str(python), "-m", "app", "--port", str(port), "--models", os.environ["BENCH_MODELS"]]


def _script(name: str) -> Callable[[Path, int, Path], list[str]]:
    return lambda python, port, scratch: [str(python), str(APPS / name)]


def _bento(python: Path, port: int, scratch: Path) -> list[str]:
    return [
        str(python), "-m", "bentoml", "serve", "bento_app:Service", "--working-dir", str(APPS), "--port", str(port),
        "--host", "127.0.0.1",
    ]  # fmt: skip


def _mlserver(python: Path, port: int, scratch: Path) -> list[str]:
    ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    settings = ports | {"host": "127.0.0.1", "parallel_workers": 0, "debug": False, "metrics_endpoint": None}
    (scratch / "settings.json").write_text(json.dumps(settings))
    model = {"name": os.environ["BENCH_NAME"], "implementation": "mlserver_model.OnnxModel"}
    (scratch / "model-settings.json").write_text(json.dumps(model))
    return [str(python), "-m", "mlserver.cli.main", "start", str(scratch)]


SERVERS = (
    Spec(
        name="kronmodel",
        environment="kronmodel",  # not this one, which holds torch and more
        requirements=OURS,
        command=_ours,
        path=ROOT,
        rows={"/api/predict": _own, "/v2 JSON": _v2, "/v2 binary": _v2_binary},
    ),
    Spec(
        name="bare ASGI echo",
        environment="kronmodel",
        requirements=OURS,
        command=_uvicorn("echo:app"),
        rows={"": _own},
    ),
    Spec(
        name="FastAPI, naive",
        environment="naive",
        requirements=("fastapi==0.165.0", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0", *RUNTIME),
        command=_uvicorn("naive:app"),
        rows={"": _json_rows("/predict")},
    ),
    Spec(
        name="MLServer",
        environment="mlserver",
        requirements=("mlserver==1.7.1", "onnxruntime==1.32.0"),
        command=_mlserver,
        rows={"/v2 JSON": _v2},
    ),
    Spec(
        name="LitServe",
        environment="litserve",
        requirements=("litserve==0.2.19", *RUNTIME),
        command=_script("litserve_app.py"),
        rows={"": _json_rows("/predict")},
    ),
    Spec(
        name="BentoML",
        environment="bentoml",
        requirements=("bentoml==1.4.38", *RUNTIME),
        command=_bento,
        rows={"": _json_rows("/predict")},
    ),
    Spec(
        name="Ray Serve",
        environment="ray",
        requirements=("ray[serve]==2.60.0", *RUNTIME),
        command=_script("ray_app.py"),
        rows={"": _json_rows("/predict")},
    ),
)


def install(spec: Spec, environments: Path) -> Path:
    """The Python of a server's environment, made if it is not there.

    Raises:
        Unavailable: pip refuses.
    """
    folder = environments / spec.environment
    python, stamp = folder / "bin" / "python", folder / ".ready"
    wanted = "\n".join(spec.requirements)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing {spec.name} into {folder} ...", file=sys.stderr, flush=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *spec.requirements]
    for command in ([sys.executable, "-m", "venv", str(folder)], pip):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            raise Unavailable(f"it does not install: {lines[-1][:200] if lines else done.returncode}")
    stamp.write_text(wanted)
    return python


class Running:
    """A server that runs, until it is stopped."""

    def __init__(self, spec: Spec, python: Path, scratch: Path, environment: dict[str, str], probe: Request) -> None:
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
                    "PYTHONPATH": str(spec.path),
                    "BENTOML_HOME": str(scratch),
                },
                cwd=scratch,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while self.ask(probe) != 200:
            if self._process.poll() is not None or time.monotonic() - started > STARTS_WITHIN_S:
                self.stop()
                lines = self._log.read_text(errors="replace").strip().splitlines() or ["it says nothing"]
                raise Unavailable(f"it does not start: {lines[-1][:200]}")
            time.sleep(0.02)
        self.ready_s = time.monotonic() - started
        print(f"{spec.name}: ready after {self.ready_s:.1f} s", file=sys.stderr, flush=True)

    def ask(self, request: Request) -> int:
        """The status of one request; 0 without an answer."""
        url = f"http://127.0.0.1:{self.port}{request.path}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, request.body, request.headers), timeout=20) as got:
                got.read()
                return int(got.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def usage(self) -> tuple[float, int]:
        """CPU seconds and resident bytes of the process and all its descendants; shared pages count each time."""
        ticks, pages = 0, 0
        for pid in self._tree():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            ticks += int(fields[11]) + int(fields[12])
            pages += int(fields[21])
        return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        """Return once it is gone, with all that it started."""
        tree = self._tree()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
        for pid in [*tree, self._process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()

    def _tree(self) -> list[int]:
        found, todo = [], [self._process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    todo += [int(child) for child in children.read_text().split()]
                except OSError:
                    continue
        return found


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
