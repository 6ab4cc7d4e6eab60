"""The models that are served, by name."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.artifacts import Artifact, read_folder
from app.errors import ModelError, NotFound
from app.model import Model
from app.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Repository:
    """Loaded and warmed models, the names that answer by default, and why others are not served."""

    models: Mapping[str, Model]
    default: Sequence[str]
    failures: Mapping[str, str]

    @classmethod
    async def load(cls, settings: Settings) -> "Repository":
        """Load every model of the folder; one that cannot be served is logged, and the others are.

        Raises:
            StartupError: no folder, too many models, or the device cannot be had.
        """
        shelf = await read_folder(settings)
        models: dict[str, Model] = {}
        failures = dict(shelf.failures)
        for name, artifact in sorted(shelf.artifacts.items()):
            try:
                models[name] = await asyncio.to_thread(
                    Model.load,
                    artifact,
                    device=settings.device,
                    threads=settings.threads_used,
                    max_batch=settings.max_batch,
                )
            except ModelError as error:
                failures[name] = f"version {artifact.version}: {error}"
        for name, reason in failures.items():
            log.error("%s is not served: %s", name, reason)
        artifacts = [model.artifact for model in models.values()]
        return cls(models=models, default=default_names(artifacts, settings.twin), failures=failures)

    def get(self, name: str) -> Model:
        """The model of that name.

        Raises:
            NotFound: there is none; the message names those that there are.
        """
        model = self.models.get(name)
        if model is None:
            served = ", ".join(self.models) or "none"
            raise NotFound(f"models: got {name[:100]!r}, expected one of: {served}")
        return model

    def choose(self, names: Sequence[str] | None) -> list[Model]:
        """The named models, or the default ones."""
        return [self.get(name) for name in names or self.default]


def default_names(artifacts: Sequence[Artifact], twin: str | None) -> list[str]:
    """Both members of the default twin, Kronecker first; without any twin, the first model.

    The twin is the one asked for, else `mnist`, else the first by name that has both members.
    """
    twins: dict[str, dict[str, str]] = {}
    for artifact in sorted(artifacts, key=lambda artifact: artifact.name):
        card = artifact.card
        if card is not None and card.twin and card.role:
            twins.setdefault(card.twin, {}).setdefault(card.role, artifact.name)
    whole = {name: members for name, members in twins.items() if len(members) == 2}
    for name in [twin, "mnist", *sorted(whole)]:
        if name in whole:
            if twin is not None and name != twin:
                log.warning("twin %s is not there with both members; %s answers by default", twin, name)
            return [whole[name]["kronecker"], whole[name]["dense"]]
    return sorted(artifact.name for artifact in artifacts)[:1]
