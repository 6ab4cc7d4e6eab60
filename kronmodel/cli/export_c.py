"""The formats ``c``, ``header`` and ``arduino`` of ``kronmodel export``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kronmodel.cli.exported import Exported
from kronmodel.errors import ExportError

if TYPE_CHECKING:
    from kronmodel.export.c.model import CModel
    from kronmodel.export.c.source import Source

__all__ = ["add_arguments", "arduino", "c", "header"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of these formats."""
    add = parser.add_argument
    add("--bits", type=int, choices=[8, 4], help="c, header, arduino: integer arithmetic with weights of so many bits")
    add("--no-libm", action="store_true", help="c, arduino: no math.h in float arithmetic")
    add("--shared", action="store_true", help="c: compile a shared library beside it, for kronmodel.native.load")
    add("--card", action="store_true", help="c: write the sizes of the code into the card of MODEL.onnx")


def c(args: argparse.Namespace) -> Exported:
    """Write a C file and its header, or the C file of another generator."""
    from kronmodel.export.c.foreign import GENERATOR, foreign_source
    from kronmodel.export.c.formats import source_files, write_source
    from kronmodel.export.c.toolchain import build_library

    model, stem = _read(args)
    out = _path(args, stem, ".c")
    if model.network is None:
        if args.shared or args.card or args.bits is not None or args.no_libm:
            raise ExportError(
                f"{model.reason}; --shared, --card, --bits and --no-libm are for graphs without such nodes"
            )
        text = foreign_source(model, stem)
        notes = [f"written by {GENERATOR}, because the templates can't: {model.reason.removeprefix(f'{model.path}: ')}"]
        return _exported(model, {out: text.encode()}, notes, {"generator": GENERATOR})
    source = write_source(model, stem, args.bits, libm=not args.no_libm)
    files = {out.with_name(name): text.encode() for name, text in source_files(source).items()}
    details, notes = _measured(model, source)
    changed = {}
    if args.card:
        model, changed[args.model] = model.with_figures(details)
        notes.append(f"the card of {args.model} has the sizes of this code")
    if args.shared:
        files[out.with_suffix(".so")] = build_library(source, _about(model, source))
    return replace(_exported(model, files, notes, {"generator": "kronmodel", **details}), changed=changed)


def header(args: argparse.Namespace) -> Exported:
    """Write a header with the weights only."""
    from kronmodel.export.c.formats import weights_header

    _refuse(args, "shared", "card", "no_libm")
    model, stem = _read(args)
    out = _path(args, f"{stem}_weights", ".h")
    text, size = weights_header(model, out.stem, args.bits)
    return _exported(model, {out: text.encode()}, [f"weights {size:,} bytes"], {"weight_bytes": size})


def arduino(args: argparse.Namespace) -> Exported:
    """Write an Arduino library as a new folder."""
    from kronmodel.export.c.formats import arduino_files, write_source
    from kronmodel.export.c.network import identifier

    _refuse(args, "shared", "card")
    model, stem = _read(args)
    folder = args.out if args.out is not None else Path(stem)
    source = write_source(model, identifier(folder.name), args.bits, libm=not args.no_libm)
    details, notes = _measured(model, source)
    files = {Path(name): text.encode() for name, text in arduino_files(model, source).items()}
    return _exported(model, files, notes, details, folder)


def _exported(
    model: CModel, files: dict[Path, bytes], notes: list[str], details: dict[str, Any], folder: Path | None = None
) -> Exported:
    return Exported(model.name, files, folder=folder, models=[model.name], notes=notes, details=details)


def _refuse(args: argparse.Namespace, *options: str) -> None:
    for option in options:
        if getattr(args, option):
            raise ExportError(f"--{option.replace('_', '-')} is for --to c")


def _read(args: argparse.Namespace) -> tuple[CModel, str]:
    """Read the model; return it with the identifier that its functions begin with."""
    from kronmodel.export.c.model import CModel
    from kronmodel.export.c.network import identifier

    if args.others:
        raise ExportError("--with is for --to html: export each model by itself")
    model = CModel.read(args.model)
    return model, identifier(model.name if args.out is None else args.out.stem)


def _path(args: argparse.Namespace, stem: str, suffix: str) -> Path:
    """Choose the path of the file: names of functions and of files are the same."""
    if args.out is None:
        return Path(stem + suffix)
    out: Path = args.out
    if out.suffix != suffix or out.stem != _identifier(out.stem):
        raise ExportError(
            f"--out {out}: expected a name such as {_identifier(out.stem)}{suffix}, which the functions begin with, too"
        )
    return out


def _identifier(text: str) -> str:
    from kronmodel.export.c.network import identifier

    return identifier(text)


def _about(model: CModel, source: Source) -> dict[str, Any]:
    network = model.network
    assert network is not None
    outputs = network.arrays.outputs
    wanted = [name for name, is_softmax in outputs.items() if is_softmax == network.is_classifier]
    return {
        "name": model.name, "sha256": model.sha256, "input_name": network.input_name, "output_names": wanted,
        "input_shape": list(network.front.shape), "outputs": network.arrays.out_features, "prefix": source.name,
    }  # fmt: skip


def _measured(model: CModel, source: Source) -> tuple[dict[str, Any], list[str]]:
    """Measure the code; return the figures, and lines for people."""
    from kronmodel.export.c.toolchain import measure

    try:
        inputs = model.samples()
    except ExportError:
        inputs = None
    found = measure(source, inputs)
    lines = [f"weights {source.weight_bytes:,} bytes of flash"]
    if found.code_bytes is not None:
        total = source.weight_bytes + found.code_bytes
        lines[0] += f", code {found.code_bytes:,} ({found.compiler}): {total:,} in all"
    lines.append(f"memory {source.scratch_bytes:,} bytes, beside inputs, outputs and the stack")
    if found.microseconds is not None:
        lines.append(f"a prediction takes {found.microseconds:,.1f} µs on this machine")
    if found.note:
        lines.append(found.note)
    details = {
        "bits": source.bits, "weight_bytes": source.weight_bytes, "code_bytes": found.code_bytes,
        "compiler": found.compiler or None, "scratch_bytes": source.scratch_bytes,
        "macs": source.macs, "microseconds": found.microseconds,
    }  # fmt: skip
    return details, lines
