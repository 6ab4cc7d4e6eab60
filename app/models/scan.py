"""The scan of the model repository's folder: its files `<name>/<version>/model.onnx`, checked and verified."""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from app.errors import ModelError, StartupError
from app.models.card import Card
from app.models.verification import verify
from app.settings import NAME_PATTERN, Settings

_NAME = re.compile(NAME_PATTERN)
_VERSION = re.compile(r"^[1-9][0-9]{0,8}$")
_CHECKSUM = re.compile(rb"\s*([0-9a-fA-F]{64})(\s|$)")
FILE_NAME = "model.onnx"
CHECKSUM_NAME = "model.onnx.sha256"  # as `sha256sum` writes it
RESERVED_NAMES = frozenset({"stats"})  # /v2/models/stats has the statistics of all models


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """One version of a model on disk, verified.

    Args:
        name: of the model, its folder's name.
        version: a positive integer as text, its folder's name.
        path: of the ONNX file.
        file_bytes: size of the file.
        initializer_bytes: size of the weights: initializers, constants, and numbers in attributes of `ai.onnx.ml`.
        initializer_elements: number of their elements.
        card: the model card; None if the file has no valid one.
        memory_bytes: memory that loading and running the model added to a process; None where it was not measured.
        sha256: of the file.
        fingerprint: size, modification time, inode and device of the file when it was scanned.
    """

    name: str
    version: str
    path: Path
    file_bytes: int
    initializer_bytes: int
    initializer_elements: int
    card: Card | None
    # Not compared, since two measurements of one file are seldom equal.
    memory_bytes: int | None = field(default=None, compare=False)
    sha256: str = ""
    fingerprint: tuple[int, ...] = ()

    def check_unchanged(self) -> None:
        """Check that the file is still the one that was verified.

        Raises:
            ModelError: it was changed or removed.
        """
        try:
            unchanged = _fingerprint(self.path) == self.fingerprint
        except OSError:
            unchanged = False
        if not unchanged:
            raise ModelError(f"{FILE_NAME} was changed while it was being loaded")

    @property
    def parameters(self) -> int:
        """Number of parameters by the card, else the number of elements of the file's weights."""
        if self.card is not None and self.card.parameters is not None:
            return self.card.parameters
        return self.initializer_elements

    @property
    def samples_path(self) -> Path:
        """The path of the test inputs, whether or not there is such a file."""
        return self.path.with_name("samples.npz")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanResult:
    """The models of the repository's folder.

    Args:
        versions: by model, the versions to serve, newest first.
        refused: by model and version, the reason to refuse it; the version is empty for a whole model.
    """

    versions: Mapping[str, Sequence[Artifact]]
    refused: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """The names of all models of the folder, refused ones included."""
        return {*self.versions, *(name for name, _ in self.refused)}

    @property
    def artifacts(self) -> Mapping[str, Artifact]:
        """The newest usable version of each model, by name."""
        return {name: versions[0] for name, versions in self.versions.items()}

    @property
    def failures(self) -> Mapping[str, str]:
        """The reasons why models have no usable version, by name."""
        return {
            name: f"version {version}: {reason}" if version else reason
            for (name, version), reason in self.refused.items()
            if name not in self.versions
        }


@dataclass(frozen=True, slots=True)
class _ModelFile:
    """A model file that is not verified yet, and its expected checksum."""

    path: Path
    fingerprint: tuple[int, ...]
    checksum: str | None


async def read_folder(settings: Settings, *, only: str | None = None) -> ScanResult:
    """Scan and verify the versions that `settings.version_policy` selects, of every model in `settings.models`.

    Args:
        settings: folder, version policy and limits.
        only: name of the only model to scan; None for all.

    Raises:
        StartupError: the folder does not exist, cannot be read, or has more than `settings.max_models` models.
    """
    files, refused = _scan(settings, only)
    paths = list(dict.fromkeys(file.path for file in files.values()))
    results = await verify(paths, settings) if paths else {}
    versions: dict[str, list[Artifact]] = {}
    for (name, version), file in files.items():
        result = results[file.path]
        if result.error is not None:
            refused[name, version] = result.error
        elif file.checksum is not None and file.checksum != result.sha256:
            refused[name, version] = (
                f"{FILE_NAME}: got SHA-256 {result.sha256}, expected {file.checksum} ({CHECKSUM_NAME})"
            )
        else:
            versions.setdefault(name, []).append(
                Artifact(
                    name=name,
                    version=version,
                    path=file.path,
                    file_bytes=file.fingerprint[0],
                    initializer_bytes=result.initializer_bytes,
                    initializer_elements=result.initializer_elements,
                    card=None if result.card is None else Card.parse(result.card, name),
                    memory_bytes=result.memory_bytes,
                    sha256=result.sha256,
                    fingerprint=file.fingerprint,
                )
            )
    return ScanResult(versions=versions, refused=refused)


