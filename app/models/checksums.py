"""SHA-256 checksums of the files of a model, compared with the list beside it, `model.onnx.sha256`."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from app.errors import ModelError

LIST_NAME = "model.onnx.sha256"  # as `sha256sum` writes it
MAX_LIST_BYTES = 2**20
_LINE = re.compile(r"\s*([0-9a-fA-F]{64})(?:\s+\*?(\S.*?))?\s*")


def checksums_of(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Compute the checksum of each file by its name.

    Raises:
        OSError: a file cannot be read.
    """
    checksums = {}
    for name in names:
        with (folder / name).open("rb") as file:
            checksums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return checksums


def read_expected(path: Path, model: str) -> dict[str, str] | None:
    """Read the expected checksum of each file from a list; None if there is no list.

    Args:
        path: of the list.
        model: name of the ONNX file, which the only line of a list is about, whatever name it has.

    Raises:
        ModelError: it is not a list of checksums.
    """
    try:
        with path.open("rb") as file:
            lines = file.read(MAX_LIST_BYTES).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return None
    expected: dict[str, str] = {}
    lines = [line for line in lines if line.strip()]
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            break
        name = model if len(lines) == 1 else (match[2] or "").removeprefix("./")
        expected[name] = match[1].lower()
    if not lines or match is None:
        raise ModelError(f"{LIST_NAME}: expected 64 hexadecimal digits and a name a line, as sha256sum writes them")
    return expected


def compare(checksums: Mapping[str, str], expected: Mapping[str, str] | None) -> str | None:
    """Compare the checksums of files with the expected ones.

    Args:
        checksums: by name.
        expected: by name; None to compare nothing.

    Returns:
        The reason to refuse the model; None if all are equal.
    """
    if expected is None:
        return None
    for name, checksum in checksums.items():
        if name not in expected:
            listed = " ".join(checksums)
            return f"{LIST_NAME} has no line for {name}, expected one: sha256sum {listed} > {LIST_NAME}"
        if checksum != expected[name]:
            return f"{name}: got SHA-256 {checksum}, expected {expected[name]} ({LIST_NAME}): copy the file again"
    return None


def summarize(checksums: Mapping[str, str]) -> str:
    """One checksum of all files: of the only file, or else of the list of checksums as `sha256sum` writes it."""
    if len(checksums) == 1:
        return next(iter(checksums.values()))
    lines = "".join(f"{checksum}  {name}\n" for name, checksum in checksums.items())
    return hashlib.sha256(lines.encode()).hexdigest()
