"""Options, progress and tables of ``kronmodel compress``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from kronmodel.cli.options import file_options
from kronmodel.cli.pages import check_page, write_page
from kronmodel.errors import Argument, Message

if TYPE_CHECKING:  # onnx and torch take seconds to import
    from kronmodel.compress.files.report import GraphReport
    from kronmodel.compress.files.target import Distillation

__all__ = ["add_compress_options", "print_report", "run_compress"]

PRECISIONS = ("int8", "int8-static", "float16", "int4")
STRUCTURES = ("low-rank", "kronecker", "monarch")
ONE_THREAD_BYTES = 64 << 20  # model up to which one thread computes the fits
WORDS = ("layer", "structure", "variant")  # columns of the tables


def add_compress_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``kronmodel compress``, besides those of data files."""
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL.onnx", help="the model to compress")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--target-ratio", type=float, metavar="X", help="make the file X times smaller")
    target.add_argument("--max-bytes", type=int, metavar="B", help="make the file at most B bytes large")
    target.add_argument(
        "--max-drop",
        type=float,
        metavar="POINTS",
        help="make the file as small as it gets with a loss of at most so many percentage points of accuracy, "
        "or without labels of agreement with the original",
    )
    add(
        "--data",
        metavar="NAME|FILE",
        help="samples to fit to: a data set, your own .csv or .npz, or an .npz with an array for each input "
        "(default: the samples beside the model, else the weights alone)",
    )
    add("--samples", type=int, default=1000, metavar="N", help="samples to fit to (default: 1000)")
    add("--seed", type=int, default=0, help="of the split of a file (default: 0)")
    add(
        "--distill",
        type=int,
        nargs="?",
        const=1,
        metavar="EPOCHS",
        help="train the new weights to give the original's outputs on all training samples of --data "
        "(without a number: 1 epoch)",
    )
    add(
        "--label-weight",
        type=float,
        metavar="X",
        help="weight of the labels beside the original's outputs in this training, 0 to 1 (default: 0.3)",
    )
    default = "(default: as in the original's training or the default recipe, or none: a short trial decides)"
    add("--shift", type=float, metavar="PIXELS", help=f"shift images at random in this training {default}")
    add("--rotate", type=float, metavar="DEGREES", help="rotate them, by up to that many degrees either way")
    add("--zoom", type=float, metavar="FRACTION", help="stretch or shrink them, by up to that fraction")
    add("--flip", action=argparse.BooleanOptionalAction, help="mirror half of them")
    add(
        "--checkpoint",
        type=Path,
        metavar="DIR",
        help="folder of the checkpoints of --distill (default: .checkpoints in --out)",
    )
    add("--resume", action="store_true", default=None, help="continue from the checkpoints of an interrupted --distill")
    add("--quantize", choices=PRECISIONS, help="also quantise the result by onnxruntime's tools; alone: only quantise")
    add(
        "--structures",
        default=",".join(STRUCTURES),
        metavar="KIND,...",
        help=f"kinds of layers to consider (default: {','.join(STRUCTURES)})",
    )
    add("--allow-slower", action="store_true", help="also replace layers by structures that are measured to be slower")
    add("--out", type=Path, default=Path("models"), metavar="DIR", help="model repository (default: models)")
    add("--name", metavar="NAME", help="name of the original in the repository (default: its folder's or file's)")
    add("--report", type=Path, metavar="FILE.html", help="write a page with the tables and the curve of each layer")
    add("--json", action="store_true", help="print one JSON object instead of the tables")


def run_compress(args: argparse.Namespace, notes: Console, note: Callable[[str], None]) -> int:
    """Run ``kronmodel compress``, print its report, and return the exit code.

    Raises:
        KronmodelError: as :func:`kronmodel.compress.files.compress.compress_file` does.
        ValueError: an option is invalid.
    """
    _limit_threads(args.model)
    from kronmodel.compress.files.compress import compress_file
    from kronmodel.compress.files.target import Settings, Target

    structures = tuple(part.strip() for part in args.structures.split(","))
    if not all(part in STRUCTURES for part in structures):
        raise ValueError(f"--structures must be some of {', '.join(STRUCTURES)}, got {args.structures!r}")
    check_page(args.report)
    with _progress(notes) as show:
        report = compress_file(
            args.model,
            Target(ratio=args.target_ratio, max_bytes=args.max_bytes, max_drop=args.max_drop),
            data=args.data,
            options=file_options(args),
            samples=args.samples,
            out=args.out,
            name=args.name,
            quantize=args.quantize,
            distill=_distillation(args),
            settings=Settings(
                structures=cast(Any, structures), allow_slower=args.allow_slower, progress=show, report=note
            ),
        )
    if args.report is not None:
        write_page(args.report, report.to_html())
    if args.json:
        print(json.dumps(report.as_dict()))
    else:
        print_report(Console(), report)
    return 0


def _distillation(args: argparse.Namespace) -> Distillation | None:
    """Read the options of a distillation; None if there is to be none."""
    from kronmodel.compress.files.target import Distillation

    names = ("label_weight", "shift", "rotate", "zoom", "flip", "checkpoint", "resume")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.distill is None:
        if given:
            raise ValueError(Message(Argument(next(iter(given))), " is for ", Argument("distill")))
        return None
    return Distillation(epochs=args.distill, **given)


def _limit_threads(model: Path) -> None:
    """Let one thread multiply the matrices of a small model: several wait for each other longer than they save.

    The libraries read these variables when they are loaded; a caller's own values stay.
    """
    if "numpy" not in sys.modules and model.is_file() and model.stat().st_size <= ONE_THREAD_BYTES:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, "1")


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Show the step that is running, and how much of it is done; without a terminal, print nothing."""
    if not console.is_terminal:
        yield lambda step, done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task("reading", total=None)
        yield lambda step, done, total: bars.update(bar, description=step, completed=done, total=total or None)


def print_report(console: Console, report: GraphReport) -> None:
    """Print the layers and the variants of a compressed model as tables, which fit into 80 columns."""
    layers, variants = report.titles
    if report.layers:
        console.print(_table(layers, report.layer_table()), highlight=False)
        console.print()
    console.print(_table(variants, report.variant_table()), highlight=False)
    for variant in report.variants:
        if variant.note:
            console.print(f"{variant.variant}: {variant.note}", highlight=False, markup=False)
    console.print()
    console.print(f"wrote {report.path}", highlight=False, soft_wrap=True)
    console.print(f"beside {report.original}", highlight=False, soft_wrap=True)


def _table(title: str, rows: Sequence[Sequence[str]]) -> Table:
    """Make a table without lines, of which only the columns of words are broken in a narrow terminal."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    header, *body = rows
    for column in header:
        if column in WORDS:
            table.add_column(column, overflow="fold")
        else:
            table.add_column(column, justify="right", no_wrap=True)
    for row in body:
        table.add_row(*row)
    return table
