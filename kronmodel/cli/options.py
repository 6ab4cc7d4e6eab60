"""From parsed command-line options to what the library takes."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kronmodel.errors import KronmodelError
from kronmodel.shapes import PrimeWidthError, parse_shapes

if TYPE_CHECKING:  # torch takes seconds to import
    from kronmodel.data.user_file import FileOptions
    from kronmodel.training.recipes import Recipe

__all__ = ["file_options", "message", "training_options", "with_network_options"]


def message(error: Exception) -> str:
    """The text of an error, which names options where the library's own names arguments."""
    if isinstance(error, PrimeWidthError):
        return (
            f"{error.width} features have no factors but 1 and {error.width}, which compress nothing; "
            f"--pad fills each row up with zeros to {'x'.join(map(str, error.padded))}"
        )
    return str(error)


def file_options(args: argparse.Namespace) -> FileOptions:
    """How to read the user's own file."""
    from kronmodel.data.user_file import FileOptions

    seed = args.seed or 0
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    return FileOptions(
        target=args.target,
        task=args.task,
        test_share=args.test_share,
        skip_bad_rows=args.skip_bad_rows,
        seed=seed,
    )


def with_network_options(recipe: Recipe, args: argparse.Namespace) -> Recipe:
    """The recipe with the network that the command line asks for."""
    changes: dict[str, Any] = {
        field: getattr(args, field) for field in ("activation", "dropout") if getattr(args, field) is not None
    }
    if args.hidden is not None:
        changes["hidden"] = parse_shapes(args.hidden)
        changes["dense_hidden"] = None
    if args.rank is not None:
        changes["rank"] = _parse_rank(args.rank)
    if args.features is not None:
        from kronmodel.nn.conv import parse_channels

        changes["features"] = parse_channels(args.features)
    if args.order is not None:
        orders = tuple(args.order.split(","))
        changes["order"] = orders[0] if len(orders) == 1 else orders
    changed = replace(recipe, **changes)
    if args.dropout is not None and not changed.features:
        raise KronmodelError("--dropout leaves out convolutional features; expected --features beside it, got none")
    return changed


def training_options(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of a training configuration that the command line sets."""
    fields = ("epochs", "batch_size", "optimizer", "learning_rate", "schedule", "weight_decay", "seed", "device")
    more = ("validation_share", "patience", "precision", "compile", "shift", "rotate", "zoom", "flip")
    return {field: getattr(args, field) for field in (*fields, *more) if getattr(args, field) is not None}


def _parse_rank(text: str) -> int | tuple[int, ...]:
    """Read ``"2"`` into 2, ``"2,2,8"`` into ``(2, 2, 8)``."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise ValueError(f"rank must be a number such as 2, or one for each layer such as 2,2,8, got {text!r}")
    return int(parts[0]) if len(parts) == 1 else tuple(map(int, parts))
