"""Worker processes that share one listening socket, and the supervisor that starts, replaces and stops them.

The supervisor imports nothing heavy and has no threads, so that it can fork.
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
from app.system.pidfiles import describe_shared_error, starting_file, state_file
from app.telemetry.logs import announce

MAX_RESTARTS = 5
RESTART_WINDOW_SECONDS = 60.0
MAX_REPORT_BYTES = 4000  # which a pipe transfers in one piece (PIPE_BUF)
RETRY_SECONDS = 5.0  # until a worker that could not start is started again, while others serve; then twice as long
MAX_RETRY_SECONDS = 60.0
STOP_MARGIN_SECONDS = 5.0  # beyond the time that the workers themselves wait
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
log = logging.getLogger(__name__)


def serve_by_workers(settings: Settings, listening: socket.socket, address: str) -> None:
    """Serve in `settings.workers` processes until a signal stops them.

    Args:
        settings: the service's settings.
        listening: the socket that all workers accept connections from.
        address: the service's URL, printed once all workers are ready.

    Raises:
        StartupError: a worker could not start.
        WorkerCrashLoop: too many workers died within a short time.
        KeyboardInterrupt: Ctrl-C, after all workers have ended.
    """
    if not hasattr(os, "fork"):
        raise StartupError(f"--workers (KRON_WORKERS): got {settings.workers}, expected 1: this system cannot fork")
    try:
        folder = TemporaryDirectory(prefix="kronserve-")
    except OSError as error:
        raise StartupError(f"{error.strerror}: no folder for temporary files; free space, or set TMPDIR") from None
    with folder as name:
        shared = Path(name)
        try:
            starting_file(shared).touch()
        except OSError as error:
            raise StartupError(describe_shared_error(error, shared)) from None
        _Supervisor(settings, listening, address, shared).run()


class _Supervisor:
    """Parent process of the workers: starts, replaces and stops them."""

    def __init__(self, settings: Settings, listening: socket.socket, address: str, shared: Path) -> None:
        self._settings = settings
        self._listening = listening
        self._address = address
        self._shared = shared
        self._children: set[int] = set()
        self._ready: set[int] = set()
        self._all_were_ready = False
        self._could_not_start: set[int] = set()
        self._retry_seconds = RETRY_SECONDS
        self._retry_times: list[float] = []  # when to replace those that could not start
        self._restart_times: deque[float] = deque()  # when those that died were replaced
        self._failure: KronError | None = None
        self._stop_signal: int | None = None
        self._kill_at = float("inf")
        self._report_reader, self._report_writer = os.pipe()
        # No process writes to this pipe: when the parent has ended, in whatever way, the children read end of file.
        self._parent_reader, self._parent_writer = os.pipe()

    def run(self) -> None:
        """Start the workers, and supervise them until all have ended."""
        with self._signals(), selectors.DefaultSelector() as selector:
            for _ in range(self._settings.workers):
                self._start()
            selector.register(self._report_reader, selectors.EVENT_READ)
            while self._children:
                if selector.select(0.1):
                    self._read_reports()
                self._reap()
                self._retry()
                now = time.monotonic()
                if self._stopping():
                    # The workers have it until they have accepted what the system has completed. Held any longer, it
                    # would let the system complete connections that no worker accepts.
                    self._listening.close()
                if now > self._kill_at:
                    self._send(signal.SIGKILL)
        if self._failure is not None:
            raise self._failure
        if self._stop_signal == signal.SIGINT:
            raise KeyboardInterrupt

    @contextmanager
    def _signals(self) -> Iterator[None]:
        before = {sig: signal.signal(sig, self._on_signal) for sig in STOP_SIGNALS}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda sig, _: self._send(sig))
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    def _on_signal(self, sig: int, _: FrameType | None) -> None:
        self._stop_signal = sig
        self._send(sig)
        settings = self._settings
        drain_seconds = 0 if sig == signal.SIGINT else settings.drain_seconds
        self._kill_at = time.monotonic() + drain_seconds + settings.grace_seconds + STOP_MARGIN_SECONDS

    def _send(self, sig: int) -> None:
        for child in self._children:
            os.kill(child, sig)  # not reaped yet, so it is still ours

    def _stop(self, failure: KronError) -> None:
        if self._failure is None:
            self._failure = failure
            self._on_signal(signal.SIGTERM, None)

    def _start(self) -> None:
        sys.stdout.flush()
        # Signals are blocked meanwhile: one that came before the child is in `_children` would never reach it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [*STOP_SIGNALS, signal.SIGHUP])
        try:
            if self._stopping():
                return
            child = os.fork()
            if child == 0:
                self._run_child(mask)
            self._children.add(child)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _retry(self) -> None:
        now = time.monotonic()
        due = [at for at in self._retry_times if now > at]
        self._retry_times = [at for at in self._retry_times if now <= at]
        for _ in due:
            self._start()

    def _read_reports(self) -> None:
        """Read the one line that each worker writes, in one piece: `ready PID text` or `failed PID reason`."""
        for line in os.read(self._report_reader, 65536).decode(errors="replace").splitlines():
            kind, child, text = line.split(" ", 2)
            if kind == "failed":
                self._on_start_failure(int(child), text)
                continue
            self._ready.add(int(child))
            self._retry_seconds = RETRY_SECONDS
            if len(self._ready) == self._settings.workers and not self._all_were_ready:
                self._all_were_ready = True
                starting_file(self._shared).unlink(missing_ok=True)
                announce(self._settings, f"{text}, {self._settings.workers} workers.")
                announce(self._settings, f"Open {self._address}   API: {self._address}/docs   stop: Ctrl-C")

    def _on_start_failure(self, child: int, reason: str) -> None:
        """Stop the service when a worker cannot start, unless other workers serve: then start it again later."""
        if self._all_were_ready and self._ready:
            log.error("worker %d could not start; the next try is in %g s: %s", child, self._retry_seconds, reason)
            self._could_not_start.add(child)
        else:
            self._stop(StartupError(reason))

    def _reap(self) -> None:
        for child in list(self._children):
            ended, status = os.waitpid(child, os.WNOHANG)
            if not ended:
                continue
            self._read_last_reports()
            reported = child in self._could_not_start
            was_ready = child in self._ready
            for pids in (self._children, self._ready, self._could_not_start):
                pids.discard(child)
            state_file(self._shared, child).unlink(missing_ok=True)
            if self._stopping():
                continue
            now = time.monotonic()
            what = f"worker {child} died (exit code {os.waitstatus_to_exitcode(status)})"
            if reported or (not was_ready and self._all_were_ready and self._ready):
                if not reported:
                    log.error("%s before it could serve; the next try is in %g s", what, self._retry_seconds)
                self._retry_times.append(now + self._retry_seconds)
                self._retry_seconds = min(2 * self._retry_seconds, MAX_RETRY_SECONDS)
                continue
            while self._restart_times and now - self._restart_times[0] > RESTART_WINDOW_SECONDS:
                self._restart_times.popleft()
            if len(self._restart_times) >= MAX_RESTARTS:
                self._stop(WorkerCrashLoop(f"{what}, after {MAX_RESTARTS} others in {RESTART_WINDOW_SECONDS:g} s"))
                continue
            log.error("%s; starting another one", what)
            self._restart_times.append(now)
            self._start()

    def _stopping(self) -> bool:
        return self._stop_signal is not None

    def _read_last_reports(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._report_reader, selectors.EVENT_READ)
            if selector.select(0):
                self._read_reports()

    def _run_child(self, mask: set[int | signal.Signals]) -> NoReturn:
        """Serve in a forked worker process, and exit.

        Args:
            mask: signals that were blocked before the fork.
        """
        code = 1
        try:
            os.setpgrp()  # Ctrl-C reaches the parent only, which passes it on
            os.close(self._parent_writer)
            for sig in STOP_SIGNALS:  # before the server installs its own handlers there is nothing to clean up
                signal.signal(sig, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the service installs its own handler
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            threading.Thread(target=self._end_with_parent, daemon=True).start()
            from app.server.server import describe, serve

            serve(
                self._settings,
                self._listening,
                lambda service: self._report("ready", describe(service)),
                self._shared,
                up_when_loaded=self._all_were_ready,  # meanwhile the other workers accept connections
            )
            code = 0
        except KronError as error:
            self._report("failed", str(error))
            code = error.exit_code
        except KeyboardInterrupt:
            code = 0
        except BaseException:
            log.exception("a worker failed")
        finally:
            logging.shutdown()
            os._exit(code)

    def _report(self, kind: str, text: str) -> None:
        os.write(
            self._report_writer, f"{kind} {os.getpid()} {' '.join(text.split())}".encode()[:MAX_REPORT_BYTES] + b"\n"
        )

    def _end_with_parent(self) -> None:
        os.read(self._parent_reader, 1)
        os.kill(os.getpid(), signal.SIGTERM)
