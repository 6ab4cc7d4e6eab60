"""The model files of a folder, `<name>/<version>/model.onnx`: found, bounded and inspected, but not loaded."""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from app.errors import ModelError, StartupError
from app.models.card import Card
from app.models.verification import inspect
from app.settings import NAME_PATTERN, Settings

_NAME = re.compile(NAME_PATTERN)
_VERSION = re.compile(r"^[1-9][0-9]{0,8}$")
_CHECKSUM = re.compile(rb"\s*([0-9a-fA-F]{64})(\s|$)")
FILE_NAME = "model.onnx"
CHECKSUM_NAME = "model.onnx.sha256"  # as `sha256sum` writes it
RESERVED_NAMES = frozenset({"stats"})  # /v2/models/stats is a path of its own


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
    # What loading and running it added, where that was measured: two measurements of one file are seldom equal.
    memory_bytes: int | None = field(default=None, compare=False)
    sha256: str = ""
    stamp: tuple[int, ...] = ()

    def check_unchanged(self) -> None:
        """Between the inspection and the loading nobody may have exchanged the file.

        Raises:
            ModelError: somebody has.
        """
        try:
            unchanged = _stamp(self.path) == self.stamp
        except OSError:
            unchanged = False
        if not unchanged:
            raise ModelError(f"{FILE_NAME} was changed while it was being loaded")

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
class ScanResult:
    """What a folder holds: by name the versions that are to be served, newest first, and why others are refused.

    The reasons are by name and version; an empty version stands for the whole model.
    """

    versions: Mapping[str, Sequence[Artifact]]
    refused: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """Every model of the folder, usable or not."""
        return {*self.versions, *(name for name, _ in self.refused)}

    @property
    def artifacts(self) -> Mapping[str, Artifact]:
        """The newest version of each usable model."""
        return {name: versions[0] for name, versions in self.versions.items()}

    @property
    def failures(self) -> Mapping[str, str]:
        """Why models have no usable version, by name."""
        return {
            name: f"version {version}: {reason}" if version else reason
            for (name, version), reason in self.refused.items()
            if name not in self.versions
        }


@dataclass(frozen=True, slots=True)
class _Found:
    """A model file that has not been looked into."""

    path: Path
    stamp: tuple[int, ...]
    checksum: str | None


async def read_folder(settings: Settings, *, only: str | None = None) -> ScanResult:
    """The versions of every model in `settings.models` that `settings.version_policy` chooses, inspected.

    Args:
        settings: folder, policy and limits.
        only: one model's name, if only that one is to be read.

    Raises:
        StartupError: there is no such folder, it cannot be read, or it holds more than `settings.max_models` models.
    """
    found, refused = _scan(settings, only)
    paths = list(dict.fromkeys(file.path for file in found.values()))
    inspections = await inspect(paths, settings) if paths else {}
    versions: dict[str, list[Artifact]] = {}
    for (name, version), file in found.items():
        inspection = inspections[file.path]
        if inspection.error is not None:
            refused[name, version] = inspection.error
        elif file.checksum is not None and file.checksum != inspection.sha256:
            refused[name, version] = (
                f"{FILE_NAME}: got SHA-256 {inspection.sha256}, expected {file.checksum} ({CHECKSUM_NAME})"
            )
        else:
            versions.setdefault(name, []).append(
                Artifact(
                    name=name,
                    version=version,
                    path=file.path,
                    file_bytes=file.stamp[0],
                    initializer_bytes=inspection.initializer_bytes,
                    initializer_elements=inspection.initializer_elements,
                    card=None if inspection.card is None else Card.parse(inspection.card, name),
                    memory_bytes=inspection.memory_bytes,
                    sha256=inspection.sha256,
                    stamp=file.stamp,
                )
            )
    return ScanResult(versions=versions, refused=refused)


def list_versions(settings: Settings) -> dict[str, list[str]]:
    """Every version of every model in the folder, chosen or not; nothing of what cannot be read."""
    versions: dict[str, list[str]] = {}
    with suppress(OSError):
        for folder in _folders(_root(settings), None):
            if _NAME.fullmatch(folder.name):
                with suppress(OSError):
                    versions[folder.name] = [path.name for path in _versions(folder)]
    return versions


def version_key(version: str) -> int:
    """Versions are numbers: 10 comes after 9."""
    return int(version or 0)


