"""A comparison for people, at the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from app.compare import Progress as OnProgress
from app.schemas import ComparedModel, Report


@contextmanager
def progress_bar() -> Iterator[OnProgress]:
    """Progress on standard error: a bar at a terminal, a line per stage elsewhere."""
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
    """The report as tables and sentences on standard output."""
    console = Console()
    environment = report.environment
    console.print(
        f"{environment.cpu}, {environment.cores} CPUs; onnxruntime {environment.onnxruntime}, "
        f"{environment.provider}, {environment.threads} threads; inputs: {report.settings.inputs}",
        highlight=False,
    )
    sizes = Table("model", *(_right(name) for name in _SIZE_COLUMNS), title="Size and memory")
    for model in report.models:
        sizes.add_row(model.model, *_sizes(model))
    times = Table("model", *(_right(name) for name in _TIME_COLUMNS), title="Latency")
    for model in report.models:
        for latency in model.latency:
            p99 = "" if latency.p99_us is None else f"{latency.p99_us:,.1f}"
            times.add_row(
                model.model, str(latency.batch_size), f"{latency.n:,}", f"{latency.p50_us:,.1f}",
                f"{latency.p90_us:,.1f}", f"{latency.p95_us:,.1f}", p99, f"{latency.samples_per_s:,.0f}",
                "unstable" if latency.unstable else "",
            )  # fmt: skip
    console.print(sizes, times)
    for pair in report.pairs:
        console.print(pair.sentence, highlight=False)


_SIZE_COLUMNS = ("test", "parameters", "MACs", "file", "load ms", "first run ms", "memory", "peak")
_TIME_COLUMNS = ("batch", "runs", "p50 µs", "p90 µs", "p95 µs", "p99 µs", "samples/s", "")


def _right(name: str) -> Column:
    return Column(name, justify="right")


def _sizes(model: ComparedModel) -> list[str]:
    memory, metric = model.memory, model.test_metric
    return [
        "" if metric is None else f"{metric.value:.4f}",
        f"{model.parameters:,}",
        "" if model.macs_per_sample is None else f"{model.macs_per_sample:,}",
        _megabytes(model.file_bytes),
        f"{model.load_ms:,.1f}",
        f"{model.first_run_ms:,.2f}",
        _over_baseline(memory.loaded_rss_bytes, memory.baseline_rss_bytes),
        _over_baseline(memory.peak_rss_bytes, memory.baseline_rss_bytes),
    ]


def _over_baseline(size: int | None, baseline: int | None) -> str:
    """What a model adds to a process that has onnxruntime loaded."""
    return "" if size is None or baseline is None else f"+{_megabytes(max(0, size - baseline))}"


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.2f} MiB"
