"""Fuzz the real service, with the default twin, by requests that schemathesis generates from its OpenAPI document."""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from app.access.keys import Role, make_key

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
# Short limits: comparisons, sweeps and trainings run one at a time, and each blocks the next.
OPTIONS = (
    "--compare-seconds=10", "--sweep-seconds=40", "--train-seconds=20", "--log-level=warning", "--reports=:memory:",
)  # fmt: skip
MARGIN_SECONDS = 120  # for schemathesis to end after --seconds: it completes the requests in progress


def main() -> int:
    """Run the fuzzer.

    Returns:
        Exit code of schemathesis, or 1 if the service has died or logged an error.
    """
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--schemathesis", required=True, help="path of the program schemathesis")
    parser.add_argument("--models", default="models", help="model repository with the default twin; it is copied")
    parser.add_argument("--seconds", type=int, default=240, help="duration of the fuzzing")
    parser.add_argument("rest", nargs="*", help="further options of `schemathesis run`")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as log:
        models = Path(folder, "models")
        shutil.copytree(options.models, models)  # trainings that are requested write there
        key, line = make_key("fuzz", Role.admin)
        keys = Path(folder, "keys")
        keys.write_text(line)
        service = subprocess.Popen(
            [sys.executable, "-m", "app", "--port=0", f"--models={models}", f"--keys={keys}", *OPTIONS],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            assert service.stdout is not None
            address = next((found[0] for line in service.stdout if (found := re.search(r"http://\S+", line))), None)
            if address is None:
                log.seek(0)
                sys.exit(f"the service did not start; its log: {log.read()}")
            command = [options.schemathesis, "--config-file", str(CONFIGURATION), "run", f"{address}/openapi.json"]
            command += ["--max-time", str(options.seconds), "--header", f"Authorization: Bearer {key}", *options.rest]
            code = subprocess.run(command, check=False, timeout=options.seconds + MARGIN_SECONDS).returncode
            alive = service.poll() is None
        finally:
            service.terminate()
            service.wait(timeout=60)
        log.seek(0)
        errors = [line for line in log if "ERROR" in line or "Traceback" in line]
    if not alive or errors:
        print(f"the service {'logged errors' if alive else 'died'}:", *errors[:20], sep="\n", file=sys.stderr)
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
