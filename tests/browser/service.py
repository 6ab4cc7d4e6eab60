"""The real service in a process of its own, which a test may also stop and start again."""

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
# Others may need the cores; and when it stops, nobody has to be told first.
PATIENT = ["--host", "127.0.0.1", "--compare-seconds", "250", "--predict-seconds", "120", "--drain-seconds", "0"]


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


class Service:
    """`kronserve` on one port, for as long as the context lasts."""

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
        """Return once it answers."""
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
        """Return once it is gone."""
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
        """Past loading: a repository without models is never ready. Health needs no key and counts no failure."""
        try:
            with urllib.request.urlopen(f"{self.url}/v2/health/ready", timeout=5):
                return True
        except urllib.error.HTTPError as error:
            return b"still loading" not in error.read()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
