"""Measuring process of a sweep: Kronecker networks beside a dense network of the same width."""

import gc
from collections.abc import Mapping
from functools import partial
from typing import Any

from app.measure import bootstrap, timing
from app.measure.inputs.generated import random_rows
from app.measure.timed_session import TimedSession


def main() -> None:
    """Receive a job, measure, and send the result."""
    gc.disable()  # no collection in the middle of a timed run
    timing.run_job(_measure)


def _measure(job: Mapping[str, Any]) -> dict[str, object]:
    """Time the networks of one width; fields of `Cell` for each rank and batch size."""
    from app.measure import synthetic  # imported here: the service imports this module and must not load onnx

    width, ranks, sizes, layers, seed = (job[key] for key in ("width", "ranks", "batch_sizes", "layers", "seed"))
    networks = [(f"rank {rank}", synthetic.kronecker(width, rank, layers=layers, seed=seed)) for rank in ranks]
    networks.append(("dense", synthetic.dense(width, layers=layers, seed=seed)))
    options = {"device": job["device"], "threads": job["threads"]}
    openers = [partial(TimedSession, f"width {width}, {name}", content, **options) for name, content in networks]
    times = timing.time_models(
        openers,
        random_rows(openers[0]().interface, max(sizes)),
        sizes,
        seconds_per_cell=job["seconds_per_cell"],
        seed=seed,
        stage=f"width {width}, {job['threads']} threads" if job["threads"] > 1 else f"width {width}",
    )
    latencies, pairs = bootstrap.latencies_and_ratios(times, sizes, seed)
    dense = len(ranks)  # the position of the dense network
    cells = []
    for pair in pairs:
        if pair["b"] != dense:
            continue
        size = sizes.index(pair["batch_size"])
        kronecker, other, rank = latencies[pair["a"]][size], latencies[dense][size], ranks[pair["a"]]
        cells.append(
            {
                "width": width,
                "rank": rank,
                "batch_size": pair["batch_size"],
                "threads": job["threads"],
                "dense_p50_us": other["p50_us"],
                "kronecker_p50_us": kronecker["p50_us"],
                "ratio": round(pair["ratio"], 4),
                "low": round(pair["low"], 4),
                "high": round(pair["high"], 4),
                "verdict": bootstrap.verdict(pair["low"], pair["high"]),
                "n": kronecker["n"],
                "unstable": kronecker["unstable"] or other["unstable"],
                "macs_ratio": round(
                    synthetic.dense_macs(width, layers) / synthetic.kronecker_macs(width, rank, layers), 4
                ),
            }
        )
    return {"cells": cells, "provider": openers[0]().provider}


if __name__ == "__main__":
    main()
