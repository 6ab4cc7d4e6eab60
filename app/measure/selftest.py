"""Whether the comparison tells the truth: it measures models of which the truth is known.

The same model twice has to come out "not distinguishable"; one with a known delay slower by that; one with so many
more bytes of weights larger by those, in the file, in its initialisers and in memory.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from app.measure.children import delayed
from app.measure.comparison import SECONDS_PER_CELL, SEED, compare
from app.measure.comparison_schemas import CompareRequest, Depth
from app.measure.environment import NICENESS
from app.models.scan import Artifact, read_folder
from app.processes.parent import run_measuring_process
from app.settings import Settings

WIDTH = 256
LAYERS = 2
BATCH_SIZES = [1, 32]
DELAYS_US = (20, 100, 300)
PADDING_BYTES = 32 * 2**20
ALLOWED = 0.05  # share of a delay, or of a padding, by which a measurement may miss it
ALLOWED_US = 2.0  # besides, and besides the interval's width: the call that delays takes a moment itself
GRAPH_BYTES = 1024  # the nodes that hold a padding

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that has to be true, and what was measured."""

    name: str
    expected: str
    measured: str
    passed: bool

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


async def selftest(
    settings: Settings, *, runs: int, seconds: float | None, tell: Tell, depths: Sequence[Depth] = ("session",)
) -> list[Check]:
    """All checks.

    Args:
        settings: device, threads and the time limit of a comparison.
        runs: how often the same model is compared with itself.
        seconds: of timed runs in each comparison; by default as many as in any.
        tell: called with what is being done.
        depths: where the same model is compared with itself.
    """
    # Here, for onnx is not needed by whoever only serves.
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
        twice = [artifacts["one"], artifacts["two"]]
        checks = [await _same_twice(twice, request, settings, runs=runs, tell=tell)]
        for delay_us in DELAYS_US:
            tell(f"a delay of {delay_us} µs")
            checks += await _delayed(artifacts["one"], settings, delay_us)
        tell("a padding")
        checks += await _padded(artifacts["one"], artifacts["padded"], settings)
    return checks


async def _same_twice(
    twice: Sequence[Artifact], request: CompareRequest, settings: Settings, *, runs: int, tell: Tell
) -> Check:
    """A run passes if it cannot tell the models apart at any depth and batch size; 95 % of the runs have to."""
    passed = 0
    for run in range(runs):
        tell(f"the same model twice, run {run + 1} of {runs}, {run - passed} told apart so far")
        report = await compare(twice, request, settings, lambda stage, done, total: None)
        pairs = [*report.pairs, *report.service_pairs]
        passed += all(pair.verdict == "not distinguishable" for pair in pairs)
    return Check(
        f"the same model twice at {', '.join(request.depths)}, n = {runs}",
        "no difference in 95 %",
        f"{passed} of {runs}",
        passed >= 0.95 * runs,
    )


async def _delayed(one: Artifact, settings: Settings, delay_us: int) -> Iterator[Check]:
    """Medians apart by the delay, at every batch size."""
    job = {
        "device": settings.device,
        "threads": settings.threads_used,
        "batch_sizes": BATCH_SIZES,
        "seed": SEED,
        "niceness": NICENESS,
        "seconds_per_cell": SECONDS_PER_CELL,
        "path": str(one.path),
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


async def _padded(one: Artifact, padded: Artifact, settings: Settings) -> Iterator[Check]:
    """Larger by the padding, wherever it counts."""
    request = CompareRequest(batch_sizes=[1], seconds=0.1)
    report = await compare([one, padded], request, settings, lambda stage, done, total: None)
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
