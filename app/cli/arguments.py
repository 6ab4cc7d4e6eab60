"""Arguments of the commands that measure, and reports as JSON."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from app.errors import StartupError
from app.settings import option

if TYPE_CHECKING:
    from pydantic import BaseModel

    M = TypeVar("M", bound=BaseModel)

AddOptions = Callable[[argparse.ArgumentParser, Sequence[str]], None]


def request_of(fields: dict[str, Any], kind: "type[M]") -> "M":
    """Validate options as a request; an error names the option."""
    from pydantic import ValidationError

    from app.parsing import explain

    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        raise StartupError(f"{option(field)}: {explain(error)}") from None


def numbers(name: str, text: str) -> list[int]:
    """Parse integers with commas between them; an error names the option `name`."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise StartupError(f"{name}: got {text!r}, expected numbers such as 1,32") from None


def read_file(name: str, path: Path, max_bytes: int) -> bytes:
    """Read the file of the option `name`; one of more than `max_bytes` is refused."""
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise StartupError(f"{name}: {path}: got {size} bytes, expected at most {max_bytes}")
        return path.read_bytes()
    except OSError as error:
        raise StartupError(f"{name}: {path} cannot be read: {error.strerror}") from None


def print_json(value: object) -> None:
    """Print a report as indented JSON."""
    import orjson

    print(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
