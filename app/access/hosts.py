"""The names that a service without keys answers to, so that no page on the internet can pass for its own.

A page may have its own name point to this machine once it is shown (DNS rebinding): to the browser the service is then
of its site. What it cannot change is that name in the header `Host`.
"""

import ipaddress

from app.errors import Forbidden
from app.settings import Settings

MOST_KEPT = 100


class AllowedHosts:
    """`localhost`, any address, `--host`, and what the settings name; with keys, or open to all, any."""

    def __init__(self, settings: Settings) -> None:
        self._any = settings.keys is not None or settings.insecure_no_keys
        named = (settings.host, *settings.allowed_hosts, *map(_name_of_origin, settings.cors_origins))
        self._names = frozenset(name.lower() for name in named)
        self._known: set[bytes | None] = {None}  # no browser leaves it out

    def knows(self, host: bytes | None) -> bool:
        """Whether this header has been looked at before, and was fine."""
        return self._any or host in self._known

    def check(self, host: bytes | None) -> None:
        """Look at a header.

        Raises:
            Forbidden: the service does not answer to that name.
        """
        if self.knows(host):
            return
        assert host is not None
        got = host[:200].decode("latin-1")
        if not self._is_ours(_name(got)):
            raise Forbidden(
                f"Host: got {got!r}, expected localhost or an address: "
                "without keys the service answers to no other name (KRON_ALLOWED_HOSTS)"
            )
        if len(self._known) < MOST_KEPT:
            self._known.add(host)

    def _is_ours(self, name: str) -> bool:
        if name in self._names or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _name_of_origin(origin: str) -> str:
    return _name(origin.partition("://")[2])


def _name(host: str) -> str:
    """Without port, and without the brackets of an IPv6 address."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].removesuffix(".")
