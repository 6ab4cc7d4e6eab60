"""The real service, with the default twin, under requests that schemathesis makes up from its OpenAPI document."""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from app.access.keys import Role, make_key

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
# Short limits, so that no measurement and no training keeps the others waiting for long.
OPTIONS = (
    "--compare-seconds=10", "--sweep-seconds=40", "--train-seconds=20", "--log-level=warning", "--reports=:memory:",
)  # fmt: skip
MARGIN_SECONDS = 120  # beyond --seconds, for what schemathesis is in the midst of then


def main() -> int:
    """The exit code of schemathesis, or 1 where the service has not survived it."""
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--schemathesis", required=True, help="the program")
    parser.add_argument("--models", default="models")
    parser.add_argument("--seconds", type=int, default=240, help="how long to go on making requests up")
    parser.add_argument("rest", nargs="*", help="further options of `schemathesis run`")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as log:
        models = Path(folder, "models")
        shutil.copytree(options.models, models)  # trainings write there, too
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
                sys.exit(f"the service did not start: {log.read()}")
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
