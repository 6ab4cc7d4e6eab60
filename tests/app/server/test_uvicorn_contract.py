"""What `app/server` relies on in uvicorn, whose protocol classes are not documented: each failure names the version.

`pyproject.toml` allows the versions with which this file and the rest of `tests/app/server` pass. When it fails with a
new version: read what has changed, mend `app/server/connection.py` or `server.py`, and then move the bounds.
"""

import asyncio
import inspect
import logging
import re
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httptools
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app.server.connection import HttpConnection
from app.server.request_parser import new_parser
from app.server.server import Server
from tests.app.server.driver import Driver, FakeTransport, ManualApp, drive_stock, says, turn

ROOT = Path(__file__).parents[3]
GET = b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"

# The methods that `HttpConnection` overrides, with the names of their parameters.
OVERRIDDEN = {
    # asyncio's protocol interface
    "connection_made": ["self", "transport"],
    "connection_lost": ["self", "exc"],
    "data_received": ["self", "data"],
    "eof_received": ["self"],
    "pause_writing": ["self"],
    "resume_writing": ["self"],
    # httptools' callbacks
    "on_message_begin": ["self"],
    "on_headers_complete": ["self"],
    "on_body": ["self", "body"],
    "on_message_complete": ["self"],
    # uvicorn's own
    "on_response_complete": ["self"],
    "send_400_response": ["self", "msg"],
    "shutdown": ["self"],
    "timeout_keep_alive_handler": ["self"],
}
OVERRIDDEN_OF_SERVER = {
    "startup": ["self", "sockets"],
    "shutdown": ["self", "sockets"],
    "handle_exit": ["self", "sig", "frame"],
}
OPTIONS = {
    "app", "http", "timeout_keep_alive", "lifespan", "log_config", "log_level", "access_log", "ws", "proxy_headers",
    "server_header",
}  # fmt: skip


def parameters(method: Callable[..., object]) -> list[str]:
    return list(inspect.signature(method).parameters)


def test_the_version_is_one_that_was_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (bounds,) = (text for text in project["dependencies"] if text.startswith("uvicorn"))
    found = re.fullmatch(r"uvicorn>=(\d+)\.(\d+),<(\d+)\.(\d+)", bounds)
    assert found, f"{bounds}: expected uvicorn>=X.Y,<X.Y"
    low, high = (int(found[1]), int(found[2])), (int(found[3]), int(found[4]))
    major, minor = (int(part) for part in uvicorn.__version__.split(".")[:2])
    assert low <= (major, minor) < high, says(f"expected {bounds}; run tests/app/server with it, then move the bounds")


@pytest.mark.parametrize(
    ("ours", "theirs", "methods"),
    [(HttpConnection, HttpToolsProtocol, OVERRIDDEN), (Server, uvicorn.Server, OVERRIDDEN_OF_SERVER)],
    ids=["HttpToolsProtocol", "Server"],
)
def test_overridden_methods_are_there_with_their_parameters(
    ours: type, theirs: type, methods: dict[str, list[str]]
) -> None:
    own = {name for each in ours.mro()[: ours.mro().index(theirs)] for name in vars(each)}
    overridden = {name for name in own if hasattr(theirs, name) and not name.startswith("__")}
    differing = overridden ^ methods.keys()
    assert not differing, says(
        f"{sorted(differing)} of {theirs.__name__} are overridden but not listed, or listed only"
    )
    for name, expected in methods.items():
        assert not name.startswith("_"), "nothing private is overridden"
        method = getattr(theirs, name, None)
        assert method is not None, says(f"{theirs.__name__}.{name} is gone")
        got = parameters(method)
        assert got == expected, says(f"{theirs.__name__}.{name} takes {got}, expected {expected}")
        assert inspect.iscoroutinefunction(method) == inspect.iscoroutinefunction(getattr(ours, name)), says(
            f"{theirs.__name__}.{name} is asynchronous in one class and not in the other"
        )


def test_constructors_take_what_they_are_given() -> None:
    got = parameters(HttpToolsProtocol)
    assert got == ["config", "server_state", "app_state", "_loop"], says(f"HttpToolsProtocol takes {got}")
    missing = OPTIONS - set(parameters(Config))
    assert not missing, says(f"Config does not take {sorted(missing)}")
    assert parameters(uvicorn.Server) == ["config"], says(f"Server takes {parameters(uvicorn.Server)}")
    assert "sockets" in parameters(uvicorn.Server.run), says("Server.run takes no sockets")


