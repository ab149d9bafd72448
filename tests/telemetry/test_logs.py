"""Logs: one JSON object a line, whatever is in it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

from listenai.telemetry.logs import NOISY, JsonFormatter, start_logging


@contextmanager
def logging_with(level: str, log_format: str) -> Iterator[io.StringIO]:
    """What goes to standard error; the loggers are afterwards as they were."""
    root = logging.getLogger()
    handlers, root_level = root.handlers[:], root.level
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in NOISY}
    for handler in handlers:  # starting would close them
        root.removeHandler(handler)
    stream = io.StringIO()
    with redirect_stderr(stream):
        start_logging(level, log_format)
    try:
        yield stream
    finally:
        root.handlers[:] = handlers
        root.setLevel(root_level)
        for logger, before in levels.items():
            logger.setLevel(before)


def test_a_record_is_one_object_in_one_line():
    """Line breaks and other alphabets in it stay inside; the time has its zone."""
    with logging_with("INFO", "json") as said:
        logging.getLogger("a.b").info("event key=%s", "x\ny\u2028 语 \udcff")
    [line] = said.getvalue().splitlines()
    entry = json.loads(line)
    assert line.isascii()
    assert entry.pop("time").endswith("+00:00")
    assert entry == {"level": "INFO", "logger": "a.b", "event": "event key=x\ny\u2028 语 \udcff"}


def test_an_exception_comes_with_its_traceback():
    """In the same line."""
    with logging_with("INFO", "json") as said:
        try:
            raise ValueError("no")
        except ValueError:
            logging.getLogger("a").exception("failed")
    [line] = said.getvalue().splitlines()
    entry = json.loads(line)
    assert entry["event"] == "failed"
    assert entry["exception"].startswith("Traceback")
    assert entry["exception"].endswith("ValueError: no")


def test_the_time_is_that_of_the_record():
    """In UTC, to the millisecond."""
    record = logging.makeLogRecord({"created": 1_767_225_600.25, "msg": "x"})
    assert json.loads(JsonFormatter().format(record))["time"] == "2026-01-01T00:00:00.250+00:00"


def test_text_is_for_reading():
    """Time, level, logger and event."""
    with logging_with("INFO", "text") as said:
        logging.getLogger("a.b").warning("event key=%d", 1)
    assert said.getvalue().endswith(" WARNING a.b event key=1\n")


def test_the_level_is_obeyed_and_libraries_are_quiet():
    """A library's log of requests may hold keys, whatever level is asked for."""
    with logging_with("WARNING", "json") as said:
        logging.getLogger("a").info("not this")
    assert said.getvalue() == ""
    with logging_with("DEBUG", "json") as said:
        logging.getLogger("a").debug("this")
        for name in NOISY:
            logging.getLogger(name).info("GET http://x/?key=secret")
    [line] = said.getvalue().splitlines()
    assert json.loads(line)["event"] == "this"
