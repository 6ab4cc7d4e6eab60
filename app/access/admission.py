"""Admission control: API keys and roles, host names, cross-origin requests, and limits of running requests."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from app.access.hosts import AllowedHosts
from app.access.keys import HEALTH_PATHS, Key, find_key, required_role
from app.errors import Forbidden, Overloaded, TooManyRequests, Unauthorized
from app.settings import Settings


class Caller(NamedTuple):
    """Request headers that admission needs: the request's id and length, the API key, host and origin.

    Attributes:
        request_id: the client's own id of the request.
        api_key: from `X-API-Key`, or from `Authorization: Bearer`, which takes precedence.
        content_length: as the client sent it; `0` without the header.
        host: the header `Host`.
        foreign_origin: origin of the web page that sent the request, if it is not this service's own page.
    """

    request_id: bytes | None
    api_key: bytes | None
    content_length: bytes
    host: bytes | None
    foreign_origin: bytes | None

    @classmethod
    def from_headers(cls, headers: Mapping[bytes, bytes]) -> "Caller":
        """Read the headers; their names are in lower case."""
        key = headers.get(b"x-api-key")
        authorization = headers.get(b"authorization", b"")
        if authorization[:7].lower() == b"bearer ":
            key = authorization[7:].strip()
        origin = headers.get(b"origin")
        host = headers.get(b"host")
        own_page = origin is None or origin.partition(b"://")[2] == host
        return cls(
            headers.get(b"x-request-id"),
            key,
            headers.get(b"content-length", b"0"),
            host,
            None if own_page else origin,
        )


class Admission:
    """Decides which requests may run, and counts the running ones."""

    def __init__(self, settings: Settings, keys: Sequence[Key]) -> None:
        self._settings = settings
        self._keys = keys
        self._hosts = AllowedHosts(settings)
        self._running: Counter[str] = Counter()  # requests by client
        self._total = 0

    def replace_keys(self, keys: Sequence[Key]) -> None:
        """Replace the API keys, for requests from now on. There must be keys before and after, or neither."""
        self._keys = keys

    def accepts(self, api_key: bytes | None) -> bool:
        """Whether an API key is still in force, or none is needed: for streams that outlast the admission."""
        return not self._keys or (api_key is not None and find_key(self._keys, api_key) is not None)

    def enter(self) -> None:
        """Count an arrived request, before it is admitted or refused; `leave` must be called when it ends."""
        self._total += 1

    def leave(self, client: str | None) -> None:
        """Stop counting a request that has ended; `client` is what its `admit` returned, None if it was refused."""
        self._total -= 1
        if client is not None:
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]

    def admit(self, method: str, path: str, address: str, caller: Caller) -> str | None:
        """Admit a request.

        Args:
            method: of the request.
            path: of the request.
            address: IP address of the client.
            caller: headers of the request.

        Returns:
            The client whose running requests it counts towards, for `leave`; None if these are not limited.

        Raises:
            Unauthorized: the API key is missing or unknown.
            Forbidden: the key's role does not suffice; or, without keys, another site's page sent the request, or its
                host name is not allowed.
            TooManyRequests: the client has too many running requests.
            Overloaded: the service has too many running requests.
        """
        client = self.check(method, path, address, caller)
        if client is not None:
            self._running[client] += 1
        return client

    def check(self, method: str, path: str, address: str, caller: Caller) -> str | None:
        """Check a request as `admit` does, without counting it: for requests that the event loop answers at once."""
        most = self._settings.client_requests
        full = self._total > self._settings.max_requests
        unlimited = most is None and not self._keys and not full
        host_accepted = caller.host in self._hosts.accepted
        if unlimited and caller.foreign_origin is None and host_accepted:
            return None
        if not host_accepted and path not in HEALTH_PATHS:  # probes may come by any name
            self._hosts.check(caller.host)
        role = required_role(method, path)
        if role is None:
            return None
        if full:
            limit = self._settings.max_requests
            raise Overloaded(f"got {self._total} running requests, expected at most {limit} (KRON_MAX_REQUESTS)")
        client = address
        if not self._keys:
            self._check_origin(method, caller.foreign_origin)
        else:
            key = None if caller.api_key is None else find_key(self._keys, caller.api_key)
            if key is None:
                raise Unauthorized("an API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY")
            if key.role < role:
                raise Forbidden(f"got a key for {key.role.name}, expected one for {role.name}")
            client = f"key {key.name}"
        if most is None:
            return None
        if self._running[client] >= most:
            raise TooManyRequests(
                f"got {self._running[client] + 1} running requests of this client, "
                f"expected at most {most} (KRON_CLIENT_REQUESTS)"
            )
        return client

    def _check_origin(self, method: str, foreign_origin: bytes | None) -> None:
        """Refuse changes by web pages of other sites: any page in a browser can send requests to this machine."""
        if foreign_origin is None or method in {"GET", "HEAD", "OPTIONS"}:
            return
        got = foreign_origin[:200].decode("latin-1")
        if got not in self._settings.cors_origins:
            raise Forbidden(f"Origin: got {got}, expected this service's own or one of KRON_CORS_ORIGINS")
