"""The model files of a folder, `<name>/<version>/model.onnx`: found, bounded and inspected, but not loaded."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.card import Card
from app.errors import ModelError, StartupError
from app.inspection import inspect
from app.settings import NAME_PATTERN, Settings

_NAME = re.compile(NAME_PATTERN)
_VERSION = re.compile(r"^[1-9][0-9]{0,8}$")
FILE_NAME = "model.onnx"


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """One version of one model on disk."""

    name: str
    version: str
    path: Path
    file_bytes: int
    initializer_bytes: int
    initializer_elements: int
    card: Card | None
    sha256: str = ""

    @property
    def parameters(self) -> int:
        """As the card says, else the number of elements in the file's initializers."""
        if self.card is not None and self.card.parameters is not None:
            return self.card.parameters
        return self.initializer_elements

    @property
    def samples_path(self) -> Path:
        """Where the test inputs are, if there are any."""
        return self.path.with_name("samples.npz")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shelf:
    """What a folder holds: the usable models by name, and why the others are not."""

    artifacts: Mapping[str, Artifact]
    failures: Mapping[str, str] = field(default_factory=dict)


async def read_folder(settings: Settings) -> Shelf:
    """The highest version of every model in `settings.models`, inspected.

    Raises:
        StartupError: there is no such folder, or it holds more than `settings.max_models` models.
    """
    found, failures = _scan(settings)
    inspections = await inspect([path for _, path in found.values()], timeout=settings.load_seconds) if found else {}
    artifacts = {}
    for name, (version, path) in found.items():
        inspection = inspections[path]
        if inspection.error is not None:
            failures[name] = f"version {version}: {inspection.error}"
            continue
        artifacts[name] = Artifact(
            name=name,
            version=version,
            path=path,
            file_bytes=path.stat().st_size,
            initializer_bytes=inspection.initializer_bytes,
            initializer_elements=inspection.initializer_elements,
            sha256=inspection.sha256,
            card=None if inspection.card is None else Card.parse(inspection.card, name),
        )
    return Shelf(artifacts=artifacts, failures=failures)


def _scan(settings: Settings) -> tuple[dict[str, tuple[str, Path]], dict[str, str]]:
    """Version and path of each model by name, and the reasons for those that are refused."""
    root = settings.models.resolve()
    if not root.is_dir():
        raise StartupError(
            f"no models: {settings.models} is not a folder; make one with `kronmodel train --out {settings.models}`"
        )
    # A leading dot marks a version that is still being written, or somebody's private folder.
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(folders) > settings.max_models:
        raise StartupError(
            f"too many models in {settings.models}: got {len(folders)}, expected at most {settings.max_models} "
            "(KRON_MAX_MODELS)"
        )
    found: dict[str, tuple[str, Path]] = {}
    failures: dict[str, str] = {}
    for folder in folders:
        try:
            if not _NAME.match(folder.name):
                raise ModelError("the name has to be letters, digits, '.', '_' and '-', at most 100")
            versions = [path for path in folder.iterdir() if _VERSION.match(path.name) and (path / FILE_NAME).exists()]
            if not versions:
                raise ModelError(f"no <version>/{FILE_NAME} in it")
            newest = max(versions, key=lambda path: int(path.name))
            found[folder.name] = (newest.name, _checked(newest / FILE_NAME, root, settings.max_model_bytes))
        except ModelError as error:
            failures[folder.name[:100]] = str(error)
        except OSError as error:
            failures[folder.name[:100]] = f"cannot be read: {error.strerror}"
    return found, failures


def _checked(path: Path, root: Path, max_bytes: int) -> Path:
    """The real path of a model file: regular, inside the folder, not too large."""
    real = path.resolve(strict=True)
    if not real.is_relative_to(root):
        raise ModelError(f"{FILE_NAME} leads out of the folder of models")
    if not real.is_file():
        raise ModelError(f"{FILE_NAME} is not a regular file")
    size = real.stat().st_size
    if not 1 <= size <= max_bytes:
        raise ModelError(f"{FILE_NAME}: got {size} bytes, expected 1 to {max_bytes}")
    return real
