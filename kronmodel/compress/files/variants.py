"""Comparison of a model with its compressed and quantised variants: size, scores on samples, measured run times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from kronmodel.compress.files.quantize import Precision, quantize
from kronmodel.compress.files.report import VariantRow
from kronmodel.compress.graphs.samples import Samples
from kronmodel.compress.graphs.scores import compare
from kronmodel.compress.graphs.session import open_session, run
from kronmodel.compress.graphs.timing import Group, measure
from kronmodel.errors import KronmodelError

__all__ = ["Variants", "drawbacks"]


class Variants:
    """Files of a model's variants, and the comparison of them.

    Args:
        folder: folder for the files that are made.
        original: path of the original, with all weights inside it or beside it.
        size: its size in bytes, with the files of its weights.
        calibration: samples for static quantisation.
    """

    def __init__(self, folder: Path, original: Path, size: int, calibration: Samples | None) -> None:
        self._folder = folder
        self._calibration = calibration
        self.paths: dict[str, Path] = {"original": original}
        self._sizes = {"original": size}
        self._notes: dict[str, str] = {}

    def add(self, name: str, path: Path) -> None:
        """Add a variant with all its weights in one file."""
        self.paths[name] = path
        self._sizes[name] = path.stat().st_size

    def add_quantized(self, of: str, precision: Precision) -> str:
        """Quantise a variant by onnxruntime's tool, and return the name of the new one; if the tool fails, say so."""
        name = precision if of == "original" else f"{of} + {precision}"
        if name in self.paths or name in self._notes:
            return name
        target = self._folder / f"{name.replace(' + ', '-')}.onnx"
        try:
            self._notes[name] = quantize(self.paths[of], precision, target, self._calibration)
            self.add(name, target)
        except KronmodelError as error:
            self._notes[name] = str(error)
        return name

    def note(self, name: str) -> str:
        """Return what is to be said about a variant; empty if nothing is."""
        return self._notes.get(name, "")

    def rows(
        self, samples: Samples | None, feeds: Mapping[int, Mapping[str, NDArray[Any]]], seconds: float
    ) -> list[VariantRow]:
        """Score and time all variants side by side.

        Args:
            samples: samples to score on; None scores nothing.
            feeds: inputs of a run, by the number of its samples.
            seconds: duration of the measurement at one number of samples.
        """
        rows = {name: VariantRow(variant=name, bytes=self._sizes.get(name), note=note) for name, note in self._all()}
        usable = dict(self.paths)
        for name, path in self.paths.items():
            try:
                for each in feeds.values():
                    run(open_session(path), each, name)
                if samples is not None:  # outputs that are not finite are seen in the first run
                    compare({"original": self.paths["original"], name: path}, samples.first_run())
            except KronmodelError as error:
                if name in ("original", "compressed"):
                    raise
                del usable[name]
                rows[name] = replace(rows[name], note=str(error))
        if samples is not None:
            for name, scores in compare(usable, samples).items():
                rows[name] = replace(rows[name], scores=scores)
        groups = [Group(list(usable.values()), each) for each in feeds.values()]
        for count, timings in zip(feeds, measure(groups, seconds), strict=True):
            for name, timing in zip(usable, timings, strict=True):
                rows[name] = replace(rows[name], times={**rows[name].times, count: timing})
        return [
            replace(row, note="; ".join(filter(None, (row.note, *drawbacks(row, rows["original"], rows.get("int8"))))))
            for row in rows.values()
        ]

    def _all(self) -> list[tuple[str, str]]:
        names = dict.fromkeys([*self.paths, *self._notes])
        order = sorted(names, key=lambda name: (name != "original", "compressed" in name, "+" in name))
        return [(name, self._notes.get(name, "")) for name in order]


def drawbacks(row: VariantRow, original: VariantRow, int8: VariantRow | None) -> Iterator[str]:
    """Say that a variant is larger than the original, was measured to be slower, or is worse in all than plain int8."""
    if row.variant == "original":
        return
    if row.bytes is not None and original.bytes is not None and row.bytes > original.bytes:
        yield f"{row.bytes / original.bytes:.1f} times as large as the original"
    slow = [f"{count}" for count, timing in row.times.items() if timing.low > 1]
    if slow:
        yield f"slower than the original at {' and '.join(slow)} sample{'s' if slow != ['1'] else ''}"
    if int8 is not None and "compressed" in row.variant and _is_better(int8, row, original):
        yield "int8 of the original is not larger and loses less"


def _is_better(one: VariantRow, other: VariantRow, original: VariantRow) -> bool:
    """Tell whether a variant is not larger than another one, and loses less: of the score, else of the outputs."""
    if one.scores is None or other.scores is None or original.scores is None:
        return False
    if one.bytes is None or other.bytes is None or one.bytes > other.bytes:
        return False
    lost, more = one.scores.drop(original.scores), other.scores.drop(original.scores)
    if lost is None or more is None:
        return one.scores.relative_error < other.scores.relative_error
    return lost < more
