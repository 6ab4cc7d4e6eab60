"""The command `kronserve`: parses options, runs a command, prints its result.

Imports of heavy packages are inside functions, so that `--help` and errors in options are fast.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from app.access.keys import Role, make_key
from app.cli import comparison, selftest, sweep
from app.errors import KronError, StartupError
from app.settings import NAME_PATTERN, Settings, option
from app.telemetry.logs import announce, configure_logging

if TYPE_CHECKING:
    import socket

COMMANDS = ("serve", "compare", "sweep", "selftest", "key", "check-port")


class _Parser(argparse.ArgumentParser):
    """Argument parser whose errors are one line, without a page of usage."""

    def error(self, message: str) -> NoReturn:
        raise StartupError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command of `kronserve`.

    Args:
        argv: arguments without the program's name; default: those of this process.

    Returns:
        The exit code: 0; 1 if a measurement failed or got worse; 2 for bad input; 130 for Ctrl-C.
    """
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
    except ImportError as error:
        if not isinstance(error.__cause__, KeyboardInterrupt):  # Ctrl-C while a C++ extension is being imported
            raise
        return 130


def _run(arguments: Sequence[str]) -> int:
    parsed = _parser().parse_args(arguments)
    options = {field: value for field in Settings.model_fields if (value := getattr(parsed, field, None)) is not None}
    settings = Settings.read(os.environ, options)
    configure_logging(settings)
    commands = {
        "serve": _serve,
        "compare": comparison.compare,
        "sweep": sweep.sweep,
        "selftest": selftest.selftest,
        "key": _key,
        "check-port": _check_port,
    }
    return commands[parsed.command](settings, parsed)


def _parser() -> _Parser:
    parser = _Parser(
        prog="kronserve",
        description="Serve ONNX models, and compare them. Without a command: serve.",
        epilog="Each option of the service is also an environment variable: --max-batch is KRON_MAX_BATCH.",
    )
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    serve = commands.add_parser(
        "serve", help="serve a model repository", description="Serve all models of a repository."
    )
    _add_options(serve, list(Settings.model_fields))
    comparison.add_compare(commands, _add_options)
    sweep.add_sweep(commands, _add_options)
    selftest.add_selftest(commands, _add_options)
    key = commands.add_parser(
        "key", help="make an API key", description="Make an API key, and its line for the file of --keys."
    )
    key.add_argument("name", metavar="NAME", help="name of the key, such as that of the client that uses it")
    key.add_argument(
        "--role", choices=[role.name for role in Role], default="predict", help="what the key allows (default: predict)"
    )
    check = commands.add_parser("check-port", help="fail if a port is in use", description="Fail if a port is in use.")
    _add_options(check, ["host", "port"])
    return parser


def _add_options(parser: argparse.ArgumentParser, fields: Sequence[str]) -> None:
    """Add options for fields of `Settings`, which describes and validates them."""
    for name in fields:
        field = Settings.model_fields[name]
        default = "" if field.default in (None, (), {}) else f" (default: {field.default})"
        flag: dict[str, Any] = {"nargs": "?", "const": "true"} if field.annotation is bool else {}
        parser.add_argument(
            option(name),
            dest=name,
            metavar=name.rpartition("_")[2].upper(),
            help=f"{field.description}{default}",
            **flag,
        )


def _serve(settings: Settings, _: argparse.Namespace) -> int:
    from app.system.net import listen, url

    generate = settings.keys is None and not settings.insecure_no_keys and settings.generate_key is not None
    # Before the models are loaded, which takes long: a port in use is reported at once.
    may_leave_loopback = settings.keys is not None or settings.insecure_no_keys or generate
    listening = listen(settings.host, settings.port, loopback_only=not may_leave_loopback)
    address = url(settings.host, listening.getsockname()[1])
    with listening:
        if generate:
            settings = _with_first_key(settings)
        if settings.workers > 1:
            from app.server.prefork import serve_by_workers

            serve_by_workers(settings, listening, address)
        else:
            _serve_alone(settings, listening, address)
    return 0


def _with_first_key(settings: Settings) -> Settings:
    from app.access.first_key import first_key

    assert settings.generate_key is not None
    key = first_key(settings.generate_key)
    if key.message is not None:
        announce(settings, key.message)
    return settings.model_copy(update={"keys": key.path})


def _serve_alone(settings: Settings, listening: "socket.socket", address: str) -> None:
    from app.server.server import describe, serve
    from app.service import Service

    def on_ready(service: Service) -> None:
        announce(settings, f"{describe(service)}.")
        announce(settings, f"Open {address}   API: {address}/docs   stop: Ctrl-C")

    serve(settings, listening, on_ready)


def _key(_: Settings, parsed: argparse.Namespace) -> int:
    if not re.fullmatch(NAME_PATTERN, parsed.name) or len(parsed.name) > 64:
        raise StartupError(
            f"NAME: got {parsed.name[:80]!r}, expected up to 64 letters, digits, dots, dashes and underscores"
        )
    key, line = make_key(parsed.name, Role[parsed.role])
    print(line)
    print(f"The key, which is not stored anywhere: {key}\nAdd the line above to the file of --keys.", file=sys.stderr)
    return 0


def _check_port(settings: Settings, _: argparse.Namespace) -> int:
    from app.system.net import listen

    listen(settings.host, settings.port).close()
    return 0
