"""Listening sockets that are closed without a reset of a client's connection."""

import socket
import sys

import pytest

from app.system.net import listen, occupy_queue

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the queue of other systems is not known")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_client_in_the_queue_is_to_be_accepted_first(host: str) -> None:
    with listen(host, 0) as listening:
        address = ("::1" if ":" in host else "127.0.0.1", listening.getsockname()[1])
        with socket.create_connection(address, timeout=10) as early:
            early.sendall(b"sent before it is accepted")
            assert not occupy_queue(listening)
            accepted, _ = listening.accept()
            with accepted:
                assert occupy_queue(listening)
                with pytest.raises(TimeoutError):  # ignored, not completed: it would be reset now
                    socket.create_connection(address, timeout=0.2)
                listening.close()
                assert accepted.recv(100) == b"sent before it is accepted"
                accepted.sendall(b"answered after the end of listening")
                assert early.recv(100) == b"answered after the end of listening"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=10)
