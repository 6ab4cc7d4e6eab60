"""State machine of an HTTP/1.1 connection, without I/O: what may be written at which point, and when to close.

Rules:

1. Everything that decides what is written or closed stands in `TRANSITIONS`. `HttpConnection` reports events and
   carries out the action that it gets; an event that a state does not list raises `IllegalTransitionError`.
2. A refusal (`REFUSAL_STATUS`) is written only where the client takes it for the answer to the request that it is
   sending, or for a message about the connection: no earlier request is unanswered, and no byte of this request's
   response has been written. Everywhere else the connection is closed without one.
3. Requests that a client sends ahead (pipelining) are answered in order. While complete ones wait, `RESPONSE_COMPLETE`
   makes the next of them the one being answered, and the state stays.
4. Sizes and times are measured by the connection. The machine says only in which states incomplete headers count
   (`HEADERS_COUNT`), in which the framing of a body does (`FRAMING_COUNTS`), and in which the client has to send
   something within `--head-seconds` (`CLIENT_MUST_SEND`).
5. A client that ends its side (half-close) is answered what it has asked for completely, then the connection is closed.
6. A client that does not read is no state: it can happen in all of them, and `NOT_READ_IN_TIME` ends all of them.
"""

from collections.abc import Mapping
from enum import IntEnum
from http import HTTPStatus
from typing import TypeAlias

import orjson


class State(IntEnum):
    """Position of a connection in its exchange of requests and responses. Integers, because their hashes are quick."""

    IDLE = 0  # every request that has begun is answered and complete
    HEADERS = 1  # headers are arriving; every earlier request is answered
    HELD = 2  # headers are complete; held back until the same read shows whether the fast path can answer
    FAST_PATH = 3  # the request is complete; the fast path answers it
    BODY = 4  # the application has the request; its body is arriving; no byte of the response is written
    EARLY_RESPONSE = 5  # the response has begun before the body was complete
    DISCARDING = 6  # the response is complete, the body still arriving: the rest of it is discarded
    RESPONDING = 7  # the request is complete, its response is not
    NEXT_HEADERS = 8  # like RESPONDING, and the headers of a further request are arriving
    NEXT_BODY = 9  # like RESPONDING, and the body of a further request is arriving; that request waits
    LAST_RESPONSES = 10  # the client has ended its side; the requests that were complete by then are answered
    DRAINING = 11  # closing: no request is read any more, and what is written is still on its way to the client
    CLOSED = 12  # the connection is lost


class Event(IntEnum):
    """Event on a connection, reported by `HttpConnection`."""

    REQUEST_BEGUN = 0  # its first byte has arrived
    REQUEST_HELD = 1  # its headers are complete, and the fast path may be able to answer it
    REQUEST_PASSED_ON = 2  # it was given to uvicorn, which starts the application or lets the request wait
    FAST_PATH_BEGUN = 3  # a held request is complete, and the fast path has accepted it
    BODY_COMPLETE = 4
    RESPONSE_STARTED = 5  # matters only before the body is complete, and is reported only then
    RESPONSE_COMPLETE = 6
    TOO_MANY_CONNECTIONS = 7
    INVALID_HTTP = 8
    HEADERS_TOO_LARGE = 9  # or the framing and the trailers of a body
    HEADERS_TIMED_OUT = 10  # the client has not sent within `--head-seconds` what it has to send
    KEEP_ALIVE_TIMED_OUT = 11  # no further request has come within `--keep-alive-seconds`
    NOT_READ_IN_TIME = 12  # the client has read nothing for `--send-seconds`
    CLOSE_BEGUN = 13  # the transport closes, because uvicorn or the connection has closed it
    CONNECTION_LOST = 14
    UPGRADE_OFFERED = 15  # its headers are complete and offer another protocol: it begins again, without the offer
    CLIENT_ENDED = 16  # the client has ended its side: it sends nothing more


class Action(IntEnum):
    """What the connection does in response to an event."""

    PROCEED = 0
    REFUSE = 1  # write the refusal, then close once the client has read what is written
    CLOSE = 2  # close once the client has read what is written
    CLOSE_NOW = 3  # close; abort if the client still has something to read
    ABORT = 4  # close, and drop what the client has not read
    WAIT = 5  # give the client the same time again


REFUSAL_STATUS: Mapping[Event, HTTPStatus] = {
    Event.INVALID_HTTP: HTTPStatus.BAD_REQUEST,
    Event.HEADERS_TIMED_OUT: HTTPStatus.REQUEST_TIMEOUT,
    Event.HEADERS_TOO_LARGE: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    Event.TOO_MANY_CONNECTIONS: HTTPStatus.SERVICE_UNAVAILABLE,
}

