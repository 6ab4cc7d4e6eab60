"""The log: lines for people, or one JSON object a line, with the id of the request that they are about."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from app.telemetry import request_id

if TYPE_CHECKING:
    from app.settings import Settings

_EXTRAS = ("status", "seconds")


class JsonFormatter(logging.Formatter):
    """`{"time", "level", "logger", "message", "request_id"?, "status"?, "seconds"?, "exception"?}`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (current := request_id.current.get()) is not None:
            fields["request_id"] = current
        fields |= {name: vars(record)[name] for name in _EXTRAS if name in vars(record)}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """`LEVEL: message`, what else is known in brackets."""

    def format(self, record: logging.LogRecord) -> str:
        """A line, and a traceback where there is one."""
        text = f"{record.levelname}: {_in_one_line(record.getMessage())}"
        known = [f"{name} {vars(record)[name]}" for name in _EXTRAS if name in vars(record)]
        if (current := request_id.current.get()) is not None:
            known.append(f"request {current}")
        text += f" ({', '.join(known)})" if known else ""
        return text if not record.exc_info else f"{text}\n{self.formatException(record.exc_info)}"


def _in_one_line(message: str) -> str:
    """With escapes for what does not print: a path that somebody asks for must not look like a line of its own."""
    if message.isprintable():
        return message
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in message)


def configure_logging(settings: "Settings") -> None:
    """Everything that is logged goes to standard error, in the format that was chosen."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    if settings.access_log:
        logging.getLogger("app.access").setLevel(logging.INFO)
