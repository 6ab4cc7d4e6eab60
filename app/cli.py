"""`kronserve ...`: parsing and printing only. What takes long to import is imported when it is needed."""

import argparse
import asyncio
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from app.errors import KronError, StartupError
from app.keys import Role, make_key
from app.logs import configure_logging
from app.settings import NAME_PATTERN, Settings, option

if TYPE_CHECKING:
    import socket

    from app.schemas import Report

COMMANDS = ("serve", "compare", "key", "check-port")


class _Parser(argparse.ArgumentParser):
    """Bad input is one line, not a page of usage."""

    def error(self, message: str) -> NoReturn:
        raise StartupError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code: 0, 1 a measurement failed, 2 bad input, 130 Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or (arguments[0] not in COMMANDS and arguments[0] not in {"-h", "--help"}):
        arguments.insert(0, "serve")
    try:
        return _run(arguments)
    except KronError as error:
        print(f"kronserve: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _run(arguments: Sequence[str]) -> int:
    parsed = _parser().parse_args(arguments)
    options = {field: value for field in Settings.model_fields if (value := getattr(parsed, field, None)) is not None}
    settings = Settings.read(os.environ, options)
    configure_logging(settings)
    commands = {"serve": _serve, "compare": _compare, "key": _key, "check-port": _check_port}
    return commands[parsed.command](settings, parsed)


def _parser() -> _Parser:
    parser = _Parser(
        prog="kronserve",
        description="Serve ONNX models and compare them. Without a command: serve.",
        epilog="Every option may also be given in the environment: --max-batch is KRON_MAX_BATCH.",
    )
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    serve = commands.add_parser("serve", help="serve every model of a folder", description="Serve a folder of models.")
    _add_options(serve, list(Settings.model_fields))
    compare = commands.add_parser(
        "compare", help="latency and memory of 2 to 6 models", description="Measure models side by side."
    )
    compare.add_argument("names", nargs="*", metavar="MODEL", help="names in the folder; default: the default twin")
    compare.add_argument("--batch-sizes", default="1,32", metavar="N,N", help="batch sizes (default: 1,32)")
    compare.add_argument("--json", action="store_true", help="print the report as one JSON object")
    _add_options(
        compare,
        ["models", "device", "threads", "twin", "max_batch", "max_models", "max_model_bytes", "load_seconds",
         "compare_seconds", "log_level"],
    )  # fmt: skip
    key = commands.add_parser("key", help="make an API key", description="Make an API key, and its line for --keys.")
    key.add_argument("name", metavar="NAME", help="who it is for; it stands in the log")
    key.add_argument("--role", choices=[role.name for role in Role], default="predict", help="default: predict")
    check = commands.add_parser("check-port", help="fail if a port is taken", description="Fail if a port is taken.")
    _add_options(check, ["host", "port"])
    return parser


def _add_options(parser: argparse.ArgumentParser, fields: Sequence[str]) -> None:
    """Options as `Settings` describes and validates them."""
    for name in fields:
        field = Settings.model_fields[name]
        default = "" if field.default in (None, ()) else f" (default: {field.default})"
        flag: dict[str, Any] = {"nargs": "?", "const": "true"} if field.annotation is bool else {}
        parser.add_argument(
            option(name),
            dest=name,
            metavar=name.rpartition("_")[2].upper(),
            help=f"{field.description}{default}",
            **flag,
        )


def _serve(settings: Settings, _: argparse.Namespace) -> int:
    from app.address import listen, url

    # First of all: nobody wants to hear that the port is taken after the models have been loaded.
    open_to_all = settings.keys is not None or settings.insecure_no_keys
    listening = listen(settings.host, settings.port, loopback_only=not open_to_all)
    address = url(settings.host, listening.getsockname()[1])
    with listening:
        if settings.workers > 1:
            from app.workers import serve_by_workers

            serve_by_workers(settings, listening, address)
        else:
            _serve_alone(settings, listening, address)
    return 0


def _serve_alone(settings: Settings, listening: "socket.socket", address: str) -> None:
    from app.server import describe, serve
    from app.service import Service

    def announce(service: Service) -> None:
        print(f"{describe(service)}.")
        print(f"Open {address}   API: {address}/docs   stop: Ctrl-C", flush=True)

    serve(settings, listening, announce)


def _key(_: Settings, parsed: argparse.Namespace) -> int:
    if not re.fullmatch(NAME_PATTERN, parsed.name) or len(parsed.name) > 64:
        raise StartupError(f"got the name {parsed.name[:80]!r}, expected up to 64 letters, digits, dots, dashes")
    key, line = make_key(parsed.name, Role[parsed.role])
    print(line)
    print(f"The key, which is not kept anywhere: {key}\nThe line above goes into the file of --keys.", file=sys.stderr)
    return 0


def _check_port(settings: Settings, _: argparse.Namespace) -> int:
    from app.address import listen

    listen(settings.host, settings.port).close()
    return 0


def _compare(settings: Settings, parsed: argparse.Namespace) -> int:
    import orjson

    try:
        batch_sizes = [int(size) for size in parsed.batch_sizes.split(",")]
    except ValueError:
        raise StartupError(f"--batch-sizes: got {parsed.batch_sizes!r}, expected numbers such as 1,32") from None
    report = asyncio.run(_measure(settings, parsed.names, batch_sizes))
    if parsed.json:
        print(orjson.dumps(report.model_dump(mode="json"), option=orjson.OPT_INDENT_2).decode())
    else:
        from app.tables import print_report

        print_report(report)
    return 0


async def _measure(settings: Settings, names: Sequence[str], batch_sizes: Sequence[int]) -> "Report":
    """The report; progress goes to standard error."""
    from pydantic import ValidationError

    from app.artifacts import read_folder
    from app.compare import Comparer
    from app.repository import default_names
    from app.schemas import CompareRequest
    from app.settings import explain
    from app.tables import progress_bar

    try:
        request = CompareRequest(
            batch_sizes=list(batch_sizes),
            device=None if settings.device == "auto" else settings.device,
            threads=settings.threads,
        )
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        raise StartupError(f"{option(field)}: {explain(error)}") from None
    shelf = await read_folder(settings)
    chosen = names or default_names(list(shelf.artifacts.values()), settings.twin)
    for name in chosen:
        if name not in shelf.artifacts:
            reason = shelf.failures.get(name)
            there = ", ".join(shelf.artifacts) or f"none; make some with `kronmodel train --out {settings.models}`"
            raise StartupError(
                f"{name} cannot be used: {reason}" if reason else f"model: got {name!r}, expected one of: {there}"
            )
    if not shelf.artifacts:
        raise StartupError(f"no models in {settings.models}; make some with `kronmodel train --out {settings.models}`")
    comparer = Comparer(settings)
    with progress_bar() as progress:
        task = comparer.start([shelf.artifacts[name] for name in chosen], request, progress)
        try:
            return await task
        finally:
            await comparer.stop()
