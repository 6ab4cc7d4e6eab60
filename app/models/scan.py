"""The scan of the model repository's folder: its files `<name>/<version>/model.onnx`, checked and verified."""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from app.errors import ModelError, StartupError
from app.models.card import Card
from app.models.checksums import LIST_NAME, compare, read_expected, summarize
from app.models.triton_config import TritonConfig, read_config
from app.models.verification import VerificationResult, verify
from app.settings import NAME_PATTERN, Settings
from app.system.files import fingerprint

_NAME = re.compile(NAME_PATTERN)
_VERSION = re.compile(r"^[1-9][0-9]{0,8}$")
_NOTHING_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EBADF, errno.ELOOP})
FILE_NAME = "model.onnx"
RESERVED_NAMES = frozenset({"stats"})  # /v2/models/stats has the statistics of all models


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """One version of a model on disk, verified.

    Args:
        name: of the model, its folder's name.
        version: a positive integer as text, its folder's name.
        path: of the ONNX file.
        file_bytes: size of the file and of those that it keeps weights in.
        initializer_bytes: size of the weights: initializers, constants, and numbers in attributes of `ai.onnx.ml`.
        initializer_elements: number of their elements.
        card: the model card; None if the file has no valid one.
        memory_bytes: memory that loading and running the model added to a process; None where it was not measured.
        sha256: of the file; where weights are in other files, of the list of all checksums, as by
            `sha256sum model.onnx model.onnx.data | sha256sum`.
        fingerprint: size, modification time, inode and device of the file when it was scanned.
        data_files: files that it keeps weights in, relative to its folder, each with its fingerprint.
        config: Triton's configuration beside the versions.
        verification: what the smoke test found, if the file was verified.
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
    data_files: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    config: TritonConfig = field(default_factory=TritonConfig)
    # Not compared, since it depends on the time that was left for it.
    verification: VerificationResult = field(default_factory=VerificationResult, compare=False)

    def check_unchanged(self) -> None:
        """Check that the files are still those that were verified.

        Raises:
            ModelError: one was changed or removed.
        """
        for name, before in {self.path.name: self.fingerprint, **self.data_files}.items():
            try:
                unchanged = fingerprint(self.path.parent / name) == before
            except OSError:
                unchanged = False
            if not unchanged:
                raise ModelError(f"{name} was changed while it was being loaded: load the model again")

    def why_no_download(self, max_bytes: int) -> str | None:
        """The reason why callers may not download the ONNX file; None if they may.

        Args:
            max_bytes: largest file; 0 forbids all.
        """
        if self.data_files:
            return "its weights are in other files"
        if self.file_bytes > max_bytes:
            return f"got {self.file_bytes} bytes, expected at most {max_bytes} (KRON_MAX_DOWNLOAD_BYTES)"
        return None

    def read_unchanged(self) -> bytes:
        """Read the ONNX file; blocking.

        Raises:
            ModelError: it is not the file that was verified.
        """
        try:
            with self.path.open("rb") as file:
                content = file.read(self.file_bytes + 1)
        except OSError as error:
            raise ModelError(f"{self.name}: the file cannot be read: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ModelError(f"{self.name}: the file was changed after it was loaded: load the model again")
        return content

    @property
    def parameters(self) -> int:
        """Number of parameters by the card, else the number of elements of the file's weights."""
        if self.card is not None and self.card.parameters is not None:
            return self.card.parameters
        return self.initializer_elements

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights by the card, without those of other constants, else of the file's weights."""
        if self.card is not None and self.card.weight_bytes is not None:
            return self.card.weight_bytes
        return self.initializer_bytes

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
    """A model file that is not verified yet, and the checksums that are expected of it and of its data files."""

    path: Path
    fingerprint: tuple[int, ...]
    expected: Mapping[str, str] | None
    config: TritonConfig


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
    batch_axes = {file.path: axis for file in files.values() if (axis := file.config.batch_axis) is not None}
    results = await verify(paths, settings, batch_axes) if paths else {}
    versions: dict[str, list[Artifact]] = {}
    for (name, version), file in files.items():
        result = results[file.path]
        if result.error is not None:
            refused[name, version] = result.error
        elif (reason := compare(result.checksums, file.expected)) is not None:
            refused[name, version] = reason
        else:
            data_files = {each: tuple(values) for each, values in result.data_files.items()}
            versions.setdefault(name, []).append(
                Artifact(
                    name=name,
                    version=version,
                    path=file.path,
                    file_bytes=sum({each[2:]: each[0] for each in (file.fingerprint, *data_files.values())}.values()),
                    initializer_bytes=result.initializer_bytes,
                    initializer_elements=result.initializer_elements,
                    card=None if result.card is None else Card.parse(result.card, name),
                    memory_bytes=result.memory_bytes,
                    sha256=summarize(result.checksums),
                    fingerprint=file.fingerprint,
                    data_files=data_files,
                    config=file.config,
                    verification=result,
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
        if not stat.S_ISDIR(_mode(root)):
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
            config = read_config(folder)
            for version in _select_versions(folder, settings):
                try:
                    files[name, version] = _check_file(folder / version, root, settings.max_model_bytes, config)
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
        return stat.S_ISDIR(_mode(path))
    except OSError:
        return True


def _mode(path: Path) -> int:
    """Read the type of what is at a path; 0 if nothing is. `Path.is_dir` of Python 3.14 hides what cannot be examined.

    Raises:
        OSError: the path cannot be examined, such as one without the permission.
    """
    try:
        return path.stat().st_mode
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return 0
        raise


def _versions(folder: Path) -> list[Path]:
    """The folders of a model's versions, newest first; other names, such as those of unfinished ones, are ignored."""
    versions = [path for path in folder.iterdir() if _VERSION.fullmatch(path.name) and _mode(path / FILE_NAME)]
    return sorted(versions, key=lambda path: int(path.name), reverse=True)


def _select_versions(folder: Path, settings: Settings) -> list[str]:
    """The versions of a model that the version policy selects.

    Raises:
        ModelError: the name is not valid, or no version is there or selected.
    """
    if not _NAME.fullmatch(folder.name):
        raise ModelError(
            "the name has to be letters, digits, '.', '_' and '-', at most 100 characters: rename the folder"
        )
    if folder.name in RESERVED_NAMES:
        raise ModelError(f"the name {folder.name} is reserved by the protocol: rename the folder")
    versions = [path.name for path in _versions(folder)]
    if not versions:
        raise ModelError(
            f"got no <version>/{FILE_NAME} in its folder, expected at least one: make a folder 1 with the file"
        )
    selected = settings.choose_versions(versions)
    if not selected:
        raise ModelError(
            f"got versions {', '.join(versions)[:200]}, expected one of {settings.version_policy} (KRON_VERSION_POLICY)"
        )
    return selected


def _check_file(folder: Path, root: Path, max_bytes: int, config: TritonConfig) -> _ModelFile:
    """The model file of a version, with symbolic links resolved.

    Raises:
        ModelError: it is outside of the folder of models, not a regular file, or empty or too large.
    """
    real = (folder / FILE_NAME).resolve(strict=True)
    if not real.is_relative_to(root):
        raise ModelError(f"{FILE_NAME} is a link to a file that is outside of the folder of models: put the file there")
    try:
        str(real).encode()
    except UnicodeEncodeError:
        raise ModelError(f"{FILE_NAME}: its real path is not UTF-8: rename its folders") from None
    if not real.is_file():
        raise ModelError(f"{FILE_NAME} is not a regular file: put the ONNX file itself there")
    now = fingerprint(real)
    if not 1 <= now[0] <= max_bytes:
        raise ModelError(f"{FILE_NAME}: got {now[0]} bytes, expected 1 to {max_bytes} (KRON_MAX_MODEL_BYTES)")
    return _ModelFile(real, now, read_expected(folder / LIST_NAME, real.name), config)