_ALWAYS = {
    Event.NOT_READ_IN_TIME: (State.DRAINING, Action.ABORT),
    Event.CLOSE_BEGUN: (State.DRAINING, Action.PROCEED),
    Event.CLIENT_ENDED: (State.DRAINING, Action.CLOSE),
    Event.CONNECTION_LOST: (State.CLOSED, Action.PROCEED),
}
_ANSWERS_DUE = _ALWAYS | {Event.CLIENT_ENDED: (State.LAST_RESPONSES, Action.PROCEED)}

TRANSITIONS: Mapping[State, Mapping[Event, tuple[State, Action]]] = {
    State.IDLE: {
        Event.REQUEST_BEGUN: (State.HEADERS, Action.PROCEED),
        Event.TOO_MANY_CONNECTIONS: (State.DRAINING, Action.REFUSE),
        Event.INVALID_HTTP: (State.DRAINING, Action.REFUSE),
        Event.HEADERS_TOO_LARGE: (State.DRAINING, Action.REFUSE),  # empty lines before a request
        Event.HEADERS_TIMED_OUT: (State.DRAINING, Action.CLOSE_NOW),  # nothing was requested, so nothing is answered
        Event.KEEP_ALIVE_TIMED_OUT: (State.DRAINING, Action.CLOSE_NOW),
        **_ALWAYS,
    },
    State.HEADERS: {
        Event.REQUEST_HELD: (State.HELD, Action.PROCEED),
        Event.REQUEST_PASSED_ON: (State.BODY, Action.PROCEED),
        Event.INVALID_HTTP: (State.DRAINING, Action.REFUSE),
        Event.HEADERS_TOO_LARGE: (State.DRAINING, Action.REFUSE),
        Event.HEADERS_TIMED_OUT: (State.DRAINING, Action.REFUSE),
        Event.KEEP_ALIVE_TIMED_OUT: (State.DRAINING, Action.CLOSE_NOW),  # begun before the last response was complete
        Event.UPGRADE_OFFERED: (State.IDLE, Action.PROCEED),
        **_ALWAYS,
    },
    State.HELD: {
        Event.REQUEST_PASSED_ON: (State.BODY, Action.PROCEED),
        Event.FAST_PATH_BEGUN: (State.FAST_PATH, Action.PROCEED),
        Event.INVALID_HTTP: (State.DRAINING, Action.REFUSE),
        **_ALWAYS,
    },
    State.FAST_PATH: {
        Event.REQUEST_PASSED_ON: (State.RESPONDING, Action.PROCEED),
        Event.RESPONSE_COMPLETE: (State.IDLE, Action.PROCEED),
        Event.INVALID_HTTP: (State.DRAINING, Action.CLOSE),
        **_ALWAYS,
    },
    State.BODY: {
        Event.BODY_COMPLETE: (State.RESPONDING, Action.PROCEED),
        Event.RESPONSE_STARTED: (State.EARLY_RESPONSE, Action.PROCEED),
        Event.RESPONSE_COMPLETE: (State.DISCARDING, Action.PROCEED),
        Event.INVALID_HTTP: (State.DRAINING, Action.REFUSE),
        Event.HEADERS_TOO_LARGE: (State.DRAINING, Action.REFUSE),
        **_ALWAYS,
    },
    State.EARLY_RESPONSE: {
        Event.BODY_COMPLETE: (State.RESPONDING, Action.PROCEED),
        Event.RESPONSE_COMPLETE: (State.DISCARDING, Action.PROCEED),
        Event.INVALID_HTTP: (State.DRAINING, Action.CLOSE),
        Event.HEADERS_TOO_LARGE: (State.DRAINING, Action.CLOSE),
        **_ALWAYS,
    },
    State.DISCARDING: {
        Event.BODY_COMPLETE: (State.IDLE, Action.PROCEED),
        Event.INVALID_HTTP: (State.DRAINING, Action.CLOSE),
        Event.HEADERS_TOO_LARGE: (State.DRAINING, Action.CLOSE),
        Event.HEADERS_TIMED_OUT: (State.DRAINING, Action.CLOSE_NOW),
        Event.KEEP_ALIVE_TIMED_OUT: (State.DRAINING, Action.CLOSE_NOW),
        **_ALWAYS,
    },
    State.RESPONDING: {
        Event.REQUEST_BEGUN: (State.NEXT_HEADERS, Action.PROCEED),
        Event.RESPONSE_COMPLETE: (State.IDLE, Action.PROCEED),
        Event.INVALID_HTTP: (State.DRAINING, Action.CLOSE),
        **_ANSWERS_DUE,
    },
    State.NEXT_HEADERS: {
        Event.REQUEST_PASSED_ON: (State.NEXT_BODY, Action.PROCEED),
        Event.RESPONSE_COMPLETE: (State.HEADERS, Action.PROCEED),
        Event.INVALID_HTTP: (State.DRAINING, Action.CLOSE),
        Event.HEADERS_TOO_LARGE: (State.DRAINING, Action.CLOSE),
        Event.HEADERS_TIMED_OUT: (State.NEXT_HEADERS, Action.WAIT),  # the earlier request is answered first
        Event.UPGRADE_OFFERED: (State.RESPONDING, Action.PROCEED),
        **_ANSWERS_DUE,
    },
    State.NEXT_BODY: {
        Event.BODY_COMPLETE: (State.RESPONDING, Action.PROCEED),
        Event.RESPONSE_COMPLETE: (State.BODY, Action.PROCEED),
        Event.INVALID_HTTP: (State.DRAINING, Action.CLOSE),
        Event.HEADERS_TOO_LARGE: (State.DRAINING, Action.CLOSE),
        **_ANSWERS_DUE,
    },
    State.LAST_RESPONSES: {
        Event.RESPONSE_COMPLETE: (State.DRAINING, Action.CLOSE),
        **_ALWAYS,
    },
    State.DRAINING: {
        Event.UPGRADE_OFFERED: (State.DRAINING, Action.PROCEED),
        Event.REQUEST_BEGUN: (State.DRAINING, Action.PROCEED),  # the rest of what was read before
        Event.BODY_COMPLETE: (State.DRAINING, Action.PROCEED),
        Event.RESPONSE_COMPLETE: (State.DRAINING, Action.PROCEED),
        Event.INVALID_HTTP: (State.DRAINING, Action.PROCEED),
        Event.HEADERS_TOO_LARGE: (State.DRAINING, Action.PROCEED),
        Event.KEEP_ALIVE_TIMED_OUT: (State.DRAINING, Action.CLOSE_NOW),
        **_ALWAYS,
    },
    State.CLOSED: {},
}

