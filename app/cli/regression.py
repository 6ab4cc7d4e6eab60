"""`kronserve compare --check`: repeat the measurement of a report and find what got worse."""

import argparse
import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from app.cli.arguments import print_json, read_file, request_of
from app.errors import StartupError
from app.settings import Settings

if TYPE_CHECKING:
    from app.measure.comparison_schemas import CompareRequest, Report
    from app.measure.inputs.uploaded import UploadedInputs

    Measure = Callable[[Settings, Sequence[str], CompareRequest, UploadedInputs | None], Coroutine[Any, Any, Report]]


def check_report(settings: Settings, parsed: argparse.Namespace, measure: "Measure") -> int:
    """Repeat the measurement of a report; only figures that get worse in two repetitions are regressions."""
    from app.measure.comparison import SERVICE_FRACTION
    from app.measure.comparison_schemas import CompareRequest
    from app.measure.regression import MAX_REPORT_BYTES, TOLERANCE, changes, read_report

    given = {"MODEL": parsed.names, "--batch-sizes": parsed.batch_sizes, "--depths": parsed.depths,
             "--seconds": parsed.seconds, "--inputs": parsed.inputs, "--labels": parsed.labels,
             "--native": parsed.native}  # fmt: skip
    if unwanted := next((name for name, value in given.items() if value), None):
        raise StartupError(f"{unwanted}: cannot be combined with --check, which takes it from the report")
    tolerance = TOLERANCE if parsed.tolerance is None else parsed.tolerance
    if not 0 <= tolerance <= 10:
        raise StartupError(f"--tolerance: got {tolerance:g}, expected a fraction from 0 to 10")
    before = read_report(read_file("--check", parsed.check, MAX_REPORT_BYTES), str(parsed.check))
    if (file := before.uploaded_file) is not None:
        raise StartupError(
            f"--check: {parsed.check} was measured on uploaded inputs ({file}), which a report does not contain; "
            "expected a report without --inputs"
        )
    config = before.settings
    fields = {"batch_sizes": config.batch_sizes, "threads": config.threads, "depths": list(config.depths),
              "device": None if config.device == "auto" else config.device}  # fmt: skip
    if config.seconds_per_cell is not None:
        cells = len(before.models) * len(config.batch_sizes)
        fields["seconds"] = config.seconds_per_cell * cells * (1 + SERVICE_FRACTION * (len(config.depths) > 1))
    names, request = [model.model for model in before.models], request_of(fields, CompareRequest)
    worse: set[str] | None = None
    for _ in range(2):
        report = asyncio.run(measure(settings, names, request, None))
        moved = changes(before, report, tolerance=tolerance, absolute=parsed.absolute)
        found = {change.what for change in moved if change.worse}
        worse = found if worse is None else worse & found
        if not worse:
            break
    regressions = [change for change in moved if change.worse and change.what in (worse or ())]
    if parsed.json:
        improvements = [change for change in moved if not change.worse]
        print_json(
            {
                "regressions": [change.as_dict() for change in regressions],
                "improvements": [change.as_dict() for change in improvements],
                "report": report.model_dump(mode="json"),
            }
        )
    else:
        if before.environment != report.environment:
            print(
                "The report was measured on another machine or with other versions: absolute times are not comparable."
            )
        for change in moved:
            if change in regressions or not change.worse:
                print(f"{'WORSE' if change.worse else 'better'}: {change.sentence}")
        print(f"{len(regressions) or 'no'} regression{'s' * (len(regressions) != 1)} beyond {100 * tolerance:g} %")
    return 1 if regressions else 0
