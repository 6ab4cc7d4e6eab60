"""``kronmodel``: parsing and printing. What the commands do stands in the modules that they import."""

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
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from rich.console import Console
from rich.markup import escape

from kronmodel import __version__
from kronmodel.cli.console import print_fields, print_twin, training_progress
from kronmodel.cli.jsonl import Messages
from kronmodel.cli.options import file_options, message, training_options, with_network_options
from kronmodel.errors import KronmodelError

if TYPE_CHECKING:  # torch takes seconds to import
    from kronmodel.training.checkpoint import Checkpoint
    from kronmodel.training.distributed import Group

__all__ = ["main", "parser"]

T = TypeVar("T")

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

LEADS = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts, one talks

errors = Console(stderr=True)
notes = Console(stderr=True, quiet=not LEADS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 on bad input, 130 when interrupted."""
    with contextlib.nullcontext() if LEADS else contextlib.redirect_stderr(io.StringIO()):
        args = parser().parse_args(argv)
    with _sigterm_handled(_terminate):
        try:
            code: int = args.run(args)
        except KeyboardInterrupt:
            notes.print("interrupted; nothing was published")
            return EXIT_INTERRUPTED
        except (KronmodelError, ValueError, ModuleNotFoundError) as error:
            with _sigterm_handled(signal.SIG_IGN):  # torchrun shall not stop this process before it has reported
                _print_error(error)
            return EXIT_BAD_INPUT
    return code


def _print_error(error: Exception) -> None:
    """Print an error in one line; of a missing package, how to install it: the base installation only serves."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    text = f"this needs {missing}: pip install 'kronmodel[train]'" if missing else message(error)
    errors.print(f"[bold red]kronmodel: error:[/] {escape(text)}", soft_wrap=True)


@contextlib.contextmanager
def _sigterm_handled(handler: Callable[[int, FrameType | None], Any] | signal.Handlers) -> Iterator[None]:
    """Handle SIGTERM by this handler in this block, and restore the caller's handler afterwards."""
    if threading.current_thread() is not threading.main_thread():  # the only one that may change handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Exit by way of the clean-ups, as on Ctrl-C."""
    sys.exit(EXIT_TERMINATED)


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(
        prog="kronmodel", description="Train Kronecker-structured networks beside their dense twins; export ONNX."
    )
    top.add_argument("--version", action="version", version=f"kronmodel {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands.add_parser("train", help="train a Kronecker network and its dense twin, and export both"))
    data = commands.add_parser("data", help="list the data sets, or fetch one and describe it")
    data.add_argument("name", nargs="?", help="data set to fetch and describe, or a .csv or .npz file")
    _add_file_options(data)
    data.add_argument("--seed", type=int, default=0, help="of the split of a file (default: 0)")
    data.add_argument("--json", action="store_true", help="print one JSON object")
    data.set_defaults(run=_data)
    recipes = commands.add_parser("recipes", help="list the recipes")
    recipes.add_argument("--json", action="store_true", help="print one JSON object, with every setting of each")
    recipes.set_defaults(run=_recipes)
    info = commands.add_parser("info", help="describe an ONNX file and its model card")
    info.add_argument("model", type=Path, metavar="MODEL.onnx")
    info.add_argument("--json", action="store_true", help="print one JSON object")
    info.set_defaults(run=_info)
    return top


def _add_train(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", default="mnist", metavar="NAME|FILE", help="data set, see `kronmodel data`, or your own .csv or .npz")
    _add_file_options(parser)
    add("--pad", action="store_true", help="fill the features up with zeros to a width with balanced factors")
    add("--kind", default="twin", choices=["twin", "kronecker", "dense"], help="what to train (default: twin)")
    names = "default, accurate, fashion-mnist, small-table, or the authors' paper, paper-cifar10[-rank-4]"
    add("--recipe", metavar="NAME", help=f"{names} (default: small-table for one, else default)")
    add("--rank", metavar="R|R,R,...", help="Kronecker rank of every layer, or one for each, the last layer included")
    add("--hidden", metavar="28x28,28x28", help="shapes of the hidden layers, as factor sizes")
    add("--features", metavar="16,64,256", help="channels of 3x3 convolutions in front of both networks")
    add("--dropout", type=float, metavar="X", help="share of these features left out in training")
    add("--order", metavar="left|right|left,right,...", help="which factor comes first, or one for each branch")
    add("--activation", metavar="NAME", help="gelu, relu or tanh")
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
    add("--zoom", type=float, metavar="X", help="stretch or shrink their height and width, by up to that share")
    add("--flip", action=argparse.BooleanOptionalAction, default=None, help="mirror half of them, left to right")
    add("--validation-share", type=float, metavar="X", help="share of the training data held out to choose the epoch")
    add("--patience", type=int, metavar="N", help="stop after N epochs without a better validation score")
    add("--precision", choices=["float32", "bfloat16"], help="of the activations in training (default: float32)")
    add("--compile", action="store_true", default=None, help="torch.compile and CUDA graphs, on CUDA devices")
    add("--checkpoint", type=Path, metavar="DIR", help="where a training is saved (default: .checkpoints in --out)")
    add("--resume", action="store_true", help="go on from the checkpoints that an interrupted training left")
    add("--log-csv", type=Path, metavar="FILE.csv", help="write a line for each epoch")
    add("--report", type=Path, metavar="FILE.html", help="write a page with the curves and the comparison")
    add(
        "--progress-fd",
        type=int,
        metavar="N",
        help="tell a program: plan, steps, epochs as lines of JSON, to this file",
    )
    add("--out", type=Path, default=Path("models"), metavar="DIR", help="model repository (default: models)")
    add("--name", metavar="NAME", help="name of the twin (default: the data set's)")
    add("--json", action="store_true", help="print one JSON object instead of the table")
    parser.set_defaults(run=_train)


def _add_file_options(parser: argparse.ArgumentParser) -> None:
    """How to read the user's own file."""
    add = parser.add_argument
    add("--target", metavar="COLUMN", help="column of a .csv file to predict")
    add("--task", choices=["classification", "regression"], help="default: inferred from the target, and said so")
    add("--test-share", type=float, metavar="X", help="share of a file's samples to test on (default: 0.2)")
    add("--skip-bad-rows", action="store_true", help="leave out rows of a .csv file that can't be used, and say which")


def _train(args: argparse.Namespace) -> int:
    _require_torch()
    from kronmodel.training.device import cpu_threads, keep_freed_memory
    from kronmodel.training.distributed import joined

    keep_freed_memory()
    with cpu_threads(args.threads), joined(args.device or "cpu") as group:
        return _train_together(args, group)


def _train_together(args: argparse.Namespace, group: Group) -> int:
    """Train in one process, or in each of those that torchrun started; the leader exports."""
    from kronmodel.cli.report import check_report, write_report
    from kronmodel.data.registry import load
    from kronmodel.export.repository import check_writable
    from kronmodel.training.checkpoint import Checkpoint
    from kronmodel.training.device import check_device
    from kronmodel.training.history import EpochLog
    from kronmodel.training.recipes import RECIPES, recommended
    from kronmodel.twin import plan, publish_members, setting, train_member

    if args.recipe not in (None, *RECIPES):
        raise KronmodelError(f"no recipe named {args.recipe!r}; expected one of: {', '.join(RECIPES)}")
    messages = Messages(args.progress_fd if group.leads else None)
    check_device(args.device or "cpu")
    group.take_device(args.device or "cpu")
    with group.leader_first():
        data = load(args.data, _note, file_options(args))
    name = args.name or data.name
    chosen_recipe = args.recipe or recommended(data)
    recipe = with_network_options(RECIPES[chosen_recipe], args)
    members = plan(name, data, chosen_recipe, recipe, training_options(args), pad=args.pad)
    chosen = [member for role, member in members.items() if args.kind in ("twin", role)]
    if group.leads:
        check_writable(args.out)
        check_report(args.report)
    messages.plan(chosen, data)
    _note(f"{data.name}: {len(data.x_train):,} training and {len(data.x_test):,} test samples from {data.origin}")
    folder = args.checkpoint or args.out / ".checkpoints"
    with contextlib.ExitStack() as stack:
        checkpoints = [
            stack.enter_context(
                Checkpoint(
                    folder / member.name,
                    setting(member, data),
                    resume=args.resume,
                    writes=group.leads,
                    note=_note,
                )
            )
            for member in chosen
        ]
        stack.enter_context(_saying_what_is_kept(checkpoints))
        log = stack.enter_context(EpochLog(args.log_csv if group.leads else None))
        trained = []
        for member, checkpoint in zip(chosen, checkpoints, strict=True):
            with training_progress(notes, member.name, member.training.epochs) as show:
                outcome = train_member(
                    member,
                    data,
                    _both(show, partial(messages.step, member)),
                    log=_both(partial(log.add, member.name), partial(messages.epoch, member)),
                    checkpoint=checkpoint,
                    group=group,
                )
            trained.append((member, *outcome))
        if not group.leads:
            return 0
        messages.exporting()
        _note("exporting to ONNX and comparing with torch ...")
        published = publish_members(trained, data, args.out)
        for checkpoint in checkpoints:
            checkpoint.remove()
    models = {each.card["role"]: each.summary() for each in published}
    if args.report is not None:
        histories = {str(member.role): result.history for member, _, result in trained}
        write_report(args.report, name, models, histories, {each.card["role"]: each.card for each in published})
    if args.json:
        print(json.dumps({"twin": name, "models": models}))
    else:
        print_twin(Console(), models)
    return 0


@contextlib.contextmanager
def _saying_what_is_kept(checkpoints: Sequence[Checkpoint]) -> Iterator[None]:
    """If the training is interrupted in this block, say what --resume would go on from."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        for checkpoint in checkpoints:
            if checkpoint.hint:
                _note(checkpoint.hint)
        raise


def _both(one: Callable[[T], None], other: Callable[[T], None]) -> Callable[[T], None]:
    """Call one, then the other."""

    def call(value: T) -> None:
        one(value)
        other(value)

    return call


def _data(args: argparse.Namespace) -> int:
    from kronmodel.data.registry import catalogue, load, whereabouts

    if args.name is None:
        _print({"datasets": catalogue() if args.json else whereabouts()}, as_json=args.json)
    else:
        _print(load(args.name, _note, file_options(args)).describe(), as_json=args.json)
    return 0


def _recipes(args: argparse.Namespace) -> int:
    from kronmodel.training.recipes import RECIPES

    if args.json:
        print(json.dumps({"recipes": [{"name": name, **asdict(recipe)} for name, recipe in RECIPES.items()]}))
    else:
        _print({name: recipe.summary for name, recipe in RECIPES.items()}, as_json=False)
    return 0


def _info(args: argparse.Namespace) -> int:
    from kronmodel.export.inspect import describe

    _print(describe(args.model), as_json=args.json)
    return 0


def _require_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise KronmodelError("training needs PyTorch, which is not installed: pip install 'kronmodel[train]'")


def _note(line: str) -> None:
    notes.print(line, style="dim", highlight=False, markup=False, soft_wrap=True)


def _print(described: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(described))
    else:
        print_fields(Console(), described)
