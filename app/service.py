"""Everything that one running service holds; the app owns it, nothing is global."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from app.compare import Comparer
from app.errors import Overloaded, StartupError
from app.keys import read_keys
from app.metrics import Metrics
from app.repository import Repository
from app.scheduler import Scheduler
from app.settings import Settings
from app.traces import Traces

log = logging.getLogger(__name__)


class Service:
    """The models, the scheduler that runs them, the comparison and the metrics.

    Args:
        settings: what it was told.
        on_loaded: called once, when loading has ended, well or not (`failure`).
        shared: folder of all workers of this service; None where there is one only.
    """

    def __init__(
        self,
        settings: Settings,
        on_loaded: Callable[["Service"], None] | None = None,
        shared: Path | None = None,
    ) -> None:
        self.settings = settings
        self.keys = read_keys(settings.keys) if settings.keys else []
        self.metrics = Metrics(shared)
        self.traces = Traces() if settings.traces else None
        self.scheduler = Scheduler(
            instances=settings.instances_used,
            queue=settings.queue,
            max_batch=settings.max_batch,
            seconds=settings.predict_seconds,
            on_run=self.metrics.ran,
            on_answer=self.traces.ran if self.traces else None,
        )
        self.comparer = Comparer(settings, shared)
        self.failure: StartupError | None = None
        self._draining = False
        self._repository: Repository | None = None
        self._on_loaded = on_loaded
        self._loading: asyncio.Task[None] | None = None

    @property
    def repository(self) -> Repository:
        """The models.

        Raises:
            Overloaded: they are not loaded yet, or there are none.
        """
        if self._repository is None:
            raise Overloaded(self.not_ready or "the models are still loading")
        return self._repository

    @property
    def not_ready(self) -> str | None:
        """Why the service is not ready; None when it is."""
        if self.failure is not None:
            return str(self.failure)
        if self._draining:
            return "the service is shutting down"
        return "the models are still loading" if self._repository is None else None

    def start(self) -> None:
        """Load the models in the background, so that the process can already say that it lives."""
        self._loading = asyncio.create_task(self._load())

    async def _load(self) -> None:
        try:
            repository = await Repository.load(self.settings)
            if not repository.models:
                reasons = "; ".join(f"{name}: {reason}" for name, reason in repository.failures.items())
                raise StartupError(
                    f"no models to serve in {self.settings.models}"
                    + (f": {reasons}" if reasons else f"; make one with `kronmodel train --out {self.settings.models}`")
                )
            for model in repository.models.values():
                await self.scheduler.warm_up(model.engine)
                self.metrics.serving(model)
                if self.traces is not None:
                    self.traces.serving(model)
        except StartupError as error:
            self.failure = error
        else:
            self._repository = repository
        if self._on_loaded is not None:
            self._on_loaded(self)
        elif self.failure is not None:
            log.error("%s", self.failure)

    async def drain(self) -> None:
        """Not ready any more, so that whoever can choose takes another service; requests are still answered."""
        self._draining = True
        await self.comparer.stop()

    async def stop(self) -> None:
        """End what runs, child processes included."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])
        await self.comparer.stop()
        self.scheduler.close()
        if self.traces is not None:
            await self.traces.close()
