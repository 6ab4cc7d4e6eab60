"""The Grafana dashboard asks for nothing that the service does not have."""

import json
import re
from pathlib import Path

import httpx

DASHBOARD = Path(__file__).parents[3] / "deploy" / "grafana" / "kronmodel.json"


def test_every_metric_of_the_dashboard_is_there(client: httpx.Client) -> None:
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
