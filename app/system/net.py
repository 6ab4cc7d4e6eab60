"""The address that the service listens on, taken before anything else is done."""

import errno
import ipaddress
import os
import socket
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network

from app.errors import StartupError


def listen(host: str, port: int, *, loopback_only: bool = False) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        StartupError: the port is taken, or the address is not one of this machine, or not one of its loopback.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise StartupError(f"--host (KRON_HOST): got {host!r}, expected an address of this machine: {error}") from None
    if loopback_only and not _of_loopback(address):
        raise StartupError(
            f"--host (KRON_HOST): {host} can be reached from elsewhere, and there are no API keys: give --keys FILE, "
            "or say --insecure-no-keys if whoever can reach it may do everything"
        )
    taken = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # a port that has just been given up is free; elsewhere the option means "share it"
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        taken.listen(1024)
    except OSError as error:
        taken.close()
        if error.errno == errno.EADDRINUSE:
            raise StartupError(f"port {port} on {host} is taken; choose another one with --port (KRON_PORT)") from None
        raise StartupError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    return taken


def is_loopback(host: str) -> bool:
    """Whether a service that listens there can be reached from this machine only."""
    try:
        return _of_loopback(socket.getaddrinfo(host, None, flags=socket.AI_PASSIVE)[0][4])
    except (socket.gaierror, UnicodeError):
        return False


def _of_loopback(address: Sequence[object]) -> bool:
    return ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback


def url(host: str, port: int) -> str:
    """Where a person finds it."""
    if host in {"0.0.0.0", "::", ""}:
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


Network = IPv4Network | IPv6Network


def read_network(text: str) -> Network:
    """An address, or a network as `10.0.0.0/8`.

    Raises:
        ValueError: it is neither.
    """
    return ipaddress.ip_network(text.strip())
