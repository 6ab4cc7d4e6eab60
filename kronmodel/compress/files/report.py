"""Report of the compression of an ONNX file: each layer, and the model against its original and quantised variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kronmodel.compress.graphs.scores import Scores
from kronmodel.compress.graphs.timing import Timing
from kronmodel.compress.page import page_of

__all__ = ["DistillationRow", "GraphReport", "LayerRow", "VariantRow"]

SCORES = {"accuracy": "accuracy", "r2": "R²", "agreement": "agree", "relative_error": "error"}


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """A layer in the report.

    Attributes:
        layer: operator and name of the node.
        shape: outputs and inputs of its matrix, or the shape of the weight.
        structure: structure that takes its place; ``kept`` if it stays as it was.
        bytes: stored bytes of the weight and before, and after.
        macs: multiply-adds a row, before and after; None for a layer that was not examined.
        error: root mean square of the change of its outputs on the samples, relative to their spread; None if it stays.
        time_ratio: measured time for one sample, after divided by before; None if it was not measured.
        reason: why it stays as it was.
        kind: kind of that structure.
        curve: candidates that no other one beat: ``structure``, ``kind``, ``bytes`` with the bias, ``macs``,
            ``weight_error`` and ``output_error`` of each.
    """

    layer: str
    shape: tuple[int, ...]
    structure: str = "kept"
    bytes: tuple[int, int]
    macs: tuple[int, int] | None = None
    error: float | None = None
    time_ratio: float | None = None
    reason: str = ""
    kind: str = "dense"
    curve: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class VariantRow:
    """A variant of the model in the report: the original, the compressed model, or a quantised one.

    Attributes:
        variant: name of the variant.
        bytes: size of its file, with the files of its weights.
        scores: scores on samples; None without samples.
        times: measured run times by the number of samples in a run, against the original.
        note: why there are no figures, or what else changed.
    """

    variant: str
    bytes: int | None
    scores: Scores | None = None
    times: dict[int, Timing] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class DistillationRow:
    """Training of the new weights in the report.

    Attributes:
        epochs: passes over the samples.
        samples: number of training samples.
        validated: number of other samples, by which it is decided whether the trained weights are kept.
        seconds: wall time.
        label_weight: weight of the labels' loss.
        augmentation: largest random changes of the images; empty without.
        learning_rate: largest learning rate.
        metric: what is measured on the other samples: accuracy, r2, agreement or relative_error.
        before: its value before the training.
        after: its value after.
        is_kept: whether the trained weights are kept.
    """

    epochs: int
    samples: int
    validated: int
    seconds: float
    label_weight: float
    augmentation: Mapping[str, float]
    learning_rate: float
    metric: str
    before: float
    after: float
    is_kept: bool

    def __str__(self) -> str:
        changes = "".join(f", {name} {value:g}" for name, value in self.augmentation.items())
        digits = "{:.4f}" if self.metric in ("r2", "relative_error") else "{:.2%}"
        before, after = (digits.format(value) for value in (self.before, self.after))
        return (
            f"distilled for {self.epochs} epoch{'' if self.epochs == 1 else 's'} of {self.samples:,} samples in "
            f"{self.seconds:.0f} s, labels {self.label_weight:g}{changes}: {self.metric.replace('_', ' ')} on "
            f"{self.validated:,} others {before}, then {after}; {'kept' if self.is_kept else 'not kept'}"
        )


@dataclass(frozen=True, kw_only=True)
class GraphReport:
    """Report of the compression of an ONNX file.

    Attributes:
        model: path of the original.
        name: name of the published model.
        path: its path in the model repository.
        original: path of the original in the model repository.
        fitted_to: description of the samples that the layers were fitted to.
        measured_on: description of the samples that the scores were computed on.
        layers: the layers.
        variants: the original first, then the compressed model and the quantised variants.
        messages: further sentences.
        distillation: training of the new weights; None if there was none.
    """

    model: Path
    name: str
    path: Path
    original: Path
    fitted_to: str
    measured_on: str
    layers: Sequence[LayerRow]
    variants: Sequence[VariantRow]
    messages: Sequence[str]
    distillation: DistillationRow | None = None

    def layer_table(self) -> list[tuple[str, ...]]:
        """Return a header and a row of texts for each layer."""
        rows = [
            (
                row.layer,
                "×".join(map(str, row.shape)),
                f"{row.structure}: {row.reason}" if row.reason else row.structure,
                f"{row.bytes[0]:,}",
                f"{row.bytes[1]:,}",
                "" if row.error is None else f"{row.error:.3f}",
                "" if row.time_ratio is None else f"{row.time_ratio:.2f}×",
            )
            for row in self.layers
        ]
        return [("layer", "shape", "structure", "bytes", "after", "error", "time"), *rows]

    def variant_table(self) -> list[tuple[str, ...]]:
        """Return a header and a row of texts for each variant; times are in microseconds a run, in one thread."""
        scores = [name for name in SCORES if any(_score(row, name) for row in self.variants)]
        counts = sorted({count for row in self.variants for count in row.times})
        header = ("variant", "bytes", "ratio", *(SCORES[name] for name in scores))
        original = self.variants[0].bytes or 0
        rows = [
            (
                row.variant,
                "" if row.bytes is None else f"{row.bytes:,}",
                "" if not row.bytes else f"{original / row.bytes:.1f}×",
                *(_score(row, name) for name in scores),
                *(_time(row, count) for count in counts),
            )
            for row in self.variants
        ]
        return [(*header, *(f"{count} sample{'' if count == 1 else 's'}" for count in counts)), *rows]

    @property
    def titles(self) -> tuple[str, str]:
        """Titles of the tables of layers and of variants."""
        return f"Layers, fitted to {self.fitted_to}", f"Variants, on {self.measured_on}; µs a run, one thread"

    def notes(self) -> list[str]:
        """Return the sentences that belong to the tables."""
        trained = [] if self.distillation is None else [str(self.distillation)]
        return [*self.messages, *trained, *(f"{row.variant}: {row.note}" for row in self.variants if row.note)]

    def to_html(self) -> str:
        """Return the report as one self-contained page, with the curve on which each layer was chosen."""
        layers, variants = self.titles
        tables = {variants: self.variant_table(), **({layers: self.layer_table()} if self.layers else {})}
        drawn = [
            {
                "name": row.layer,
                "kind": row.kind,
                "bytes": (row.bytes[0], _bytes_in_curve(row)),
                "output_error": row.error or 0.0,
                "curve": row.curve,
            }
            for row in self.layers
        ]
        return page_of(f"Compression of {self.original.parent.parent.name}", tables, drawn, self.notes())

    def as_dict(self) -> dict[str, Any]:
        """Return the report as an object for JSON."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}


def _bytes_in_curve(row: LayerRow) -> int:
    """Return the bytes of a layer's structure as its curve counts them, with the bias."""
    for point in row.curve:
        if point["kind"] == row.kind and (row.kind == "dense" or row.structure.startswith(point["structure"])):
            return int(point["bytes"])
    return row.bytes[1]


def _score(variant: VariantRow, name: str) -> str:
    value = None if variant.scores is None else getattr(variant.scores, name)
    if value is None:
        return ""
    return f"{value:.3f}" if name == "relative_error" else f"{value:.2%}"


def _time(variant: VariantRow, count: int) -> str:
    timing = variant.times.get(count)
    if timing is None:
        return ""
    digits = 1 if timing.microseconds < 100 else 0
    ratio = "" if variant.variant == "original" else f" {timing.ratio:.2f}×"
    return f"{timing.microseconds:,.{digits}f}{ratio}"
