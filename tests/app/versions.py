"""Model versions with different weights, so that an answer shows its version."""

import asyncio
import re
from pathlib import Path

import numpy as np

from app.models.repository import Repository
from app.settings import Settings
from tests.app.graphs import Array, classifier, publish, weights

# What to do about a model that is refused.
CURE = re.compile(r"[:;] (copy|export|make|put|rename|save|use|write) |: sha256sum |KRON_[A-Z]+")
ROW: Array = np.random.default_rng(7).random((1, 6)).astype(np.float32)


def layers_of(version: int) -> list[Array]:
    return weights([6, 3], seed=version)


def put(folder: Path, version: int, name: str = "m") -> None:
    """Publish a version atomically, as the training does."""
    publish(folder / ".unfinished", f"{name}-{version}", classifier(layers_of(version), outputs=("logits",)))
    (folder / name).mkdir(exist_ok=True)
    (folder / ".unfinished" / f"{name}-{version}" / "1").rename(folder / name / str(version))


def repository_of(folder: Path, **options: object) -> Repository:
    return asyncio.run(Repository.load(Settings.model_validate({"models": folder, **options})))
