"""Exceptions for errors that the user can fix, and messages that name arguments of the library."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Argument",
    "CheckpointError",
    "DataError",
    "ExportError",
    "KronmodelError",
    "LoadError",
    "Message",
    "NativeError",
    "TrainingError",
    "is_out_of_memory",
    "out_of_memory_text",
]

# Texts of the errors of torch's allocators, of oneDNN and of C++, which have no class of their own on the CPU.
_OUT_OF_MEMORY = (
    "out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc",
    "failed to map segment",  # of a library that is being imported
)  # fmt: skip
_AMOUNT = re.compile(r"allocate (\d[\d.]*) ?(bytes|[KMGT]iB)")


@dataclass(frozen=True)
class Argument:
    """Reference to an argument of the library in a :class:`Message`; the command line prints the matching option.

    Attributes:
        name: name of the argument.
        value: value to show with the name, such as ``True``; None shows the name alone.
    """

    name: str
    value: object = None

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}={self.value!r}"


class Message(str):
    """Message text whose references to arguments another front end can format in its own way.

    Args:
        parts: texts and arguments, in the order in which they are joined.

    Example:
        >>> print(Message("the file has 2 bad rows; leave them out with ", Argument("skip_bad_rows", True)))
        the file has 2 bad rows; leave them out with skip_bad_rows=True
    """

    __slots__ = ("parts",)

    parts: tuple[str | Argument, ...]

    def __new__(cls, *parts: str | Argument) -> Message:
        """Join the parts, with arguments in Python syntax."""
        message = super().__new__(cls, "".join(map(str, parts)))
        message.parts = parts
        return message

    def __getnewargs__(self) -> Any:
        return self.parts


class KronmodelError(Exception):
    """Base class of all errors that the user can fix; the command line prints them in one line."""


class DataError(KronmodelError):
    """Error of a data set that is missing, damaged or in an unexpected format."""


class TrainingError(KronmodelError):
    """Error that ends a training, for example a loss that is not finite."""


class CheckpointError(KronmodelError):
    """Error of a checkpoint that can't be written, is damaged, or belongs to another training."""


class LoadError(KronmodelError):
    """Error of a saved network that is missing, damaged, or in an unexpected format."""


class NativeError(KronmodelError):
    """Error of the native library, which is not available or can't be used on this machine."""


class ExportError(KronmodelError):
    """Error of an exported model that failed a check or could not be written; nothing was published."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of Python, numpy or torch says that memory could not be allocated, on the CPU or a GPU."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | ImportError) and any(words in text for words in _OUT_OF_MEMORY)
    )


def out_of_memory_text(error: BaseException) -> str:
    """Describe such an error in one line, with the size of the allocation that failed if the error has it."""
    found = _AMOUNT.search(str(error))
    if found is None:
        return "out of memory"
    number, unit = found.groups()
    amount = f"{int(number):,} bytes" if unit == "bytes" and number.isdecimal() else f"{number} {unit}"
    return f"out of memory: {amount} more could not be allocated"
