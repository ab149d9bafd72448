"""Logs on standard error: one JSON object a line, or text to read while trying things."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

_TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
# They tell of every request, some with the URL: its query may hold a key.
NOISY = ("httpx", "httpcore", "hypercorn", "trio-websocket", "websockets")


class JsonFormatter(logging.Formatter):
    """{"time": ISO 8601 in UTC, "level", "logger", "event", "exception"?: traceback}.

    ASCII only, so that no line breaks a terminal or a collector.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            entry["stack"] = self.formatStack(record.stack_info)
        return json.dumps(entry)


def start_logging(level: str, log_format: str) -> None:
    """Logs everything from this level on; log_format: "json" or "text".

    Starting again replaces what was started before.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
