"""Listening sockets that take no more connections."""

import socket
import sys

import pytest

from app.system.net import ignore_new_connections, listen


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has socket filters")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_new_connections_are_ignored_and_completed_ones_arrive(host: str) -> None:
    with listen(host, 0) as listening:
        address = listening.getsockname()[:2]
        with socket.create_connection(address, timeout=10) as early:
            ignore_new_connections(listening)
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.2)
            early.sendall(b"sent before it is accepted")
            accepted, _ = listening.accept()
            with accepted:
                listening.close()
                assert accepted.recv(100) == b"sent before it is accepted"
                accepted.sendall(b"answered after the end of listening")
                assert early.recv(100) == b"answered after the end of listening"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=10)
