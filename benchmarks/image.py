"""Start of the container image: time from the start of the container's first process until the service is ready.

Run `make bench-image` on an otherwise idle machine, with the default twin in `models/`.
"""

import argparse
import json
import statistics
import subprocess
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PORT = 18080
READY = f"http://127.0.0.1:{PORT}/v2/health/ready"
PATIENCE_SECONDS = 120.0


def main() -> None:
    """Start containers one after the other, and print their times until ready."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="podman", help="docker or podman")
    parser.add_argument("--image", default="kronmodel:latest")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--starts", type=int, default=10)
    options = parser.parse_args()
    seconds = []
    for number in range(1, options.starts + 1):
        seconds.append(measure_start(options.engine, options.image, options.models.resolve()))
        print(f"start {number}: ready after {seconds[-1]:.2f} s", flush=True)
    size = int(inspect(options.engine, "image", options.image)["Size"])
    print(f"image: {size / 1e6:.0f} MB unpacked")
    print(f"ready after {min(seconds):.2f} to {max(seconds):.2f} s, median {statistics.median(seconds):.2f} s")


def measure_start(engine: str, image: str, models: Path) -> float:
    """Seconds from the start of a new container's first process until its service is ready."""
    command = [
        engine, "run", "--detach", "--publish", f"127.0.0.1:{PORT}:8000", "--volume", f"{models}:/models:ro",
        "--read-only", "--tmpfs", "/tmp", "--env", "KRON_INSECURE_NO_KEYS=true", image,
    ]  # fmt: skip
    started = subprocess.run(command, check=True, capture_output=True, text=True)
    container = started.stdout.strip().splitlines()[-1]
    try:
        wait_until_ready()
        now = datetime.now(UTC)
        began = inspect(engine, "container", container)["State"]["StartedAt"]
        return (now - datetime.fromisoformat(began)).total_seconds()
    finally:
        subprocess.run([engine, "rm", "--force", container], check=True, capture_output=True)


def wait_until_ready() -> None:
    """Wait until the service says that it is ready."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(READY, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.01)
    raise SystemExit(f"not ready within {PATIENCE_SECONDS:g} s")


def inspect(engine: str, kind: str, name: str) -> dict[str, Any]:
    """What the engine knows of a container or an image."""
    done = subprocess.run([engine, kind, "inspect", name], check=True, capture_output=True, text=True)
    described: dict[str, Any] = json.loads(done.stdout)[0]
    return described


if __name__ == "__main__":
    main()
