"""`kronserve sweep`: parse its options, measure synthetic networks, and print where Kronecker becomes faster."""

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from app.cli.arguments import AddOptions, numbers, print_json, request_of
from app.settings import Settings, option

if TYPE_CHECKING:
    from app.measure.sweep_schemas import SweepReport, SweepRequest


def add_sweep(commands: Any, add_options: AddOptions) -> None:
    """Add the parser of `kronserve sweep`; arguments as in `app.cli.comparison.add_compare`."""
    parser = commands.add_parser(
        "sweep",
        help="find the width from which Kronecker networks are faster than dense ones on this machine",
        description="Measure synthetic Kronecker and dense networks of the same widths side by side.",
    )
    add = parser.add_argument
    add(
        "--widths",
        metavar="N,N",
        help="numbers of features of the layers, square numbers (default: 64,256,784,1024,2304)",
    )
    add("--ranks", metavar="N,N", help="Kronecker ranks (default: 1,2)")
    add("--batch-sizes", metavar="N,N", help="batch sizes (default: 1,32)")
    add("--threads", dest="thread_counts", metavar="N,N", help="numbers of threads of one run (default: 1)")
    add("--layers", type=int, metavar="N", help="number of layers of each network (default: 2)")
    add("--seconds", type=float, metavar="S", help="approximate limit of the total time of timed runs (default: 30)")
    add("--json", action="store_true", help="print the report as one JSON object")
    add_options(parser, ["device", "max_batch", "sweep_seconds", "log_level"])


def sweep(settings: Settings, parsed: argparse.Namespace) -> int:
    """Run `kronserve sweep`; returns the exit code 0."""
    from app.measure.sweep_schemas import SweepRequest

    lists = {"widths": parsed.widths, "ranks": parsed.ranks, "batch_sizes": parsed.batch_sizes,
             "threads": parsed.thread_counts}  # fmt: skip
    fields = {name: numbers(option(name), text) for name, text in lists.items() if text}
    fields |= {name: value for name in ("layers", "seconds") if (value := getattr(parsed, name)) is not None}
    device = None if settings.device == "auto" else settings.device
    report = asyncio.run(_sweep(settings, request_of(fields | {"device": device}, SweepRequest)))
    if parsed.json:
        print_json(report.model_dump(mode="json"))
    else:
        from app.cli.tables import print_sweep

        print_sweep(report)
    return 0


async def _sweep(settings: Settings, request: "SweepRequest") -> "SweepReport":
    """Run a sweep within its time limit; shows progress on standard error."""
    from app.cli.tables import progress_bar
    from app.jobs.job import time_limit
    from app.measure.sweep import LIMIT_NAME, check, sweep

    check(request, settings)
    with progress_bar() as progress:
        async with time_limit("sweep", settings.sweep_seconds, LIMIT_NAME):
            return await sweep(request, settings, progress, lambda cells: None)
