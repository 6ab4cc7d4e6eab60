"""The command ``kronmodel``: parses arguments, calls the library, prints results."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape

from kronmodel import __version__
from kronmodel.cli import export
from kronmodel.cli.compress import add_compress_options, run_compress
from kronmodel.cli.console import print_baselines, print_fields, print_twin
from kronmodel.cli.options import error_text, file_options, option_text, twin_arguments
from kronmodel.errors import Argument, KronmodelError, Message, is_out_of_memory, out_of_memory_text

__all__ = ["main", "parser"]

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

IS_MAIN = os.environ.get("RANK", "0") == "0"  # torchrun starts several processes; only the main one prints

errors = Console(stderr=True)
notes = Console(stderr=True, quiet=not IS_MAIN)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 on bad input, 130 when interrupted."""
    with contextlib.nullcontext() if IS_MAIN else contextlib.redirect_stderr(io.StringIO()):
        args = parser().parse_args(argv)
    with _sigterm_handled(_terminate):
        try:
            code: int = args.run(args)
        except KeyboardInterrupt:
            notes.print("interrupted; nothing was published")
            return EXIT_INTERRUPTED
        except (KronmodelError, ValueError, ModuleNotFoundError) as error:
            with _sigterm_handled(signal.SIG_IGN):  # torchrun must not stop this process before it has reported
                _print_error(error)
            return EXIT_BAD_INPUT
        except (
            MemoryError,
            RuntimeError,
            ImportError,
        ) as error:  # memory can run out anywhere, such as while data are read
            if not is_out_of_memory(error):
                raise
            _print_error(KronmodelError(f"{out_of_memory_text(error)}; nothing was published"))
            return EXIT_BAD_INPUT
    return code


def _print_error(error: Exception) -> None:
    """Print an error in one line; for a missing package, also print how to install the training dependencies."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    extra = "tables" if missing == "pyarrow" else "train"
    text = f"this needs {missing}: pip install 'kronmodel[{extra}]'" if missing else error_text(error)
    errors.print(f"[bold red]kronmodel: error:[/] {escape(text)}", soft_wrap=True)


@contextlib.contextmanager
def _sigterm_handled(handler: Callable[[int, FrameType | None], Any] | signal.Handlers) -> Iterator[None]:
    """Install a handler of SIGTERM for a ``with`` block, and restore the caller's handler afterwards."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may change signal handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Handle SIGTERM by raising an exception, so that clean-up code runs as it does on Ctrl-C."""
    sys.exit(EXIT_TERMINATED)


