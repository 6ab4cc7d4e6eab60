"""Comparison of a model with its compressed and quantised variants: size, scores on samples, measured run times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from kronmodel.compress.files.quantize import Precision, quantize
from kronmodel.compress.files.report import VariantRow
from kronmodel.compress.graphs.samples import Samples
from kronmodel.compress.graphs.scores import compare
from kronmodel.compress.graphs.timing import Group, measure
from kronmodel.errors import KronmodelError

__all__ = ["Variants"]

SECONDS = 1.0  # for the run times of all variants at one number of samples


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

    def rows(self, samples: Samples | None, feeds: Mapping[int, Mapping[str, NDArray[Any]]]) -> list[VariantRow]:
        """Score and time all variants side by side.

        Args:
            samples: samples to score on; None scores nothing.
            feeds: inputs of a run, by the number of its samples.
        """
        rows = {name: VariantRow(variant=name, bytes=self._sizes.get(name), note=note) for name, note in self._all()}
        usable = dict(self.paths)
        for name, path in self.paths.items():
            first = {"original": self.paths["original"], name: path}
            try:
                if samples is not None:
                    rows[name] = replace(rows[name], scores=compare(first, samples)[name])
                else:
                    measure([Group([path], next(iter(feeds.values())))], 0.0)
            except KronmodelError as error:
                if name in ("original", "compressed"):
                    raise
                del usable[name]
                rows[name] = replace(rows[name], note=str(error))
        groups = [Group(list(usable.values()), each) for each in feeds.values()]
        for count, timings in zip(feeds, measure(groups, SECONDS), strict=True):
            for name, timing in zip(usable, timings, strict=True):
                rows[name] = replace(rows[name], times={**rows[name].times, count: timing})
        return [replace(row, note=_with_slowness(row)) for row in rows.values()]

    def _all(self) -> list[tuple[str, str]]:
        names = dict.fromkeys([*self.paths, *self._notes])
        order = sorted(names, key=lambda name: (name != "original", "compressed" in name, "+" in name))
        return [(name, self._notes.get(name, "")) for name in order]


def _with_slowness(row: VariantRow) -> str:
    """Add to a variant's note that it runs slower than the original, where the measurement says so."""
    slow = [f"{count}" for count, timing in row.times.items() if timing.low > 1]
    if not slow or row.variant == "original":
        return row.note
    text = f"slower than the original at {' and '.join(slow)} sample{'s' if slow != ['1'] else ''}"
    return f"{row.note}; {text}" if row.note else text