HEADERS_COUNT = frozenset({State.IDLE, State.HEADERS, State.NEXT_HEADERS})
FRAMING_COUNTS = frozenset({State.BODY, State.EARLY_RESPONSE, State.DISCARDING, State.NEXT_BODY})
CLIENT_MUST_SEND = frozenset({State.IDLE, State.HEADERS, State.DISCARDING, State.NEXT_HEADERS})

# For speed: each row of the table leads to the next row itself, and members that are asked for with each request have
# names of their own (to look up a member of an enumeration takes 0.1 µs in Python 3.11).
_Row: TypeAlias = "dict[Event, tuple[State, Action, _Row]]"
_ROWS: dict[State, _Row] = {state: {} for state in State}
for _state, _transitions in TRANSITIONS.items():
    _ROWS[_state].update({event: (after, action, _ROWS[after]) for event, (after, action) in _transitions.items()})
_NEXT_BODY, _BODY_COMPLETE, _RESPONSE_COMPLETE = State.NEXT_BODY, Event.BODY_COMPLETE, Event.RESPONSE_COMPLETE
_PROCEED = Action.PROCEED


class IllegalTransitionError(Exception):
    """An event was reported that cannot happen in the connection's state: a fault in the connection's code."""


class ConnectionState:
    """The state of one connection; `waiting` counts the complete requests that wait behind the one being answered."""

    __slots__ = ("_row", "state", "waiting")

    def __init__(self) -> None:
        self.state = State.IDLE
        self.waiting = 0
        self._row = _ROWS[State.IDLE]

    def receive(self, event: Event) -> Action:
        """Change the state by an event.

        Returns:
            the action that the connection has to take.

        Raises:
            IllegalTransitionError: the event cannot happen in this state, which stays as it is.
        """
        transition = self._row.get(event)
        if transition is None:
            raise IllegalTransitionError(f"event {event.name} in state {self.state.name}")
        if event is _RESPONSE_COMPLETE and self.waiting:
            self.waiting -= 1
            return _PROCEED
        if event is _BODY_COMPLETE and self.state is _NEXT_BODY:
            self.waiting += 1
        self.state, action, self._row = transition
        return action


def refusal(event: Event, message: str) -> bytes:
    """Build the whole response for an event of `REFUSAL_STATUS`; the connection closes after it."""
    status = REFUSAL_STATUS[event]
    body = orjson.dumps({"error": message})
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", "content-type: application/json"]
    lines += [f"content-length: {len(body)}", "connection: close", "cache-control: no-store"]
    if event is Event.TOO_MANY_CONNECTIONS:
        lines.append("retry-after: 1")
    return "\r\n".join([*lines, "", ""]).encode() + body
