"""The state machine of a connection, driven by events through every transition."""

import pytest

from app.server.connection_state import (
    CLIENT_MUST_SEND,
    FRAMING_COUNTS,
    HEADERS_COUNT,
    REFUSAL_STATUS,
    TRANSITIONS,
    Action,
    ConnectionState,
    Event,
    IllegalTransitionError,
    State,
)

E, S, A = Event, State, Action
Step = tuple[Event, State, Action]

# From a new connection on: event, state after it, action. Together they take every transition.
TO_HEADERS: list[Step] = [(E.REQUEST_BEGUN, S.HEADERS, A.PROCEED)]
TO_HELD: list[Step] = [*TO_HEADERS, (E.REQUEST_HELD, S.HELD, A.PROCEED)]
TO_FAST_PATH: list[Step] = [*TO_HELD, (E.FAST_PATH_BEGUN, S.FAST_PATH, A.PROCEED)]
TO_BODY: list[Step] = [*TO_HEADERS, (E.REQUEST_PASSED_ON, S.BODY, A.PROCEED)]
TO_EARLY_RESPONSE: list[Step] = [*TO_BODY, (E.RESPONSE_STARTED, S.EARLY_RESPONSE, A.PROCEED)]
TO_DISCARDING: list[Step] = [*TO_BODY, (E.RESPONSE_COMPLETE, S.DISCARDING, A.PROCEED)]
TO_RESPONDING: list[Step] = [*TO_BODY, (E.BODY_COMPLETE, S.RESPONDING, A.PROCEED)]
TO_NEXT_HEADERS: list[Step] = [*TO_RESPONDING, (E.REQUEST_BEGUN, S.NEXT_HEADERS, A.PROCEED)]
TO_NEXT_BODY: list[Step] = [*TO_NEXT_HEADERS, (E.REQUEST_PASSED_ON, S.NEXT_BODY, A.PROCEED)]
TO_LAST_RESPONSES: list[Step] = [*TO_RESPONDING, (E.CLIENT_ENDED, S.LAST_RESPONSES, A.PROCEED)]
TO_DRAINING: list[Step] = [(E.CLOSE_BEGUN, S.DRAINING, A.PROCEED)]
WAYS: dict[State, list[Step]] = {
    S.IDLE: [],
    S.HEADERS: TO_HEADERS,
    S.HELD: TO_HELD,
    S.FAST_PATH: TO_FAST_PATH,
    S.BODY: TO_BODY,
    S.EARLY_RESPONSE: TO_EARLY_RESPONSE,
    S.DISCARDING: TO_DISCARDING,
    S.RESPONDING: TO_RESPONDING,
    S.NEXT_HEADERS: TO_NEXT_HEADERS,
    S.NEXT_BODY: TO_NEXT_BODY,
    S.LAST_RESPONSES: TO_LAST_RESPONSES,
    S.DRAINING: TO_DRAINING,
    S.CLOSED: [(E.CONNECTION_LOST, S.CLOSED, A.PROCEED)],
}
REFUSED, CUT_OFF, CLOSED_AT_ONCE = (S.DRAINING, A.REFUSE), (S.DRAINING, A.CLOSE), (S.DRAINING, A.CLOSE_NOW)
SCENARIOS: dict[str, list[Step]] = {
    "too many connections": [(E.TOO_MANY_CONNECTIONS, *REFUSED)],
    "nothing is sent": [(E.HEADERS_TIMED_OUT, *CLOSED_AT_ONCE)],
    "empty lines without end": [(E.HEADERS_TOO_LARGE, *REFUSED)],
    "no HTTP at all": [(E.INVALID_HTTP, *REFUSED)],
    "no HTTP after the first byte": [*TO_HEADERS, (E.INVALID_HTTP, *REFUSED)],
    "headers that are too large": [*TO_HEADERS, (E.HEADERS_TOO_LARGE, *REFUSED)],
    "headers that never end": [*TO_HEADERS, (E.HEADERS_TIMED_OUT, *REFUSED)],
    "no further request": [
        *TO_RESPONDING,
        (E.RESPONSE_COMPLETE, S.IDLE, A.PROCEED),
        (E.KEEP_ALIVE_TIMED_OUT, *CLOSED_AT_ONCE),
    ],
    "a further request that stops in its headers": [
        *TO_NEXT_HEADERS,
        (E.HEADERS_TIMED_OUT, S.NEXT_HEADERS, A.WAIT),
        (E.RESPONSE_COMPLETE, S.HEADERS, A.PROCEED),
        (E.KEEP_ALIVE_TIMED_OUT, *CLOSED_AT_ONCE),
    ],
    "the fast path": [*TO_FAST_PATH, (E.RESPONSE_COMPLETE, S.IDLE, A.PROCEED), *TO_FAST_PATH],
    "the fast path has no answer": [*TO_FAST_PATH, (E.REQUEST_PASSED_ON, S.RESPONDING, A.PROCEED)],
    "held in vain": [*TO_HELD, (E.REQUEST_PASSED_ON, S.BODY, A.PROCEED)],
    "held and broken off": [*TO_HELD, (E.INVALID_HTTP, *REFUSED)],
    "no HTTP behind the fast path": [*TO_FAST_PATH, (E.INVALID_HTTP, *CUT_OFF)],
    "a body that is no body": [*TO_BODY, (E.INVALID_HTTP, *REFUSED)],
    "too much framing": [*TO_BODY, (E.HEADERS_TOO_LARGE, *REFUSED)],
    "a body that is no body, after the response has begun": [*TO_EARLY_RESPONSE, (E.INVALID_HTTP, *CUT_OFF)],
    "too much framing after the response has begun": [*TO_EARLY_RESPONSE, (E.HEADERS_TOO_LARGE, *CUT_OFF)],
    "a response that begins early": [
        *TO_EARLY_RESPONSE,
        (E.BODY_COMPLETE, S.RESPONDING, A.PROCEED),
        (E.RESPONSE_COMPLETE, S.IDLE, A.PROCEED),
    ],
    "a response that ends early": [
        *TO_EARLY_RESPONSE,
        (E.RESPONSE_COMPLETE, S.DISCARDING, A.PROCEED),
        (E.BODY_COMPLETE, S.IDLE, A.PROCEED),
        (E.REQUEST_BEGUN, S.HEADERS, A.PROCEED),
    ],
    "a body that is no body, after the response": [*TO_DISCARDING, (E.INVALID_HTTP, *CUT_OFF)],
    "too much framing after the response": [*TO_DISCARDING, (E.HEADERS_TOO_LARGE, *CUT_OFF)],
    "a rest of a body that does not come": [*TO_DISCARDING, (E.HEADERS_TIMED_OUT, *CLOSED_AT_ONCE)],
    "a rest of a body of which nothing comes": [*TO_DISCARDING, (E.KEEP_ALIVE_TIMED_OUT, *CLOSED_AT_ONCE)],
    "no HTTP behind a request": [*TO_RESPONDING, (E.INVALID_HTTP, *CUT_OFF)],
    "no HTTP in further headers": [*TO_NEXT_HEADERS, (E.INVALID_HTTP, *CUT_OFF)],
    "further headers that are too large": [*TO_NEXT_HEADERS, (E.HEADERS_TOO_LARGE, *CUT_OFF)],
    "a further body that is no body": [*TO_NEXT_BODY, (E.INVALID_HTTP, *CUT_OFF)],
    "too much framing in a further request": [*TO_NEXT_BODY, (E.HEADERS_TOO_LARGE, *CUT_OFF)],
    "a further request whose turn comes before its body": [
        *TO_NEXT_BODY,
        (E.RESPONSE_COMPLETE, S.BODY, A.PROCEED),
        (E.RESPONSE_COMPLETE, S.DISCARDING, A.PROCEED),
    ],
    "four requests sent ahead": [
        *TO_NEXT_BODY,
        (E.BODY_COMPLETE, S.RESPONDING, A.PROCEED),  # two
        (E.REQUEST_BEGUN, S.NEXT_HEADERS, A.PROCEED),
        (E.REQUEST_PASSED_ON, S.NEXT_BODY, A.PROCEED),
        (E.BODY_COMPLETE, S.RESPONDING, A.PROCEED),  # three
        (E.REQUEST_BEGUN, S.NEXT_HEADERS, A.PROCEED),
        (E.RESPONSE_COMPLETE, S.NEXT_HEADERS, A.PROCEED),  # the first
        (E.REQUEST_PASSED_ON, S.NEXT_BODY, A.PROCEED),
        (E.RESPONSE_COMPLETE, S.NEXT_BODY, A.PROCEED),  # the second
        (E.BODY_COMPLETE, S.RESPONDING, A.PROCEED),  # four
        (E.RESPONSE_COMPLETE, S.RESPONDING, A.PROCEED),  # the third
        (E.RESPONSE_COMPLETE, S.IDLE, A.PROCEED),
    ],
    "an offer of another protocol": [*TO_HEADERS, (E.UPGRADE_OFFERED, S.IDLE, A.PROCEED), *TO_BODY],
    "an offer of another protocol in a further request": [
        *TO_NEXT_HEADERS,
        (E.UPGRADE_OFFERED, S.RESPONDING, A.PROCEED),
        (E.REQUEST_BEGUN, S.NEXT_HEADERS, A.PROCEED),
        (E.REQUEST_PASSED_ON, S.NEXT_BODY, A.PROCEED),
    ],
    "a client that ends its side after a request": [*TO_LAST_RESPONSES, (E.RESPONSE_COMPLETE, S.DRAINING, A.CLOSE)],
    "a client that ends its side in the headers of a further request": [
        *TO_NEXT_HEADERS,
        (E.CLIENT_ENDED, S.LAST_RESPONSES, A.PROCEED),
        (E.RESPONSE_COMPLETE, S.DRAINING, A.CLOSE),
    ],
    "a client that ends its side in the body of a third request": [
        *TO_NEXT_BODY,
        (E.BODY_COMPLETE, S.RESPONDING, A.PROCEED),
        (E.REQUEST_BEGUN, S.NEXT_HEADERS, A.PROCEED),
        (E.REQUEST_PASSED_ON, S.NEXT_BODY, A.PROCEED),
        (E.CLIENT_ENDED, S.LAST_RESPONSES, A.PROCEED),
        (E.RESPONSE_COMPLETE, S.LAST_RESPONSES, A.PROCEED),
        (E.RESPONSE_COMPLETE, S.DRAINING, A.CLOSE),
    ],
    "what comes while it closes": [
        *TO_DRAINING,
        (E.UPGRADE_OFFERED, S.DRAINING, A.PROCEED),
        (E.REQUEST_BEGUN, S.DRAINING, A.PROCEED),
        (E.BODY_COMPLETE, S.DRAINING, A.PROCEED),
        (E.RESPONSE_COMPLETE, S.DRAINING, A.PROCEED),
        (E.INVALID_HTTP, S.DRAINING, A.PROCEED),
        (E.HEADERS_TOO_LARGE, S.DRAINING, A.PROCEED),
        (E.KEEP_ALIVE_TIMED_OUT, *CLOSED_AT_ONCE),
        (E.CLOSE_BEGUN, S.DRAINING, A.PROCEED),
        (E.NOT_READ_IN_TIME, S.DRAINING, A.ABORT),
        (E.CONNECTION_LOST, S.CLOSED, A.PROCEED),
    ],
} | {
    f"{event.name} in {state.name}": [*way, (event, after, action)]
    for state, way in WAYS.items()
    if state is not S.CLOSED
    for event, after, action in (
        (E.NOT_READ_IN_TIME, S.DRAINING, A.ABORT),
        (E.CLOSE_BEGUN, S.DRAINING, A.PROCEED),
        (E.CONNECTION_LOST, S.CLOSED, A.PROCEED),
        (
            (E.CLIENT_ENDED, S.LAST_RESPONSES, A.PROCEED)
            if state in {S.RESPONDING, S.NEXT_HEADERS, S.NEXT_BODY}
            else (E.CLIENT_ENDED, S.DRAINING, A.CLOSE)
        ),
    )
}


