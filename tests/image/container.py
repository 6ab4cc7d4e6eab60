"""A container of the image, run by the engine that `make test-image` names."""

import json
import os
import re
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from tests.app.conftest import wait_until
from tests.browser.service import free_port

ENGINE = os.environ.get("KRONMODEL_ENGINE", "docker")
IMAGE = os.environ.get("KRONMODEL_IMAGE", "kronmodel:latest")
PATIENCE_SECONDS = 60.0
# What the manifests of deploy/ give, and no more: nothing may be written to but /tmp.
LOCKED_DOWN = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
HEALTH = ("python", "-I", "-S", "/usr/local/bin/kronserve-health")


def engine(*arguments: str, check: bool = True, seconds: float = 120) -> str:
    """Call the engine and return its standard output."""
    done = subprocess.run([ENGINE, *arguments], capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0 or not check, f"{' '.join(arguments)}: {done.stderr}"
    return done.stdout


def run(*arguments: str, models: Path | None = None, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a container to its end."""
    volume = () if models is None else ("--volume", f"{models}:/models")
    return subprocess.run(
        [ENGINE, "run", "--rm", *volume, *options, IMAGE, *arguments],
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip


class Container:
    """A container that serves a folder of models, removed at the end of the context.

    Args:
        models: the folder; None if the image or a volume among the options has one.
        options: of `run`.
        host_network: use this machine's network, without an interface of its own. A browser that runs here breaks off
            its requests whenever an interface comes or gets its address (ERR_NETWORK_CHANGED).
        ready: enter the context when the service is ready.
        image: another image than the one that is tested.
    """

    def __init__(
        self, models: Path | None, *options: str, host_network: bool = False, ready: bool = True, image: str = IMAGE
    ) -> None:
        volume = () if models is None else ("--volume", f"{models}:/models")
        self.port = free_port()
        self.url = f"http://localhost:{self.port}"
        network = (
            ("--network", "host", "--env", f"KRON_PORT={self.port}")
            if host_network
            else ("--publish", f"{self.port}:8000")
        )
        self._command = ("run", "--detach", *network, *volume, *options, image)
        self._ready = ready
        self.id = ""

    def __enter__(self) -> "Container":
        self.id = engine(*self._command).strip().splitlines()[-1]
        if self._ready:
            try:
                self.wait_until_ready()
            except BaseException:
                self._remove()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(self.logs())
        self._remove()

    def _remove(self) -> None:
        engine("kill", self.id, check=False)  # podman's forced removal would wait for the service to drain
        engine("rm", "--force", self.id)

    def wait_until_ready(self) -> None:
        """Wait until the service is ready."""
        wait_until(self._is_ready, PATIENCE_SECONDS)

    def _is_ready(self) -> bool:
        assert self.is_running, self.logs()
        try:
            return httpx.get(f"{self.url}/v2/health/ready", timeout=5).is_success
        except httpx.HTTPError:
            return False

    @property
    def is_running(self) -> bool:
        return bool(self.state["Running"])

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(engine("inspect", self.id))[0]["State"]
        return state

    def logs(self) -> str:
        """Standard output and standard error."""
        done = subprocess.run([ENGINE, "logs", self.id], capture_output=True, text=True, timeout=60, check=False)
        # The engine's own messages, such as that there is no systemd for timers, are no JSON.
        return "\n".join(line for line in (done.stdout + done.stderr).splitlines() if line.startswith("{"))

    def messages(self) -> list[str]:
        return [json.loads(line)["message"] for line in self.logs().splitlines()]

    def key(self) -> str:
        """The key that the service generated."""
        found = re.findall(r"It is printed only now: (\S{43})", self.logs())
        assert len(found) == 1, self.logs()
        return str(found[0])

    def client(self, key: str | None = None) -> httpx.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, timeout=PATIENCE_SECONDS, headers=headers)

    def stop(self, seconds: int = 40) -> int:
        """Stop the container by SIGTERM and return its exit code; SIGKILL follows after the seconds."""
        engine("stop", "--time", str(seconds), self.id)
        return int(self.state["ExitCode"])
