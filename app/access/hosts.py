"""Host names that a service without API keys answers to: protection against DNS rebinding.

A web page can have its own host name resolve to this machine once a browser has loaded it; to the browser, page and
service are then of the same site. The page cannot change that its name is in the `Host` header.
"""

import ipaddress
import re

from app.errors import BadRequest, Forbidden
from app.settings import Settings

MAX_KNOWN_HOSTS = 100
MAX_LENGTH = 300  # of the header; a name in the DNS has at most 253 characters
_HOST = re.compile(r"(\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]*)(:[0-9]*)?")  # RFC 9110, 7.2


class AllowedHosts:
    """Host names that requests may use.

    With API keys or `insecure_no_keys` any name is allowed; otherwise `localhost`, IP addresses, and the names in the
    settings `host`, `allowed_hosts` and `cors_origins`.

    `accepted` holds `Host` headers that have passed `check`.
    """

    def __init__(self, settings: Settings) -> None:
        self._any = settings.keys is not None or settings.insecure_no_keys
        named = (settings.host, *settings.allowed_hosts, *map(_host_of_origin, settings.cors_origins))
        self._names = frozenset(name.lower() for name in named)
        self.accepted: set[bytes | None] = {None}  # browsers always send the header: without it no page is involved

    def check(self, host: bytes | None) -> None:
        """Check a `Host` header; None if the request has none.

        Raises:
            BadRequest: it is neither a name nor an address.
            Forbidden: the name is not allowed.
        """
        if host in self.accepted:
            return
        assert host is not None
        got = host[:MAX_LENGTH].decode("latin-1")
        if len(host) > MAX_LENGTH or not _HOST.fullmatch(got):
            raise BadRequest(f"Host: got {got!r}, expected a name or an address, with or without a port")
        if not self._any and not self._is_allowed(_host_name(got)):
            raise Forbidden(
                f"Host: got {got!r}, expected localhost or an address: "
                "without API keys, other names have to be in KRON_ALLOWED_HOSTS"
            )
        if len(self.accepted) < MAX_KNOWN_HOSTS:
            self.accepted.add(host)

    def _is_allowed(self, name: str) -> bool:
        if name in self._names or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _host_of_origin(origin: str) -> str:
    return _host_name(origin.partition("://")[2])


def _host_name(host: str) -> str:
    """Host name or address without the port and without an IPv6 address's brackets."""
    host = host.lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].removesuffix(".")
