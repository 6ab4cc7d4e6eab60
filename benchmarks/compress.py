"""Compression of ONNX networks, most of them made by others: `make bench-compress`.

Each network is compressed by `kronmodel compress` to several sizes, with all structures and with low rank alone, and
compared with its original and with int8 versions of all, as onnxruntime's dynamic quantisation makes them. Sizes are
those of the files; accuracy is measured on labelled test samples, agreement and cosine against the original's outputs
on samples that no layer was fitted to. With `--times`, the networks that were made before are timed: medians of
alternating blocks in onnxruntime at one thread, with the ratio to the original.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import onnx

from benchmarks.compress_networks import CASES, FOLDER, Array, Case
from kronmodel.compress.files.checks import examples
from kronmodel.compress.files.compress import compress_file
from kronmodel.compress.files.quantize import quantize
from kronmodel.compress.files.report import VariantRow
from kronmodel.compress.files.target import Settings, Target
from kronmodel.compress.graphs.loading import fitting_and_test
from kronmodel.compress.graphs.samples import Samples
from kronmodel.compress.graphs.session import open_session
from kronmodel.compress.graphs.timing import Group, Timing, measure
from kronmodel.compress.matrices.structures import Kind
from kronmodel.data.user_file import FileOptions
from kronmodel.errors import KronmodelError

STRUCTURES: dict[str, tuple[Kind, ...]] = {
    "compressed": ("low-rank", "kronecker", "monarch"),
    "low rank": ("low-rank",),
}
COLUMNS = ("network", "variant", "bytes", "smaller", "accuracy", "agreement", "cosine", "ranking")
PAIRS = 2000


@dataclass(frozen=True)
class Made:
    """A network that was made, and its scores.

    Attributes:
        title: name in the table.
        path: its file; None if it could not be made.
        bytes: size of the file.
        scores: cells of the table.
        note: what was said about it.
    """

    title: str
    path: str | None
    bytes: int
    scores: tuple[str, ...]
    note: str


def compressed(name: str, case: Case, arguments: argparse.Namespace) -> list[Made]:
    """Compress a network to each size, quantise it, and score the results."""
    model = onnx.load(case.path)
    samples = fitting_and_test(
        model, case.path, case.data, FileOptions(), count=case.samples, report=lambda message: None
    )
    assert samples is not None
    folder = FOLDER / "made" / name
    rows: list[Made] = []
    found: dict[str, list[str]] = {}
    kinds = {which: structures for which, structures in STRUCTURES.items() if which == "low rank" or not case.low_rank}
    for ratio, (which, structures) in product(arguments.ratios or case.ratios, kinds.items()):
        title = f"{which} {ratio:g}×"
        only = {"low-rank", "refitted", "kept"}
        started = time.process_time()
        if which == "low rank" and not case.low_rank and _kinds(found, ratio) <= only:
            continue  # the best is low rank
        settings = Settings(structures=structures, allow_slower=arguments.allow_slower, seconds=0.05)
        with tempfile.TemporaryDirectory() as out:
            try:
                report = compress_file(
                    case.path,
                    Target(ratio=ratio),
                    data=case.data,
                    samples=case.samples,
                    out=Path(out),
                    settings=settings,
                )
            except KronmodelError as error:
                print(f"{name}, {title}: {error}", file=sys.stderr, flush=True)
                continue
            folder.mkdir(parents=True, exist_ok=True)
            path = report.path.rename(folder / f"{title.replace(' ', '-')}.onnx")
        print(f"{name}, {title}: {time.process_time() - started:.0f} s of processor time", file=sys.stderr, flush=True)
        found[title] = [layer.structure for layer in report.layers]
        names = sorted({each.split(",")[0].split(" ")[0] for each in found[title]} - {"kept", "refitted"})
        variants = {each.variant: each for each in report.variants}
        paths = {"original": case.path, "compressed": path}
        chosen = [("compressed", f"{title} ({', '.join(names)})"), ("compressed + int8", f"{title} + int8")]
        if not rows:
            chosen = [("original", "original"), ("int8", "int8"), *chosen]
        for own, label in chosen:
            at = paths.get(own)
            if at is None and variants[own].bytes is not None:
                at = folder / f"{label.replace(' ', '-')}.onnx"
                quantize(case.path if own == "int8" else path, "int8", at, None)
            rows.append(row((name, label), (case.path, at), variants[own], samples[1]))
        if arguments.layers:
            for layer in report.layers:
                print(f"  {layer}", file=sys.stderr)
    return rows


def _kinds(found: Mapping[str, Sequence[str]], ratio: float) -> set[str]:
    """Kinds of structures that all structures together led to at a size."""
    return {each.split()[0] for each in found.get(f"compressed {ratio:g}×", [])}


def merged(before: Sequence[Made], new: Sequence[Made]) -> list[Made]:
    """Rows of a network in the order of their sizes; new ones take the places of those with the same title."""
    rows = list({each.title: each for each in (*before, *new)}.values())
    return sorted(rows, key=lambda each: float((re.findall(r"([\d.]+)×", each.title) or ["0"])[0]))


def saved(file: Path) -> list[Made]:
    """Rows that were made before."""
    if not file.exists():
        return []
    return [Made(**{**each, "scores": tuple(each["scores"])}) for each in json.loads(file.read_text())]


def row(names: tuple[str, str], paths: tuple[Path, Path | None], variant: VariantRow, test: Samples) -> Made:
    (name, label), (original, path) = names, paths
    scores = variant.scores
    if scores is None:
        return Made(label, None, variant.bytes or 0, ("", "", "", ""), variant.note)
    accuracy = "" if scores.accuracy is None else f"{scores.accuracy:.2%}"
    is_embedding = name == "minilm"
    agreement = "" if scores.agreement is None or is_embedding else f"{scores.agreement:.2%}"
    ranking = f"{rank_correlation(original, path, test):.3f}" if is_embedding and path is not None else ""
    cells = (accuracy, agreement, f"{scores.cosine:.4f}", ranking)
    return Made(label, None if path is None else str(path), variant.bytes or 0, cells, variant.note)


@cache
def embeddings(path: Path, test: Samples) -> Array:
    """Outputs of a network for all samples."""
    session = open_session(path)
    return np.concatenate([session.run(None, feeds)[0] for feeds in test.batches()])


def rank_correlation(one: Path, other: Path, test: Samples) -> float:
    """Spearman's correlation of the similarities of random pairs of sentences in two networks."""
    similar = []
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, len(test), (2, PAIRS))
    pairs = pairs[:, pairs[0] != pairs[1]]
    for path in (one, other):
        vectors = embeddings(path, test)
        similar.append((vectors[pairs[0]] * vectors[pairs[1]]).sum(1))
    ranks: list[Array] = [each.argsort().argsort() for each in similar]
    return float(np.corrcoef(ranks)[0, 1])