def test_attributes_are_there_and_ours_do_not_hide_any() -> None:
    def check(stock: object, expected: dict[str, object]) -> None:
        for name, value in expected.items():
            assert hasattr(stock, name), says(f"{type(stock).__name__}.{name} is gone")
            got = getattr(stock, name)
            right = isinstance(got, value) if isinstance(value, type) else got == value
            assert right, says(f"{type(stock).__name__}.{name}: got {got!r}, expected {value!r}")

    async def test(connection: Any, transport: FakeTransport, _: ManualApp) -> None:
        check(
            connection,
            {
                "transport": transport, "connections": {connection}, "client": ("127.0.0.1", 4711), "cycle": None,
                "timeout_keep_alive_task": None, "expect_100_continue": False, "loop": asyncio.get_running_loop(),
                "server_state": ServerState, "parser": httptools.HttpRequestParser,
            },
        )  # fmt: skip
        check(connection.flow, {"write_paused": False, "read_paused": False})
        assert len(connection.pipeline) == 0, says("HttpToolsProtocol.pipeline is not empty at first")
        check(connection.server_state, {"connections": {connection}, "default_headers": [], "tasks": set()})
        connection.data_received(GET[:-1])
        check(connection, {"url": b"/a", "headers": list, "scope": dict})
        assert connection.scope["client"] == ("127.0.0.1", 4711), says("scope['client'] is set after the headers")
        assert connection.scope["headers"] is connection.headers, says("scope['headers'] is not the protocol's list")
        connection.data_received(b"\n")
        check(connection, {"headers": [(b"host", b"localhost")], "url": b"/a"})
        check(
            connection.cycle,
            {
                "response_started": False, "response_complete": False, "disconnected": False, "default_headers": list,
                "message_event": asyncio.Event,
            },
        )  # fmt: skip
        assert type(connection.cycle) is RequestResponseCycle
        driver = Driver()
        own = vars(driver.connection).keys() - vars(connection).keys()
        assert all(name.startswith("_") for name in own)
        private = {name for name in [*vars(connection), *vars(HttpToolsProtocol)] if re.match(r"_[a-z]", name)}
        assert not own & private, says(f"HttpToolsProtocol has {sorted(own & private)}, which HttpConnection sets too")
        taken = {name for name in vars(connection) if name.startswith("_")}
        assert not taken, says(f"HttpToolsProtocol sets {sorted(taken)}: HttpConnection must not set the same")
        driver.lose()

    drive_stock(test)
    server = uvicorn.Server(Config(ManualApp(), log_config=None))
    check(server, {"should_exit": False, "force_exit": False, "started": False, "server_state": ServerState})
    check(server.config, {"timeout_graceful_shutdown": None})


def test_callbacks_come_in_their_order_and_within_the_read() -> None:
    calls: list[str] = []

    class Noting(HttpToolsProtocol):
        def on_message_begin(self) -> None:
            calls.append("begin")
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            calls.append(f"headers {len(self.headers)} of {self.url.decode()}")
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            calls.append(f"body {len(body)}")
            super().on_body(body)

        def on_message_complete(self) -> None:
            calls.append("complete")
            super().on_message_complete()

        def on_response_complete(self) -> None:
            calls.append(f"answered, {len(self.pipeline)} waiting")
            super().on_response_complete()

    async def test(connection: Any, _: FakeTransport, app: ManualApp) -> None:
        connection.data_received(POST + b"body" + GET[:9])
        expected = ["begin", "headers 2 of /a", "body 4", "complete", "begin"]
        assert calls == expected, says(f"a read calls {calls}, expected {expected}")
        connection.data_received(GET[9:])
        await turn()
        await app.respond(0)
        await app.respond(1)
        expected += ["headers 1 of /a", "complete", "answered, 1 waiting", "answered, 0 waiting"]
        assert calls == expected, says(f"calls are {calls}, expected {expected}")

    drive_stock(test, Noting)


