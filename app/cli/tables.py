"""Terminal output: reports as tables and sentences, and progress bars."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from app.measure.comparison import OnProgress
from app.measure.comparison_schemas import ComparedModel, Report
from app.measure.quality_schemas import OutputDifference
from app.measure.selftest import Check
from app.measure.sweep_schemas import SweepReport
from app.models.card import CCode, TestMetric


@contextmanager
def progress_bar() -> Iterator[OnProgress]:
    """Show progress on standard error: a bar at a terminal, otherwise a line per stage."""
    console = Console(stderr=True)
    if not console.is_terminal:
        stages: list[str] = []

        def line(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages.append(stage)
                print(f"[{done}/{total}] {stage}", file=console.file, flush=True)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task("starting", total=None)
        yield lambda stage, done, total: bars.update(bar, description=stage, completed=done, total=total)


def print_report(report: Report) -> None:
    """Print the report of a comparison to standard output."""
    console = _console()
    environment = report.environment
    threads = f"{environment.threads} thread{'s' if environment.threads > 1 else ''}"
    console.print(
        f"{environment.cpu}, {environment.cores} CPUs, onnxruntime {environment.onnxruntime}, {environment.provider}, "
        f"{threads}; inputs: {report.settings.inputs}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    console.print(_sizes(report.models), _times(report.models), highlight=False)
    if report.differences:
        console.print(_differences(report.differences), highlight=False)
    for sentence in _sentences(report):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def print_native(native: Mapping[str, Any]) -> None:
    """Print the comparison of native code with onnxruntime, as `app.measure.native` returns it."""
    names = ("batch", "p50 µs", "p99 µs", "times as fast", "difference", "same class")
    texts = (Column(name, no_wrap=True) for name in ("model", "runtime"))
    table = Table(*texts, *(Column(name, justify="right", no_wrap=True) for name in names), box=SIMPLE_HEAD)
    for run in native["runs"]:
        model, runtime = escape(run["model"]), escape(run["runtime"])
        for index, latency in enumerate(run["latency"]):
            ratio = f"{run['speedup'][index]:.2f}" if "speedup" in run else ""
            answers = (f"{run['largest_difference']:.2g}", f"{run['same_class']:.1%}") if "speedup" in run else ("", "")
            p50, p99 = (_figure(latency[name], ",.1f") for name in ("p50_us", "p99_us"))
            table.add_row(model, runtime, str(latency["batch_size"]), p50, p99, ratio, *answers)
    console = _console()
    console.print(table, highlight=False)
    for note in native["notes"]:
        console.print(f"not measured: {note}", highlight=False, markup=False, soft_wrap=True)


def print_sweep(report: SweepReport) -> None:
    """Print the report of a sweep to standard output: cells as a table, crossovers as sentences."""
    console = _console()
    environment = report.environment
    console.print(
        f"{environment.cpu}, {environment.cores} CPUs, onnxruntime {environment.onnxruntime}, {environment.provider}; "
        f"{report.settings.layers} layers",
        highlight=False,
        soft_wrap=True,
    )
    names = ("width", "rank", "batch", "threads", "dense µs", "Kronecker µs", "ratio", "95 %", "predicted")
    table = Table(*(Column(name, justify="right") for name in names), box=SIMPLE_HEAD)
    for cell in report.cells:
        ratio, interval = f"{cell.ratio:.2f}{'?' * cell.unstable}", f"{cell.low:.2f}-{cell.high:.2f}"
        table.add_row(
            f"{cell.width:,}", str(cell.rank), str(cell.batch_size), str(cell.threads), f"{cell.dense_p50_us:,.1f}",
            f"{cell.kronecker_p50_us:,.1f}", ratio, interval, f"{cell.macs_ratio:.2f}",
        )  # fmt: skip
    console.print(table, highlight=False)
    for crossover in report.crossovers:
        console.print(crossover.sentence, highlight=False, soft_wrap=True)
    if any(cell.unstable for cell in report.cells):
        console.print("? unstable: the machine was busy, or its clock rate changed.", highlight=False)


def _console() -> Console:
    """Standard output, with lines that hold a table's columns where it is not a terminal."""
    console = Console()
    if not console.is_terminal:
        console.width = 120
    return console


def print_checks(checks: Sequence[Check]) -> None:
    """Print the checks of a self-test to standard output."""
    table = Table("check", "expected", "measured", "", box=SIMPLE_HEAD)
    for check in checks:
        table.add_row(check.name, check.expected, check.measured, "ok" if check.passed else "FAILED")
    Console().print(table, highlight=False)


