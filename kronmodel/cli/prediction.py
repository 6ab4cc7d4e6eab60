"""The command ``kronmodel predict``: answers of a model for the rows of a file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console

from kronmodel.cli.console import print_fields
from kronmodel.errors import KronmodelError

__all__ = ["predict"]


def predict(args: argparse.Namespace, console: Console, note: Callable[[str], None]) -> int:
    """Run the command with its parsed arguments; return the exit code.

    Args:
        args: the arguments.
        console: shows the progress, on standard error.
        note: prints a message for the user, on standard error.
    """
    from kronmodel.predict.answers import predict_file
    from kronmodel.predict.model import PredictionModel

    if args.json and args.out is None:
        raise KronmodelError("--json prints a summary instead of the answers, expected --out FILE.csv beside it")
    model = PredictionModel(args.model)
    check = None
    if args.check is not None:
        check = (args.check,) if args.check else model.targets
        if not check:
            raise KronmodelError(f"{model.name} does not say which column it predicts, expected --check COLUMN")
    with console.status("predicting ...") as status:
        found = predict_file(
            model,
            args.file,
            args.out,
            sys.stdout,
            probabilities=args.proba,
            check=check,
            skip_bad_rows=args.skip_bad_rows,
            report=note,
            progress=lambda rows: status.update(f"predicting: {rows:,} rows"),
        )
    if args.json:
        print(json.dumps({"model": model.name, "path": str(model.path), "out": str(args.out), **found}))
        return 0
    results = console  # where the answers are printed, nothing else is
    if args.out is not None:
        results = Console()
        results.print(
            f"wrote the answers of {model.name} for {found['rows']:,} rows to {args.out}", markup=False, soft_wrap=True
        )
    if "check" in found:
        print_fields(results, {"check": _shown(found["check"])})
    return 0


def _shown(score: dict[str, Any]) -> dict[str, Any]:
    """Format scores: shares as percentages."""
    shares = ("accuracy", "balanced_accuracy")
    shown = {name: f"{value:.2%}" if name in shares else value for name, value in score.items()}
    if "recall" in shown:
        shown["recall"] = {label: f"{value:.2%}" for label, value in score["recall"].items()}
    return {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in shown.items()}
