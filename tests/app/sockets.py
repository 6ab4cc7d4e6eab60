"""Clients over raw sockets, which send what HTTP libraries would not."""

import json
import re
import socket
from contextlib import suppress
from pathlib import Path
from select import select

import httpx

from tests.app.conftest import Serving

GET = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


def connect(server: Serving) -> socket.socket:
    url = httpx.URL(server.address)
    opened = socket.create_connection((url.host, url.port or 80), timeout=10)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened


def connect_with_small_buffer(server: Serving) -> socket.socket:
    """Connect with a small receive buffer: about 100 KB fit before the client has to read."""
    url = httpx.URL(server.address)
    opened = socket.socket()
    opened.settimeout(10)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    opened.connect((url.host, url.port or 80))
    return opened


def is_open_at_service(server: Serving, opened: socket.socket) -> bool:
    """Whether the service's end of the connection is open, from /proc."""
    ports = [httpx.URL(server.address).port, opened.getsockname()[1]]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if [int(address.rpartition(":")[2], 16) for address in fields[1:3]] == ports:
            return fields[9] != "0"  # the inode; 0 where only the kernel still has something to send
    return False


def rest(opened: socket.socket) -> bytes:
    """All bytes until the service closes the connection."""
    parts = []
    with opened, suppress(ConnectionResetError):
        while part := opened.recv(65536):
            parts.append(part)
    return b"".join(parts)


def until(opened: socket.socket, end: bytes) -> bytes:
    """All bytes up to `end`, which must be the last so far."""
    received = b""
    while not received.endswith(end):
        part = opened.recv(65536)
        assert part, f"closed after {received!r}"
        received += part
    return received


def pour(opened: socket.socket, piece: bytes, *, most: int) -> bytes:
    """Send a piece again and again until the service answers or closes; then all bytes, like `rest`."""
    sent = 0
    with opened:
        with suppress(OSError):
            while not select([opened], [], [], 0.01)[0]:
                assert sent < most, f"no answer after {sent} bytes"
                opened.sendall(piece)
                sent += len(piece)
        return rest(opened)


def answer(received: bytes) -> tuple[int, str]:
    """Status and error of a refusal."""
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    error: str = json.loads(body)["error"]
    return int(head.split()[1]), error


def failures(server: Serving, reason: str) -> int:
    found = re.search(rf'kron_failures_total\{{reason="{reason}"\}} (\d+)', httpx.get(f"{server.address}/metrics").text)
    return int(found[1]) if found else 0
