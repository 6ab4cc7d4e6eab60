"""Report of a compression: each layer's structure, costs and errors, and the whole network before and after."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kronmodel.compress.matrices.candidates import Candidate, MatrixLayer, unchanged
from kronmodel.compress.page import page_of
from kronmodel.compress.search.in_order import CompressedLayer

__all__ = ["CompressionReport", "LayerReport", "Whole", "curve_points", "layer_reports"]


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """Result of one layer.

    Attributes:
        name: name of the layer.
        kind: ``"dense"``, ``"low-rank"``, ``"kronecker"`` or ``"monarch"``.
        in_shape: factor sizes of the inputs.
        out_shape: factor sizes of the outputs.
        rank: rank; 1 for a dense matrix.
        bytes: stored bytes before and after.
        macs: multiply-adds for a sample before and after.
        microseconds: measured time of the layer for a sample before and after; None if the budget was another one.
        weight_error: change of the weight, relative to its Frobenius norm.
        output_error: root mean square of the change of the outputs, relative to their standard deviation: on held-out
            samples, or without samples for uncorrelated inputs.
        reason: why a dense layer is dense, else empty; a refitted one has another weight than before.
        curve: structure, bytes, multiply-adds and errors of each candidate that no other one beat.
    """

    name: str
    kind: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    rank: int
    bytes: tuple[int, int]
    macs: tuple[int, int]
    weight_error: float
    output_error: float
    reason: str
    curve: tuple[dict[str, Any], ...]
    microseconds: tuple[float, float] | None = None

    @property
    def structure(self) -> str:
        """Structure in a few words."""
        if self.kind == "dense":
            return "dense"
        sides = "" if self.kind == "low-rank" else f" {_sizes(self.in_shape)} → {_sizes(self.out_shape)},"
        return f"{self.kind}{sides} rank {self.rank}"


@dataclass(frozen=True, kw_only=True)
class Whole:
    """Figures of the whole network, original or compressed.

    Attributes:
        bytes: stored bytes of all parameters; shared ones count once.
        macs: multiply-adds for a sample of the layers that could be compressed.
        score: score of the caller's evaluation, such as the accuracy in %; None without one.
        latency_us: median time of a call with one batch, in microseconds; None if it was not measured.
    """

    bytes: int
    macs: int
    score: float | None = None
    latency_us: float | None = None


@dataclass(frozen=True, kw_only=True)
class CompressionReport:
    """Report of a compression, as a table, JSON, or a page of HTML.

    Attributes:
        layers: result of each layer that could be compressed, in the order of the network.
        before: figures of the original.
        after: figures of the compressed network.
        output_error: root mean square of the change of the network's outputs on held-out samples, relative to their
            standard deviation; None without samples.
        agreement: fraction of held-out samples with the same largest output; None without samples or classes.
        skipped: layers that were left alone, with reasons.
        notes: sentences about what was done and what it means.
    """

    layers: tuple[LayerReport, ...]
    before: Whole
    after: Whole
    output_error: float | None = None
    agreement: float | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ratio(self) -> float:
        """How many times smaller the compressed network is, in bytes."""
        return self.before.bytes / max(self.after.bytes, 1)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {"ratio": self.ratio, **asdict(self)}

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def to_html(self, title: str = "Compression") -> str:
        """Return the report as one self-contained page, with the curve of each layer.

        Args:
            title: heading of the page.
        """
        tables: dict[str, Sequence[Sequence[str]]] = {
            "": [("", "before", "after"), *self.summary()],
            "Layers": self.rows(),
        }
        return page_of(title, tables, [asdict(layer) for layer in self.layers])

    def summary(self) -> list[tuple[str, str, str]]:
        """Return the figures of the whole network: name, before, after."""
        rows = [
            ("bytes", f"{self.before.bytes:,}", f"{self.after.bytes:,} ({self.ratio:.2f}× smaller)"),
            ("multiply-adds a sample", f"{self.before.macs:,}", f"{self.after.macs:,}"),
        ]
        if self.before.score is not None and self.after.score is not None:
            rows.append(("score", f"{self.before.score:.2f}", f"{self.after.score:.2f}"))
        if self.before.latency_us is not None and self.after.latency_us is not None:
            rows.append(("latency, µs", f"{self.before.latency_us:,.0f}", f"{self.after.latency_us:,.0f}"))
        if self.agreement is not None:
            rows.append(("agreement on held-out samples", "", f"{100 * self.agreement:.2f} %"))
        if self.output_error is not None:
            rows.append(("relative error of the outputs", "", f"{self.output_error:.4f}"))
        return rows

    def rows(self) -> list[tuple[str, ...]]:
        """Return a header and a row of texts for each layer, also for those that were left alone."""
        columns = ("layer", "structure", "bytes", "multiply-adds", "µs", "weight error", "output error", "remark")
        rows = [
            (
                layer.name,
                layer.structure,
                f"{layer.bytes[0]:,} → {layer.bytes[1]:,}",
                f"{layer.macs[0]:,} → {layer.macs[1]:,}",
                "" if layer.microseconds is None else "{:,.1f} → {:,.1f}".format(*layer.microseconds),
                f"{layer.weight_error:.3f}",
                f"{layer.output_error:.3f}",
                layer.reason,
            )
            for layer in self.layers
        ]
        left = [(name, "unchanged", "", "", "", "", "", reason) for name, reason in self.skipped]
        table: list[tuple[str, ...]] = [columns, *rows, *left]
        if any(layer.microseconds is not None for layer in self.layers):
            return table
        time = columns.index("µs")
        return [(*row[:time], *row[time + 1 :]) for row in table]

    def table(self) -> str:
        """Return the report as text with aligned columns."""
        rows = self.rows()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        whole = [f"{name}: {f'{before} → ' if before else ''}{after}" for name, before, after in self.summary()]
        return "\n".join([*lines, "", *whole, *self.notes])


def layer_reports(
    results: Sequence[CompressedLayer], measured: Callable[[MatrixLayer, Candidate], Candidate]
) -> tuple[LayerReport, ...]:
    """Describe the results of a compression for its report.

    Args:
        results: result of each layer.
        measured: returns a candidate with its measured time, if times were measured.
    """
    return tuple(_layer_report(result, measured) for result in results)


def _layer_report(result: CompressedLayer, measured: Callable[[MatrixLayer, Candidate], Candidate]) -> LayerReport:
    before, chosen = (measured(result.layer, each) for each in (unchanged(result.layer), result.chosen))
    structure = chosen.structure
    reason = result.reason
    if structure.kind == "dense" and result.fitted is not None:
        reason = "refitted behind compressed layers"
    if result.is_permuted:
        reason = f"{reason}; units permuted" if reason else "units permuted"
    return LayerReport(
        name=result.layer.name,
        kind=structure.kind,
        in_shape=structure.in_shape,
        out_shape=structure.out_shape,
        rank=structure.rank,
        bytes=(before.bytes, chosen.bytes),
        macs=(before.macs, chosen.macs),
        weight_error=chosen.weight_error,
        output_error=chosen.output_error,
        reason=reason,
        curve=curve_points(result.curve),
        microseconds=(
            None
            if before.microseconds is None or chosen.microseconds is None
            else (before.microseconds, chosen.microseconds)
        ),
    )


def curve_points(candidates: Sequence[Candidate]) -> tuple[dict[str, Any], ...]:
    """Describe the candidates of a layer, among which its structure was chosen."""
    return tuple(
        {
            "structure": str(each.structure),
            "kind": each.structure.kind,
            "bytes": each.bytes,
            "macs": each.macs,
            "weight_error": each.weight_error,
            "output_error": each.output_error,
        }
        for each in candidates
    )


def _sizes(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
