"""Logs as lines of JSON, on the process's standard error, which Ray keeps (`logs/worker-*.err`).

Nothing that a caller sent is written: an endpoint is the route's template, never the address that was asked for, and
of an exception its type and where it was raised, not its message, which may hold an id or a token.
"""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

_ROOT = "serving"


def install(stream: TextIO = sys.stderr) -> None:
    """Write what `serving.*` logs, from INFO on, to `stream`; again is the same as once."""
    root = logging.getLogger(_ROOT)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False


class JsonLines(logging.Formatter):
    """One object a line: `time`, `level`, then `fields` of the record, else its logger and message."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        fields: dict[str, Any] | None = getattr(record, "fields", None)
        line |= {"logger": record.name, "message": record.getMessage()} if fields is None else fields
        if record.exc_info is not None and record.exc_info[1] is not None:
            line["exception"] = _without_message(record.exc_info[1])
        return json.dumps(line, ensure_ascii=True)


def _without_message(error: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "type": type(error).__qualname__,
        "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
