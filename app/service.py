"""One running service: its models, scheduler, jobs and metrics; owned by the application, nothing is global."""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

from app.access.admission import Admission
from app.access.key_file import KeyFile
from app.errors import KronError, Overloaded, StartupError
from app.inference.devices import check_serving_devices
from app.inference.scheduler import Scheduler
from app.jobs.runner import JobRunner
from app.jobs.store import JobStore
from app.models.model import Model
from app.models.repository import Repository
from app.serving.shadow import Shadow
from app.settings import Settings
from app.system.aio import handle_signal
from app.system.heap import share_one_heap, trim_heap_when_idle
from app.system.pidfiles import describe_shared_error, starting_file
from app.system.serial_thread import SerialThread
from app.telemetry.prometheus import Metrics
from app.telemetry.tracing import Traces
from app.training.catalogue import TrainingCatalogue
from app.training.inspection import DataInspector

WATCH_SECONDS = 2.0  # between looks at the key file
MAX_LONG_REQUESTS = 64  # that are read or written, or wait for it; each holds its body in memory

log = logging.getLogger(__name__)


class Service:
    """Models, scheduler, jobs and metrics that the endpoints use; starts and stops them.

    Args:
        settings: of the service.
        on_loaded: called once, when loading has ended or failed (`failure`).
        shared: folder shared by all workers of this service; None for a single process.

    Raises:
        StartupError: the file of keys or the reports cannot be read, or an extra is not installed.
    """

    def __init__(
        self,
        settings: Settings,
        on_loaded: Callable[["Service"], None] | None = None,
        shared: Path | None = None,
    ) -> None:
        share_one_heap()
        self.settings = settings
        self._key_file = KeyFile(settings.keys)
        self.admission = Admission(settings, self._key_file.keys)
        self._starting = None if shared is None else starting_file(shared)
        try:
            self.metrics = Metrics(shared)
            self._repository = Repository(settings, on_change=self._changed, prepare=self._prepare, shared=shared)
        except OSError as error:
            if shared is None:
                raise
            raise StartupError(describe_shared_error(error, shared)) from None
        self.traces = Traces() if settings.traces else None
        self.scheduler = Scheduler(
            instances=settings.instances_used,
            queue=settings.queue,
            max_batch=settings.max_batch,
            seconds=settings.predict_seconds,
            on_queue=self.metrics.queued,
            on_run=self.metrics.ran,
            on_answer=self.traces.ran if self.traces else None,
        )
        self.long_requests = SerialThread("long-requests", most=MAX_LONG_REQUESTS, seconds=settings.predict_seconds)
        self.jobs = JobRunner(JobStore.open(settings, shared))
        self.training_catalogue = TrainingCatalogue(settings)
        self.data_inspector = DataInspector(settings)
        self.shadow: Shadow | None = None
        self.failure: StartupError | None = None
        self._draining = False
        self._loaded = False
        self._load_ended = asyncio.Event()
        self._on_loaded = on_loaded
        self._tasks: set[asyncio.Task[None]] = set()
        self._restore_signal: Callable[[], None] | None = None

    @property
    def repository(self) -> Repository:
        """The repository of served models.

        Raises:
            Overloaded: the models are not loaded yet, or could not be.
        """
        if not self._loaded:
            raise Overloaded(self.not_ready or "the models are still loading")
        return self._repository

    @property
    def not_ready(self) -> str | None:
        """The reason why the service is not ready; None if it is.

        With several workers, it is ready once all of them have loaded their models for the first time. It stays ready
        while a worker that died is replaced: the new one accepts no connection before it can answer.
        """
        if self.failure is not None:
            return str(self.failure)
        if self._draining:
            return "the service is shutting down"
        if not self._loaded:
            return "the models are still loading"
        if self._starting is not None:
            if self._starting.exists():
                return "the models are still loading in another worker"
            self._starting = None
        return None

    def start(self) -> None:
        """Load the models in the background, so that the health endpoints answer meanwhile; reload them at SIGHUP.

        The key file is read again at SIGHUP, and whenever it has changed.
        """
        self._start(self._load())
        self._start(self._watch())
        self._start(trim_heap_when_idle())
        # Python handles signals in the main thread only; tests run the service in other threads.
        if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
            self._restore_signal = handle_signal(signal.SIGHUP, lambda: self._start(self._reload()))

    async def _load(self) -> None:
        repository = self._repository
        try:
            await asyncio.to_thread(check_serving_devices, self.settings)
            await repository.refresh()
            if not (repository.models or repository.unloaded):
                reasons = "; ".join(f"{name}: {reason}" for name, reason in repository.failures.items())
                raise StartupError(
                    f"no models to serve in {self.settings.models}"
                    + (f": {reasons}" if reasons else f"; make one with `kronmodel train --out {self.settings.models}`")
                )
            self.shadow = Shadow.from_settings(self.settings, repository, self.metrics)
        except StartupError as error:
            self.failure = error
        except Exception as error:  # any error: processes that wait for the end of loading must not wait forever
            log.exception("loading failed")
            self.failure = StartupError(f"loading failed: {type(error).__name__}: {error}")
        else:
            self._loaded = True
        if self._on_loaded is not None:
            self._on_loaded(self)
        elif self.failure is not None:
            log.error("%s", self.failure)
        self._load_ended.set()

    async def wait_until_loaded(self) -> None:
        """Wait until loading the models has ended or failed, or until the service shuts down."""
        await self._load_ended.wait()

    async def _watch(self) -> None:
        """Look for changes of the key file, and repeat what could not be written to a full disk."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            await self._refresh_keys()
            self._repository.changes.flush()

    async def _refresh_keys(self, *, always: bool = False) -> None:
        if await asyncio.to_thread(self._key_file.refresh, always=always):
            self.admission.replace_keys(self._key_file.keys)

    async def _reload(self) -> None:
        """Read the keys again and reload the models; if that fails, the loaded ones are still served."""
        await self._refresh_keys(always=True)
        await self._load_ended.wait()  # the folder may have changed since loading read it
        if not self._loaded:
            return
        try:
            await self._repository.refresh()
        except KronError as error:
            log.error("SIGHUP: the models were not reloaded: %s", error)
        except Exception:  # any error: the service goes on with the loaded models
            log.exception("SIGHUP: the models were not reloaded")
        else:
            served = ", ".join(f"{model.name} (version {model.version})" for model in self._repository.served)
            log.info("SIGHUP: serving %s", served or "nothing")

    async def _prepare(self, model: Model) -> None:
        self.metrics.reserve(model.name, model.version)
        await self.scheduler.warm_up(model.engine)

    def _changed(self, new: Sequence[Model], old: Sequence[Model]) -> None:
        for model in old:
            self.metrics.remove_model(model.name, model.version)
        for model in new:
            engine = model.engine
            self.metrics.add_model(engine, model.name, model.version, provider=engine.provider, threads=engine.threads)
            if self.traces is not None:
                self.traces.add_model(engine, model.name, model.version)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Stop the jobs and report not ready, so that load balancers avoid this service; it still answers requests."""
        self._draining = True
        self._load_ended.set()
        await self.jobs.stop()

    async def stop(self) -> None:
        """Stop loading, jobs with their child processes, scheduler, shadow mode and traces."""
        if self._restore_signal is not None:
            self._restore_signal()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._repository.close()
        await self.jobs.close()
        self.long_requests.close()
        self.scheduler.close()
        if self.shadow is not None:
            await asyncio.to_thread(self.shadow.close)
        if self.traces is not None:
            await self.traces.close()
