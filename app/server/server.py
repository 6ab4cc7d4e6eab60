"""uvicorn's server with an orderly shutdown: accepted requests are answered, running jobs are stopped."""

import asyncio
import gc
import logging
import math
import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.main import create_app
from app.server.bounded_connection import ConnectionConfig
from app.server.connection import HttpConnection
from app.server.fast_path import CLOSE, FastPath
from app.server.proxies import ProxyMiddleware, TrustedProxies
from app.service import Service
from app.settings import Settings
from app.system.accept_queue import accept_all, dropped_packets, stop_handshakes, take_packets
from app.system.heap import trim_heap
from app.system.pidfiles import stopping_file

INTERRUPTED_SECONDS = 5
HANDSHAKE_SECONDS = 0.25  # for the last packet of connections that have begun when new ones are refused
RETRY_SECONDS = 1.2  # until a client whose first packet was dropped has sent it again, which it does after a second
FIRST_REQUEST_SECONDS = 0.1  # for the last connections' first request, where uvicorn's protocol closes at once
SPARE_FILES = 256  # open files besides connections: models, pipes, the archive of reports
LAST_RUN_SECONDS = 5.0  # for a run that has no client any more
log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn server of one app, which runs until a signal stops it, or until it cannot start.

    SIGTERM: `/v2/health/ready` is a 503 at once; after `drain_seconds` new connections are refused, and those that the
    system has completed are accepted; accepted requests are answered within `grace_seconds`. Ctrl-C: the same without
    draining, and within 5 seconds; a second Ctrl-C ends the process without waiting.

    Args:
        settings: the service's settings.
        on_ready: called once every model is loaded.
        shared: folder that all workers of this service share; None where there is one worker only.
        up_when_loaded: accept no connection before every model is loaded.
    """

    def __init__(
        self, settings: Settings, on_ready: Callable[[Service], None], shared: Path | None, *, up_when_loaded: bool
    ) -> None:
        self._settings = settings
        self._on_ready = on_ready
        app = create_app(settings, self._loaded, shared, up_when_loaded=up_when_loaded)
        self.service: Service = app.state.service
        self.interrupted = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listening: list[socket.socket] = []
        self._stopping = None if shared is None else stopping_file(shared)
        self._refuse_until = 0.0  # time of the event loop
        self._drain: asyncio.Task[None] | None = None
        self._end: asyncio.Task[None] | None = None
        super().__init__(_uvicorn_config(settings, app, self.service))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and keep the event loop and the listening sockets for the end."""
        self._loop = asyncio.get_running_loop()
        self._listening = sockets or []
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was accepted, and stay until clients whose first packet was dropped have tried again.

        They are refused then. If this process were the last of a container, its address would be gone, and they would
        wait for an answer until their timeout.
        """
        await super().shutdown(sockets)
        if not self.force_exit:
            await asyncio.sleep(self._refuse_until - asyncio.get_running_loop().time())

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop on SIGTERM or Ctrl-C; uvicorn's own handler would also end the process by the signal."""
        if sig == signal.SIGINT:
            self.force_exit = self.interrupted
            self.interrupted = True
        if self._loop is None:  # not started yet
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        assert self._loop is not None
        self._announce_close()
        # The running job is stopped first: its client would wait until it has ended.
        self._drain = self._loop.create_task(self.service.drain())
        seconds = INTERRUPTED_SECONDS if self.interrupted else self._settings.grace_seconds
        self.config.timeout_graceful_shutdown = math.ceil(seconds)
        if self._end is not None:  # Ctrl-C while it drains
            self._end.cancel()
        self._end = self._loop.create_task(self._begin_exit(0 if self.interrupted else self._settings.drain_seconds))

    def _announce_close(self) -> None:
        """Have all responses from now on say `Connection: close`, so that no client sends a request to the end."""
        if CLOSE in self.config.encoded_headers:
            return
        self.config.encoded_headers.append(CLOSE)  # uvicorn makes its default headers of them, each second
        self.server_state.default_headers = [*self.server_state.default_headers, CLOSE]
        for connection in self.server_state.connections:
            cycle: RequestResponseCycle | None = getattr(connection, "cycle", None)
            if cycle is not None:  # the newest request, which has the default headers of its arrival
                cycle.default_headers = [*cycle.default_headers, CLOSE]

    async def _begin_exit(self, drain_seconds: float) -> None:
        await asyncio.sleep(drain_seconds)
        if self.started and not self.should_exit:
            await self._finish_accepting()
        self.should_exit = True

    async def _finish_accepting(self) -> None:
        """Refuse new connections, and accept all that the system has completed; it would reset them."""
        # A worker that is stopped alone leaves the shared socket to the others as it is.
        dropped = dropped_packets()
        if self._stopping is None or self._stopping.exists():
            stopped = [stop_handshakes(each) for each in self._listening]
            if all(stopped) and not self.interrupted:
                await asyncio.sleep(HANDSHAKE_SECONDS)
        accepted = [each for listening in self._listening for each in accept_all(listening)]
        for server in self.servers:
            server.close()
        for listening in self._listening:
            listening.close()
        loop = asyncio.get_running_loop()
        if dropped_packets() != dropped:
            self._refuse_until = loop.time() + RETRY_SECONDS
        for each in accepted:
            take_packets(each.fileno())
        for connection in self.server_state.connections:  # accepted since the handshakes stopped
            take_packets(connection.transport.get_extra_info("socket").fileno())
        make_protocol: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        protocol = partial(
            make_protocol, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        connecting = [loop.connect_accepted_socket(protocol, each) for each in accepted]
        await asyncio.gather(*connecting, return_exceptions=True)  # a client may have gone
        if not self.interrupted:
            await asyncio.sleep(FIRST_REQUEST_SECONDS)

    def _loaded(self, service: Service) -> None:
        if service.failure is not None:
            self.should_exit = True
            return
        trim_heap()  # loading needed memory that serving does not
        gc.freeze()  # the objects that exist now stay: the garbage collector need not traverse them again
        self._on_ready(service)


def _uvicorn_config(settings: Settings, app: ASGIApp, service: Service) -> uvicorn.Config:
    """Configure uvicorn: with `HttpConnection` for `--http fast`, with its own protocol for `--http standard`."""
    proxies = TrustedProxies(settings.trusted_proxies) if settings.trusted_proxies else None
    http: str | partial[HttpConnection] = "auto"
    if settings.http == "fast":
        shared = ConnectionConfig(settings, FastPath(service), proxies, service.metrics.failed)
        http = partial(HttpConnection, shared)
    elif proxies is not None:
        app = ProxyMiddleware(app, proxies)
    return uvicorn.Config(
        app,
        http=http,  # type: ignore[arg-type]  # a class there, which uvicorn only calls
        timeout_keep_alive=settings.keep_alive_seconds,  # type: ignore[arg-type]  # an int there; `call_later` takes floats
        lifespan="on",
        log_config=None,
        log_level="warning" if settings.log_level == "info" else settings.log_level,
        access_log=False,  # `RequestMiddleware` has its own, with the request's id
        ws="none",
        proxy_headers=False,  # `TrustedProxies` reads them, since the fast path answers below ASGI
        server_header=False,
    )


def serve(
    settings: Settings,
    listening: socket.socket,
    on_ready: Callable[[Service], None],
    shared: Path | None = None,
    *,
    up_when_loaded: bool = False,
) -> None:
    """Serve in this process until a signal stops it.

    Args:
        settings: the service's settings.
        listening: the socket; closed at the end.
        on_ready: called once every model is loaded.
        shared: folder that all workers of this service share; None where there is one worker only.
        up_when_loaded: accept no connection before every model is loaded, because other workers accept them.

    Raises:
        StartupError: the models could not be loaded.
        KeyboardInterrupt: Ctrl-C, after everything has been closed.
    """
    _allow_files(settings.max_connections + SPARE_FILES)
    server = Server(settings, on_ready, shared, up_when_loaded=up_when_loaded)
    server.run(sockets=[listening])
    if not server.service.scheduler.join(LAST_RUN_SECONDS):
        # At exit Python would abort a thread in the middle of C++ code.
        log.error("a run has not ended after %g s; the process ends without it", LAST_RUN_SECONDS)
        logging.shutdown()
        os._exit(130 if server.interrupted else 0)
    if server.service.failure is not None:
        raise server.service.failure
    if server.interrupted:
        raise KeyboardInterrupt


def _allow_files(needed: int) -> None:
    """Raise this process's limit of open files to `needed`, or as far as the system allows; connections are files."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        log.warning(
            "the system allows %d open files; --max-connections (KRON_MAX_CONNECTIONS) needs %d", allowed, needed
        )


def describe(service: Service) -> str:
    """The start-up line: names of the models, provider and threads."""
    models = service.repository.models.values()
    if not models:
        return "Serving nothing: all models were unloaded by request"
    served = ", ".join(f"{model.name} (version {model.artifact.version})" for model in models)
    engine = next(iter(models)).engine
    return f"Serving {served} by {engine.provider}, {engine.threads} thread{'s' if engine.threads > 1 else ''}"
