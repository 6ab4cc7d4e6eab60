"""What `app/server` relies on in uvicorn's requests and responses; the rest is in `test_uvicorn_contract.py`."""

import asyncio
from typing import Any

import uvicorn
from uvicorn.config import Config

from app.server.fast_path import CLOSE
from app.server.half_close import STATUS_LINE_START
from tests.app.server.driver import FakeTransport, ManualApp, drive_stock, says, turn

GET = b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"


def test_the_application_starts_in_a_task_after_the_headers() -> None:
    async def test(connection: Any, _: FakeTransport, app: ManualApp) -> None:
        connection.data_received(POST)
        assert not app.scopes, says("the application runs within on_headers_complete")
        await turn()
        assert len(app.scopes) == 1, says("the application does not start before the body is complete")
        connection.data_received(b"body")
        assert await app.receives[0]() == {"type": "http.request", "body": b"body", "more_body": False}

    drive_stock(test)


def test_the_newest_request_is_the_cycle_and_the_others_wait_in_the_pipeline() -> None:
    async def test(connection: Any, transport: FakeTransport, app: ManualApp) -> None:
        connection.data_received(GET)
        first = connection.cycle
        connection.data_received(GET + GET)
        waiting = [cycle for cycle, _ in connection.pipeline]
        assert waiting[0] is connection.cycle is not first, says("the newest request is not the first of the pipeline")
        assert transport.reading_paused, says("reading goes on while requests wait")
        await turn()
        assert len(app.scopes) == 1, says("a request is begun before the one ahead of it is answered")
        await app.respond(0)
        assert first.response_complete, says("a cycle is not complete after its response")
        assert [cycle for cycle, _ in connection.pipeline] == waiting[:1], says(
            "pipeline[-1] is not what is begun next"
        )
        assert connection.timeout_keep_alive_task is None, says("the wait for a request begins while requests wait")

    drive_stock(test)


def test_a_started_response_shows_in_the_cycle() -> None:
    async def test(connection: Any, _: FakeTransport, app: ManualApp) -> None:
        connection.data_received(POST)
        await turn()
        await app.start(0)
        shown = (connection.cycle.response_started, connection.cycle.response_complete)
        assert shown == (True, False), says(f"started and complete are {shown} after a response has begun")

    drive_stock(test)


def test_the_keep_alive_timer_runs_from_the_response_to_the_next_read() -> None:
    async def test(connection: Any, _: FakeTransport, app: ManualApp) -> None:
        connection.data_received(GET)
        await turn()
        await app.respond(0)
        assert isinstance(connection.timeout_keep_alive_task, asyncio.TimerHandle), says("no timer after a response")
        connection.data_received(b"G")
        assert connection.timeout_keep_alive_task is None, says("the timer runs on after the next byte")

    drive_stock(test)


def test_a_response_without_a_request_may_be_reported() -> None:
    """As `HttpConnection` does for the fast path: uvicorn made no cycle for it."""

    async def test(connection: Any, _: FakeTransport, __: ManualApp) -> None:
        connection.on_response_complete()
        assert connection.server_state.total_requests == 1, says("on_response_complete does not count")
        assert connection.timeout_keep_alive_task is not None, says("on_response_complete starts no timer")
        connection.timeout_keep_alive_task.cancel()

    drive_stock(test)


def test_a_response_is_written_and_closed_through_the_transport_of_its_cycle() -> None:
    """Which `HttpConnection` replaces; and each of them, an interim one too, begins with the same bytes."""

    async def test(connection: Any, transport: FakeTransport, app: ManualApp) -> None:
        connection.data_received(POST[:-2] + b"Connection: close\r\nExpect: 100-continue\r\n\r\nbody")
        replaced = connection.cycle.transport = FakeTransport()
        await turn()
        assert (await app.receives[0]())["body"] == b"body"
        interim = replaced.take()
        assert interim.startswith(STATUS_LINE_START + b"100"), says(f"an interim response is {interim!r}")
        await app.start(0)
        assert replaced.written.startswith(STATUS_LINE_START + b"200"), says(f"a response is {replaced.written!r}")
        await app.end(0)
        assert replaced.written.endswith(b"\r\n\r\n00"), says("a body is written elsewhere")
        assert (replaced.closing, transport.closing) == (True, False), says("the last response closes elsewhere")
        assert transport.written == b"", says("a response is written elsewhere, too")

    drive_stock(test)


def test_default_headers_are_made_of_the_encoded_ones() -> None:
    async def test() -> None:
        server = uvicorn.Server(Config(ManualApp(), log_config=None, server_header=False))
        server.config.load()
        assert server.config.encoded_headers == [], says("Config.encoded_headers is not empty without any headers")
        server.config.encoded_headers.append(CLOSE)
        await server.on_tick(0)
        assert CLOSE in server.server_state.default_headers, says("default_headers leave out encoded_headers")

    async def answered(connection: Any, transport: FakeTransport, app: ManualApp) -> None:
        connection.data_received(GET)
        await turn()
        assert connection.cycle.default_headers == [], says("a cycle has no default headers of its own")
        connection.cycle.default_headers = [CLOSE]
        await app.respond(0)
        assert transport.written.count(b"\r\nconnection: close\r\n") == 1, says("no `connection: close` by default")
        assert transport.closing, says("the connection stays open after `connection: close` by default")

    asyncio.run(test())
    drive_stock(answered)


def test_a_lost_connection_reaches_the_newest_request() -> None:
    async def test(connection: Any, transport: FakeTransport, app: ManualApp) -> None:
        connection.data_received(GET)
        await turn()
        transport.close()
        connection.connection_lost(None)
        assert connection.cycle.disconnected, says("connection_lost does not set cycle.disconnected")
        assert connection not in connection.connections, says("a lost connection stays in ServerState.connections")
        assert await app.receives[0]() == {"type": "http.disconnect"}
        await app.start(0)
        assert not transport.written, says("something is written after the connection was lost")

    drive_stock(test)


def test_shutdown_closes_what_is_answered_and_lets_the_others_be_answered() -> None:
    async def test(connection: Any, transport: FakeTransport, app: ManualApp) -> None:
        connection.data_received(POST)
        await turn()
        connection.shutdown()
        assert not transport.closing, says("shutdown closes a connection with an unanswered request")
        receiving = asyncio.ensure_future(app.receives[0]())
        await turn()
        assert not receiving.done(), says("shutdown ends the wait for the body of an accepted request")
        connection.data_received(b"body")
        assert (await receiving)["body"] == b"body"
        await app.respond(0)
        assert transport.closing, says("the last response before the end does not close the connection")

    async def idle(connection: Any, transport: FakeTransport, _: ManualApp) -> None:
        connection.shutdown()
        assert transport.closing, says("shutdown does not close a connection without requests")

    drive_stock(test)
    drive_stock(idle)


def test_connection_close_is_the_end_after_the_response() -> None:
    async def test(connection: Any, transport: FakeTransport, app: ManualApp) -> None:
        connection.data_received(GET[:-2] + b"Connection: close\r\n\r\n")
        await turn()
        await app.respond(0)
        assert b"\r\nconnection: close\r\n" in transport.written, says("no `connection: close` in the response")
        assert transport.closing, says("the connection stays open after `Connection: close`")

    drive_stock(test)
