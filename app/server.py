"""uvicorn, with an end at once: a comparison is stopped, and a failed start ends the process."""

import asyncio
import logging
import signal
import socket
from types import FrameType

import uvicorn

from app.address import url
from app.main import create_app
from app.service import Service
from app.settings import Settings

GRACE_SECONDS = 5


class Server(uvicorn.Server):
    """Serves one app until it is told to stop, or until it cannot start."""

    def __init__(self, settings: Settings, address: str) -> None:
        self._address = address
        app = create_app(settings, self._loaded)
        self.service: Service = app.state.service
        self.interrupted = False
        self._loop: asyncio.AbstractEventLoop | None = None
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="on",
                log_config=None,
                access_log=settings.log_level == "debug",
                timeout_graceful_shutdown=GRACE_SECONDS,
                server_header=False,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As usual; remembers the loop that signals have to reach."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; the running comparison first, for its client would wait for it to the end."""
        super().handle_exit(sig, frame)
        self.interrupted = self.interrupted or sig == signal.SIGINT
        if self._loop is not None:
            self._loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self.service.jobs.stop()))

    def _loaded(self, service: Service) -> None:
        if service.failure is not None:
            self.should_exit = True
            return
        models = service.repository.models.values()
        served = ", ".join(f"{model.name} (version {model.artifact.version})" for model in models)
        engine = next(iter(models)).engine
        threads = f"{engine.threads} thread{'s' if engine.threads > 1 else ''}"
        print(f"Serving {served} by {engine.provider}, {threads}.")
        print(f"Open {self._address}   API: {self._address}/docs   stop: Ctrl-C", flush=True)


def serve(settings: Settings, listening: socket.socket) -> None:
    """Serve until told to stop.

    Raises:
        StartupError: the models could not be loaded.
        KeyboardInterrupt: Ctrl-C, after everything has been closed.
    """
    logging.getLogger("uvicorn").setLevel(logging.DEBUG if settings.log_level == "debug" else logging.WARNING)
    server = Server(settings, url(settings.host, listening.getsockname()[1]))
    server.run(sockets=[listening])
    if server.service.failure is not None:
        raise server.service.failure
    if server.interrupted:  # uvicorn raises it too, unless whoever started this process ignores the signal
        raise KeyboardInterrupt