def walk(steps: list[Step]) -> ConnectionState:
    """A machine after these steps, each of which has to be as expected."""
    machine = ConnectionState()
    for number, (event, state, action) in enumerate(steps):
        assert machine.receive(event) is action, (number, event.name)
        assert machine.state is state, (number, event.name)
    return machine


@pytest.mark.parametrize("steps", SCENARIOS.values(), ids=SCENARIOS)
def test_events_lead_to_states_and_actions(steps: list[Step]) -> None:
    walk(steps)


def test_the_scenarios_take_every_transition() -> None:
    taken = set()
    for steps in SCENARIOS.values():
        state = S.IDLE
        for event, after, _ in steps:
            taken.add((state, event))
            state = after
    assert taken == {(state, event) for state, events in TRANSITIONS.items() for event in events}


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_every_other_event_is_refused(state: State) -> None:
    for event in set(Event) - TRANSITIONS[state].keys():
        machine = walk(WAYS[state])
        with pytest.raises(IllegalTransitionError, match=f"^event {event.name} in state {state.name}$"):
            machine.receive(event)
        assert machine.state is state


def test_a_refusal_is_written_only_where_it_is_the_answer_to_what_the_client_sends() -> None:
    may = {
        state
        for state, events in TRANSITIONS.items()
        if any(action is A.REFUSE for event, (_, action) in events.items() if event in REFUSAL_STATUS)
    }
    assert may == {S.IDLE, S.HEADERS, S.HELD, S.BODY}
    for state, events in TRANSITIONS.items():
        for event, (after, action) in events.items():
            if action is A.REFUSE:
                assert event in REFUSAL_STATUS
            if action not in (A.PROCEED, A.WAIT):
                assert (state is not S.CLOSED, after) == (True, S.DRAINING)
    assert {event: status.value for event, status in REFUSAL_STATUS.items()} == {
        E.INVALID_HTTP: 400, E.HEADERS_TIMED_OUT: 408, E.HEADERS_TOO_LARGE: 431, E.TOO_MANY_CONNECTIONS: 503,
    }  # fmt: skip


def test_bytes_count_for_headers_or_for_framing_and_a_wait_for_the_client_can_end() -> None:
    assert not HEADERS_COUNT & FRAMING_COUNTS
    for state in HEADERS_COUNT | FRAMING_COUNTS:
        assert E.HEADERS_TOO_LARGE in TRANSITIONS[state]
    for state in CLIENT_MUST_SEND:
        assert E.HEADERS_TIMED_OUT in TRANSITIONS[state]
