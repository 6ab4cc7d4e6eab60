"""The commands of `kronserve` that measure: compare, sweep and selftest; each parses options and prints a report."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from app.errors import StartupError
from app.settings import Settings, option

if TYPE_CHECKING:
    from pydantic import BaseModel

    from app.measure.comparison_schemas import CompareRequest, Report
    from app.measure.inputs.uploaded import UploadedInputs
    from app.measure.sweep_schemas import SweepReport, SweepRequest
    from app.models.scan import Artifact

    M = TypeVar("M", bound=BaseModel)

AddOptions = Callable[[argparse.ArgumentParser, Sequence[str]], None]
_SETTINGS = ["models", "device", "threads", "twin", "max_batch", "max_models", "max_model_bytes", "load_seconds",
             "compare_seconds", "log_level"]  # fmt: skip


def add_compare(commands: Any, add_options: AddOptions) -> None:
    """Add the parser of `kronserve compare`.

    Args:
        commands: the subparsers of `kronserve`; argparse has no public type for them.
        add_options: adds the options of settings by field name.
    """
    parser = commands.add_parser(
        "compare",
        help="compare 2 to 6 models",
        description="Measure latency, memory and accuracy of models side by side, and how far their outputs are apart. "
        "The models need inputs of the same names, datatypes and shapes, and outputs of the same shapes.",
    )
    add = parser.add_argument
    add(
        "names",
        nargs="*",
        metavar="MODEL",
        help="names of models in the repository (default: both models of the default twin)",
    )
    add("--batch-sizes", metavar="N,N", help="batch sizes (default: 1,32)")
    add("--depths", metavar="D,D", help="layers to measure latency at: session, queue, http (default: session)")
    add("--seconds", type=float, metavar="S", help="approximate limit of the total time of timed runs")
    add(
        "--inputs",
        type=Path,
        metavar="FILE",
        help="inputs to measure on: rows as .npy, .npz or .csv, or an .npz with an array for each input by name and "
        "perhaps `labels` (default: samples beside the models, or else made up from their metadata)",
    )
    add("--labels", type=Path, metavar="FILE", help="file of the true labels of the rows, .npy, .npz or .csv")
    add(
        "--native",
        action="store_true",
        help="time the models in kronmodel's native code, too, with 32 and 8 bits, beside onnxruntime on one thread",
    )
    add("--json", action="store_true", help="print the report as one JSON object")
    check = parser.add_argument_group("in CI", "Repeat the measurement of a report; exit code 1 if a figure got worse.")
    check.add_argument(
        "--check", type=Path, metavar="REPORT", help="an earlier report; its models and configuration are used"
    )
    check.add_argument(
        "--tolerance", type=float, metavar="FRACTION", help="largest accepted change of a figure (default: 0.1)"
    )
    check.add_argument(
        "--absolute", action="store_true", help="check times, too, not only ratios; on the same machine only"
    )
    add_options(parser, _SETTINGS)


def add_selftest(commands: Any, add_options: AddOptions) -> None:
    """Add the parser of `kronserve selftest`; arguments as in `add_compare`."""
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


def add_sweep(commands: Any, add_options: AddOptions) -> None:
    """Add the parser of `kronserve sweep`; arguments as in `add_compare`."""
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


def compare(settings: Settings, parsed: argparse.Namespace) -> int:
    """Run `kronserve compare`.

    Returns:
        The exit code: 1 if `--check` found a regression, otherwise 0.
    """
    from app.measure.comparison_schemas import CompareRequest

    if parsed.check is not None:
        return _check(settings, parsed)
    if parsed.tolerance is not None or parsed.absolute:
        raise StartupError(f"{'--absolute' if parsed.absolute else '--tolerance'}: needs --check REPORT")
    sizes, depths = _numbers("--batch-sizes", parsed.batch_sizes or "1,32"), (parsed.depths or "session").split(",")
    fields = {"batch_sizes": sizes, "depths": depths, "seconds": parsed.seconds, "threads": settings.threads}
    device = None if settings.device == "auto" else settings.device
    uploaded = _read_inputs(parsed.inputs, parsed.labels)
    request = _request(fields | {"device": device}, CompareRequest)
    if parsed.native and request.device == "cuda":
        raise StartupError("--native: runs on the CPU only; leave out --device cuda")
    # First, because it is what may be impossible on this machine.
    native = asyncio.run(_measure_native(settings, parsed.names, request, uploaded)) if parsed.native else None
    report = asyncio.run(_measure(settings, parsed.names, request, uploaded))
    _print(report, parsed.json, native)
    return 0


def selftest(settings: Settings, parsed: argparse.Namespace) -> int:
    """Run `kronserve selftest`.

    Returns:
        The exit code: 1 if a check failed, otherwise 0.
    """
    from app.measure.comparison_schemas import CompareRequest
    from app.measure.selftest import selftest as run

    if not 1 <= parsed.runs <= 1000:
        raise StartupError(f"--runs: got {parsed.runs}, expected 1 to 1000")
    request = _request({"seconds": parsed.seconds, "depths": parsed.depths.split(",")}, CompareRequest)
    checks = asyncio.run(
        run(settings, runs=parsed.runs, seconds=request.seconds, on_step=_print_progress, depths=request.depths)
    )
    passed = all(check.passed for check in checks)
    if parsed.json:
        _print_json({"passed": passed, "checks": [check.as_dict() for check in checks]})
    else:
        from app.cli.tables import print_checks

        print_checks(checks)
    return 0 if passed else 1


def sweep(settings: Settings, parsed: argparse.Namespace) -> int:
    """Run `kronserve sweep`; returns the exit code 0."""
    from app.measure.sweep_schemas import SweepRequest

    lists = {"widths": parsed.widths, "ranks": parsed.ranks, "batch_sizes": parsed.batch_sizes,
             "threads": parsed.thread_counts}  # fmt: skip
    fields = {name: _numbers(option(name), text) for name, text in lists.items() if text}
    fields |= {name: value for name in ("layers", "seconds") if (value := getattr(parsed, name)) is not None}
    device = None if settings.device == "auto" else settings.device
    report = asyncio.run(_sweep(settings, _request(fields | {"device": device}, SweepRequest)))
    if parsed.json:
        _print_json(report.model_dump(mode="json"))
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


def _check(settings: Settings, parsed: argparse.Namespace) -> int:
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
    before = read_report(_read_file("--check", parsed.check, MAX_REPORT_BYTES), str(parsed.check))
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
    names, request = [model.model for model in before.models], _request(fields, CompareRequest)
    worse: set[str] | None = None
    for _ in range(2):
        report = asyncio.run(_measure(settings, names, request, None))
        moved = changes(before, report, tolerance=tolerance, absolute=parsed.absolute)
        found = {change.what for change in moved if change.worse}
        worse = found if worse is None else worse & found
        if not worse:
            break
    regressions = [change for change in moved if change.worse and change.what in (worse or ())]
    if parsed.json:
        improvements = [change for change in moved if not change.worse]
        _print_json(
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


def _print_progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _request(fields: dict[str, Any], kind: "type[M]") -> "M":
    from pydantic import ValidationError

    from app.parsing import explain

    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        raise StartupError(f"{option(field)}: {explain(error)}") from None


async def _measure(
    settings: Settings, names: Sequence[str], request: "CompareRequest", uploaded: "UploadedInputs | None"
) -> "Report":
    """Run a comparison within its time limit; shows progress on standard error."""
    from app.cli.tables import progress_bar
    from app.jobs.job import time_limit
    from app.measure.comparison import LIMIT_NAME, compare

    artifacts = await _find_models(settings, names, request)
    with progress_bar() as progress:
        async with time_limit("comparison", settings.compare_seconds, LIMIT_NAME):
            return await compare(artifacts, request, settings, progress, uploaded=uploaded)


async def _measure_native(
    settings: Settings, names: Sequence[str], request: "CompareRequest", uploaded: "UploadedInputs | None"
) -> dict[str, Any]:
    """Time the same models in kronmodel's native code beside onnxruntime, with the same time limit."""
    from app.cli.tables import progress_bar
    from app.jobs.job import time_limit
    from app.measure.comparison import LIMIT_NAME
    from app.measure.native import compare_native

    artifacts = await _find_models(settings, names, request)
    with progress_bar() as progress:
        async with time_limit("comparison", settings.compare_seconds, LIMIT_NAME):
            return await compare_native(artifacts, request, settings, progress, uploaded)


