"""Listening sockets, URLs, and IP addresses and networks."""

import errno
import ipaddress
import os
import socket
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network

from app.errors import StartupError

Network = IPv4Network | IPv6Network


def listen(host: str, port: int, *, loopback_only: bool = False) -> socket.socket:
    """Open a listening socket; port 0 takes a free port.

    Raises:
        StartupError: the port is in use; the address is not one of this machine; or, with `loopback_only`, other
            machines can reach it.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise StartupError(f"--host (KRON_HOST): got {host!r}, expected an address of this machine: {error}") from None
    if loopback_only and not _is_loopback(address):
        raise StartupError(
            f"--host (KRON_HOST): other machines can reach {host}, and there are no API keys; give --keys FILE, or "
            "--insecure-no-keys if everyone who can reach it may do everything"
        )
    listening = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # a port that was just closed can be reused; on Windows the option means "share it"
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1024)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise StartupError(f"port {port} on {host} is in use; choose another one with --port (KRON_PORT)") from None
        raise StartupError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    return listening


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a service that listens on `host`."""
    try:
        return _is_loopback(socket.getaddrinfo(host, None, flags=socket.AI_PASSIVE)[0][4])
    except (socket.gaierror, UnicodeError):
        return False


def _is_loopback(address: Sequence[object]) -> bool:
    return ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback


def url(host: str, port: int) -> str:
    """URL that a browser on this machine opens to reach a service on `host` and `port`."""
    if host in {"0.0.0.0", "::", ""}:
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def read_network(text: str) -> Network:
    """Parse an address, or a network such as `10.0.0.0/8`.

    Raises:
        ValueError: the text is neither.
    """
    return ipaddress.ip_network(text.strip())
