"""Regressions of a comparison against an earlier one: ratios, memory, sizes and, where requested, absolute times."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import orjson
from pydantic import ValidationError

from app.errors import StartupError
from app.measure.comparison_schemas import ComparedModel, Latency, Pair, Report
from app.parsing import explain

TOLERANCE = 0.1
MEMORY_NOISE_BYTES = 2**20  # difference between two loads of the same file
MAX_REPORT_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Change:
    """A figure that changed by more than the tolerance and the noise of the measurement."""

    what: str
    before: float
    now: float
    worse: bool
    sentence: str

    def as_dict(self) -> dict[str, object]:
        """The change as values that JSON can hold."""
        return asdict(self)


def read_report(content: bytes, name: str) -> Report:
    """Parse the report of a comparison.

    Args:
        content: JSON as `--json` prints it, or as `GET /api/comparisons/{id}` wraps it.
        name: name of the file in messages.

    Raises:
        StartupError: the content is not the report of a comparison of two models or more.
    """
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise StartupError(f"--check: {name} is not JSON: {error}") from None
    if isinstance(value, dict) and isinstance(value.get("report"), dict):
        value = value["report"]
    try:
        report = Report.model_validate(value)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise StartupError(f"--check: {name} is not the report of a comparison: {place}: {explain(error)}") from None
    if len(report.models) < 2 or not report.settings.batch_sizes:
        raise StartupError(f"--check: {name} is not the report of a comparison of two models or more")
    return report


def changes(before: Report, now: Report, *, tolerance: float, absolute: bool) -> list[Change]:
    """The figures that got worse or better between two reports.

    A ratio is the advantage of the first model of a pair; a smaller one is worse.

    Args:
        before: the earlier report.
        now: the new report, of the same models with the same configuration.
        tolerance: fraction by which a figure may change.
        absolute: include the times of the models, which are comparable on the same machine only.
    """
    found = [
        *_ratios([*before.pairs, *before.service_pairs], [*now.pairs, *now.service_pairs], tolerance),
        *_sizes(before.models, now.models, tolerance),
    ]
    if absolute:
        found += _times(before.models, now.models, tolerance)
    return found


def _ratios(before: Sequence[Pair], now: Sequence[Pair], tolerance: float) -> Iterator[Change]:
    later = {(pair.a, pair.b, pair.depth, pair.batch_size): pair for pair in now}
    for old in before:
        new = later.get((old.a, old.b, old.depth, old.batch_size))
        if new is None:
            continue
        worse = new.ratio < old.ratio / (1 + tolerance) and new.high < old.low
        better = new.ratio > old.ratio * (1 + tolerance) and new.low > old.high
        if worse or better:
            what = f"speed of {old.a} against {old.b}, batch size {old.batch_size}, {old.depth}"
            yield Change(
                what, old.ratio, new.ratio, worse,
                f"{what}: {new.ratio:.3f} times ({new.low:.3f} to {new.high:.3f}), "
                f"was {old.ratio:.3f} ({old.low:.3f} to {old.high:.3f})",
            )  # fmt: skip


def _sizes(before: Sequence[ComparedModel], now: Sequence[ComparedModel], tolerance: float) -> Iterator[Change]:
    for old, new in _same(before, now):
        sizes = (
            ("file", old.file_bytes, new.file_bytes, 0),
            ("initialisers", old.initializer_bytes, new.initializer_bytes, 0),
            ("memory added by loading", old.memory.session_bytes, new.memory.session_bytes, MEMORY_NOISE_BYTES),
            ("memory added by runs", old.memory.arena_bytes, new.memory.arena_bytes, MEMORY_NOISE_BYTES),
        )
        for name, first, second, noise in sizes:
            if first is None or second is None:
                continue
            worse = second > first * (1 + tolerance) + noise
            if worse or first > second * (1 + tolerance) + noise:
                what = f"{name} of {old.model}"
                yield Change(what, first, second, worse, f"{what}: {second:,} bytes, was {first:,}")


def _times(before: Sequence[ComparedModel], now: Sequence[ComparedModel], tolerance: float) -> Iterator[Change]:
    for old, new in _same(before, now):
        later = {(latency.depth, latency.batch_size): latency for latency in (*new.latency, *new.service_latency)}
        for first in (*old.latency, *old.service_latency):
            second = later.get((first.depth, first.batch_size))
            if second is None:
                continue
            worse = second.p50_us > first.p50_us * (1 + tolerance) and _low(second) > _high(first)
            better = first.p50_us > second.p50_us * (1 + tolerance) and _low(first) > _high(second)
            if worse or better:
                what = f"median of {old.model}, batch size {first.batch_size}, {first.depth}"
                sentence = f"{what}: {second.p50_us:,.1f} µs, was {first.p50_us:,.1f} µs"
                yield Change(what, first.p50_us, second.p50_us, worse, sentence)


def _same(
    before: Sequence[ComparedModel], now: Sequence[ComparedModel]
) -> Iterator[tuple[ComparedModel, ComparedModel]]:
    later = {model.model: model for model in now}
    return ((model, later[model.model]) for model in before if model.model in later)


def _low(latency: Latency) -> float:
    return latency.p50_us if latency.p50_low_us is None else latency.p50_low_us


def _high(latency: Latency) -> float:
    return latency.p50_us if latency.p50_high_us is None else latency.p50_high_us
