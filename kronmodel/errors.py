"""Errors that a user can mend, and messages that name arguments. The command line prints each in one line."""

from __future__ import annotations

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
    "TrainingError",
]


@dataclass(frozen=True)
class Argument:
    """An argument of the library within a :class:`Message`. The command line prints its own option instead.

    Attributes:
        name: of the argument.
        value: to give it, such as ``True``; None names the argument alone.
    """

    name: str
    value: object = None

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}={self.value!r}"


class Message(str):
    """A text that names arguments of the library, which another front end can spell in its own way.

    Args:
        parts: texts and arguments, in their order.

    Example:
        >>> print(Message("the file has 2 bad rows; leave them out with ", Argument("skip_bad_rows", True)))
        the file has 2 bad rows; leave them out with skip_bad_rows=True
    """

    __slots__ = ("parts",)

    parts: tuple[str | Argument, ...]

    def __new__(cls, *parts: str | Argument) -> Message:
        """Join the parts, spelling arguments as the library does."""
        message = super().__new__(cls, "".join(map(str, parts)))
        message.parts = parts
        return message

    def __getnewargs__(self) -> Any:
        return self.parts


class KronmodelError(Exception):
    """Base of the errors below."""


class DataError(KronmodelError):
    """A data set is missing, damaged or of another form than expected."""


class TrainingError(KronmodelError):
    """Training could not go on, for example because the loss is no longer finite."""


class CheckpointError(KronmodelError):
    """A checkpoint can't be written, is damaged, or belongs to another training."""


class LoadError(KronmodelError):
    """A saved network is missing, damaged, or of another format."""


class ExportError(KronmodelError):
    """An exported model failed a check, or could not be written; nothing was published."""
