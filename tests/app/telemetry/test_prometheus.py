"""What only metrics themselves can tell; the rest is tested where it is counted."""

import subprocess
import sys
from pathlib import Path

from app.system.pidfiles import state_file
from app.telemetry.prometheus import Metrics
from tests.app.conftest import environment

CHILD = """
import os, sys
from pathlib import Path
from app.telemetry.prometheus import Metrics
from app.system.pidfiles import state_file

class Engine:
    pass

folder = Path(sys.argv[1])
metrics, engine = Metrics(folder), Engine()
state_file(folder, os.getpid()).write_text("[]")
metrics.add_model(engine, "a", "3", provider="CPUExecutionProvider", threads=1)
metrics.queued(engine, 5)
metrics.queued(engine, -2)
print(os.getpid())
"""


def test_requests_wait_in_every_process_but_not_in_one_that_has_died(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    pids = [
        int(subprocess.run(command, check=True, env=environment(), timeout=60, capture_output=True).stdout)
        for _ in range(2)
    ]
    metrics = Metrics(tmp_path)
    for waiting, pid in zip((6, 3), pids, strict=True):
        assert f'\nnv_inference_pending_request_count{{model="a",version="3"}} {waiting}\n' in metrics.text().decode()
        state_file(tmp_path, pid).unlink()  # as whoever sees it die does
    assert '\nnv_inference_pending_request_count{model="a",version="3"} 0\n' in metrics.text().decode()