def _sentences(report: Report) -> Iterator[str]:
    """Conclusions of a comparison's report, and warnings about unstable measurements."""
    yield from (pair.sentence for pair in (*report.pairs, *report.service_pairs))
    yield from (sentence for prediction in report.predictions for sentence in prediction.sentences)
    if report.memory_sentence is not None:
        yield report.memory_sentence
    if report.quality is not None:
        yield report.quality.sentence
    # Those without figures, which the table does not show.
    yield from (each.sentence for each in report.differences if each.largest is None and each.equal is None)
    if report.inputs is not None:
        yield from report.inputs.notes
    for model in report.models:
        latencies = [latency for latency in (*model.latency, *model.service_latency) if latency.unstable]
        if latencies:
            sizes = ", ".join(f"{latency.batch_size} ({latency.depth})" for latency in latencies)
            yield f"Unstable: {model.model} at batch size {sizes}; the machine was busy, or its clock rate changed."


def _sizes(models: Sequence[ComparedModel]) -> Table:
    """Table of sizes, times of loading and memory: a row per measure, a column per model."""
    table = Table("", *(Column(model.model, justify="right") for model in models), box=SIMPLE_HEAD)
    rows: dict[str, Callable[[ComparedModel], str]] = {
        "test metric": lambda model: "" if model.test_metric is None else _metric(model.test_metric),
        "parameters": lambda model: f"{model.parameters:,}",
        "bytes of weights": lambda model: f"{model.weight_bytes:,}",
        "multiply-adds per sample": lambda model: "" if model.macs_per_sample is None else f"{model.macs_per_sample:,}",
        "file": lambda model: _megabytes(model.file_bytes),
        "load": lambda model: f"{model.load_ms:,.1f} ms",
        "first run": lambda model: f"{model.first_run_ms:,.2f} ms",
        "weights": lambda model: _megabytes(model.initializer_bytes),
        "memory, runtime": lambda model: _megabytes_if_known(model.memory.baseline_rss_bytes),
        "memory, loaded": lambda model: _over_baseline(model.memory.loaded_rss_bytes, model.memory.baseline_rss_bytes),
        "memory, arena": lambda model: _over_baseline(model.memory.settled_rss_bytes, model.memory.loaded_rss_bytes),
        "memory, peak": lambda model: _over_baseline(model.memory.peak_rss_bytes, model.memory.baseline_rss_bytes),
    }
    in_c: dict[str, Callable[[CCode], int | None]] = {
        "as C: bits of a weight": lambda c: c.bits,
        "as C: flash, weights": lambda c: c.weight_bytes,
        "as C: flash, code": lambda c: c.code_bytes,
        "as C: memory": lambda c: c.scratch_bytes,
    }
    for name, cell in rows.items():
        table.add_row(name, *map(cell, models))
    for name, figure in in_c.items():
        known = [None if model.c is None else figure(model.c) for model in models]
        if any(value is not None for value in known):
            table.add_row(name, *(_figure(value, ",") for value in known))
    return table


def _times(models: Sequence[ComparedModel]) -> Table:
    """Table of latencies and throughput: a row per model, layer and batch size."""
    names = ("layer", "batch", "runs", "p50 µs", "p90 µs", "p99 µs", "samples/s")
    table = Table("model", *(Column(name, justify="right", no_wrap=True) for name in names), box=SIMPLE_HEAD)
    for model in models:
        for latency in (*model.latency, *model.service_latency):
            percentiles = (latency.p50_us, latency.p90_us, latency.p99_us)
            cells = ("" if value is None else f"{value:,.1f}" for value in percentiles)
            table.add_row(
                model.model, latency.depth, str(latency.batch_size), f"{latency.n:,}", *cells,
                f"{latency.samples_per_s:,.0f}",
            )  # fmt: skip
    return table


def _differences(differences: Sequence[OutputDifference]) -> Table:
    """Table of the differences of outputs: a row per pair of models and output."""
    names = ("output", "largest", "mean", "cosine", "same class", "equal")
    table = Table("differences between", *(Column(name, justify="right") for name in names), box=SIMPLE_HEAD)
    for each in differences:
        table.add_row(
            escape(f"{each.a}, {each.b}"), escape(each.output), _figure(each.largest, ".3g"), _figure(each.mean, ".3g"),
            _figure(each.cosine, ".5f"), _figure(each.equal_top1, ".1%"), _figure(each.equal, ".1%"),
        )  # fmt: skip
    return table


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _metric(metric: TestMetric) -> str:
    return f"{metric.name} {metric.value:.4f}"


def _over_baseline(size: int | None, baseline: int | None) -> str:
    """Memory above the baseline, as text; empty if either figure is unknown."""
    return "" if size is None or baseline is None else f"+{_megabytes(max(0, size - baseline))}"


def _megabytes_if_known(size: int | None) -> str:
    return "" if size is None else _megabytes(size)


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.2f} MiB"
