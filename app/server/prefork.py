"""Several processes that share one listening socket, and their parent, which starts, restarts and stops them.

The parent imports nothing heavy and has no threads, so that it can fork.
"""

import logging
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NoReturn

from app.errors import KronError, StartupError, WorkerCrashLoop
from app.settings import Settings
from app.system.pidfiles import state_file

MAX_RESTARTS = 5
RESTART_WINDOW_SECONDS = 60.0
MAX_REPORT_BYTES = 4000  # what a pipe takes in one piece
RETRY_SECONDS = 5.0  # after which one that could not start, while others serve, is started anew
STOP_MARGIN_SECONDS = 5.0  # beyond what the workers themselves wait
STOPPING = (signal.SIGINT, signal.SIGTERM)
log = logging.getLogger(__name__)


def serve_by_workers(settings: Settings, listening: socket.socket, address: str) -> None:
    """Serve by `settings.workers` processes until told to stop.

    Raises:
        StartupError: a worker could not start.
        WorkersDied: too many of them died.
        KeyboardInterrupt: Ctrl-C, after all have ended.
    """
    if not hasattr(os, "fork"):
        raise StartupError(f"--workers (KRON_WORKERS): got {settings.workers}, expected 1: this system cannot fork")
    with TemporaryDirectory(prefix="kronserve-") as shared:
        _Parent(settings, listening, address, Path(shared)).run()


class _Parent:
    def __init__(self, settings: Settings, listening: socket.socket, address: str, shared: Path) -> None:
        self._settings = settings
        self._listening = listening
        self._address = address
        self._shared = shared
        self._children: set[int] = set()
        self._ready: set[int] = set()
        self._all_were_ready = False
        self._unable: set[int] = set()  # could not start
        self._due: deque[float] = deque()  # when to try again
        self._restarts: deque[float] = deque()
        self._failure: KronError | None = None
        self._asked: int | None = None  # the signal that ends it all
        self._kill_at = float("inf")
        self._reports, self._report = os.pipe()
        # Nobody ever writes to it: when the parent is gone, however it died, the children read end of file.
        self._alive, self._held = os.pipe()

    def run(self) -> None:
        """Until every child has ended."""
        with self._signals(), selectors.DefaultSelector() as selector:
            for _ in range(self._settings.workers):
                self._start()
            selector.register(self._reports, selectors.EVENT_READ)
            while self._children:
                if selector.select(0.1):
                    self._read_reports()
                self._reap()
                self._try_again()
                if time.monotonic() > self._kill_at:
                    self._send(signal.SIGKILL)
        if self._failure is not None:
            raise self._failure
        if self._asked == signal.SIGINT:
            raise KeyboardInterrupt

    @contextmanager
    def _signals(self) -> Iterator[None]:
        before = {sig: signal.signal(sig, self._on_signal) for sig in STOPPING}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda sig, _: self._send(sig))
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    def _on_signal(self, sig: int, _: FrameType | None) -> None:
        self._asked = sig
        self._send(sig)
        settings = self._settings
        self._kill_at = time.monotonic() + settings.drain_seconds + settings.grace_seconds + STOP_MARGIN_SECONDS

    def _send(self, sig: int) -> None:
        for child in self._children:
            os.kill(child, sig)  # not reaped yet, so it is still ours

    def _stop(self, failure: KronError) -> None:
        if self._failure is None:
            self._failure = failure
            self._on_signal(signal.SIGTERM, None)

    def _start(self) -> None:
        sys.stdout.flush()
        # Signals wait meanwhile: one that came before the child is known would never reach it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [*STOPPING, signal.SIGHUP])
        try:
            if self._stopping():
                return
            child = os.fork()
            if child == 0:
                self._work(mask)
            self._children.add(child)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _try_again(self) -> None:
        while self._due and time.monotonic() > self._due[0]:
            self._due.popleft()
            self._start()

    def _read_reports(self) -> None:
        """Each worker says once, in a line, that it is ready or why it is not; a line is written in one piece."""
        for line in os.read(self._reports, 65536).decode(errors="replace").splitlines():
            kind, child, text = line.split(" ", 2)
            if kind == "failed":
                self._failed(int(child), text)
                continue
            self._ready.add(int(child))
            if len(self._ready) == self._settings.workers and not self._all_were_ready:
                self._all_were_ready = True
                print(f"{text}, {self._settings.workers} workers.")
                print(f"Open {self._address}   API: {self._address}/docs   stop: Ctrl-C", flush=True)

    def _failed(self, child: int, why: str) -> None:
        """A worker could not start. Once all were ready, what is served goes on: the next one may find it mended."""
        if self._all_were_ready and self._ready:
            log.error("worker %d could not start; another try in %g s: %s", child, RETRY_SECONDS, why)
            self._unable.add(child)
        else:
            self._stop(StartupError(why))

    def _reap(self) -> None:
        for child in list(self._children):
            ended, status = os.waitpid(child, os.WNOHANG)
            if not ended:
                continue
            self._read_last_reports()
            unable = child in self._unable
            for those in (self._children, self._ready, self._unable):
                those.discard(child)
            state_file(self._shared, child).unlink(missing_ok=True)
            if self._stopping():
                continue
            now = time.monotonic()
            if unable:
                self._due.append(now + RETRY_SECONDS)
                continue
            while self._restarts and now - self._restarts[0] > RESTART_WINDOW_SECONDS:
                self._restarts.popleft()
            how = f"worker {child} died (exit code {os.waitstatus_to_exitcode(status)})"
            if len(self._restarts) >= MAX_RESTARTS:
                self._stop(WorkerCrashLoop(f"{how}, after {MAX_RESTARTS} others in {RESTART_WINDOW_SECONDS:g} s"))
                continue
            log.error("%s; starting another one", how)
            self._restarts.append(now)
            self._start()

    def _stopping(self) -> bool:
        return self._asked is not None

    def _read_last_reports(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._reports, selectors.EVENT_READ)
            if selector.select(0):
                self._read_reports()

    def _work(self, mask: set[int | signal.Signals]) -> NoReturn:
        """The life of a child; `mask` is that of the signals before it was forked."""
        code = 1
        try:
            os.setpgrp()  # Ctrl-C is the parent's: it tells its children
            os.close(self._held)
            for sig in STOPPING:  # until the server takes them there is nothing to clean up
                signal.signal(sig, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the service can make use of it
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            threading.Thread(target=self._end_with_parent, daemon=True).start()
            from app.server.server import describe, serve

            serve(
                self._settings,
                self._listening,
                lambda service: self._tell("ready", describe(service)),
                self._shared,
                up_when_loaded=self._all_were_ready,  # others answer: what it accepted would be told to wait
            )
            code = 0
        except KronError as error:
            self._tell("failed", str(error))
            code = error.exit_code
        except KeyboardInterrupt:
            code = 0
        except BaseException:
            log.exception("a worker failed")
        finally:
            logging.shutdown()
            os._exit(code)

    def _tell(self, kind: str, text: str) -> None:
        os.write(self._report, f"{kind} {os.getpid()} {' '.join(text.split())}".encode()[:MAX_REPORT_BYTES] + b"\n")

    def _end_with_parent(self) -> None:
        os.read(self._alive, 1)
        os.kill(os.getpid(), signal.SIGTERM)