def parser() -> argparse.ArgumentParser:
    """Build the parser of the commands and their options."""
    top = argparse.ArgumentParser(
        prog="kronmodel",
        description="Train Kronecker-structured networks beside their dense twins; export and compress ONNX.",
    )
    top.add_argument("--version", action="version", version=f"kronmodel {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands.add_parser("train", help="train a Kronecker network and its dense twin, and export both"))
    data = commands.add_parser("data", help="list the data sets, or fetch one and describe it")
    data.add_argument("name", nargs="?", help="data set to fetch and describe, or your own file")
    _add_file_options(data)
    data.add_argument("--seed", type=int, default=0, help="of the split of a file (default: 0)")
    data.add_argument("--json", action="store_true", help="print one JSON object")
    data.set_defaults(run=_data)
    predict = commands.add_parser("predict", help="predict the rows of a file with a trained model")
    predict.add_argument("model", type=Path, metavar="MODEL", help="ONNX file, or folder of a model or of a version")
    predict.add_argument("file", type=Path, metavar="FILE", help="table such as a .csv, or .npz file with x")
    predict.add_argument("--out", type=Path, metavar="FILE.csv", help="write the answers there (default: print them)")
    predict.add_argument("--proba", action="store_true", help="write the probability of each class, too")
    text = "compare with the true values, in the columns that the model was trained to predict, or in this one"
    predict.add_argument("--check", nargs="?", const="", metavar="COLUMN", help=text)
    predict.add_argument(
        "--skip-bad-rows", action="store_true", help="leave out rows that can't be used, and print which"
    )
    predict.add_argument("--json", action="store_true", help="print one JSON object; needs --out")
    predict.set_defaults(run=_predict)
    recipes = commands.add_parser("recipes", help="list the recipes")
    recipes.add_argument("--json", action="store_true", help="print one JSON object with every value of each")
    recipes.set_defaults(run=_recipes)
    export.add_arguments(
        commands.add_parser("export", help="convert an ONNX model to a web page, an ES module, or C code")
    )
    compress = commands.add_parser("compress", help="make an ONNX file smaller, and compare it with the original")
    add_compress_options(compress)
    _add_file_options(compress)
    compress.set_defaults(run=_compress)
    info = commands.add_parser("info", help="describe an ONNX file and its model card, or what is used of this machine")
    info.add_argument("model", type=Path, metavar="MODEL.onnx", nargs="?")
    info.add_argument("--system", action="store_true", help="say whether native code is used on this machine, and why")
    info.add_argument("--json", action="store_true", help="print one JSON object")
    info.set_defaults(run=_info)
    return top


def _add_train(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", default="mnist", metavar="NAME|FILE", help="data set, see `kronmodel data`, or your own file")
    _add_file_options(parser)
    add("--pad", action="store_true", help="fill the features up with zeros to a width with balanced factors")
    add("--kind", default="twin", choices=["twin", "kronecker", "dense"], help="what to train (default: twin)")
    names = (
        "default, accurate, tiny, tiny-8k, fashion-mnist, tiny-fashion-mnist, small-table, or the authors' paper, "
        "paper-cifar10[-rank-4]"
    )
    add("--recipe", metavar="NAME", help=f"{names} (default: small-table for one, else default)")
    add("--rank", metavar="R|R,R,...", help="Kronecker rank of every layer, or one for each, the last layer included")
    add("--hidden", metavar="28x28,28x28", help="shapes of the hidden layers, as factor sizes; or none")
    add("--features", metavar="16,64,256", help="channels of 3x3 convolutions in front of both networks")
    add("--dropout", type=float, metavar="X", help="fraction of these features that is left out in training")
    add(
        "--layer",
        choices=["dual", "linear"],
        help="Kronecker layers with or without an activation between their factors",
    )
    add("--order", metavar="left|right|left,right,...", help="which factor comes first, or one for each branch")
    add("--activation", metavar="NAME", help="gelu, relu or tanh")
    add(
        "--bits",
        metavar="B|B,B,...",
        help="quantisation-aware training: 8, 4 or 2 bits a weight, or one for each layer",
    )
    add("--bias-bits", type=int, metavar="B", help="bits of a bias beside --bits: 8, or 32 for float (default: 8)")
    add(
        "--bias-form",
        choices=["full", "row-column"],
        help="biases of Kronecker layers beside --bits: one for each feature, or for each row and column",
    )
    add("--activation-bits", type=int, metavar="B", help="beside --bits: 8, or 32 for float (default: 32)")
    add("--quantize-epochs", type=int, metavar="N", help="quantise in the last N epochs only (default: in all)")
    text = "start from a trained network or checkpoint, for example beside --bits; once for each network of a twin"
    add("--from", dest="initial_weights", type=Path, action="append", default=[], metavar="MODEL|last.pt", help=text)
    add("--epochs", type=int, help="passes over the training data")
    add("--batch-size", type=int, metavar="N", help="samples a step")
    add("--optimizer", metavar="NAME", help="adam, adamw or sgd")
    add("--learning-rate", type=float, metavar="X", help="constant, or the maximum of the one-cycle schedule")
    add("--schedule", metavar="NAME", help="one-cycle or constant")
    add("--weight-decay", type=float, metavar="X", help="of AdamW")
    add("--seed", type=int, help="of the initial weights and the order of samples (default: 0)")
    add("--device", metavar="NAME", help="cpu, cuda or cuda:N (default: cpu)")
    add("--threads", type=int, metavar="N", help="CPU threads (default: torch's choice)")
    add("--shift", type=float, metavar="PIXELS", help="shift images at random in training, by up to that many pixels")
    add("--rotate", type=float, metavar="DEGREES", help="rotate them, by up to that many degrees either way")
    add("--zoom", type=float, metavar="X", help="stretch or shrink their height and width, by up to that fraction")
    add("--flip", action=argparse.BooleanOptionalAction, default=None, help="mirror half of them, left to right")
    add(
        "--validation-share", type=float, metavar="X", help="fraction of the training data held out to choose the epoch"
    )
    add("--patience", type=int, metavar="N", help="stop after N epochs without a better validation score")
    add("--precision", choices=["float32", "bfloat16"], help="of the activations in training (default: float32)")
    add("--compile", action="store_true", default=None, help="torch.compile and CUDA graphs, on CUDA devices")
    add("--checkpoint", type=Path, metavar="DIR", help="folder of the checkpoints (default: .checkpoints in --out)")
    add("--resume", action="store_true", help="continue from the checkpoints of an interrupted training")
    add("--log-csv", type=Path, metavar="FILE.csv", help="write a line for each epoch")
    text = "also train simple methods on a table, and higher ranks where the dense network is better (default: on)"
    add("--baselines", action=argparse.BooleanOptionalAction, default=True, help=text)
    add("--report", type=Path, metavar="FILE.html", help="write a page with the curves and the comparison")
    add(
        "--progress-fd",
        type=int,
        metavar="N",
        help="write plan, steps and epochs as lines of JSON to this file descriptor, for another program",
    )
    add("--out", type=Path, default=Path("models"), metavar="DIR", help="model repository (default: models)")
    add("--name", metavar="NAME", help="name of the twin (default: the data set's)")
    add("--json", action="store_true", help="print one JSON object instead of the table")
    parser.set_defaults(run=_train)


def _add_file_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that configure how a user's file is read."""
    add = parser.add_argument
    add("--target", metavar="COLUMN[,...]", help="column of a table to predict; several for regression")
    add("--task", choices=["classification", "regression"], help="default: inferred from the target, and printed")
    add("--test-share", type=float, metavar="X", help="fraction of a file's samples to test on (default: 0.2)")
    add("--skip-bad-rows", action="store_true", help="leave out rows of a table that can't be used, and print which")
    add(
        "--groups",
        metavar="COLUMN",
        help="column whose groups, such as patients, are not split between training and test",
    )
    add("--time-order", metavar="COLUMN", help="column of dates, times or numbers; the latest rows are the test")
    add("--drop", action="append", metavar="COLUMN,...", help="columns of a table to leave out")
    add("--categorical", action="append", metavar="COLUMN,...", help="columns of a table to take as categories")
    add("--numeric", action="append", metavar="COLUMN,...", help="columns of a table to take as numbers")
    add("--date", action="append", metavar="COLUMN,...", help="columns of a table to take as dates and times")
    add(
        "--impute",
        choices=["median", "mean", "most-frequent", "none"],
        help="what replaces a missing number; none: rows with missing values are bad rows (default: median)",
    )


def _train(args: argparse.Namespace) -> int:
    if importlib.util.find_spec("torch") is None:
        raise KronmodelError("training needs PyTorch, which is not installed: pip install 'kronmodel[train]'")
    from kronmodel.cli.pages import check_page
    from kronmodel.cli.report import write_report
    from kronmodel.cli.training import CommandCallback, search_ranks_of
    from kronmodel.training.baselines import baselines
    from kronmodel.training.device import keep_freed_memory
    from kronmodel.twin import train_twin

    keep_freed_memory()
    if IS_MAIN:
        check_page(args.report)
    descriptor, log = (args.progress_fd, args.log_csv) if IS_MAIN else (None, None)
    with CommandCallback(notes, _note, descriptor=descriptor, log=log) as callback:
        twin = train_twin(args.data, **twin_arguments(args), callback=callback)
    if not twin.published:  # only the main process of a distributed run publishes and prints
        return 0
    models = {each.card["role"]: each.summary() for each in twin.published}
    scored, higher = [], None
    if args.baselines and twin.data.image_shape is None:
        scored, higher = baselines(twin.data), search_ranks_of(callback.members, twin.data, models, _note)
    if args.report is not None:
        histories = {str(role): model.result.history for role, model in twin.models.items()}
        cards = {each.card["role"]: each.card for each in twin.published}
        write_report(args.report, twin.name, models, histories, cards, baselines=scored, ranks=higher)
    if args.json:
        shown: dict[str, Any] = {"baselines": [asdict(each) for each in scored]} if scored else {}
        shown |= {} if higher is None else {"ranks": asdict(higher)}
        print(json.dumps({"twin": twin.name, "models": models, **shown}))
    else:
        print_twin(Console(), models)
        if scored:
            print_baselines(Console(), scored, models, higher)
    return 0


def _data(args: argparse.Namespace) -> int:
    from kronmodel.data.inspection import inspect_table
    from kronmodel.data.registry import DATASETS, catalogue, load, sources
    from kronmodel.data.tables.reader import is_table

    if args.name is None:
        _print({"datasets": catalogue() if args.json else sources()}, as_json=args.json)
    else:
        options = file_options(args)
        if args.target is None and args.name not in DATASETS and is_table(Path(args.name)):
            found = inspect_table(Path(args.name).expanduser(), options)
            described = {name: value for name, value in found.items() if value}
            _note(Message("to train, name the column to predict by ", Argument("target")))
        else:
            described = load(args.name, _note, options).describe()
        if not args.json and "columns" in described:
            described["columns"] = {each["name"]: f"{each['kind']}: {each['done']}" for each in described["columns"]}
        _print(described, as_json=args.json)
    return 0


def _predict(args: argparse.Namespace) -> int:
    from kronmodel.cli.prediction import predict

    return predict(args, errors, _note)


def _recipes(args: argparse.Namespace) -> int:
    from kronmodel.training.recipes import RECIPES

    if args.json:
        print(json.dumps({"recipes": [{"name": name, **asdict(recipe)} for name, recipe in RECIPES.items()]}))
    else:
        _print({name: recipe.summary for name, recipe in RECIPES.items()}, as_json=False)
    return 0


def _compress(args: argparse.Namespace) -> int:
    if importlib.util.find_spec("torch") is None:
        raise KronmodelError("compressing needs PyTorch, which is not installed: pip install 'kronmodel[train]'")
    return run_compress(args, notes, _note)


def _info(args: argparse.Namespace) -> int:
    if args.system == (args.model is not None):
        raise KronmodelError("info takes either MODEL.onnx or --system")
    if args.system:
        from kronmodel.native.build import describe_system

        _print(describe_system(), as_json=args.json)
    else:
        from kronmodel.export.inspect import describe

        _print(describe(args.model), as_json=args.json)
    return 0


def _note(line: str) -> None:
    """Print a message on standard error, naming command-line options in place of the library's arguments."""
    notes.print(option_text(line), style="dim", highlight=False, markup=False, soft_wrap=True)


def _print(described: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(described))
    else:
        print_fields(Console(), described)
