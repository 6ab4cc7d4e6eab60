"""uvicorn, with an end as operators expect it: accepted requests are answered, comparisons stopped."""

import asyncio
import gc
import logging
import math
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn

from app.main import create_app
from app.server.connection import Bounds
from app.server.fast_path import FastPath
from app.server.protocol import protocol
from app.server.proxies import TrustedProxies
from app.service import Service
from app.settings import Settings
from app.system.heap import trim_heap

INTERRUPTED_SECONDS = 5
SPARE_FILES = 256  # for models, pipes, the archive and what else is open
LAST_RUN_SECONDS = 5.0  # for what runs though nobody waits for it any more
log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Serves one app until it is told to stop, or until it cannot start.

    SIGTERM: not ready any more at once, no new connections after `drain_seconds`, accepted requests are answered within
    `grace_seconds`. Ctrl-C: the same without draining, and within 5 seconds; a second one waits for nothing.
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
        bounds = Bounds(
            settings,
            TrustedProxies(settings.trusted_proxies) if settings.trusted_proxies else None,
            self.service.metrics.failed,
        )
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol(FastPath(self.service), bounds),
                timeout_keep_alive=settings.keep_alive_seconds,  # type: ignore[arg-type]  # a float will do
                lifespan="on",
                log_config=None,
                access_log=False,  # `RequestMiddleware` has its own, with the request's id
                ws="none",
                proxy_headers=False,  # `Connection` reads them, for below ASGI they matter too
                server_header=False,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As usual; remembers the loop that signals have to reach."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, as the class says. The base class would end the process by the signal, not with exit code 0."""
        if sig == signal.SIGINT:
            self.force_exit = self.interrupted
            self.interrupted = True
        if self._loop is None:  # not even started
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        assert self._loop is not None
        # The running comparison first, for its client would wait for it to the end.
        self._loop.create_task(self.service.drain())
        seconds = INTERRUPTED_SECONDS if self.interrupted else self._settings.grace_seconds
        self.config.timeout_graceful_shutdown = math.ceil(seconds)
        self._loop.call_later(0 if self.interrupted else self._settings.drain_seconds, self._exit)

    def _exit(self) -> None:
        self.should_exit = True

    def _loaded(self, service: Service) -> None:
        if service.failure is not None:
            self.should_exit = True
            return
        trim_heap()  # what loading needed and serving does not
        gc.freeze()  # what is there now stays: the collector need not look at it at every turn
        self._on_ready(service)


def serve(
    settings: Settings,
    listening: socket.socket,
    on_ready: Callable[[Service], None],
    shared: Path | None = None,
    *,
    up_when_loaded: bool = False,
) -> None:
    """Serve until told to stop.

    Args:
        settings: what the service is told.
        listening: the socket; closed at the end.
        on_ready: called when every model is loaded.
        shared: folder of all workers of this service; None where there is one only.
        up_when_loaded: accept no connection before every model is loaded, for there are others who do.

    Raises:
        StartupError: the models could not be loaded.
        KeyboardInterrupt: Ctrl-C, after everything has been closed.
    """
    _allow_files(settings.max_connections + SPARE_FILES)
    server = Server(settings, on_ready, shared, up_when_loaded=up_when_loaded)
    server.run(sockets=[listening])
    if not server.service.scheduler.join(LAST_RUN_SECONDS):
        # Python would abort in the midst of a thread that runs C++.
        log.error("a run has not ended after %g s; the process ends without it", LAST_RUN_SECONDS)
        logging.shutdown()
        os._exit(130 if server.interrupted else 0)
    if server.service.failure is not None:
        raise server.service.failure
    if server.interrupted:
        raise KeyboardInterrupt


def _allow_files(wanted: int) -> None:
    """Have the system let this process open so many; connections are files."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.warning(
            "the system allows %d open files; --max-connections (KRON_MAX_CONNECTIONS) wants %d", allowed, wanted
        )


def describe(service: Service) -> str:
    """What is served, in a line for people."""
    models = service.repository.models.values()
    if not models:
        return "Serving nothing: all models were unloaded by request"
    served = ", ".join(f"{model.name} (version {model.artifact.version})" for model in models)
    engine = next(iter(models)).engine
    return f"Serving {served} by {engine.provider}, {engine.threads} thread{'s' if engine.threads > 1 else ''}"
