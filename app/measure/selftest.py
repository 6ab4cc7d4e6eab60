"""Self-test of the comparison: it measures models whose differences are known.

The same model twice must be "not distinguishable"; a model with a known delay must be slower by that delay; a model
with additional bytes of weights must be larger by those in its file, its initialisers and its memory.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from app.measure.children import delayed
from app.measure.comparison import SECONDS_PER_CELL, SEED, compare
from app.measure.comparison_schemas import NICENESS, CompareRequest, MeasuredLayer
from app.models.scan import Artifact, read_folder
from app.processes.parent import run_measuring_process
from app.settings import Settings

WIDTH = 256
LAYERS = 2
BATCH_SIZES = [1, 32]
DELAYS_US = (20, 100, 300)
PADDING_BYTES = 32 * 2**20
ALLOWED = 0.05  # fraction of a delay or padding by which a measurement may differ from it
ALLOWED_US = 2.0  # in addition, with the width of the interval: the call that delays takes time itself
GRAPH_BYTES = 1024  # of the nodes that read a padding

OnStep = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Check:
    """A check of the self-test: an expected and a measured figure, and whether they agree."""

    name: str
    expected: str
    measured: str
    passed: bool

    def as_dict(self) -> dict[str, object]:
        """The check as values that JSON can hold."""
        return asdict(self)


async def selftest(
    settings: Settings,
    *,
    runs: int,
    seconds: float | None,
    on_step: OnStep,
    depths: Sequence[MeasuredLayer] = ("session",),
) -> list[Check]:
    """Run all checks of the self-test.

    Args:
        settings: device, threads and the time limit of a comparison.
        runs: number of comparisons of the same model with itself.
        seconds: time of timed runs in each comparison; by default as in any comparison.
        on_step: called with the name of each step as it begins.
        depths: layers at which the same model is compared with itself.
    """
    # Imported here: the service must not load onnx.
    from app.measure.synthetic import dense

    with tempfile.TemporaryDirectory(prefix="kronserve-") as folder:
        models = Path(folder)
        same = dense(WIDTH, layers=LAYERS, seed=SEED)
        padded = dense(WIDTH, layers=LAYERS, seed=SEED, padding_bytes=PADDING_BYTES)
        for name, content in (("one", same), ("two", same), ("padded", padded)):
            path = models / name / "1" / "model.onnx"
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
        settings = settings.model_copy(update={"models": models})
        artifacts = (await read_folder(settings)).artifacts
        request = CompareRequest(batch_sizes=BATCH_SIZES, seconds=seconds, depths=list(depths))
        copies = [artifacts["one"], artifacts["two"]]
        checks = [await _check_copies(copies, request, settings, runs=runs, on_step=on_step)]
        for delay_us in DELAYS_US:
            on_step(f"a delay of {delay_us} µs")
            checks += await _check_delay(artifacts["one"], settings, delay_us)
        on_step("a padding")
        checks += await _check_padding(artifacts["one"], artifacts["padded"], settings)
    return checks


async def _check_copies(
    copies: Sequence[Artifact], request: CompareRequest, settings: Settings, *, runs: int, on_step: OnStep
) -> Check:
    """Compare a model with its copy; 95 % of the runs must find no difference at any layer and batch size."""
    passed = 0
    for run in range(runs):
        on_step(f"the same model twice, run {run + 1} of {runs}, {run - passed} found a difference so far")
        report = await compare(copies, request, settings, lambda stage, done, total: None)
        pairs = [*report.pairs, *report.service_pairs]
        passed += all(pair.verdict == "not distinguishable" for pair in pairs)
    return Check(
        f"the same model twice at {', '.join(request.depths)}, n = {runs}",
        "no difference in 95 %",
        f"{passed} of {runs}",
        passed >= 0.95 * runs,
    )


async def _check_delay(model: Artifact, settings: Settings, delay_us: int) -> Iterator[Check]:
    """Compare a model with a delayed copy; the medians must differ by the delay at every batch size."""
    job = {
        "device": settings.device,
        "threads": settings.threads_used,
        "batch_sizes": BATCH_SIZES,
        "seed": SEED,
        "niceness": NICENESS,
        "seconds_per_cell": SECONDS_PER_CELL,
        "path": str(model.path),
        "delay_us": delay_us,
    }
    result = await run_measuring_process(delayed.__name__, job)
    return (
        Check(
            f"{delay_us} µs added to {cell['p50_us']:.1f} µs, batch {cell['batch_size']}",
            f"{delay_us} µs more",
            f"{cell['added_us']:.1f} µs ({cell['low_us']:.1f} to {cell['high_us']:.1f})",
            abs(cell["added_us"] - delay_us) <= ALLOWED * delay_us + ALLOWED_US + cell["high_us"] - cell["low_us"],
        )
        for cell in result["cells"]
    )


async def _check_padding(model: Artifact, padded: Artifact, settings: Settings) -> Iterator[Check]:
    """Compare a model with a padded copy; file, initialisers and memory must differ by the padding."""
    request = CompareRequest(batch_sizes=[1], seconds=0.1)
    report = await compare([model, padded], request, settings, lambda stage, done, total: None)
    small, large = report.models
    found = [
        ("file", large.file_bytes - small.file_bytes, GRAPH_BYTES),
        ("initialisers", large.initializer_bytes - small.initializer_bytes, GRAPH_BYTES),
    ]
    loaded = [model.memory.loaded_rss_bytes for model in (small, large)]
    if loaded[0] is not None and loaded[1] is not None:
        found.append(("memory once loaded", loaded[1] - loaded[0], round(ALLOWED * PADDING_BYTES)))
    return (
        Check(
            f"{PADDING_BYTES:,} bytes added: {name}",
            f"{PADDING_BYTES:,} more",
            f"{more:,}",
            abs(more - PADDING_BYTES) <= allowed,
        )
        for name, more, allowed in found
    )