async def _find_models(settings: Settings, names: Sequence[str], request: "CompareRequest") -> "list[Artifact]":
    """Find the models to compare, by default those of the default twin, and check that they can be compared."""
    from app.measure.comparison import check
    from app.models.scan import read_folder
    from app.models.twin import default_names

    scanned = await read_folder(settings)
    chosen = names or default_names(list(scanned.artifacts.values()), settings.twin)
    missing = next((name for name in chosen if name not in scanned.artifacts), None)
    if missing is not None and missing in scanned.failures:
        raise StartupError(f"{missing} cannot be used: {scanned.failures[missing]}")
    if not scanned.artifacts:
        raise StartupError(f"no models in {settings.models}; make some with `kronmodel train --out {settings.models}`")
    if missing is not None:
        raise StartupError(f"model: got {missing!r}, expected one of: {', '.join(scanned.artifacts)}")
    artifacts = [scanned.artifacts[name] for name in chosen]
    check(artifacts, request, settings)
    return artifacts


def _read_inputs(inputs: Path | None, labels: Path | None) -> "UploadedInputs | None":
    from app.measure.inputs.uploaded import MAX_BYTES, UploadedInputs

    if inputs is None:
        if labels is not None:
            raise StartupError("--labels: needs --inputs FILE")
        return None
    files = [
        None if path is None else (path.name, _read_file(name, path, MAX_BYTES))
        for name, path in (("--inputs", inputs), ("--labels", labels))
    ]
    assert files[0] is not None  # for the type checker: there are inputs
    return UploadedInputs.read(files[0], files[1])


def _read_file(name: str, path: Path, max_bytes: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise StartupError(f"{name}: {path}: got {size} bytes, expected at most {max_bytes}")
        return path.read_bytes()
    except OSError as error:
        raise StartupError(f"{name}: {path} cannot be read: {error.strerror}") from None


def _numbers(name: str, text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise StartupError(f"{name}: got {text!r}, expected numbers such as 1,32") from None


def _print(report: "Report", as_json: bool, native: dict[str, Any] | None = None) -> None:
    if as_json:
        _print_json(report.model_dump(mode="json") | ({} if native is None else {"native": native}))
    else:
        from app.cli.tables import print_native, print_report

        print_report(report)
        if native is not None:
            print_native(native)


def _print_json(value: object) -> None:
    import orjson

    print(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
