"""Atomic publication of model versions in a repository with Triton's layout."""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from kronmodel.errors import ExportError
from kronmodel.files import is_writable_folder, sync_folder, write_synced

__all__ = ["Publication", "check_name", "check_writable", "publish"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
READABLE_FOLDER = 0o755  # mkdtemp makes private folders, but a service may run as another user


@dataclass(frozen=True, kw_only=True)
class Publication:
    """Content of a new model version.

    Attributes:
        name: name of the model in the repository.
        model: ONNX model.
        inputs: inputs of test samples ``(n, ...)``, as the model takes them.
        labels: class indices ``(n,)`` or target values of these samples.
        files: content of further files in the version's folder, by file name.
    """

    name: str
    model: onnx.ModelProto
    inputs: NDArray[np.float32]
    labels: NDArray[np.int64] | NDArray[np.float32]
    files: Mapping[str, bytes] = field(default_factory=dict)


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
        # Removed on success, failure or Ctrl-C. If this process is killed, the folder remains; its name contains the
        # process ID, so that the parent process can find and remove the folder.
        with tempfile.TemporaryDirectory(prefix=f".publishing-{os.getpid()}-", dir=repository) as staging:
            staged = [_write(publication, Path(staging, publication.name)) for publication in publications]
            return [_rename(folder, repository / folder.name) / "model.onnx" for folder in staged]
    except OSError as error:
        raise ExportError(f"can't write to the model repository {repository}: {error}") from error


def _write(publication: Publication, folder: Path) -> Path:
    folder.mkdir()
    folder.chmod(READABLE_FOLDER)
    write_synced(folder / "model.onnx", publication.model.SerializeToString())
    samples = io.BytesIO()
    np.savez_compressed(samples, allow_pickle=False, inputs=publication.inputs, labels=publication.labels)
    write_synced(folder / "samples.npz", samples.getbuffer())
    for name, content in publication.files.items():
        write_synced(folder / name, content)
    sync_folder(folder)
    return folder


def _rename(folder: Path, model: Path) -> Path:
    """Rename a finished version folder into place under the next free version number."""
    model.mkdir(exist_ok=True)
    version = 1 + max((int(path.name) for path in model.iterdir() if path.name.isdecimal()), default=0)
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
