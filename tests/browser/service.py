"""The service in its own process, which a test can stop and restart."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

STARTS_WITHIN_S = 60.0
STOPS_WITHIN_S = 15.0
# Long limits, as the machine may be busy; no time for load balancers to notice a shutdown.
PATIENT = ["--host", "127.0.0.1", "--compare-seconds", "250", "--predict-seconds", "120", "--drain-seconds", "0"]


def free_port() -> int:
    """Return an unused port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


class Service:
    """Runs `kronserve` on a port while the context lasts."""

    def __init__(self, models: Path, *options: str) -> None:
        self.models = models
        self.options = options
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Service":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the service and wait until it answers."""
        command = [sys.executable, "-m", "app", "--models", str(self.models), "--port", str(self.port), *PATIENT]
        self._process = subprocess.Popen([*command, *self.options])
        end = time.monotonic() + STARTS_WITHIN_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                code = self._process.poll()
                self.stop()
                raise RuntimeError(f"the service did not start: exit status {code}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop the service and wait until its process has ended."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _answers(self) -> bool:
        """Check that loading has ended; a repository without models is never ready. The path needs no key."""
        try:
            with urllib.request.urlopen(f"{self.url}/v2/health/ready", timeout=5):
                return True
        except urllib.error.HTTPError as error:
            return b"still loading" not in error.read()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
