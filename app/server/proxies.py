"""Address of the client behind trusted reverse proxies, from `X-Forwarded-For`."""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from starlette.types import ASGIApp, Receive, Scope, Send

from app.system.net import read_network

Address = IPv4Address | IPv6Address
HEADER = b"x-forwarded-for"
MAX_HOPS = 32


class TrustedProxies:
    """Reads `X-Forwarded-For` of trusted proxies only, since any client can send this header.

    Args:
        networks: addresses and networks of the proxies, as `read_network` takes them.
    """

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [read_network(text) for text in networks]
        self._trusts = lru_cache(maxsize=4096)(self._look_up)

    def client(self, peer: tuple[str, int], headers: Sequence[tuple[bytes, bytes]]) -> tuple[str, int]:
        """Find the client: the last hop that is not a trusted proxy. Each proxy appends the address that called it.

        Args:
            peer: address and port that the connection comes from.
            headers: of the request, names in lower case.

        Returns:
            its address, with port 0 where it is not the peer.
        """
        if not self._trusts(peer[0]):
            return peer
        hops = b",".join(value for name, value in headers if name == HEADER).decode("latin-1").split(",")
        client = peer
        for hop in hops[: -MAX_HOPS - 1 : -1]:
            host = _host(hop.strip())
            if host is None:  # not an address: the hops before it cannot be trusted either
                return client
            client = host, 0
            if not self._trusts(host):
                return client
        return client

    def _look_up(self, host: str) -> bool:
        address = _address(host)
        return address is not None and any(address in network for network in self._networks)


class ProxyMiddleware:
    """ASGI middleware that sets a request's client from `X-Forwarded-For`, for `--http standard`.

    Args:
        app: the application.
        proxies: the trusted proxies.
    """

    def __init__(self, app: ASGIApp, proxies: TrustedProxies) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request with the client's address in its scope."""
        if scope["type"] == "http" and scope["client"] is not None:
            scope["client"] = self._proxies.client(tuple(scope["client"]), scope["headers"])
        await self._app(scope, receive, send)


def _host(hop: str) -> str | None:
    """The address of a hop in its usual spelling, without a port; None if it is not an address."""
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    address = _address(hop)
    return None if address is None else str(address)


def _address(host: str) -> Address | None:
    if len(host) > 60:
        return None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
