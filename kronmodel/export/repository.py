"""Atomic publication of model versions in a repository with Triton's layout.

Versions are written in a hidden staging folder, which is locked. A marker in it says that all of them are complete;
then they are renamed into place one by one. If the process is killed on the way, the next run finds the folder without
a lock: with the marker it renames the rest, without the marker it removes the folder.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kronmodel.errors import ExportError
from kronmodel.files import FolderLock, is_writable_folder, sync_folder, write_synced

__all__ = ["Publication", "check_name", "check_writable", "finish_publications", "publish", "version_folders"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
STAGING = ".publishing-"  # followed by the process ID and random letters
COMPLETE = ".complete"  # marker in a staging folder whose versions are all written
ATTEMPTS = 10  # to make a staging folder, while other runs take new ones for abandoned ones
READABLE_FOLDER = 0o755  # mkdtemp makes private folders, but a service may run as another user


@dataclass(frozen=True, kw_only=True)
class Publication:
    """Content of a new model version.

    Attributes:
        name: name of the model in the repository.
        model: ONNX model, or the path of a file to copy.
        inputs: inputs of test samples ``(n, ...)``, as the model takes them; of a model that takes the columns of a
            table, an array ``(n, 1)`` for each of its inputs, in their order; None publishes no samples.
        labels: class indices ``(n,)`` or target values of these samples.
        files: content of further files in the version's folder, by file name; or paths of files to copy.
    """

    name: str
    model: onnx.ModelProto | Path
    inputs: NDArray[np.float32] | Sequence[NDArray[Any]] | None
    labels: NDArray[np.int64] | NDArray[np.float32] | None
    files: Mapping[str, bytes | Path] = field(default_factory=dict)


def check_name(name: str) -> str:
    """Check that a name is valid for a model, and return it; raise a ``ValueError`` otherwise."""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"a model's name must be 1 to 100 letters, digits, dots, dashes or underscores and begin with a letter or "
            f"digit, got {name!r}"
        )
    return name


def check_writable(repository: Path) -> None:
    """Check that a model repository is writable, without writing anything; meant for the start of a long training.

    Raises:
        ExportError: the repository is not writable.
    """
    existing = next(path for path in (repository, *repository.absolute().parents) if path.exists())
    if not is_writable_folder(existing):
        raise ExportError(f"can't write to the model repository {repository}: {existing} is not a writable folder")


def publish(publications: Sequence[Publication], repository: Path) -> list[Path]:
    """Publish each model as the next version of its name, in the folder ``repository/name/version``.

    All files are written and synced in a hidden folder of the repository before the first version is renamed into
    place, so a failure or an interruption leaves the repository unchanged.

    Returns:
        The paths of the new ``model.onnx`` files.

    Raises:
        ExportError: the repository can't be written to.
        ValueError: a name is not valid for a model.
    """
    for publication in publications:
        check_name(publication.name)
    try:
        repository.mkdir(parents=True, exist_ok=True)
        with _staging_folder(repository) as staging:
            staged = [_write(publication, staging / publication.name) for publication in publications]
            write_synced(staging / COMPLETE, b"")
            sync_folder(staging)
            return [version / "model.onnx" for version in _rename_all(staged, repository)]
    except OSError as error:
        raise ExportError(f"can't write to the model repository {repository}: {error}") from error


def finish_publications(repository: Path) -> list[Path]:
    """Complete the publications of processes that were killed while they renamed, and remove what else they left.

    Folders of running processes are locked, and stay as they are.

    Returns:
        The folders of the versions that were completed.

    Raises:
        ExportError: a version can't be renamed into place.
    """
    finished: list[Path] = []
    for folder in sorted(repository.glob(f"{STAGING}*")):
        try:
            lock = FolderLock(folder)
        except OSError:  # of a running process, or removed meanwhile
            continue
        try:
            if (folder / COMPLETE).exists():
                rest = [path for path in sorted(folder.iterdir()) if path.is_dir() and NAME.fullmatch(path.name)]
                finished += [_rename(path, repository / path.name) for path in rest]
            shutil.rmtree(folder, ignore_errors=True)
        except OSError as error:
            raise ExportError(f"can't complete the publication {folder} of an earlier run: {error}") from error
        finally:
            lock.release()
    return finished


def version_folders(model: Path) -> list[Path]:
    """List the folders of a model's versions, newest first."""
    found = [path for path in model.iterdir() if path.name.isdecimal()] if model.is_dir() else []
    return sorted(found, key=lambda path: int(path.name), reverse=True)


@contextmanager
def _staging_folder(repository: Path) -> Iterator[Path]:
    """Make a locked folder for a ``with`` block, and remove it at its end.

    If this process is killed, the folder remains. Its name has the process ID, so that a parent process can find it.

    Raises:
        OSError: it can't be made or locked.
    """
    for _ in range(ATTEMPTS):
        folder = Path(tempfile.mkdtemp(prefix=f"{STAGING}{os.getpid()}-", dir=repository))
        try:
            lock = FolderLock(folder)
        except OSError:  # another run took it for an abandoned one, between these two lines
            continue
        if folder.exists():
            break
        lock.release()
    else:
        raise OSError(f"{folder} can't be locked")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _rename_all(staged: Sequence[Path], repository: Path) -> list[Path]:
    """Rename finished version folders into place: all of them, or none if one of them can't be."""
    versions: list[Path] = []
    try:
        for folder in staged:
            versions.append(_rename(folder, repository / folder.name))  # noqa: PERF401 - kept if the next one fails
    except OSError:
        for folder, version in zip(staged, versions, strict=False):
            version.rename(folder)
            with suppress(OSError):  # has other versions
                version.parent.rmdir()
        raise
    except BaseException:  # Ctrl-C: what has begun is completed
        for folder in staged:
            if folder.exists():
                _rename(folder, repository / folder.name)
        raise
    return versions


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Convert an array of texts as objects to one of a fixed number of characters, which needs no pickling."""
    return values.astype(np.str_) if values.dtype == object else values


def _write(publication: Publication, folder: Path) -> Path:
    folder.mkdir()
    folder.chmod(READABLE_FOLDER)
    model = publication.model
    _write_file(folder / "model.onnx", model if isinstance(model, Path) else model.SerializeToString())
    if publication.inputs is not None and publication.labels is not None:
        samples = io.BytesIO()
        arrays: dict[str, Any] = {"inputs": publication.inputs}
        if not isinstance(publication.inputs, np.ndarray):  # columns are numbered: one may be named "labels"
            arrays = {f"column_{number}": _plain(values) for number, values in enumerate(publication.inputs)}
        np.savez_compressed(samples, allow_pickle=False, labels=publication.labels, **arrays)
        write_synced(folder / "samples.npz", samples.getbuffer())
    for name, content in publication.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _write_file(folder / name, content)
    sync_folder(folder)
    return folder


def _write_file(path: Path, content: bytes | Path) -> None:
    """Write a file, or copy one, and wait until its content is on the disk."""
    if isinstance(content, bytes):
        write_synced(path, content)
        return
    with content.open("rb") as source, path.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())


def _rename(folder: Path, model: Path) -> Path:
    """Rename a finished version folder into place under the next free version number."""
    model.mkdir(exist_ok=True)
    version = 1 + max((int(path.name) for path in version_folders(model)), default=0)
    while True:
        target = model / str(version)
        try:
            folder.rename(target)
        except OSError:
            # Another run may have published this version number in the meantime; any other error is raised.
            if not target.exists():
                raise
            version += 1
        else:
            sync_folder(model)
            return target
