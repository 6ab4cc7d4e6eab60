"""New versions in a model repository, in Triton's layout: each appears whole or not at all."""

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
READABLE_FOLDER = 0o755  # mkdtemp makes private folders; a service that runs as another user reads these


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A model to publish.

    Attributes:
        name: of the model in the repository.
        model: the graph.
        inputs: of test samples ``(n, ...)``, as the graph takes them.
        labels: class indices ``(n,)`` or values of these samples.
        files: content of further files in the version's folder, by name.
    """

    name: str
    model: onnx.ModelProto
    inputs: NDArray[np.float32]
    labels: NDArray[np.int64] | NDArray[np.float32]
    files: Mapping[str, bytes] = field(default_factory=dict)


def check_name(name: str) -> str:
    """Return ``name``, or raise a ``ValueError`` if it can't be the name of a model."""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"a model's name must be 1 to 100 letters, digits, dots, dashes or underscores and begin with a letter or "
            f"digit, got {name!r}"
        )
    return name


def check_writable(repository: Path) -> None:
    """Check before a long training that its models can be written; nothing is written.

    Raises:
        ExportError: it can't.
    """
    existing = next(path for path in (repository, *repository.absolute().parents) if path.exists())
    if not is_writable_folder(existing):
        raise ExportError(f"can't write to the model repository {repository}: {existing} is not a writable folder")


def publish(publications: Sequence[Publication], repository: Path) -> list[Path]:
    """Write each model as the next version of its name: ``repository/name/version/model.onnx`` and what belongs to it.

    Everything is written and synced in a hidden folder beside before the first version is renamed into place,
    so a failure or an interruption leaves the repository as it was.

    Returns:
        The paths of the new ``model.onnx`` files.

    Raises:
        ExportError: the repository can't be written to.
        ValueError: a name is not possible.
    """
    for publication in publications:
        check_name(publication.name)
    try:
        repository.mkdir(parents=True, exist_ok=True)
        # Removed on success, failure or Ctrl-C. A killed process leaves the folder, with its number in the name,
        # so that the parent can remove it.
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
            # Another run may have taken this number in the meantime; any other error is raised.
            if not target.exists():
                raise
            version += 1
        else:
            sync_folder(model)
            return target
