"""Sweep: Kronecker and dense networks of several widths, timed to find the width from which Kronecker is faster.

The networks are synthetic and are measured in processes apart from the service. No HTTP.
"""

import itertools
import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from app.errors import BadRequest
from app.inference.devices import check_device, check_threads
from app.measure import bootstrap
from app.measure.children import sweep as sweep_child
from app.measure.comparison import LIMIT_FRACTION, SEED, OnProgress
from app.measure.comparison_schemas import NICENESS, Environment
from app.measure.sweep_schemas import Cell, Crossover, SweepReport, SweepRequest, SweepSettings
from app.measure.timing import SERIES
from app.processes.parent import run_measuring_process
from app.settings import Settings

LIMIT_NAME = "KRON_SWEEP_SECONDS"
MAX_CELLS = 1000
MAX_DENSE_BYTES = 256 * 2**20
MAX_SECONDS_PER_CELL = 1.0

OnCells = Callable[[Sequence[Cell]], None]


def check(request: SweepRequest, settings: Settings) -> None:
    """Check that a sweep can run on this machine and within the limits of the service.

    Raises:
        BadRequest: saying what was got and what was expected.
    """
    for name in ("widths", "ranks", "batch_sizes", "threads"):
        values: list[int] = getattr(request, name)
        if len(set(values)) < len(values):
            raise BadRequest(f"{name}: got {values}, expected different ones")
    for index, width in enumerate(request.widths):
        side = math.isqrt(width)
        if side * side != width:
            near = f"{side * side} or {(side + 1) ** 2}"
            raise BadRequest(f"widths[{index}]: got {width}, expected a square number such as {near}")
        if request.layers * width * width * 4 > MAX_DENSE_BYTES:
            most = math.isqrt(math.isqrt(MAX_DENSE_BYTES // (4 * request.layers))) ** 2
            raise BadRequest(f"widths[{index}]: got {width}, expected at most {most} for {request.layers} layers")
        if max(request.ranks) > width:
            raise BadRequest(f"ranks: got {max(request.ranks)}, expected at most {width}, the smallest width")
    if max(request.batch_sizes) > settings.max_batch:
        raise BadRequest(f"batch_sizes: got {max(request.batch_sizes)}, expected at most {settings.max_batch}")
    check_threads(max(request.threads))
    cells = len(request.widths) * len(request.ranks) * len(request.batch_sizes) * len(request.threads)
    if cells > MAX_CELLS:
        raise BadRequest(f"got {cells} combinations, expected at most {MAX_CELLS}")
    longest = LIMIT_FRACTION * settings.sweep_seconds
    if request.seconds > longest:
        raise BadRequest(f"seconds: got {request.seconds:g}, expected at most {longest:g}, of {LIMIT_NAME}")
    check_device(request.device)


async def sweep(
    request: SweepRequest, settings: Settings, progress: OnProgress, on_cells: OnCells, *, report_id: str | None = None
) -> SweepReport:
    """Run a sweep. Cancelling it kills its process; the caller limits the time.

    Args:
        request: the networks to measure, which `check` has accepted.
        settings: the settings of the service.
        progress: called with the stage, the number of parts done and the total number of parts.
        on_cells: called with the results of each width and number of threads as soon as they are measured.
        report_id: id of the report; by default a new one.

    Raises:
        ComparisonError: a measuring process failed.
        BadRequest: onnxruntime cannot run the networks as requested.
    """
    created, start = datetime.now(UTC), time.perf_counter()
    parts = list(itertools.product(request.threads, sorted(request.widths)))
    steps = SERIES * len(request.batch_sizes)
    timed = len(parts) * len(request.batch_sizes) * (len(request.ranks) + 1)
    job = {
        "ranks": sorted(request.ranks),
        "batch_sizes": sorted(request.batch_sizes),
        "layers": request.layers,
        "device": request.device or settings.device,
        "seed": SEED,
        "niceness": NICENESS,
        "seconds_per_cell": min(MAX_SECONDS_PER_CELL, request.seconds / timed),
    }
    cells: list[Cell] = []
    provider = ""
    for index, (threads, width) in enumerate(parts):
        done = itertools.count(index * steps)

        def begin_part(message: Mapping[str, Any], done: "itertools.count[int]" = done) -> None:
            progress(message["progress"], next(done), len(parts) * steps)

        part_job = job | {"width": width, "threads": threads}
        result = await run_measuring_process(sweep_child.__name__, part_job, begin_part)
        measured_cells = [Cell.model_validate(cell) for cell in result["cells"]]
        cells += measured_cells
        provider = result["provider"]
        on_cells(measured_cells)
    progress("done", len(parts) * steps, len(parts) * steps)
    return SweepReport(
        id=report_id or uuid.uuid4().hex,
        created=created.isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - start, 2),
        environment=Environment.current(provider, request.threads[0]),
        settings=SweepSettings(
            widths=sorted(request.widths),
            ranks=sorted(request.ranks),
            batch_sizes=sorted(request.batch_sizes),
            threads=request.threads,
            layers=request.layers,
            device=request.device or settings.device,
            seconds=request.seconds,
            seed=SEED,
            practical_margin=bootstrap.PRACTICAL_MARGIN,
            confidence=bootstrap.CONFIDENCE,
        ),
        cells=cells,
        crossovers=crossovers(cells),
    )


def crossovers(cells: Sequence[Cell]) -> list[Crossover]:
    """Widths from which a Kronecker network is faster, for each rank, batch size and number of threads."""
    groups = dict.fromkeys((cell.rank, cell.batch_size, cell.threads) for cell in cells)
    return [
        _crossover(
            sorted(
                (cell for cell in cells if (cell.rank, cell.batch_size, cell.threads) == group),
                key=lambda cell: cell.width,
            )
        )
        for group in sorted(groups)
    ]


def _crossover(cells: Sequence[Cell]) -> Crossover:
    """The crossover of cells that differ only in width; the cells are sorted by width."""
    first, last = cells[0], cells[-1]
    faster = len(list(itertools.takewhile(lambda cell: cell.verdict == "faster", reversed(cells))))
    width = cells[-faster].width if faster else None
    estimate = _break_even(cells)
    group = f"Rank {first.rank}, batch size {first.batch_size}, {first.threads} thread{'s' * (first.threads > 1)}"
    even = "" if estimate is None else f" (break-even estimated at {estimate:,.0f})"
    if width is None:
        sentence = f"{group}: Kronecker is not faster at {last.width}, the largest width measured{even}."
    elif width == first.width:
        sentence = f"{group}: Kronecker is faster at every width measured, from {width} to {last.width}{even}."
    else:
        sentence = f"{group}: Kronecker is faster from width {width} on{even}."
    return Crossover(
        rank=first.rank, batch_size=first.batch_size, threads=first.threads,
        width=width, estimate=None if estimate is None else round(estimate, 1), sentence=sentence,
    )  # fmt: skip


def _break_even(cells: Sequence[Cell]) -> float | None:
    """The width at which the ratio last rises through 1, interpolated on logarithmic scales; None if it never does."""
    for low, high in reversed(list(itertools.pairwise(cells))):
        if low.ratio <= 1 < high.ratio:
            fraction = math.log(1 / low.ratio) / math.log(high.ratio / low.ratio)
            return low.width * math.exp(fraction * math.log(high.width / low.width))
    return None
