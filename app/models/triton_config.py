"""Triton's `config.pbtxt` beside the versions of a model, of which the fields about batches are read."""

import re
from dataclasses import dataclass
from pathlib import Path

FILE_NAME = "config.pbtxt"
MAX_BYTES = 64 * 1024
MAX_BATCH_SIZE = 2**31 - 1
# Protobuf's text format: blanks and comments, texts, numbers and names, and single characters.
_TOKEN = re.compile(
    r"""(?P<blank>\s+|\#[^\n]*)|(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|(?P<word>[\w.+-]+)|(?P<mark>[{}<>\[\]:,;/])"""
)
_CLOSING = {"{": "}", "<": ">", "[": "]"}


@dataclass(frozen=True, slots=True)
class TritonConfig:
    """The fields of a model's configuration that are read.

    Args:
        max_batch_size: most rows of a request and of a run; 0 for a model without a batch axis; None if not stated.
        dynamic_batching: requests may be joined.
        error: why the file cannot be read, with the line; None if it can, or is not there.
    """

    max_batch_size: int | None = None
    dynamic_batching: bool = False
    error: str | None = None

    @property
    def batch_axis(self) -> bool | None:
        """Whether the first axis is the batch; None to go by the shapes of the graph."""
        return None if self.max_batch_size is None else self.max_batch_size > 0

    def why_alone(self) -> str | None:
        """Why each request runs alone, as far as this file decides it; None if it does not."""
        if self.error is not None:
            return f"{FILE_NAME} cannot be read: {self.error}"
        if self.max_batch_size == 0:
            return f"max_batch_size is 0 in {FILE_NAME}"
        if self.max_batch_size is not None and not self.dynamic_batching:
            return f"{FILE_NAME} has max_batch_size without dynamic_batching"
        return None


class _ConfigError(Exception):
    """The file is not in protobuf's text format, or a field has a wrong value."""


def read_config(folder: Path) -> TritonConfig:
    """Read the configuration in a model's folder; a model without one has the defaults."""
    try:
        with (folder / FILE_NAME).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return TritonConfig()
    except OSError as error:
        return TritonConfig(error=error.strerror or type(error).__name__)
    if len(content) > MAX_BYTES:
        return TritonConfig(error=f"got more than {MAX_BYTES} bytes")
    try:
        return parse_config(content.decode())
    except UnicodeDecodeError as error:
        return TritonConfig(error=f"line {content.count(10, 0, error.start) + 1}: not UTF-8")


def parse_config(text: str) -> TritonConfig:
    """Parse a configuration in protobuf's text format."""
    fields: dict[str, str] = {}
    try:
        _read_fields(_Tokens(text), fields)
    except _ConfigError as error:
        return TritonConfig(error=str(error))
    size = fields.get("max_batch_size")
    return TritonConfig(None if size is None else int(size, 0), "dynamic_batching" in fields)


class _Tokens:
    """The tokens of a text, one after the other, with the line of the last one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self.line = 1

    def peek(self) -> str:
        """The next token, which stays; empty at the end."""
        while self._position < len(self._text):
            match = _TOKEN.match(self._text, self._position)
            if match is None:
                raise self.error(f"got {self._text[self._position]!r}, expected a field")
            if match.lastgroup != "blank":
                return match.group()
            self._take(match.group())
        return ""

    def next(self) -> str:
        """The next token."""
        token = self.peek()
        self._take(token)
        return token

    def _take(self, token: str) -> None:
        self._position += len(token)
        self.line += token.count("\n")

    def error(self, reason: str) -> _ConfigError:
        """An error that names the present line."""
        return _ConfigError(f"line {self.line}: {reason}")


def _read_fields(tokens: _Tokens, fields: dict[str, str]) -> None:
    """Read the fields of the outermost message; the content of other messages and lists is skipped."""
    while name := tokens.next():
        if name in {",", ";"} and fields:
            continue
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise tokens.error(f"got {name[:40]!r}, expected the name of a field")
        has_colon = tokens.peek() == ":"
        if has_colon:
            tokens.next()
        value = tokens.next()
        if value in _CLOSING:
            _skip(tokens, value)
        elif not value or value in {"}", ">", "]", ":", ",", ";", "/"} or not has_colon:
            raise tokens.error(f"{name[:40]}: got {value[:40]!r}, expected a value")
        if value[0] in "\"'":
            while tokens.peek()[:1] in {'"', "'"}:  # adjacent texts are one
                tokens.next()
        if name in {"max_batch_size", "dynamic_batching"} and name in fields:
            raise tokens.error(f"got {name} twice, expected it once")
        if name == "max_batch_size" and not _is_size(value):
            raise tokens.error(f"max_batch_size: got {value[:40]!r}, expected an integer from 0 to {MAX_BATCH_SIZE}")
        if name == "dynamic_batching" and value not in {"{", "<"}:
            raise tokens.error(f"dynamic_batching: got {value[:40]!r}, expected {{ }}")
        fields[name] = value


def _is_size(value: str) -> bool:
    return bool(re.fullmatch(r"0|[1-9][0-9]{0,9}|0[xX][0-9a-fA-F]{1,8}", value)) and int(value, 0) <= MAX_BATCH_SIZE


def _skip(tokens: _Tokens, opening: str) -> None:
    """Skip to the end of a message or list whose opening bracket was read."""
    expected = [_CLOSING[opening]]
    while expected:
        token = tokens.next()
        if not token:
            raise tokens.error(f"the file ends, expected {expected[-1]!r}")
        if token in _CLOSING:
            expected.append(_CLOSING[token])
        elif token in {"}", ">", "]"} and token != expected.pop():
            raise tokens.error(f"got {token!r}, expected another bracket")
