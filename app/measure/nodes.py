"""Time of each node of a graph, by onnxruntime's profile."""

import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from app.measure.inputs.arrays import InputArrays
from app.measure.timed_session import TimedSession

RUNS = 50
WARM_UP = 5  # runs that are not counted
SECONDS = 0.5  # of runs of a model
MOST = 60  # nodes that are listed; the others are one entry
_KERNEL = "_kernel_time"
_TRIM = 5  # of so many runs of a node, the fastest and the slowest are not counted


def node_times(job: Mapping[str, Any], model: Mapping[str, Any], inputs: InputArrays) -> dict[str, Any]:
    """Measure the time of each node of a model at the largest batch size, as fields of `ModelNodes`.

    Args:
        job: `device`, `threads`, `batch_sizes`, and the path `inputs`, beside which the profile is written meanwhile.
        model: `name` and `path`.
        inputs: rows to run on.

    Raises:
        Refused: onnxruntime cannot load or run the model.
    """
    batch_size = max(job["batch_sizes"])
    session = TimedSession(
        model["name"],
        model["path"],
        device=job["device"],
        threads=job["threads"],
        profile=str(Path(job["inputs"]).parent / "profile"),
    )
    feed = session.feed(inputs, batch_size)
    end = time.monotonic() + SECONDS
    runs = 0
    while runs <= WARM_UP or (runs < WARM_UP + RUNS and time.monotonic() < end):
        session.run(feed)
        runs += 1
    profile = Path(session.end_profiling())
    try:
        events = orjson.loads(profile.read_bytes())
    finally:
        profile.unlink()
    return {"model": model["name"], "batch_size": batch_size, "runs": runs - WARM_UP, **_by_node(events)}


def _by_node(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Sum up the events of a profile by node, in the order of the graph."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    ops: dict[str, str] = {}
    starts = [event["ts"] for event in events if event["name"] == "model_run"]
    counted = sorted(starts)[WARM_UP]
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(_KERNEL) and event["ts"] >= counted:
            name = event["name"].removesuffix(_KERNEL)
            ops[name] = event["args"].get("op_name", "")
            times[name].append(float(event["dur"]))
    runs = len(starts) - WARM_UP
    mean = {name: _typical(each) * len(each) / runs for name, each in times.items()}
    slowest = sorted(mean, key=lambda name: -mean[name])
    kept, rest = set(slowest[:MOST]), slowest[MOST:]
    nodes = [{"name": name, "op": ops[name], "us": round(us, 2)} for name, us in mean.items() if name in kept]
    if rest:
        nodes.append({"name": f"{len(rest):,} others", "op": "", "us": round(sum(mean[name] for name in rest), 2)})
    return {"us": round(sum(mean.values()), 2), "nodes": nodes}


def _typical(times: list[float]) -> float:
    """Mean without the fastest and the slowest fifth: a profile has whole microseconds, which a median would keep."""
    cut = len(times) // _TRIM
    return float(np.mean(sorted(times)[cut : len(times) - cut]))
