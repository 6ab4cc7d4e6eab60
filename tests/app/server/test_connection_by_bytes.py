"""What a connection writes and when it closes, driven by bytes through the real parser, without a socket."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.server.connection_state import Event, State
from app.settings import Settings
from tests.app.server.driver import HASTY, Driver, FakeTransport, drive, open_connection, turn

E, S = Event, State
GET = b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"
FAST = b"POST /fast HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
OFFER = CHUNKED[:-2] + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"


def refusal(transport: FakeTransport, *, lingers: bool = False) -> tuple[int, str]:
    """Status and error of the one response that was written; nothing may follow it.

    Args:
        transport: of the connection.
        lingers: expect that the connection stays open for what the client still sends.
    """
    head, _, body = transport.take().partition(b"\r\n\r\n")
    assert (transport.ended, transport.closing) == (lingers, not lingers)
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)["error"]


def test_a_request_in_pieces() -> None:
    async def test(driver: Driver) -> None:
        assert driver.state() is S.IDLE
        for at in range(1, len(POST)):
            assert await driver.feed(POST[at - 1 : at]) is S.HEADERS
        assert await driver.feed(POST[-1:]) is S.BODY
        for _ in range(3):
            assert await driver.feed(b"x") is S.BODY
        assert await driver.feed(b"x") is S.RESPONDING
        await driver.app.respond(0)
        assert driver.state() is S.IDLE
        assert driver.transport.take().endswith(b"\r\n\r\n00")

    drive(test)


def test_the_fast_path_answers_a_request_in_one_piece() -> None:
    async def test(driver: Driver) -> None:
        assert await driver.feed(FAST + b"body") is S.FAST_PATH
        driver.fast_path.finish()
        assert driver.state() is S.IDLE
        assert driver.transport.take().endswith(b"fast")
        assert not driver.app.scopes
        assert await driver.feed(FAST + b"body" + GET) is S.RESPONDING  # in their order
        assert driver.transport.take().endswith(b"fast")
        assert driver.machine.events.count(E.FAST_PATH_BEGUN) == 2

    drive(test)


@pytest.mark.parametrize("accepts", [False, True])
def test_a_request_that_the_fast_path_leaves_goes_to_the_application(accepts: bool) -> None:
    async def test(driver: Driver) -> None:
        driver.fast_path.accepts, driver.fast_path.answers = accepts, False
        driver.connection.data_received(FAST + b"body")
        driver.fast_path.finish()
        await turn()
        assert driver.state() is S.RESPONDING
        assert await driver.app.receives[0]() == {"type": "http.request", "body": b"body", "more_body": False}
        await driver.app.respond(0)
        assert driver.state() is S.IDLE

    drive(test)


def test_a_held_request_goes_to_the_application_when_its_body_takes_longer() -> None:
    async def test(driver: Driver) -> None:
        assert await driver.feed(FAST + b"bo") is S.BODY
        assert await driver.feed(b"dy") is S.RESPONDING
        assert (await driver.app.receives[0]())["body"] == b"body"
        assert driver.machine.events[1:3] == [E.REQUEST_HELD, E.REQUEST_PASSED_ON]

    drive(test)


def test_requests_sent_ahead_wait_and_are_answered_in_their_order() -> None:
    async def test(driver: Driver) -> None:
        assert await driver.feed(GET + POST[:20]) is S.NEXT_HEADERS
        assert await driver.feed(POST[20:] + b"x") is S.NEXT_BODY
        assert await driver.feed(b"xxx" + FAST + b"body" + GET[:9]) is S.NEXT_HEADERS
        assert driver.machine.waiting == 2
        assert len(driver.app.scopes) == 1
        await driver.app.respond(0)
        await driver.app.respond(1)
        assert (driver.state(), driver.machine.waiting) == (S.NEXT_HEADERS, 0)
        await driver.app.respond(2)
        assert driver.state() is S.HEADERS
        assert await driver.feed(GET[9:]) is S.RESPONDING
        await driver.app.respond(3)
        assert driver.state() is S.IDLE
        assert [scope["path"] for scope in driver.app.scopes] == ["/a", "/a", "/fast", "/a"]
        assert [part[:2] for part in driver.transport.take().split(b"\r\n\r\n")[1:]] == [b"00", b"01", b"02", b"03"]

    drive(test)


def test_a_client_that_is_gone_is_reported_to_the_request_being_answered_and_to_the_newest() -> None:
    async def test(driver: Driver) -> None:
        await driver.feed(GET + GET)
        receiving = asyncio.ensure_future(driver.app.receives[0]())
        await turn()
        assert (await receiving)["type"] == "http.request"
        receiving = asyncio.ensure_future(driver.app.receives[0]())
        await turn()
        assert not receiving.done()
        driver.lose()
        assert (await receiving) == {"type": "http.disconnect"}

    drive(test)


@pytest.mark.parametrize(
    ("before", "refused"),
    [
        (b"", True),
        (b"\r\n", True),
        (CHUNKED, True),
        (CHUNKED + b"1\r\nx\r\n", True),
        (GET, False),
        (GET + CHUNKED, False),
    ],
    ids=["nothing", "an empty line", "headers", "a chunk", "an unanswered request", "a further request"],
)
def test_what_is_no_http_is_refused_or_cut_off(before: bytes, refused: bool) -> None:
    async def test(driver: Driver) -> None:
        if before:
            await driver.feed(before)
        assert await driver.feed(b"?\r\n\r\n") is S.DRAINING
        assert driver.refused == ["InvalidHttp"]
        if refused:
            assert refusal(driver.transport, lingers=True) == (400, "got something that is not HTTP/1.1")
        else:
            assert (driver.transport.take(), driver.transport.closing) == (b"", True)

    drive(test)


@pytest.mark.parametrize("whole", [False, True], ids=["begun", "complete"])
def test_bad_chunks_after_the_response_has_begun_are_cut_off(whole: bool) -> None:
    async def test(driver: Driver) -> None:
        assert await driver.feed(CHUNKED + b"1\r\nx\r\n") is S.BODY
        await driver.app.start(0)
        if whole:
            await driver.app.end(0)
            assert driver.state() is S.DISCARDING
        driver.transport.take()
        assert await driver.feed(b"?\r\n") is S.DRAINING
        assert (driver.transport.take(), driver.transport.closing) == (b"", True)
        assert (E.RESPONSE_STARTED in driver.machine.events) is not whole

    drive(test)


@pytest.mark.parametrize("before", [b"", GET], ids=["first", "further"])
@pytest.mark.parametrize("size", [100, 10_000], ids=["parts", "piece"])
def test_headers_that_are_too_large(before: bytes, size: int) -> None:
    async def test(driver: Driver) -> None:
        headers = before + GET[:-2] + b"X-Long: " + b"a" * 2000 + b"\r\n\r\n"
        for start in range(0, len(headers), size):
            if not driver.transport.closing:
                await driver.feed(headers[start : start + size])
        assert driver.refused == ["HeadTooLarge"]
        if before:
            assert (driver.transport.take(), driver.transport.closing) == (b"", True)
        else:
            message = "headers: got more than 1024 bytes, expected at most 1024 (KRON_MAX_HEAD_BYTES)"
            assert refusal(driver.transport, lingers=True) == (431, message)

    drive(test)


def test_too_many_connections() -> None:
    async def run() -> None:
        driver = Driver(Settings(max_connections=1))
        first = driver.connection
        second, transport = open_connection(driver.protocol, driver.app, first.server_state)
        assert driver.refused == ["TooManyConnections"]
        assert refusal(transport) == (503, "got 2 open connections, expected at most 1 (KRON_MAX_CONNECTIONS)")
        second.connection_lost(None)
        driver.lose()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("sent", "reason"),
    [(b"", "IdleConnection"), (b"\r\n", "IdleConnection"), (GET[:9], "HeadTimeout"), (GET + GET[:9], None)],
    ids=["nothing", "an empty line", "part of the headers", "part of further headers"],
)
def test_a_client_that_sends_too_slowly(sent: bytes, reason: str | None) -> None:
    async def test(driver: Driver) -> None:
        if sent:
            await driver.feed(sent)
        await asyncio.sleep(3 * HASTY.head_seconds)
        assert driver.refused == ([reason] if reason else [])
        assert driver.transport.closing is (reason is not None)
        if reason == "HeadTimeout":
            message = "headers: not received within 0.05 s (KRON_HEAD_SECONDS)"
            assert refusal(driver.transport) == (408, message)
        else:
            assert driver.transport.take() == b""

    drive(test, HASTY)


def test_a_rest_of_a_body_that_comes_too_slowly() -> None:
    async def test(driver: Driver) -> None:
        await driver.feed(POST)
        await driver.app.respond(0)
        assert await driver.feed(b"x") is S.DISCARDING
        await asyncio.sleep(3 * HASTY.head_seconds)
        assert (driver.state(), driver.refused, driver.transport.closing) == (
            S.DRAINING,
            ["IdleConnection"],
            True,
        )

    drive(test, HASTY)


@pytest.mark.parametrize("unread", [0, 100])
def test_no_further_request(unread: int) -> None:
    async def test(driver: Driver) -> None:
        await driver.feed(GET)
        await driver.app.respond(0)
        driver.transport.unread = unread
        await asyncio.sleep(2 * HASTY.keep_alive_seconds)
        assert (driver.state(), driver.refused) == (S.DRAINING, [])
        assert (driver.transport.closing, driver.transport.aborted) == (True, unread > 0)

    drive(test, HASTY)


def test_a_client_that_does_not_read() -> None:
    async def test(driver: Driver) -> None:
        await driver.feed(GET)
        driver.transport.unread = 100_000
        driver.connection.pause_writing()
        first = driver.connection._reading_timer
        driver.connection.resume_writing()
        assert first is not None
        assert first.cancelled()
        driver.connection.pause_writing()
        await asyncio.sleep(3 * HASTY.send_seconds)
        assert (driver.state(), driver.refused, driver.transport.aborted) == (S.DRAINING, ["SlowReader"], True)

    drive(test, HASTY)


def test_the_last_response_and_the_end_of_what_the_client_sends() -> None:
    async def test(driver: Driver) -> None:
        await driver.feed(GET[:-2] + b"Connection: close\r\n\r\n")
        driver.transport.unread = 100
        await driver.app.respond(0)
        assert (driver.state(), driver.transport.closing) == (S.DRAINING, True)
        driver.connection.eof_received()
        await asyncio.sleep(2 * HASTY.send_seconds)
        assert driver.refused == ["SlowReader"]

    drive(test, HASTY)


PIECES = [
    GET,
    POST + b"body",
    FAST + b"body",
    CHUNKED + b"3\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n",
    b"\r\n",
    GET[:-2] + b"Connection: close\r\n\r\n",
    b"?\r\n",
    OFFER + b"4\r\nbody\r\n0\r\n\r\n",
    OFFER[:-2] + b"Connection: close\r\n\r\n0\r\n\r\n",
]


@given(
    pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 600), max_size=8),
    answers=st.lists(st.integers(0, 3), max_size=12),
)
def test_any_bytes_in_any_pieces_are_legal_events(pieces: list[bytes], cuts: list[int], answers: list[int]) -> None:
    """And the machine agrees with uvicorn about whether everything has been answered."""

    async def test(driver: Driver) -> None:
        data = b"".join(pieces)
        ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
        begins, todo, answered = [0, *ends[:-1]], list(answers), 0
        for begin, end in zip(begins, ends, strict=True):
            if driver.transport.closing or driver.lingers():
                break
            driver.connection.data_received(data[begin:end])
            driver.fast_path.answers = len(todo) % 3 != 0
            if len(todo) % 2:
                driver.fast_path.finish()
            await turn()
            for _ in range(todo.pop() if todo else 0):
                if answered < len(driver.app.scopes) and not driver.transport.closing:
                    await driver.app.respond(answered)
                    answered += 1
            state, cycle = driver.state(), driver.connection.cycle
            assert not driver.machine.illegal
            if state is not S.DRAINING:
                all_answered = cycle is None or cycle.response_complete
                assert all_answered == (state in {S.IDLE, S.HEADERS, S.HELD, S.FAST_PATH, S.DISCARDING})
                assert driver.machine.waiting <= len(driver.connection.pipeline)
            else:
                assert driver.transport.closing or driver.lingers()

    drive(test)
