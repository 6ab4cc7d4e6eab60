"""`kronserve ...`: parsing and printing only. What takes long to import is imported when it is needed."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from app import measure_cli
from app.errors import KronError, StartupError
from app.settings import Settings, option

COMMANDS = ("serve", "compare", "sweep", "selftest", "check-port")


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
    logging.basicConfig(level=settings.log_level.upper(), format="%(levelname)s: %(message)s", stream=sys.stderr)
    commands = {
        "serve": _serve,
        "compare": measure_cli.compare,
        "sweep": measure_cli.sweep,
        "selftest": measure_cli.selftest,
        "check-port": _check_port,
    }
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
    measure_cli.add_compare(commands, _add_options)
    measure_cli.add_sweep(commands, _add_options)
    measure_cli.add_selftest(commands, _add_options)
    check = commands.add_parser("check-port", help="fail if a port is taken", description="Fail if a port is taken.")
    _add_options(check, ["host", "port"])
    return parser


def _add_options(parser: argparse.ArgumentParser, fields: Sequence[str]) -> None:
    """Options as `Settings` describes and validates them."""
    for name in fields:
        field = Settings.model_fields[name]
        default = "" if field.default is None else f" (default: {field.default})"
        parser.add_argument(
            option(name), dest=name, metavar=name.rpartition("_")[2].upper(), help=f"{field.description}{default}"
        )


def _serve(settings: Settings, _: argparse.Namespace) -> int:
    from app.address import listen

    # First of all: nobody wants to hear that the port is taken after the models have been loaded.
    listening = listen(settings.host, settings.port)
    with listening:
        from app.server import serve

        serve(settings, listening)
    return 0


def _check_port(settings: Settings, _: argparse.Namespace) -> int:
    from app.address import listen

    listen(settings.host, settings.port).close()
    return 0
