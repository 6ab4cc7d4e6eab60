"""Metrics of several processes, and those that the Grafana dashboard uses."""

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx

from app.system.pidfiles import state_file
from app.telemetry.prometheus import Metrics
from tests.app.conftest import environment

DASHBOARD = Path(__file__).parents[3] / "deploy" / "grafana" / "kronmodel.json"

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


def test_waiting_requests_are_summed_over_living_processes_only(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    pids = [
        int(subprocess.run(command, check=True, env=environment(), timeout=60, capture_output=True).stdout)
        for _ in range(2)
    ]
    metrics = Metrics(tmp_path)
    for waiting, pid in zip((6, 3), pids, strict=True):
        assert f'\nnv_inference_pending_request_count{{model="a",version="3"}} {waiting}\n' in metrics.text().decode()
        state_file(tmp_path, pid).unlink()  # as the parent does when a worker has died
    assert '\nnv_inference_pending_request_count{model="a",version="3"} 0\n' in metrics.text().decode()


def test_the_service_exports_every_metric_of_the_dashboard(client: httpx.Client) -> None:
    client.post("/api/predict", content=b"{")
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [variable["query"] for variable in dashboard["templating"]["list"]]
    names = {name for text in asked for name in re.findall(r"\b(?:nv|kron|process)_[a-z_]+", text)}
    text = client.get("/metrics").text
    served = {re.split(r"[{ ]", line)[0] for line in text.splitlines() if not line.startswith("#")}
    assert len(names) >= 12
    assert names <= served
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)
