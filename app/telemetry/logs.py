"""Log formats, as text or as one JSON object per line; both with the id of the current request."""

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
        """Format a record as one line."""
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
    """`LEVEL: message (status 200, seconds 0.1, request id)`; in brackets what the record has."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line, followed by its traceback if it has one."""
        text = f"{record.levelname}: {_escape(record.getMessage())}"
        extras = [f"{name} {vars(record)[name]}" for name in _EXTRAS if name in vars(record)]
        if (current := request_id.current.get()) is not None:
            extras.append(f"request {current}")
        text += f" ({', '.join(extras)})" if extras else ""
        return text if not record.exc_info else f"{text}\n{self.formatException(record.exc_info)}"


def _escape(message: str) -> str:
    """Escape unprintable characters: a path that a client requests must not be able to forge a line of the log."""
    if message.isprintable():
        return message
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in message)


def announce(settings: "Settings", message: str) -> None:
    """Print a message of the start to standard output at any log level: as text, or as one JSON object."""
    if settings.log_format == "json":
        message = JsonFormatter().format(logging.makeLogRecord({"name": "app", "levelname": "INFO", "msg": message}))
    print(message, flush=True)


def configure_logging(settings: "Settings") -> None:
    """Configure the logging of this process, for commands only: all loggers write to standard error in one format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    if settings.access_log:
        logging.getLogger("app.access").setLevel(logging.INFO)
