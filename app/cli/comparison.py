"""`kronserve compare`: parse its options, measure the models, and print the report."""

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.arguments import AddOptions, numbers, print_json, read_file, request_of
from app.cli.regression import check_report
from app.errors import StartupError
from app.settings import Settings

if TYPE_CHECKING:
    from app.measure.comparison_schemas import CompareRequest, Report
    from app.measure.inputs.uploaded import UploadedInputs
    from app.models.scan import Artifact

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
    add(
        "--library",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.so",
        help="with --native: C code of one of the models, by `kronmodel export --to c --shared`, to time beside them; "
        "may be given again. It runs in a process of its own; load your own only",
    )
    add("--nodes", action="store_true", help="measure also the time of each node, at the largest batch size")
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


def compare(settings: Settings, parsed: argparse.Namespace) -> int:
    """Run `kronserve compare`.

    Returns:
        The exit code: 1 if `--check` found a regression, otherwise 0.
    """
    from app.measure.comparison_schemas import CompareRequest

    if parsed.check is not None:
        return check_report(settings, parsed, _measure)
    if parsed.tolerance is not None or parsed.absolute:
        raise StartupError(f"{'--absolute' if parsed.absolute else '--tolerance'}: needs --check REPORT")
    sizes, depths = numbers("--batch-sizes", parsed.batch_sizes or "1,32"), (parsed.depths or "session").split(",")
    fields = {"batch_sizes": sizes, "depths": depths, "seconds": parsed.seconds, "threads": settings.threads}
    fields["nodes"] = parsed.nodes
    device = None if settings.device == "auto" else settings.device
    uploaded = _read_inputs(parsed.inputs, parsed.labels)
    request = request_of(fields | {"device": device}, CompareRequest)
    if parsed.native and request.device == "cuda":
        raise StartupError("--native: runs on the CPU only; leave out --device cuda")
    if parsed.library and not parsed.native:
        raise StartupError("--library: needs --native")
    missing = next((path for path in parsed.library if path.suffix != ".so" or not path.is_file()), None)
    if missing is not None:
        raise StartupError(f"--library {missing}: expected a file .so of `kronmodel export --to c --shared`")
    # First, because it is what may be impossible on this machine.
    native = asyncio.run(_measure_native(settings, parsed, request, uploaded)) if parsed.native else None
    report = asyncio.run(_measure(settings, parsed.names, request, uploaded))
    _print(report, parsed.json, native)
    return 0


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
    settings: Settings, parsed: argparse.Namespace, request: "CompareRequest", uploaded: "UploadedInputs | None"
) -> dict[str, Any]:
    """Time the same models in kronmodel's native code beside onnxruntime, with the same time limit."""
    from app.cli.tables import progress_bar
    from app.jobs.job import time_limit
    from app.measure.comparison import LIMIT_NAME
    from app.measure.native import compare_native

    artifacts = await _find_models(settings, parsed.names, request)
    with progress_bar() as progress:
        async with time_limit("comparison", settings.compare_seconds, LIMIT_NAME):
            return await compare_native(
                artifacts, request, settings, progress, uploaded=uploaded, libraries=parsed.library
            )


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
        None if path is None else (path.name, read_file(name, path, MAX_BYTES))
        for name, path in (("--inputs", inputs), ("--labels", labels))
    ]
    assert files[0] is not None  # for the type checker: there are inputs
    return UploadedInputs.read(files[0], files[1])


def _print(report: "Report", as_json: bool, native: dict[str, Any] | None = None) -> None:
    if as_json:
        print_json(report.model_dump(mode="json") | ({} if native is None else {"native": native}))
    else:
        from app.cli.nodes import print_nodes
        from app.cli.tables import print_native, print_report

        print_report(report)
        if report.nodes:
            print_nodes(report.nodes)
        if native is not None:
            print_native(native)
