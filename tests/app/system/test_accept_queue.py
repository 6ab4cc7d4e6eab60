import ctypes
import socket
import struct
import sys
from collections.abc import Iterator

import pytest

from app.system.accept_queue import _FIRST_SEGMENTS, SO_ATTACH_FILTER, accept_all, is_readable, stop_handshakes

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the filter is of Linux")
SYN, ACK = 0x02, 0x10


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
    with socket.socket(listening.family) as late:
        late.settimeout(0.2)
        with pytest.raises(TimeoutError):
            late.connect(listening.getsockname())
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
def test_the_filter_drops_only_the_first_segment_of_a_handshake() -> None:
    """Segments with all combinations of flags, sent through the filter as datagrams."""
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in _FIRST_SEGMENTS))
    sending, receiving = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sending, receiving:
        filter_ = struct.pack("HP", len(_FIRST_SEGMENTS), ctypes.addressof(program))
        receiving.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter_)
        receiving.setblocking(False)
        for flags in range(256):
            segment = struct.pack("!HHIIBBHHH", 40000, 8000, 1, 2, 5 << 4, flags, 1024, 0, 0) + b"x" * 999
            sending.send(segment)
            if flags & (SYN | ACK) == SYN:
                with pytest.raises(BlockingIOError):
                    receiving.recv(2000)
            else:
                assert receiving.recv(2000) == segment


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
