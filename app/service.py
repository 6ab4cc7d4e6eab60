"""Everything that one running service holds; the app owns it, nothing is global."""

import asyncio
import logging
from collections.abc import Callable

from app.archive import Archive
from app.errors import Overloaded, StartupError
from app.jobs import Jobs
from app.metrics import Metrics
from app.pool import Pool
from app.repository import Repository
from app.settings import Settings
from app.shadow import Shadow

log = logging.getLogger(__name__)


class Service:
    """The models, the threads that run them, the measuring jobs and the metrics.

    Args:
        settings: what it was told.
        on_loaded: called once, when loading has ended, well or not (`failure`).
    """

    def __init__(self, settings: Settings, on_loaded: Callable[["Service"], None] | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.pool = Pool(workers=settings.workers_used, queue=settings.queue, queue_seconds=settings.queue_seconds)
        self.jobs = Jobs(Archive.open(settings))
        self.shadow: Shadow | None = None
        self.failure: StartupError | None = None
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
            self.shadow = Shadow.wanted(self.settings, repository.models, self.metrics)
        except StartupError as error:
            self.failure = error
        else:
            for model in repository.models.values():
                self.metrics.serving(model)
            self._repository = repository
        if self._on_loaded is not None:
            self._on_loaded(self)
        elif self.failure is not None:
            log.error("%s", self.failure)

    async def stop(self) -> None:
        """End what runs, child processes included."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])
        await self.jobs.close()
        self.pool.close()
        if self.shadow is not None:
            await asyncio.to_thread(self.shadow.close)
