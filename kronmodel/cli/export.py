"""The command ``kronmodel export``: conversion of ONNX models for other places than an inference server."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from kronmodel.errors import KronmodelError
from kronmodel.files import is_writable_file, write_atomically

__all__ = ["add_arguments"]

MAX_MODELS = 6  # of a page, as in the service's page
MAX_SAMPLES = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL.onnx", help="model to export")
    add("--to", required=True, choices=list(_FORMATS), help="html: a page in one file; js: an ES module")
    add("--with", dest="others", type=Path, action="append", default=[], metavar="OTHER.onnx",
        help="html: show another model beside it, such as its dense twin; may be given again")  # fmt: skip
    add("--samples", type=int, default=10, metavar="N", help="html: test samples, from samples.npz (default: 10)")
    add("--out", type=Path, metavar="FILE", help="default: the model's name, in this folder")
    add("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if args.out is not None:
        _check_writable(args.out)
    name, content, models = _FORMATS[args.to](args)
    out = args.out or Path(re.sub(r"[^\w.-]", "_", name) + _SUFFIXES[args.to])  # the name may be any text
    _check_writable(out)
    write_atomically(out, content)
    if args.json:
        print(json.dumps({"path": str(out), "format": args.to, "bytes": len(content), "models": models}))
    else:
        Console().print(f"wrote {out}: {len(content):,} bytes", highlight=False, soft_wrap=True, markup=False)
    return 0


def _check_writable(path: Path) -> None:
    if not is_writable_file(path):
        raise KronmodelError(f"--out {path} can't be written: it is a folder, or its folder is missing or read-only")


def _html(args: argparse.Namespace) -> tuple[str, bytes, list[str]]:
    from kronmodel.export.web.model import WebModel
    from kronmodel.export.web.page import html_page

    if len(args.others) >= MAX_MODELS:
        raise KronmodelError(f"a page shows at most {MAX_MODELS} models, got {len(args.others) + 1}")
    if not 0 <= args.samples <= MAX_SAMPLES:
        raise KronmodelError(f"--samples must be between 0 and {MAX_SAMPLES}, got {args.samples}")
    models = [WebModel.read(path, args.samples) for path in (args.model, *args.others)]
    return models[0].name, html_page(models).encode(), [model.name for model in models]


def _js(args: argparse.Namespace) -> tuple[str, bytes, list[str]]:
    from kronmodel.export.web.model import WebModel
    from kronmodel.export.web.page import js_module

    if args.others:
        raise KronmodelError("--with is for --to html: export each model to a module of its own")
    model = WebModel.read(args.model, 0)
    return model.name, js_module(model).encode(), [model.name]


_SUFFIXES = {"html": ".html", "js": ".mjs"}
_FORMATS: dict[str, Callable[[argparse.Namespace], tuple[str, bytes, list[str]]]] = {"html": _html, "js": _js}
"""For each format, a function that returns the model's name, the file's content and the names of all models in it."""
