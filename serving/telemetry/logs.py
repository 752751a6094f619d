"""Log records as lines of text or of JSON, without the credentials of URLs.

A line of JSON has `time` (RFC 3339, UTC), `level`, `logger` and `message`; `request_id` and `route` if the record
belongs to a request; `exception`, the traceback, if there is one; and what the process adds to each record: a replica
its `application`, `deployment` and `replica`, and the `model` and `version` that it serves.
"""

import json
import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from serving.errors import RedactingFormatter, redacted

LogFormat = Literal["text", "json"]

PACKAGE = "serving"
"""The logger of this package, the parent of those of its modules."""

OTHERS = ("ray", "ray.serve", "mlflow", "alembic", "py.warnings")
"""The loggers of other packages that have handlers of their own."""

OF_A_REQUEST = ("request_id", "route")
"""The attributes of a record that name its request. Serve sets both on records of its own, this package the first."""

Context = Callable[[], Mapping[str, Any]]
"""Returns the members that a process adds to each record."""


class TextFormatter(RedactingFormatter):
    """Formats records as their message, with the identifier of the request if there is one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the first line."""
        request_id = getattr(record, "request_id", None)
        return super().formatMessage(record) + (f" (request {request_id})" if request_id else "")


class JsonFormatter(logging.Formatter):
    """Formats records as one line of JSON each.

    Args:
        context: Returns the members that this process adds to each record.
    """

    def __init__(self, context: Context = dict) -> None:
        super().__init__()
        self._context = context

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line = {
            **_line(record.created, record.levelname, record.name, record.getMessage()),
            **self._context(),
            **{name: str(value) for name in OF_A_REQUEST if (value := getattr(record, name, None))},
        }
        if record.exc_info:
            line["exception"] = redacted(self.formatException(record.exc_info))
        return json.dumps(line)


def formatter(log_format: LogFormat, context: Context = dict) -> logging.Formatter:
    """Return the formatter of a format."""
    return JsonFormatter(context) if log_format == "json" else TextFormatter()


def configure_command(log_format: LogFormat) -> None:
    """Log this process's records to stderr as JSON, those of Ray and MLflow too. Text stays as Python logs it."""
    if log_format == "json":
        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter())
        logging.getLogger().addHandler(handler)
        logging.captureWarnings(capture=True)
        use_formatter(JsonFormatter())


def configure_replica(log_format: LogFormat, context: Context) -> None:
    """Log this package's records to the stream that Ray forwards to the terminal, and as JSON also those of Serve.

    Serve's own handlers buffer that stream, and write into Serve's log files.
    """
    package = logging.getLogger(PACKAGE)
    if not package.handlers:
        handler = logging.StreamHandler(sys.__stderr__)
        handler.setFormatter(formatter(log_format, context))
        package.addHandler(handler)
    if log_format == "json":
        use_formatter(JsonFormatter(context))


def use_formatter(chosen: logging.Formatter) -> None:
    """Use a formatter in the handlers of the other packages' loggers."""
    for name in OTHERS:
        for handler in logging.getLogger(name).handlers:
            # Serve's handler only buffers records, for one that writes them.
            (getattr(handler, "target", None) or handler).setFormatter(chosen)


def forwarded(pid: int, line: str) -> str:
    """Return a line that a replica printed as this process shows it: with the replica's number, or as JSON.

    A replica logs JSON itself. What else it prints, such as the warnings of a library in C, becomes a record.
    """
    if not any(isinstance(each.formatter, JsonFormatter) for each in logging.getLogger().handlers):
        return f"[replica {pid}] {redacted(line)}"
    if line.startswith('{"time": '):
        return line
    now = datetime.now(UTC).timestamp()
    return json.dumps({**_line(now, "INFO", "stderr", line), "pid": pid})


def _line(created: float, level: str, logger: str, message: str) -> dict[str, Any]:
    """Return the members that every line has."""
    time = datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"time": time, "level": level, "logger": logger, "message": redacted(message)}
