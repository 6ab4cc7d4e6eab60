"""Conversion between command-line options and the library's arguments, in calls and in messages."""

from __future__ import annotations

import argparse
import csv
from typing import TYPE_CHECKING, Any

from kronmodel.errors import Argument, Message
from kronmodel.quantization.config import parse_bits
from kronmodel.shapes import PrimeWidthError, parse_shapes

if TYPE_CHECKING:  # torch takes seconds to import
    from kronmodel.data.file_options import FileOptions

__all__ = ["error_text", "file_options", "network_arguments", "option_text", "training_arguments", "twin_arguments"]

OPTIONS = {
    "test_fraction": "--test-share",
    "initial_weights": "--from",
}  # options whose name differs from their argument's
TRAINING = (
    "epochs", "batch_size", "optimizer", "learning_rate", "schedule", "weight_decay", "seed", "device",
    "validation_share", "patience", "precision", "compile", "shift", "rotate", "zoom", "flip",
    "bias_bits", "bias_form", "activation_bits", "quantize_epochs",
)  # fmt: skip


def option_text(message: str) -> str:
    """Format a message of the library, replacing the names of its arguments by command-line options."""
    if not isinstance(message, Message):
        return message
    return "".join(_option(part) if isinstance(part, Argument) else part for part in message.parts)


def _option(argument: Argument) -> str:
    """Format an argument of the library as a command-line option, such as ``--task regression``."""
    name = OPTIONS.get(argument.name, "--" + argument.name.replace("_", "-"))
    return name if argument.value in (None, True) else f"{name} {argument.value}"


def error_text(error: Exception) -> str:
    """Format the text of an error, replacing the names of the library's arguments by command-line options."""
    if isinstance(error, PrimeWidthError):
        return (
            f"{error.width} features have no factors but 1 and {error.width}, which compress nothing; "
            f"--pad fills each row up with zeros to {'x'.join(map(str, error.padded))}"
        )
    return option_text(error.args[0]) if error.args and isinstance(error.args[0], Message) else str(error)


def file_options(args: argparse.Namespace) -> FileOptions:
    """Build the :class:`FileOptions` for a user's file from the parsed command line."""
    from kronmodel.data.file_options import FileOptions, column_options

    seed = args.seed or 0
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    return FileOptions(
        target=args.target,
        task=args.task,
        test_fraction=args.test_share,
        skip_bad_rows=args.skip_bad_rows,
        seed=seed,
        **column_options(_columns(args)),
    )


def _columns(args: argparse.Namespace) -> dict[str, Any]:
    """Collect the options for the columns of a table; each names several columns, separated by commas or repeated."""
    others = {name: getattr(args, name) for name in ("impute", "groups", "time_order")}
    given: dict[str, Any] = {name: value for name, value in others.items() if value is not None}
    for name in ("drop", "categorical", "numeric", "date"):
        if getattr(args, name):
            given[name] = [cell.strip() for text in getattr(args, name) for cell in next(csv.reader([text])) if cell]
    return given


def twin_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Collect the arguments of :func:`kronmodel.train_twin` from the command line, except ``data`` and ``callback``."""
    return {
        "kind": args.kind,
        "name": args.name,
        "recipe": args.recipe,
        "network": network_arguments(args),
        "training": training_arguments(args),
        "pad": args.pad,
        "target": args.target,
        "task": args.task,
        "test_fraction": args.test_share,
        "skip_bad_rows": args.skip_bad_rows,
        "columns": _columns(args),
        "out": args.out,
        "checkpoint": args.checkpoint,
        "resume": args.resume,
        "threads": args.threads,
        "initial_weights": args.initial_weights,
    }


def training_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Collect the fields of a training configuration that the command line overrides."""
    given = {field: getattr(args, field) for field in TRAINING if getattr(args, field) is not None}
    return given if args.bits is None else {**given, "bits": parse_bits(args.bits)}


def network_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Collect the network fields of a recipe that the command line overrides."""
    given: dict[str, Any] = {
        field: getattr(args, field) for field in ("activation", "dropout", "layer") if getattr(args, field) is not None
    }
    if args.hidden is not None:
        given["hidden"] = () if args.hidden.strip() == "none" else parse_shapes(args.hidden)
    if args.rank is not None:
        given["rank"] = _parse_rank(args.rank)
    if args.features is not None:
        from kronmodel.nn.conv import parse_channels

        given["features"] = parse_channels(args.features)
    if args.order is not None:
        orders = tuple(args.order.split(","))
        given["order"] = orders[0] if len(orders) == 1 else orders
    return given


def _parse_rank(text: str) -> int | tuple[int, ...]:
    """Parse a rank: ``"2"`` for every layer becomes 2, ``"2,2,8"`` with one for each becomes ``(2, 2, 8)``."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise ValueError(f"rank must be a number such as 2, or one for each layer such as 2,2,8, got {text!r}")
    return int(parts[0]) if len(parts) == 1 else tuple(map(int, parts))
