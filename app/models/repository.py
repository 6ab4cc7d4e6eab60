"""The served models by name and version, which are loaded, swapped, drained and unloaded at run time."""

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
from app.models.statistics import Statistics, StatisticsRegistry
from app.models.twin import default_names
from app.models.worker_changes import WorkerChanges
from app.models.worker_state import UnloadedModels, VersionStatus, WorkerState
from app.settings import Settings
from app.system.heap import HeldObject, free_when_unreferenced

DRAIN_SECONDS = 30.0  # longest that an unload waits for running requests
MAX_WAITING = 16  # loads and unloads that wait for the exclusive slot

UNLOADED = VersionStatus("UNAVAILABLE", "unloaded")
Versions = Mapping[str, Model]  # newest first

log = logging.getLogger(__name__)


class Repository:
    """The served models, the default models, and the reasons why other models of the folder are not served.

    Not safe for threads: it belongs to the event loop. A change replaces whole mappings, so lookups never see half of
    it. A request keeps a reference to its model, and an old version is freed after its last request.

    Args:
        settings: folder, devices, limits and version policy.
        on_change: called with the versions that came into service and those that left it.
        prepare: awaited for each loaded model before it is served.
        shared: folder shared by the workers of a service; None for a single worker.
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
        self._statistics = StatisticsRegistry(shared)
        self._unloaded = UnloadedModels(shared)
        self.changes = WorkerChanges(self._status, self._unloaded, shared, settings.load_seconds)
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._draining: set[asyncio.Task[None]] = set()
        self.models: Mapping[str, Model] = {}
        self.default: Sequence[str] = []

    @classmethod
    async def load(cls, settings: Settings) -> "Repository":
        """Create a repository and load all models of the folder."""
        repository = cls(settings)
        await repository.refresh()
        return repository

    @property
    def failures(self) -> Mapping[str, str]:
        """The reasons why models are not served, by name."""
        failures: dict[str, str] = {}
        for (name, version), status in self._status.items():
            if status.state == "UNAVAILABLE" and name not in self.models:
                failures[name] = f"version {version}: {status.reason}" if version else status.reason
        return failures

    @property
    def unloaded(self) -> frozenset[str]:
        """The names of the models that were unloaded by request."""
        return self._unloaded.names

    @property
    def served(self) -> list[Model]:
        """All model versions in service."""
        return [model for versions in self._versions.values() for model in versions.values()]

    def get(self, name: str, version: str | None = None) -> Model:
        """Look up a model by its name and version, by default the newest one.

        Raises:
            NotFound: the model has no such version in service.
            UnknownModel: no model has that name; the message names the served ones.
            NotReady: the model or version is in the folder, but not loaded.
        """
        model = self.models.get(name) if version is None else self._versions.get(name, {}).get(version)
        if model is not None:
            return model
        for (other_name, other_version), status in self._status.items():
            if other_name == name and version in {None, other_version} and status.state != "READY":
                place = f"{name} version {other_version}" if other_version else name
                raise NotReady(f"models: {place} is not ready: {status.reason or status.state.lower()}")
        if version is not None and name in self._versions:
            available = ", ".join(self._versions[name])
            raise NotFound(f"version of {name}: got {version[:100]!r}, expected one of: {available}")
        served = ", ".join(self.models) or "none"
        raise UnknownModel(f"models: got {name[:100]!r}, expected one of: {served}")

    def versions(self, name: str) -> list[str]:
        """The versions of a model in service, oldest first."""
        return list(self._versions.get(name, {}))[::-1]

    def choose(self, names: Sequence[str] | None) -> list[Model]:
        """Look up the named models, or the default models if none are named.

        Raises:
            NotFound: no model has one of the names, or none are named and no served model takes rows of floats.
            NotReady: one of the models is not loaded.
        """
        chosen = [self.get(name) for name in names or self.default]
        if not chosen:
            raise NotFound("models: got no names, and no served model takes rows of floats")
        return chosen

    def statistics(self, model: Model) -> dict[str, Any]:
        """The statistics and memory usage of a version in all workers, in the JSON of the protocol."""
        memory = model.memory_bytes * self._status.count_ready((model.name, model.version))
        kind = "GPU" if model.engine.provider == CUDA else "CPU"
        return model.statistics.dump([{"type": kind, "id": 0, "byte_size": memory}])

    async def index(self, *, ready: bool) -> list[dict[str, str]]:
        """The state of every version in the folder, in all workers; with `ready` only of versions in service."""
        status = self._status.merged()
        if not ready:
            for name, versions in (await asyncio.to_thread(list_versions, self._settings)).items():
                for version in versions:
                    status.setdefault((name, version), VersionStatus("UNAVAILABLE", "not loaded"))
        entries = sorted(status.items(), key=lambda item: (item[0][0], version_key(item[0][1])))
        return [
            {"name": name, "version": version, "state": now.state, "reason": now.reason}
            for (name, version), now in entries
            if now.state == "READY" or not ready
        ]

    async def refresh(self) -> None:
        """Scan the folder, load new and changed models, and unload those that were removed.

        The error of a model that cannot be loaded is logged, and its versions in service stay. A model that was
        unloaded by request stays unloaded.

        Raises:
            StartupError: the folder cannot be read, or has too many models.
        """
        async with self._exclusive_slot():
            with self._status.applying(self._unloaded.change) as failures:
                scan = await read_folder(self._settings)
                for name in self._settings.model_devices.keys() - scan.names:
                    log.warning("--model-devices (KRON_MODEL_DEVICES): there is no model %s in the folder", name)
                unloaded = self._unloaded.names
                for name in sorted(self._versions.keys() & unloaded | self._versions.keys() - scan.names):
                    self._swap(name, {})
                for key in [key for key in self._status if key[0] not in scan.names and key[0] not in self._versions]:
                    del self._status[key]
                for artifact in [each for name in unloaded for each in scan.versions.get(name, ())]:
                    self._status.setdefault((artifact.name, artifact.version), UNLOADED)
                for name in sorted(scan.names - unloaded):
                    reason = await self._install(name, scan, keep_unchanged=True)
                    if reason is not None:
                        failures[name] = reason
        for name, reason in self.failures.items():
            if name not in unloaded:
                log.error("%s is not served: %s", name, reason)

    async def load_model(self, name: str) -> None:
        """Load or reload a model from the folder in every worker.

        Its versions in service answer until the new ones replace them. The load has ended when all workers have it.

        Raises:
            NotFound: the folder has no model of that name.
            NotReady: the folder cannot be read, the disk that the workers share is full, or another worker has not
                loaded the model.
            BadRequest: the model cannot be loaded; nothing was changed.
            Overloaded: too many loads and unloads are waiting.
        """
        async with self._exclusive_slot():
            self.changes.check(name)
            try:
                scan = await read_folder(self._settings, only=name)
            except StartupError as error:  # with the path of the folder, which clients must not see
                log.error("%.100r: not loaded: %s", name, error)
                raise NotReady(
                    f"failed to load {name[:100]!r}: the folder of models cannot be read; see the service's log"
                ) from None
            if name not in scan.names:
                raise NotFound(f"failed to load {name[:100]!r}: expected the name of a folder in the repository")
            if name not in self._versions and len(self._versions) >= self._settings.max_models:
                raise BadRequest(
                    f"too many models: got {len(self._versions) + 1}, expected at most {self._settings.max_models} "
                    "(KRON_MAX_MODELS)"
                )
            reason = await self._install(name, scan, keep_unchanged=False)
        if reason is not None:
            raise BadRequest(f"failed to load {name}: {reason}")
        change = self.changes.load(name)
        await self.changes.wait(change, name, "loaded")

    async def unload_model(self, name: str) -> None:
        """Take a model out of service in every worker, wait for its running requests in this one, and free its memory.

        Raises:
            NotFound: no model has that name.
            NotReady: the disk that the workers share is full, or another worker has not unloaded the model.
            Overloaded: too many loads and unloads are waiting.
        """
        async with self._exclusive_slot():
            if not any(other == name for other, _ in self._status):
                raise NotFound(f"models: got {name[:100]!r}, expected one of: {', '.join(self.models) or 'none'}")
            change = self.changes.unload(name)
            drained = self._swap(name, {})
        if drained is not None:
            await asyncio.wait([drained], timeout=DRAIN_SECONDS)
        await self.changes.wait(change, name, "unloaded")

    async def close(self) -> None:
        """Cancel the waits for models that are being drained."""
        for task in self._draining:
            task.cancel()
        await asyncio.gather(*self._draining, return_exceptions=True)

    @asynccontextmanager
    async def _exclusive_slot(self) -> AsyncIterator[None]:
        """Wait until no other load, unload or refresh is running, and keep others waiting.

        Raises:
            Overloaded: too many are waiting already.
        """
        if self._waiting >= MAX_WAITING:
            got = f"got {MAX_WAITING + 1} waiting loads and unloads"
            raise Overloaded(f"{got}, expected at most {MAX_WAITING}; try again later")
        self._waiting += 1
        try:
            async with self._lock:
                yield
        finally:
            self._waiting -= 1

    async def _install(self, name: str, scan: ScanResult, *, keep_unchanged: bool) -> str | None:
        """Load the scanned versions of a model and swap them in.

        If versions of the model are in service, either all new versions replace them or none; else those that can be
        loaded are served.

        Args:
            name: of the model.
            scan: the scanned folder.
            keep_unchanged: do not reload versions in service whose files have not changed.

        Returns:
            The reason why nothing was swapped; None if it was.
        """
        before = self._versions.get(name, {})
        refused = {version: reason for (other, version), reason in scan.refused.items() if other == name}
        loaded: dict[str, Model] = {}
        for artifact in scan.versions.get(name, ()):
            current = before.get(artifact.version)
            if keep_unchanged and current is not None and current.artifact == artifact:
                loaded[artifact.version] = current
                continue
            if current is None:
                self._status[name, artifact.version] = VersionStatus("LOADING")
            try:
                model = await asyncio.to_thread(
                    _load, artifact, self._statistics.of(name, artifact.version), self._settings
                )
                if self._prepare is not None:
                    await self._prepare(model)
            except ModelError as error:
                refused[artifact.version] = str(error)
            except Exception as error:  # an unexpected error of one model must not stop the others
                log.exception("%s: version %s", name, artifact.version)
                refused[artifact.version] = f"internal error ({type(error).__name__}); see the service's log"
            else:
                loaded[artifact.version] = model
        for version in [version for other, version in self._status if other == name and version not in before]:
            del self._status[name, version]
        for version, reason in refused.items():
            if version not in before:
                self._status[name, version] = VersionStatus("UNAVAILABLE", reason)
        if refused:
            reason = "; ".join(f"version {version}: {why}" if version else why for version, why in refused.items())
            if before or not loaded:
                log.error("%s: not loaded: %s", name, reason)
                return reason
        self._swap(name, loaded)
        return None

    def _swap(self, name: str, versions: Versions) -> asyncio.Task[None] | None:
        """Replace the served versions of a model; return the task that drains the old ones, if there are any."""
        before = self._versions.get(name, {})
        rest = {other: theirs for other, theirs in self._versions.items() if other != name}
        self._versions = dict(sorted({**rest, name: versions}.items())) if versions else rest
        self.models = {other: next(iter(theirs.values())) for other, theirs in self._versions.items()}
        usable = [model.artifact for model in self.models.values() if model.unusable is None]
        self.default = default_names(usable, self._settings.twin)
        new = [model for version, model in versions.items() if before.get(version) is not model]
        old = [model for version, model in before.items() if versions.get(version) is not model]
        for version in versions:
            self._status[name, version] = VersionStatus("READY")
        if self._on_change is not None and (new or old):
            self._on_change(new, old)
        if not old:
            return None
        for model in old:
            if model.version not in versions:
                self._status[name, model.version] = VersionStatus("UNLOADING")
                self._statistics.clear(name, model.version)
        sessions = [HeldObject(model.engine.session) for model in old]
        task = asyncio.create_task(self._drain(sessions, [(name, model.version) for model in old]))
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)
        return task

    async def _drain(self, sessions: list[HeldObject], keys: Sequence[tuple[str, str]]) -> None:
        """Wait until no request uses the sessions of the old versions any more, and free their memory."""
        await free_when_unreferenced(sessions)
        for key in keys:
            if self._status.get(key) == VersionStatus("UNLOADING"):
                self._status[key] = UNLOADED


def _load(artifact: Artifact, statistics: Statistics, settings: Settings) -> Model:
    """Load a version and check that its file is still the verified one; blocking.

    Raises:
        ModelError: it cannot be loaded or run, or the file was changed.
    """
    model = Model.load(
        artifact,
        statistics,
        device=settings.device_of(artifact.name),
        threads=settings.threads_used,
        max_batch=settings.max_batch,
    )
    artifact.check_unchanged()
    return model