def timed(case: Case, rows: Sequence[Made]) -> dict[str, dict[int, Timing]]:
    """Time all networks that were made of one, side by side."""
    model = onnx.load(case.path)
    samples = fitting_and_test(
        model, case.path, case.data, FileOptions(), count=case.samples, report=lambda message: None
    )
    feeds = examples(model, case.path, None if samples is None else samples[1])
    there = [each for each in rows if each.path is not None]
    groups = [Group([Path(str(each.path)) for each in there], each) for each in feeds.values()]
    times: dict[str, dict[int, Timing]] = {each.title: {} for each in there}
    for count, timings in zip(feeds, measure(groups, 4.0), strict=True):
        for each, timing in zip(there, timings, strict=True):
            times[each.title][count] = timing
    return times


def print_rows(name: str, rows: Sequence[Made], times: dict[str, dict[int, Timing]] | None) -> None:
    original = rows[0].bytes
    counts = sorted({count for each in (times or {}).values() for count in each})
    for each in rows:
        cells = [
            name,
            each.title,
            f"{each.bytes:,}" if each.bytes else "–",
            f"{original / each.bytes:.1f}×" if each.bytes else "",
            *each.scores,
        ]
        for count in (counts * 2)[:2] if len(counts) == 1 else counts:
            timing = (times or {}).get(each.title, {}).get(count)
            cells.append("" if timing is None else f"{timing.microseconds:,.0f} ({timing.ratio:.2f}×)")
        print(f"| {' | '.join(cells)} |" + (f" <!-- {each.note} -->" if each.note else ""), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "networks", nargs="*", choices=[*CASES, []], metavar="NETWORK", help=f"some of {', '.join(CASES)}"
    )
    parser.add_argument(
        "--ratios", type=float, nargs="+", metavar="X", help="sizes to reach instead of each network's own"
    )
    parser.add_argument("--allow-slower", action="store_true")
    parser.add_argument("--layers", action="store_true", help="also print each layer")
    parser.add_argument("--times", action="store_true", help="only time the networks that were made before")
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    columns = [*COLUMNS, "µs, 1 sample", "µs, 32 samples"] if arguments.times else COLUMNS
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|", flush=True)
    for name in arguments.networks or CASES:
        file = FOLDER / f"{name}.json"
        if arguments.times:
            if rows := saved(file):
                print_rows(name, rows, timed(CASES[name](), rows))
            continue
        if new := compressed(name, CASES[name](), arguments):
            rows = merged(saved(file), new)
            file.write_text(json.dumps([asdict(each) for each in rows]))
            print_rows(name, rows, None)


if __name__ == "__main__":
    main()