@pytest.mark.parametrize("data", [b"?\r\n\r\n", b"GET /a HTTP/1.1\r\nX: \0\r\n\r\n"], ids=["line", "header"])
def test_what_cannot_be_parsed_goes_to_send_400_response(data: bytes) -> None:
    calls: list[str] = []

    class Noting(HttpToolsProtocol):
        def send_400_response(self, msg: str) -> None:
            calls.append(msg)

    async def test(connection: Any, transport: FakeTransport, _: ManualApp) -> None:
        connection.data_received(data)
        assert len(calls) == 1, says(f"send_400_response is called {len(calls)} times, expected once")
        assert not transport.written, says("something is written besides send_400_response")

    drive_stock(test, Noting)


def test_an_exception_of_a_callback_ends_the_parsing_and_goes_to_send_400_response() -> None:
    calls: list[str] = []

    class Refusing(HttpToolsProtocol):
        def on_headers_complete(self) -> None:
            raise ValueError("refused")

        def on_body(self, _: bytes) -> None:
            calls.append("body")

        def send_400_response(self, _: str) -> None:
            calls.append("400")

    async def test(connection: Any, _: FakeTransport, __: ManualApp) -> None:
        connection.data_received(POST + b"body")
        assert calls == ["400"], says(
            f"after an exception of a callback come {calls}, expected send_400_response alone"
        )

    drive_stock(test, Refusing)


def test_the_parser_may_be_replaced_by_an_equal_one() -> None:
    async def test(connection: Any, transport: FakeTransport, app: ManualApp) -> None:
        connection.parser = new_parser(connection)
        connection.data_received(GET[:-2] + b"Connection: close\r\n\r\n" + GET)
        assert transport.written == b"", says("a request sent ahead spoils the one that closes the connection")
        await turn()
        await app.respond(0)
        assert transport.written.startswith(b"HTTP/1.1 200 OK\r\n")

    drive_stock(test)


@pytest.mark.parametrize("size", [1, 20, 1000])
def test_an_offer_ends_the_parsing_behind_the_headers(size: int) -> None:
    calls: list[str] = []

    class Noting(HttpToolsProtocol):
        def on_headers_complete(self) -> None:
            calls.append(f"headers {self.parser.should_upgrade()} {self.parser.get_method().decode()}")

        def on_body(self, body: bytes) -> None:
            calls.append(f"body {body!r}")

        def on_message_complete(self) -> None:
            calls.append(f"complete {self.parser.should_upgrade()}")

    async def test(connection: Any, _: FakeTransport, __: ManualApp) -> None:
        data = POST[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
        for start in range(0, len(data), size):
            part = data[start : start + size] + (b"body" if start + size >= len(data) else b"")
            try:
                connection.parser.feed_data(memoryview(part))
            except httptools.HttpParserUpgrade as offer:
                rest = part[offer.args[0] :]
        assert rest == b"body", f"httptools: the offset leaves {rest!r}"
        assert calls == ["headers True POST", "complete True"], f"httptools: an offer calls {calls}"
        assert (connection.parser.get_method(), connection.parser.get_http_version()) == (b"POST", "1.1")

    drive_stock(test, Noting)


def test_the_automatic_choice_is_the_protocol_that_is_overridden() -> None:
    """What `--http standard` runs is what `--http fast` is built on."""
    assert AutoHTTPProtocol is HttpToolsProtocol, says(f"http='auto' is {AutoHTTPProtocol.__name__}")


async def nothing(_: Scope, __: Receive, ___: Send) -> None:
    """An application that does nothing."""


def test_a_factory_and_auto_are_taken_for_http_and_log_level_reaches_the_loggers() -> None:
    factory: Any = partial(HttpToolsProtocol)
    for http, expected in ((factory, factory), ("auto", AutoHTTPProtocol)):
        config = Config(nothing, http=http, log_config=None, log_level="warning", ws="none")
        config.load()
        assert config.http_protocol_class is expected, says(f"http={http!r} gives {config.http_protocol_class}")
        assert config.ws_protocol_class is None, says("ws='none' gives a class")
    logger = logging.getLogger("uvicorn.error")
    level = logger.level
    logger.setLevel(logging.NOTSET)
    assert level == logging.WARNING, says("log_level does not set the level of the logger uvicorn.error")
