"""Files that ``kronmodel export`` writes: all of them or none."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kronmodel.errors import KronmodelError
from kronmodel.files import is_writable_file, is_writable_folder, write_synced

__all__ = ["Exported", "check_new_folder", "check_writable"]


@dataclass(frozen=True)
class Exported:
    """Files of an export.

    Attributes:
        name: of the model.
        files: contents by their paths; by those in the folder, if there is one.
        folder: a new folder that holds the files; None for files of their own.
        models: names of all models in them.
        notes: lines for people.
        details: further fields of the JSON object.
        changed: new contents of files that the user named, which are replaced with the others.
    """

    name: str
    files: Mapping[Path, bytes]
    folder: Path | None = None
    models: Sequence[str] = ()
    notes: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    changed: Mapping[Path, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(map(len, self.files.values()))

    def write(self) -> list[Path]:
        """Write the files, after a check that each can be written; return their paths.

        Raises:
            KronmodelError: a path can't be written, or the folder exists.
        """
        if self.folder is not None:
            return self._write_folder(self.folder)
        contents = {**self.files, **{path.resolve(): content for path, content in self.changed.items()}}
        check_writable(contents)
        beside = {path: path.with_name(f".{secrets.token_hex(8)}") for path in contents}
        try:
            for path, content in contents.items():
                write_synced(beside[path], content)
                if path.exists():
                    shutil.copymode(path, beside[path])
            for path, temporary in beside.items():
                temporary.replace(path)
        except OSError as error:
            raise KronmodelError(f"--out {', '.join(map(str, contents))} can't be written: {error.strerror}") from error
        finally:
            for temporary in beside.values():
                temporary.unlink(missing_ok=True)
        return list(self.files)

    def _write_folder(self, folder: Path) -> list[Path]:
        """Write the files to a temporary folder, and rename that."""
        check_new_folder(folder)
        beside = folder.absolute().with_name(f".{secrets.token_hex(8)}")
        try:
            for name, content in self.files.items():
                path = beside / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            beside.rename(folder)
        except OSError as error:
            raise KronmodelError(f"--out {folder} can't be written: {error.strerror}") from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return [folder / name for name in self.files]


def check_writable(paths: Iterable[Path]) -> None:
    """Check that files can be written.

    Raises:
        KronmodelError: one can't.
    """
    for path in paths:
        try:
            writable = is_writable_file(path)
        except OSError as error:
            raise KronmodelError(f"--out {path} can't be written: {error.strerror}") from error
        if not writable:
            raise KronmodelError(
                f"--out {path} can't be written: it is a folder, or its folder is missing or read-only"
            )


def check_new_folder(folder: Path) -> None:
    """Check that a folder can be created.

    Raises:
        KronmodelError: it can't, or something is there.
    """
    if folder.exists() or folder.is_symlink():
        raise KronmodelError(f"--out {folder} exists; give the path of a new folder, or remove it")
    if not is_writable_folder(folder.absolute().parent):
        raise KronmodelError(f"--out {folder} can't be written: its folder is missing or read-only")
