"""`kronserve selftest`: compare models with known differences, and print whether the comparisons find them."""

import argparse
import asyncio
import sys
from typing import Any

from app.cli.arguments import AddOptions, print_json, request_of
from app.errors import StartupError
from app.settings import Settings


def add_selftest(commands: Any, add_options: AddOptions) -> None:
    """Add the parser of `kronserve selftest`; arguments as in `app.cli.comparison.add_compare`."""
    parser = commands.add_parser(
        "selftest",
        help="check that comparisons are correct on this machine",
        description="Compare models with known differences; exit code 1 if a comparison reports other differences.",
    )
    add = parser.add_argument
    add("--runs", type=int, default=20, metavar="N", help="number of comparisons of a model with itself (default: 20)")
    add(
        "--seconds",
        type=float,
        metavar="S",
        help="approximate time of timed runs in each comparison (default: as in `kronserve compare`)",
    )
    add(
        "--depths",
        default="session",
        metavar="D,D",
        help="layers to measure latency at: session, queue, http (default: session)",
    )
    add("--json", action="store_true", help="print the checks as one JSON object")
    add_options(parser, ["device", "threads", "compare_seconds", "log_level"])


def selftest(settings: Settings, parsed: argparse.Namespace) -> int:
    """Run `kronserve selftest`.

    Returns:
        The exit code: 1 if a check failed, otherwise 0.
    """
    from app.measure.comparison_schemas import CompareRequest
    from app.measure.selftest import selftest as run

    if not 1 <= parsed.runs <= 1000:
        raise StartupError(f"--runs: got {parsed.runs}, expected 1 to 1000")
    request = request_of({"seconds": parsed.seconds, "depths": parsed.depths.split(",")}, CompareRequest)
    checks = asyncio.run(
        run(settings, runs=parsed.runs, seconds=request.seconds, on_step=_print_progress, depths=request.depths)
    )
    passed = all(check.passed for check in checks)
    if parsed.json:
        print_json({"passed": passed, "checks": [check.as_dict() for check in checks]})
    else:
        from app.cli.tables import print_checks

        print_checks(checks)
    return 0 if passed else 1


def _print_progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