def _scan(settings: Settings, only: str | None) -> tuple[dict[tuple[str, str], _Found], dict[tuple[str, str], str]]:
    """The model files by name and version, newest first, and the reasons for those that are refused."""
    root = _root(settings)
    try:
        if not root.is_dir():
            raise StartupError(
                f"no models: {settings.models} is not a folder; make one with `kronmodel train --out {settings.models}`"
            )
        folders = _folders(root, only)
    except OSError as error:
        raise StartupError(f"no models: {settings.models} cannot be read: {error.strerror}") from None
    if len(folders) > settings.max_models:
        raise StartupError(
            f"too many models in {settings.models}: got {len(folders)}, expected at most {settings.max_models} "
            "(KRON_MAX_MODELS)"
        )
    found: dict[tuple[str, str], _Found] = {}
    refused: dict[tuple[str, str], str] = {}
    for folder in folders:
        # What is no UTF-8 in a name could be written into no answer.
        name = folder.name[:100].encode(errors="backslashreplace").decode()
        try:
            for version in _chosen(folder, settings):
                try:
                    found[name, version] = _checked(folder / version, root, settings.max_model_bytes)
                except ModelError as error:
                    refused[name, version] = str(error)
        except ModelError as error:
            refused[name, ""] = str(error)
        except OSError as error:
            refused[name, ""] = f"cannot be read: {error.strerror}"
    return found, refused


def _root(settings: Settings) -> Path:
    """The real folder of models; `Path.resolve` would raise where links lead in a circle."""
    return Path(os.path.realpath(settings.models))


def _folders(root: Path, only: str | None) -> list[Path]:
    """The models' folders; a leading dot marks somebody's private one."""
    paths = root.iterdir() if only is None else [root / only] if _NAME.fullmatch(only) else []
    return sorted(path for path in paths if not path.name.startswith(".") and _may_be_folder(path))


def _may_be_folder(path: Path) -> bool:
    """Also what cannot be looked at: it is refused by name, by whoever looks into it."""
    try:
        return path.is_dir()
    except OSError:
        return True


def _versions(folder: Path) -> list[Path]:
    """The versions' folders, newest first; a leading dot marks one that is still being written."""
    versions = [path for path in folder.iterdir() if _VERSION.fullmatch(path.name) and (path / FILE_NAME).exists()]
    return sorted(versions, key=lambda path: int(path.name), reverse=True)


def _chosen(folder: Path, settings: Settings) -> list[str]:
    """The versions that the policy chooses."""
    if not _NAME.fullmatch(folder.name):
        raise ModelError("the name has to be letters, digits, '.', '_' and '-', at most 100")
    if folder.name in RESERVED_NAMES:
        raise ModelError(f"the name {folder.name} is taken by the protocol")
    versions = [path.name for path in _versions(folder)]
    if not versions:
        raise ModelError(f"no <version>/{FILE_NAME} in it")
    chosen = settings.choose_versions(versions)
    if not chosen:
        raise ModelError(f"got versions {', '.join(versions)[:200]}, expected one of {settings.version_policy}")
    return chosen


def _checked(folder: Path, root: Path, max_bytes: int) -> _Found:
    """The real model file of a version: regular, inside the folder of models, not too large."""
    real = (folder / FILE_NAME).resolve(strict=True)
    if not real.is_relative_to(root):
        raise ModelError(f"{FILE_NAME} leads out of the folder of models")
    try:
        str(real).encode()
    except UnicodeEncodeError:
        raise ModelError(f"{FILE_NAME}: its real path is not UTF-8") from None
    if not real.is_file():
        raise ModelError(f"{FILE_NAME} is not a regular file")
    stamp = _stamp(real)
    if not 1 <= stamp[0] <= max_bytes:
        raise ModelError(f"{FILE_NAME}: got {stamp[0]} bytes, expected 1 to {max_bytes}")
    return _Found(real, stamp, _checksum(folder / CHECKSUM_NAME))


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when the file does: bytes, time, place."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_dev


def _checksum(path: Path) -> str | None:
    """The checksum that the file beside the model demands; None where there is no such file."""
    try:
        with path.open("rb") as file:
            match = _CHECKSUM.match(file.read(1024))
    except FileNotFoundError:
        return None
    if match is None:
        raise ModelError(f"{CHECKSUM_NAME}: expected 64 hexadecimal digits, as sha256sum writes them")
    return match.group(1).decode().lower()
