"""Sections of the hand-written C files, of which each source file takes those that its network needs."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Set
from pathlib import Path

from kronmodel.errors import ExportError

__all__ = ["take"]

FOLDER = Path(__file__).with_name("runtime")
_TITLE = re.compile(r"^/\*== ([\w.]+) ==\*/\n", re.MULTILINE)
_OPTIONAL = re.compile(r"^/\*@(\w+)\*/\n(.*?)^/\*@end\*/\n", re.MULTILINE | re.DOTALL)


@functools.cache
def _sections(file: str) -> dict[str, str]:
    try:
        text = (FOLDER / file).read_text(encoding="utf-8")
    except OSError as error:
        raise ExportError(f"the template {file} can't be read: {error.strerror}; install kronmodel again") from error
    _, *parts = _TITLE.split(text)
    return {name: body.strip() + "\n" for name, body in zip(parts[::2], parts[1::2], strict=True)}


def take(file: str, names: Iterable[str], options: Set[str]) -> str:
    """Join sections of a file.

    Args:
        file: name of the file.
        names: of the sections, in their order.
        options: names of the optional parts of sections to keep, which stand between ``/*@name*/`` and ``/*@end*/``.
    """
    text = "\n".join(_sections(file)[name] for name in names)
    return _OPTIONAL.sub(lambda match: match[2] if match[1] in options else "", text)
