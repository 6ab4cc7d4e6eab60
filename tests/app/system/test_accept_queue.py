import socket
import sys
from collections.abc import Iterator

import pytest

from app.system.accept_queue import accept_all, dropped_packets, is_readable, stop_handshakes, take_packets

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot stop handshakes")


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["IPv4", "IPv6"])
def listening(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family, host = request.param
    with socket.socket(family) as opened:
        try:
            opened.bind((host, 0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
        opened.listen(8)
        yield opened


def client_of(listening: socket.socket) -> socket.socket:
    client = socket.socket(listening.family)
    client.settimeout(10)
    client.connect(listening.getsockname())
    return client


@ON_LINUX
def test_connections_of_before_work_and_no_further_one_begins(listening: socket.socket) -> None:
    queued = [client_of(listening) for _ in range(3)]
    assert stop_handshakes(listening)
    dropped = dropped_packets()
    with socket.socket(listening.family) as late:
        late.settimeout(0.2)
        with pytest.raises(TimeoutError):
            late.connect(listening.getsockname())
    assert dropped_packets() > dropped
    accepted = accept_all(listening)
    assert len(accepted) == 3
    for client, own in zip(queued, accepted, strict=True):
        with client, own:
            client.sendall(b"a request" * 1000)
            client.shutdown(socket.SHUT_WR)
            with own.makefile("rb") as file:
                assert file.read() == b"a request" * 1000
            own.sendall(b"an answer")
            own.shutdown(socket.SHUT_WR)
            with client.makefile("rb") as file:
                assert file.read() == b"an answer"
    address = listening.getsockname()
    listening.close()
    with socket.socket(listening.family) as late, pytest.raises(ConnectionRefusedError):
        late.connect(address)


@ON_LINUX
def test_a_handshake_that_has_begun_ends_and_its_connection_works(listening: socket.socket) -> None:
    """A connection inherits the options of its port at the end of the handshake, which is before this one's stop."""
    assert stop_handshakes(listening)
    options = {socket.AF_INET: [(0, 21)], socket.AF_INET6: [(41, 73), (0, 21)]}[listening.family]
    assert [listening.getsockopt(*each) for each in options] == [255] * len(options)
    for each in options:
        listening.setsockopt(*each, 0)
    with client_of(listening) as client:
        own, _ = listening.accept()
        with own:
            for each in options:  # as inherited
                own.setsockopt(*each, 255)
            own.settimeout(0.2)
            client.sendall(b"dropped, and sent again")
            with pytest.raises(TimeoutError):
                own.recv(100)
            take_packets(own.fileno())
            own.settimeout(10)
            assert own.recv(100) == b"dropped, and sent again"


def test_accepting_ends_with_an_empty_queue(listening: socket.socket) -> None:
    assert not is_readable(listening)
    assert accept_all(listening) == []
    with client_of(listening), client_of(listening):
        assert is_readable(listening)
        accepted = accept_all(listening)
        assert len(accepted) == 2
        assert not is_readable(listening)
        for each in accepted:
            each.close()


def test_bytes_and_the_end_of_a_connection_are_readable() -> None:
    own, client = socket.socketpair()
    with own, client:
        assert not is_readable(own.fileno())
        client.send(b"x")
        assert is_readable(own.fileno())
        own.recv(1)
        assert not is_readable(own.fileno())
        client.close()
        assert is_readable(own.fileno())
