"""The models that are served, by name and version: loaded beside those in service, swapped in, drained, unloaded."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from app.errors import BadRequest, ModelError, NotFound, NotReady, Overloaded, StartupError, UnknownModel
from app.inference.session import CUDA
from app.models.model import Model
from app.models.scan import Artifact, ScanResult, list_versions, read_folder, version_key
from app.models.statistics import Statistics, StatisticsBook
from app.models.twin import default_names
from app.models.worker_state import Status, UnloadedModels, WorkerState
from app.settings import Settings
from app.system.heap import Held, free

DRAIN_SECONDS = 30.0  # how long an unload waits for the requests that are still running
MAX_WAITING = 16  # loads and unloads that may wait for their turn

UNLOADED = Status("UNAVAILABLE", "unloaded")
Versions = Mapping[str, Model]  # newest first

log = logging.getLogger(__name__)


class Repository:
    """Loaded and warmed models, the names that answer by default, and why others are not served.

    It belongs to the event loop: requests look models up, and whole mappings are exchanged under them. A request that
    has its model keeps it: an old version is freed when the last of its requests has ended.

    Args:
        settings: folder, device, limits and version policy.
        on_change: called with the versions that have come into service and those that have left it.
        prepare: the last that is done to a model before it is served.
        shared: folder of all workers of this service; None where there is one only.
    """

    def __init__(
        self,
        settings: Settings,
        on_change: Callable[[Sequence[Model], Sequence[Model]], None] | None = None,
        prepare: Callable[[Model], Awaitable[None]] | None = None,
        shared: Path | None = None,
    ) -> None:
        self._settings = settings
        self._on_change = on_change
        self._prepare = prepare
        self._versions: Mapping[str, Versions] = {}
        self._status = WorkerState(shared)
        self._statistics = StatisticsBook(shared)
        self._unloaded = UnloadedModels(shared)
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._draining: set[asyncio.Task[None]] = set()
        self.models: Mapping[str, Model] = {}
        self.default: Sequence[str] = []

    @classmethod
    async def load(cls, settings: Settings) -> "Repository":
        """A repository with every model of the folder."""
        repository = cls(settings)
        await repository.refresh()
        return repository

    @property
    def failures(self) -> Mapping[str, str]:
        """Why models are not served, by name."""
        failures: dict[str, str] = {}
        for (name, version), status in self._status.items():
            if status.state == "UNAVAILABLE" and name not in self.models:
                failures[name] = f"version {version}: {status.reason}" if version else status.reason
        return failures

    @property
    def unloaded(self) -> frozenset[str]:
        """The models that were unloaded by request."""
        return self._unloaded.names

    @property
    def served(self) -> list[Model]:
        """Every version in service."""
        return [model for versions in self._versions.values() for model in versions.values()]

    def get(self, name: str, version: str | None = None) -> Model:
        """The model of that name, by default its newest version.

        Raises:
            NotFound: there is no such version of it.
            UnknownModel: there is none; the message names those that there are.
            NotReady: it is in the folder, but not loaded.
        """
        model = self.models.get(name) if version is None else self._versions.get(name, {}).get(version)
        if model is not None:
            return model
        for (known, its_version), status in self._status.items():
            if known == name and version in {None, its_version} and status.state != "READY":
                place = f"{name} version {its_version}" if its_version else name
                raise NotReady(f"models: {place} is not ready: {status.reason or status.state.lower()}")
        if version is not None and name in self._versions:
            there = ", ".join(self._versions[name])
            raise NotFound(f"version of {name}: got {version[:100]!r}, expected one of: {there}")
        served = ", ".join(self.models) or "none"
        raise UnknownModel(f"models: got {name[:100]!r}, expected one of: {served}")

    def versions(self, name: str) -> list[str]:
        """The versions in service, oldest first."""
        return list(self._versions.get(name, {}))[::-1]

    def choose(self, names: Sequence[str] | None) -> list[Model]:
        """The named models, or the default ones.

        Raises:
            NotFound: one of the names is nobody's, or none was given and no model takes rows of floats.
            NotReady: one of them is not loaded.
        """
        chosen = [self.get(name) for name in names or self.default]
        if not chosen:
            raise NotFound("models: none was named, and none that is served takes rows of floats")
        return chosen

    def statistics(self, model: Model) -> dict[str, Any]:
        """What a version has done, and the memory that it takes, in all workers."""
        memory = model.memory_bytes * self._status.ready((model.name, model.version))
        kind = "GPU" if model.engine.provider == CUDA else "CPU"
        return model.statistics.dump([{"type": kind, "id": 0, "byte_size": memory}])

    async def index(self, *, ready: bool) -> list[dict[str, str]]:
        """How every version in the folder stands; with `ready` only those in service."""
        status = self._status.everywhere()
        if not ready:
            for name, versions in (await asyncio.to_thread(list_versions, self._settings)).items():
                for version in versions:
                    status.setdefault((name, version), Status("UNAVAILABLE", "not loaded"))
        entries = sorted(status.items(), key=lambda item: (item[0][0], version_key(item[0][1])))
        return [
            {"name": name, "version": version, "state": now.state, "reason": now.reason}
            for (name, version), now in entries
            if now.state == "READY" or not ready
        ]

    async def refresh(self) -> None:
        """Make what is served what the folder holds: load what is new or has changed, unload what has gone.

        A model that cannot be loaded is logged, and what was served of it before goes on. One that was unloaded by
        request stays unloaded.

        Raises:
            StartupError: no folder, or too many models.
        """
        async with self._exclusive_slot():
            shelf = await read_folder(self._settings)
            for name in self._settings.model_devices.keys() - shelf.names:
                log.warning("--model-devices (KRON_MODEL_DEVICES): there is no model %s in the folder", name)
            unloaded = self._unloaded.names
            for name in sorted(self._versions.keys() & unloaded | self._versions.keys() - shelf.names):
                self._swap(name, {})
            for key in [key for key in self._status if key[0] not in shelf.names and key[0] not in self._versions]:
                del self._status[key]
            for artifact in [each for name in unloaded for each in shelf.versions.get(name, ())]:
                self._status.setdefault((artifact.name, artifact.version), UNLOADED)
            for name in sorted(shelf.names - unloaded):
                await self._install(name, shelf, keep_unchanged=True)
        for name, reason in self.failures.items():
            if name not in unloaded:
                log.error("%s is not served: %s", name, reason)

    async def load_model(self, name: str) -> None:
        """Load a model from the folder, or load it anew; what was served of it before goes on until then.

        Raises:
            NotFound: the folder has no model of that name.
            NotReady: there is no folder to load from.
            BadRequest: it cannot be loaded; nothing has changed.
            Overloaded: too many are waiting for their turn.
        """
        async with self._exclusive_slot():
            try:
                shelf = await read_folder(self._settings, only=name)
            except StartupError as error:  # it has the folder's path, which is not for clients
                log.error("%.100r: not loaded: %s", name, error)
                raise NotReady(
                    f"failed to load {name[:100]!r}: the folder of models cannot be read; the service's log says more"
                ) from None
            if name not in shelf.names:
                raise NotFound(f"failed to load {name[:100]!r}: expected the name of a folder in the repository")
            if name not in self._versions and len(self._versions) >= self._settings.max_models:
                raise BadRequest(
                    f"too many models: got {len(self._versions) + 1}, expected at most {self._settings.max_models} "
                    "(KRON_MAX_MODELS)"
                )
            reason = await self._install(name, shelf, keep_unchanged=False)
        if reason is not None:
            raise BadRequest(f"failed to load {name}: {reason}")
        self._unloaded.discard(name)

    async def unload_model(self, name: str) -> None:
        """Take a model out of service, wait for its running requests, and give its memory back.

        Raises:
            NotFound: there is no model of that name.
            Overloaded: too many are waiting for their turn.
        """
        async with self._exclusive_slot():
            if not any(known == name for known, _ in self._status):
                raise NotFound(f"models: got {name[:100]!r}, expected one of: {', '.join(self.models) or 'none'}")
            self._unloaded.add(name)
            drained = self._swap(name, {})
        if drained is not None:
            await asyncio.wait([drained], timeout=DRAIN_SECONDS)

    async def close(self) -> None:
        """Wait for nothing any more."""
        for task in self._draining:
            task.cancel()
        await asyncio.gather(*self._draining, return_exceptions=True)

    @asynccontextmanager
    async def _exclusive_slot(self) -> AsyncIterator[None]:
        """One change after the other."""
        if self._waiting >= MAX_WAITING:
            raise Overloaded(f"{MAX_WAITING} loads and unloads are waiting; try again later")
        self._waiting += 1
        try:
            async with self._lock:
                yield
        finally:
            self._waiting -= 1

    async def _install(self, name: str, shelf: ScanResult, *, keep_unchanged: bool) -> str | None:
        """Load the versions on the shelf and swap them in; the reason why not.

        While something is served, the new versions come all or not at all; otherwise whichever can be loaded.
        """
        before = self._versions.get(name, {})
        refused = {version: reason for (known, version), reason in shelf.refused.items() if known == name}
        loaded: dict[str, Model] = {}
        for artifact in shelf.versions.get(name, ()):
            current = before.get(artifact.version)
            if keep_unchanged and current is not None and current.artifact == artifact:
                loaded[artifact.version] = current
                continue
            if current is None:
                self._status[name, artifact.version] = Status("LOADING")
            try:
                model = await asyncio.to_thread(
                    _load, artifact, self._statistics.of(name, artifact.version), self._settings
                )
                if self._prepare is not None:
                    await self._prepare(model)
            except ModelError as error:
                refused[artifact.version] = str(error)
            except Exception as error:  # whatever it is, it is this model's, and the others are served
                log.exception("%s: version %s", name, artifact.version)
                refused[artifact.version] = f"internal error ({type(error).__name__}); the service's log says more"
            else:
                loaded[artifact.version] = model
        for version in [version for known, version in self._status if known == name and version not in before]:
            del self._status[name, version]
        for version, reason in refused.items():
            if version not in before:
                self._status[name, version] = Status("UNAVAILABLE", reason)
        if refused:
            reason = "; ".join(f"version {version}: {why}" if version else why for version, why in refused.items())
            if before or not loaded:
                log.error("%s: not loaded: %s", name, reason)
                return reason
        self._swap(name, loaded)
        return None

    def _swap(self, name: str, versions: Versions) -> asyncio.Task[None] | None:
        """Serve these versions of a model from now on; the task that ends when the old ones have drained."""
        before = self._versions.get(name, {})
        rest = {known: others for known, others in self._versions.items() if known != name}
        self._versions = dict(sorted({**rest, name: versions}.items())) if versions else rest
        self.models = {known: next(iter(those.values())) for known, those in self._versions.items()}
        usable = [model.artifact for model in self.models.values() if model.unusable is None]
        self.default = default_names(usable, self._settings.twin)
        new = [model for version, model in versions.items() if before.get(version) is not model]
        old = [model for version, model in before.items() if versions.get(version) is not model]
        for version in versions:
            self._status[name, version] = Status("READY")
        if self._on_change is not None and (new or old):
            self._on_change(new, old)
        if not old:
            return None
        for model in old:
            if model.version not in versions:
                self._status[name, model.version] = Status("UNLOADING")
                self._statistics.clear(name, model.version)
        held = [Held(model.engine.session) for model in old]
        task = asyncio.create_task(self._drain(held, [(name, model.version) for model in old]))
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)
        return task

    async def _drain(self, held: list[Held], keys: Sequence[tuple[str, str]]) -> None:
        """Wait until the last request of the old versions has ended, and free them."""
        await free(held)
        for key in keys:
            if self._status.get(key) == Status("UNLOADING"):
                self._status[key] = UNLOADED


def _load(artifact: Artifact, statistics: Statistics, settings: Settings) -> Model:
    """Load one version; blocking."""
    model = Model.load(
        artifact,
        statistics,
        device=settings.device_of(artifact.name),
        threads=settings.threads_used,
        max_batch=settings.max_batch,
    )
    artifact.check_unchanged()
    return model
