"""The command ``kronmodel export``: conversion of ONNX models for other places than an inference server."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from kronmodel.cli import export_c
from kronmodel.cli.exported import Exported, check_new_folder, check_writable
from kronmodel.errors import KronmodelError

__all__ = ["add_arguments"]

MAX_MODELS = 6  # of a page, as in the service's page
MAX_SAMPLES = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL.onnx", help="model to export")
    add("--to", required=True, choices=list(_FORMATS), help="html: a page in one file; js: an ES module; c: C99 code; "
        "header: its weights only; arduino: a library folder; onnx: quantised weights made floats")  # fmt: skip
    add("--with", dest="others", type=Path, action="append", default=[], metavar="OTHER.onnx",
        help="html: show another model beside it, such as its dense twin; may be given again")  # fmt: skip
    add("--samples", type=int, default=10, metavar="N", help="html: test samples, from samples.npz (default: 10)")
    export_c.add_arguments(parser)
    add("--out", type=Path, metavar="FILE|DIR", help="default: the model's name, in this folder")
    add("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if args.out is not None:
        (check_new_folder if args.to == "arduino" else lambda path: check_writable([path]))(args.out)
    exported = _FORMATS[args.to](args)
    paths = exported.write()
    if args.json:
        path = str(exported.folder or paths[0])
        print(
            json.dumps(
                {
                    "path": path,
                    "format": args.to,
                    "bytes": exported.size,
                    "models": list(exported.models),
                    **({"files": list(map(str, paths))} if exported.details else {}),
                    **exported.details,
                }
            )
        )
    else:
        text = str(exported.folder) if exported.folder is not None else ", ".join(map(str, paths))
        for line in (f"wrote {text}: {exported.size:,} bytes", *exported.notes):
            Console().print(line, highlight=False, soft_wrap=True, markup=False)
    return 0


def _path(args: argparse.Namespace, name: str, suffix: str) -> Path:
    """Return the path that the user gave, or one made of the model's name, which may be any text."""
    return args.out or Path(re.sub(r"[^\w.-]", "_", name)[:80] + suffix)


def _refuse_options_of_c(args: argparse.Namespace) -> None:
    for option, given in (
        ("--bits", args.bits is not None), ("--no-libm", args.no_libm),
        ("--shared", args.shared), ("--card", args.card),
    ):  # fmt: skip
        if given:
            raise KronmodelError(f"{option} is for C code: --to c")


def _html(args: argparse.Namespace) -> Exported:
    from kronmodel.export.web.model import WebModel
    from kronmodel.export.web.page import html_page

    _refuse_options_of_c(args)
    if len(args.others) >= MAX_MODELS:
        raise KronmodelError(f"a page shows at most {MAX_MODELS} models, got {len(args.others) + 1}")
    if not 0 <= args.samples <= MAX_SAMPLES:
        raise KronmodelError(f"--samples must be between 0 and {MAX_SAMPLES}, got {args.samples}")
    models = [WebModel.read(path, args.samples) for path in (args.model, *args.others)]
    path = _path(args, models[0].name, ".html")
    return Exported(models[0].name, {path: html_page(models).encode()}, models=[model.name for model in models])


def _js(args: argparse.Namespace) -> Exported:
    from kronmodel.export.web.model import WebModel
    from kronmodel.export.web.page import js_module

    _refuse_options_of_c(args)
    if args.others:
        raise KronmodelError("--with is for --to html: export each model to a module of its own")
    model = WebModel.read(args.model, 0)
    path = _path(args, model.name, ".mjs")
    return Exported(model.name, {path: js_module(model).encode()}, models=[model.name])


def _onnx(args: argparse.Namespace) -> Exported:
    from kronmodel.export.card import read_card, served_name
    from kronmodel.export.float_weights import with_float_weights
    from kronmodel.export.inspect import read_model

    _refuse_options_of_c(args)
    if args.others:
        raise KronmodelError("--with is for --to html")
    model = read_model(args.model)
    name = served_name(args.model, read_card(model))
    return Exported(
        name, {_path(args, f"{name}-float", ".onnx"): with_float_weights(model, str(args.model)).SerializeToString()},
        models=[name],
    )  # fmt: skip


_FORMATS: dict[str, Callable[[argparse.Namespace], Exported]] = {
    "html": _html,
    "js": _js,
    "c": export_c.c,
    "header": export_c.header,
    "arduino": export_c.arduino,
    "onnx": _onnx,
}
