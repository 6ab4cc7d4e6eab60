"""Arrays and structures as text of C."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["array", "comment", "floats", "structure"]

COLUMNS = 118
_TYPES = {"float32": "float", "int8": "int8_t", "uint8": "uint8_t", "int16": "int16_t", "uint16": "uint16_t",
          "int32": "int32_t"}  # fmt: skip


def array(name: str, values: NDArray[Any], about: str) -> str:
    """Write the definition of a constant array, with a comment about it."""
    kind = _TYPES[values.dtype.name]
    items = floats(values.ravel()) if values.dtype == np.float32 else map(str, values.ravel().tolist())
    text = "\n".join(_wrapped(items))
    return f"static const {kind} {name}[{values.size}] = {{ /* {about} */\n{text}\n}};\n"


def floats(values: Iterable[Any]) -> Iterable[str]:
    """Write float32 values as constants of C, with as many digits as they need."""
    for value in values:
        text = str(np.float32(value))
        yield f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def _wrapped(items: Iterable[str]) -> Iterable[str]:
    """Join items to lines of up to 118 columns."""
    line = "   "
    for item in items:
        if len(line) + len(item) + 2 > COLUMNS:
            yield line
            line = "   "
        line += f" {item},"
    yield line


def structure(kind: str, name: str, fields: Mapping[str, Any], about: str) -> str:
    """Write the definition of a constant structure by the names of its fields, with a comment about it."""
    cells = [f".{field} = {value}" for field, value in fields.items()]
    text = textwrap.fill(", ".join(cells), COLUMNS, initial_indent="    ", subsequent_indent="    ",
                         break_long_words=False, break_on_hyphens=False)  # fmt: skip
    return f"static const struct {kind} {name} = {{ /* {about} */\n{text}\n}};\n"


def comment(lines: Iterable[str]) -> str:
    """Write lines as a comment, long ones as several; what would end it, or continue a line, is taken out of them."""
    text = []
    for line in lines:
        plain = "".join(c if c.isprintable() else " " for c in line)
        plain = plain.replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?").rstrip("\\ ")
        indent = " " * (len(plain) - len(plain.lstrip()))
        text += textwrap.wrap(plain, COLUMNS - 3, subsequent_indent=indent) or [""]
    return "\n".join([f"/* {text[0]}", *(f" * {line}".rstrip() for line in text[1:]), " */"]) + "\n"