def list_versions(settings: Settings) -> dict[str, list[str]]:
    """All versions of all models in the folder, selected or not; models that cannot be read are left out."""
    versions: dict[str, list[str]] = {}
    with suppress(OSError):
        for folder in _folders(_root(settings), None):
            if _NAME.fullmatch(folder.name):
                with suppress(OSError):
                    versions[folder.name] = [path.name for path in _versions(folder)]
    return versions


def version_key(version: str) -> int:
    """Sort key of a version: its number, so that 10 comes after 9; 0 for an empty version."""
    return int(version or 0)


def _scan(settings: Settings, only: str | None) -> tuple[dict[tuple[str, str], _ModelFile], dict[tuple[str, str], str]]:
    """The model files by name and version, newest first, and the reasons to refuse others."""
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
    files: dict[tuple[str, str], _ModelFile] = {}
    refused: dict[tuple[str, str], str] = {}
    for folder in folders:
        # JSON cannot express a name that is not UTF-8.
        name = folder.name[:100].encode(errors="backslashreplace").decode()
        try:
            for version in _select_versions(folder, settings):
                try:
                    files[name, version] = _check_file(folder / version, root, settings.max_model_bytes)
                except ModelError as error:
                    refused[name, version] = str(error)
        except ModelError as error:
            refused[name, ""] = str(error)
        except OSError as error:
            refused[name, ""] = f"cannot be read: {error.strerror}"
    return files, refused


def _root(settings: Settings) -> Path:
    """The folder of models without symbolic links; `Path.resolve` would raise for a loop of them."""
    return Path(os.path.realpath(settings.models))


def _folders(root: Path, only: str | None) -> list[Path]:
    """The folders of all models, or of one; those whose names start with a dot are not models."""
    paths = root.iterdir() if only is None else [root / only] if _NAME.fullmatch(only) else []
    return sorted(path for path in paths if not path.name.startswith(".") and _may_be_folder(path))


def _may_be_folder(path: Path) -> bool:
    """Whether a path is a folder or cannot be examined; the scan refuses the latter by name."""
    try:
        return path.is_dir()
    except OSError:
        return True


def _versions(folder: Path) -> list[Path]:
    """The folders of a model's versions, newest first; other names, such as those of unfinished ones, are ignored."""
    versions = [path for path in folder.iterdir() if _VERSION.fullmatch(path.name) and (path / FILE_NAME).exists()]
    return sorted(versions, key=lambda path: int(path.name), reverse=True)


def _select_versions(folder: Path, settings: Settings) -> list[str]:
    """The versions of a model that the version policy selects.

    Raises:
        ModelError: the name is not valid, or no version is there or selected.
    """
    if not _NAME.fullmatch(folder.name):
        raise ModelError("the name has to be letters, digits, '.', '_' and '-', at most 100 characters")
    if folder.name in RESERVED_NAMES:
        raise ModelError(f"the name {folder.name} is reserved by the protocol")
    versions = [path.name for path in _versions(folder)]
    if not versions:
        raise ModelError(f"got no <version>/{FILE_NAME} in its folder, expected at least one")
    selected = settings.choose_versions(versions)
    if not selected:
        raise ModelError(f"got versions {', '.join(versions)[:200]}, expected one of {settings.version_policy}")
    return selected


def _check_file(folder: Path, root: Path, max_bytes: int) -> _ModelFile:
    """The model file of a version, with symbolic links resolved.

    Raises:
        ModelError: it is outside of the folder of models, not a regular file, or empty or too large.
    """
    real = (folder / FILE_NAME).resolve(strict=True)
    if not real.is_relative_to(root):
        raise ModelError(f"{FILE_NAME} resolves to a file that is outside of the folder of models")
    try:
        str(real).encode()
    except UnicodeEncodeError:
        raise ModelError(f"{FILE_NAME}: its real path is not UTF-8") from None
    if not real.is_file():
        raise ModelError(f"{FILE_NAME} is not a regular file")
    fingerprint = _fingerprint(real)
    if not 1 <= fingerprint[0] <= max_bytes:
        raise ModelError(f"{FILE_NAME}: got {fingerprint[0]} bytes, expected 1 to {max_bytes}")
    return _ModelFile(real, fingerprint, _read_checksum(folder / CHECKSUM_NAME))


def _fingerprint(path: Path) -> tuple[int, ...]:
    """Size, modification time, inode and device of a file, one of which changes when the file does."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_dev


def _read_checksum(path: Path) -> str | None:
    """Read the expected SHA-256 from the file beside the model; None if there is no such file."""
    try:
        with path.open("rb") as file:
            match = _CHECKSUM.match(file.read(1024))
    except FileNotFoundError:
        return None
    if match is None:
        raise ModelError(f"{CHECKSUM_NAME}: expected 64 hexadecimal digits, as sha256sum writes them")
    return match.group(1).decode().lower()
