"""Who may come in: keys and their roles, pages of other sites, and how many requests run at the same time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from app.access.hosts import AllowedHosts
from app.access.keys import Key, find_key, needed_role
from app.errors import Forbidden, Overloaded, TooManyRequests, Unauthorized
from app.settings import Settings


class Caller(NamedTuple):
    """What a request says of itself before anything of it is read."""

    request_id: bytes | None
    key: bytes | None
    length: bytes
    host: bytes | None
    foreign: bytes | None  # the origin of the page that sent it, if that is another one than ours

    @classmethod
    def of(cls, given: Mapping[bytes, bytes]) -> "Caller":
        """From headers by lower-case name."""
        key = given.get(b"x-api-key")
        authorization = given.get(b"authorization", b"")
        if authorization[:7].lower() == b"bearer ":
            key = authorization[7:].strip()
        origin = given.get(b"origin")
        host = given.get(b"host")
        ours = origin is None or origin.partition(b"://")[2] == host
        return cls(given.get(b"x-request-id"), key, given.get(b"content-length", b"0"), host, None if ours else origin)


class Admission:
    """Lets requests in, and counts those that run."""

    def __init__(self, settings: Settings, keys: Sequence[Key]) -> None:
        self._settings = settings
        self._keys = keys
        self._hosts = AllowedHosts(settings)
        self._running: Counter[str] = Counter()  # by client
        self._total = 0

    def enter(self) -> None:
        """A request is here, whether or not it is let in; `leave` ends it."""
        self._total += 1

    def leave(self, client: str | None) -> None:
        """A request has ended that `admit` gave this client for."""
        self._total -= 1
        if client is not None:
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]

    def admit(self, method: str, path: str, address: str, caller: Caller) -> str | None:
        """Let a request in; the client whose running requests it counts among, where these are limited.

        Raises:
            Unauthorized, Forbidden: its key does not allow it, or without keys another site's page sent it or may have.
            TooManyRequests: the client has too many running.
            Overloaded: the service has too many running.
        """
        client = self.check(method, path, address, caller)
        if client is not None:
            self._running[client] += 1
        return client

    def check(self, method: str, path: str, address: str, caller: Caller) -> str | None:
        """As `admit`, for a request that is answered before any other can come: nothing is counted."""
        most = self._settings.client_requests
        full = self._total > self._settings.max_requests
        if most is None and not self._keys and not full and caller.foreign is None and self._hosts.knows(caller.host):
            return None
        role = needed_role(method, path)
        if role is None:
            return None
        if full:
            raise Overloaded(
                f"{self._settings.max_requests} requests are running, the most that may (KRON_MAX_REQUESTS)"
            )
        client = address
        if not self._keys:
            self._hosts.check(caller.host)
            self._refuse_foreign(method, caller.foreign)
        else:
            key = None if caller.key is None else find_key(self._keys, caller.key)
            if key is None:
                raise Unauthorized("an API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY")
            if key.role < role:
                raise Forbidden(f"got a key for {key.role.name}, expected one for {role.name}")
            client = f"key {key.name}"
        if most is None:
            return None
        if self._running[client] >= most:
            raise TooManyRequests(f"got a request while {most} of this client run, the most that may")
        return client

    def _refuse_foreign(self, method: str, origin: bytes | None) -> None:
        """Whatever page a browser shows may send requests to this machine; it must not unload models here."""
        if origin is None or method in {"GET", "HEAD", "OPTIONS"}:
            return
        got = origin[:200].decode("latin-1")
        if got not in self._settings.cors_origins:
            raise Forbidden(f"got a request from a page of {got}, expected this service's own (KRON_CORS_ORIGINS)")
