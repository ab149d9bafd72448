"""Logs on standard error: one JSON object a line, or text to read while trying things.

Who logs never waits for who reads.  A pipe that nobody empties blocks whoever writes to it, and
on Trio's loop that would be every conversation: a record gets its fields and its message in the
task that logs, and a thread makes lines of them and writes these.  It writes several at once,
since whenever it wakes it takes the core and the interpreter from the loop, in mid turn.

So many records wait; more are dropped, counted, and told as soon as there is room.  `logging`
closes its handlers at exit, and closing waits, for a bounded time, until all lines are written;
the standard library's QueueListener waits without a bound, and fails to stop where its queue is
full.  The thread writes past `sys.stderr`: should it be stuck at exit, it must not hold the
stream's lock, for which the interpreter would wait for ever.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from copy import copy
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from threading import Event, Thread
from types import MappingProxyType
from typing import TextIO

MAX_WAITING = 5_000  # records, 4 to 5 MiB; some seconds of a hundred busy devices
GATHER_SECONDS = 0.05  # how long the first line waits for others, which are written with it
MAX_LINES_AT_ONCE = 500
CLOSE_SECONDS = 1.0  # a reader that takes nothing for so long at exit has lost the rest

_TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_PLAIN = re.compile(r"[^\s\"'=]+")
# They tell of every request, some with the URL: its query may hold a key.
NOISY = ("httpx", "httpcore", "hypercorn", "trio-websocket", "urllib3", "websockets")


# --- bound fields --------------------------------------------------------------------------

_bound: ContextVar[Mapping[str, object]] = ContextVar("_bound", default=MappingProxyType({}))


def bind(**fields: object) -> None:
    """Adds fields to every record of this task, and of the tasks and threads it starts from now.

    None takes a field away.  A record's own field wins over a bound one.
    """
    bound = {**_bound.get(), **fields}
    _bound.set({name: value for name, value in bound.items() if value is not None})


class BoundFields(logging.Filter):
    """Gives every record of every logger its `fields`: what is bound, and its own."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets it pass."""
        record.fields = {**_bound.get(), **_fields(record)}
        return True


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    """What was logged with `extra={"fields": …}`."""
    fields: Mapping[str, object] = getattr(record, "fields", {})
    return fields


# --- lines ---------------------------------------------------------------------------------


_encode = json.JSONEncoder(default=str).encode  # `json.dumps` would make one for each line


class JsonFormatter(logging.Formatter):
    """{"time": ISO 8601 in UTC, "level", "logger", "event", fields…, "exception"?: traceback}.

    ASCII only, so that no line breaks a terminal or a collector.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
        }
        for name, value in _fields(record).items():
            entry.setdefault(name, value)
        if record.exc_info:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            entry["exception"] = record.exc_text
        if record.stack_info:
            entry["stack"] = self.formatStack(record.stack_info)
        return _encode(entry)


class TextFormatter(logging.Formatter):
    """Time, level, logger and event, then the fields as key=value, quoted where need be."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base's name
        """The line before tracebacks."""
        fields = (f" {name}={_as_text(value)}" for name, value in _fields(record).items())
        return super().formatMessage(record) + "".join(fields)


def _as_text(value: object) -> str:
    text = str(value)
    plain = _PLAIN.fullmatch(text) and text.isprintable()
    return text if plain else json.dumps(text)


# --- the thread that writes ----------------------------------------------------------------


class ThreadHandler(logging.Handler):
    """Writes lines in a thread of its own; never waits, but when it is closed."""

    def __init__(self, write: Callable[[str], object]) -> None:
        """write: may block; lines for which it raises OSError or ValueError are lost."""
        super().__init__()
        self._write = write
        self._records: SimpleQueue[logging.LogRecord | None] = SimpleQueue()
        self._closing = Event()
        self._refused = 0  # changed under the handler's lock
        self._lost = 0  # changed by the thread alone
        self._thread = Thread(target=self._write_lines, name="logs", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that were never written."""
        return self._refused + self._lost

    def emit(self, record: logging.LogRecord) -> None:
        """Hands the record to the thread, unless too many wait; its fields must not change."""
        if self._records.qsize() >= MAX_WAITING:
            self._refused += 1
            return
        try:
            self._records.put(_settled(record))
        except Exception:  # a malformed record: logging's own way of telling
            self.handleError(record)

    def close(self) -> None:
        """Waits until all lines are written, or CLOSE_SECONDS."""
        self._closing.set()
        self._records.put(None)  # wakes the thread
        self._thread.join(CLOSE_SECONDS)
        super().close()

    def _write_lines(self) -> None:
        told = 0
        while not (self._closing.is_set() and self._records.empty()):
            self._write_out(self._gather())
            if (dropped := self.dropped) > told:
                self._write_out([_dropping(dropped - told)])
                told = dropped

    def _gather(self) -> list[logging.LogRecord]:
        """The records that there are a moment after the first; waits for that."""
        records = [self._records.get()]
        self._closing.wait(GATHER_SECONDS)
        with suppress(Empty):
            while len(records) < MAX_LINES_AT_ONCE:
                records.append(self._records.get_nowait())
        return [record for record in records if record]  # but for what only wakes us

    def _write_out(self, records: list[logging.LogRecord]) -> None:
        lines = []
        for record in records:
            try:
                lines.append(self.format(record) + "\n")
            except Exception:  # fields that cannot be told: not from here, past `sys.stderr`
                self._lost += 1
        try:
            self._write("".join(lines))
        except (OSError, ValueError):  # nobody is at the other end, or it was closed
            self._lost += len(lines)


def _settled(record: logging.LogRecord) -> logging.LogRecord:
    """The record without what may change meanwhile, or should be freed soon."""
    if isinstance(record.msg, str) and not record.args and not record.exc_info:
        return record
    settled = copy(record)  # others may handle it too
    settled.msg, settled.args = record.getMessage(), None
    if record.exc_info:
        settled.exc_text = logging.Formatter().formatException(record.exc_info)
        settled.exc_info = None
    return settled


def _dropping(lines: int) -> logging.LogRecord:
    level = logging.WARNING
    record = logging.LogRecord(__name__, level, __file__, 0, "log_lines_dropped", (), None)
    record.fields = {"lines": lines}
    return record


def _writer(stream: TextIO) -> Callable[[str], object]:
    """Writes to the stream's file, past its buffer and lock; to the stream where it has no file."""
    try:
        file = stream.fileno()
    except (OSError, ValueError):
        return stream.write

    def write(line: str) -> None:
        rest = line.encode(errors="backslashreplace")
        while rest:
            rest = rest[os.write(file, rest) :]

    return write


def start_logging(level: str, log_format: str) -> ThreadHandler:
    """Logs everything from this level on; log_format: "json" or "text".

    Starting again replaces what was started before.  Returns the handler, which counts what it
    had to drop.
    """
    handler = ThreadHandler(_writer(sys.stderr))
    handler.addFilter(BoundFields())
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return handler
