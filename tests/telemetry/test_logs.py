"""Logs: one JSON object a line, whatever is in it, and nobody waits for who reads them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading

import trio
from observed import entries, logging_with

from listenai.telemetry import logs
from listenai.telemetry.logs import NOISY, JsonFormatter, ThreadHandler, bind

LOG = logging.getLogger("a.b")


def test_a_record_is_one_object_in_one_line():
    """Line breaks and other alphabets in it stay inside; the time has its zone."""
    with logging_with("INFO", "json") as said:
        LOG.info("event key=%s", "x\ny\u2028 语 \udcff")
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
            LOG.exception("failed")
    [entry] = entries(said)
    assert entry["event"] == "failed"
    assert entry["exception"].startswith("Traceback")
    assert entry["exception"].endswith("ValueError: no")


def test_the_time_is_that_of_the_record():
    """In UTC, to the millisecond."""
    record = logging.makeLogRecord({"created": 1_767_225_600.25, "msg": "x"})
    assert json.loads(JsonFormatter().format(record))["time"] == "2026-01-01T00:00:00.250+00:00"


def test_text_is_for_reading():
    """Time, level, logger, event, then fields; what is not plain is quoted and keeps its line."""
    fields = {"turn": 3, "peer": "[::1]:80", "words": "a b", "forged": "x\n2026 ERROR"}
    with logging_with("INFO", "text") as said:
        LOG.warning("event key=%d", 1, extra={"fields": fields})
    shown = ' turn=3 peer=[::1]:80 words="a b" forged="x\\n2026 ERROR"\n'
    assert said.getvalue().endswith(" WARNING a.b event key=1" + shown)


def test_the_level_is_obeyed_and_libraries_are_quiet():
    """A library's log of requests may hold keys, whatever level is asked for."""
    with logging_with("WARNING", "json") as said:
        LOG.info("not this")
    assert said.getvalue() == ""
    with logging_with("DEBUG", "json") as said:
        LOG.debug("this")
        for name in NOISY:
            logging.getLogger(name).info("GET http://x/?key=secret")
    assert [entry["event"] for entry in entries(said)] == ["this"]


# --- bound fields --------------------------------------------------------------------------


async def test_what_is_bound_holds_in_a_task_and_those_it_starts():
    """Also in their threads; not in tasks beside it, which bind for themselves."""

    async def converse(name: str, session: str, *, task_status: trio.TaskStatus[None]) -> None:
        bind(connection=name)
        async with trio.open_nursery() as nursery:
            await nursery.start(listen)  # before there is a session
            bind(session=session)
            nursery.start_soon(trio.to_thread.run_sync, LOG.info, "in a thread")
            task_status.started()

    async def listen(*, task_status: trio.TaskStatus[None]) -> None:
        LOG.info("listening")
        task_status.started()

    with logging_with("INFO", "json") as said:
        async with trio.open_nursery() as nursery:
            await nursery.start(converse, "k-1", "s-1")
            await nursery.start(converse, "k-2", "s-2")
        LOG.info("outside")
    found = {
        (entry["event"], entry.get("connection"), entry.get("session")) for entry in entries(said)
    }
    assert found == {
        ("listening", "k-1", None),
        ("in a thread", "k-1", "s-1"),
        ("listening", "k-2", None),
        ("in a thread", "k-2", "s-2"),
        ("outside", None, None),
    }


async def test_a_field_is_taken_away_and_a_records_own_wins():
    """None unbinds; what the record itself says is not overwritten, nor is what every line has."""
    with logging_with("INFO", "json") as said:
        bind(connection="k-1", turn=4, level="a field")
        LOG.info("own", extra={"fields": {"turn": 5}})
        bind(turn=None)
        LOG.info("taken away")
    own, taken_away = entries(said)
    assert (own["turn"], own["connection"], own["level"]) == (5, "k-1", "INFO")
    assert "turn" not in taken_away


# --- the thread that writes ----------------------------------------------------------------


def test_too_many_lines_are_dropped_counted_and_told(monkeypatch):
    """Who logs does not wait; what waits is written, then how many were not."""
    monkeypatch.setattr(logs, "MAX_WAITING", 3)
    monkeypatch.setattr(logs, "GATHER_SECONDS", 0)
    writing, readable = threading.Event(), threading.Event()
    lines: list[str] = []

    def write(line: str) -> None:
        writing.set()
        readable.wait()
        lines.append(line)

    handler = ThreadHandler(write)
    handler.setFormatter(JsonFormatter())
    records = [logging.makeLogRecord({"msg": f"line {number}"}) for number in range(8)]
    handler.handle(records[0])
    writing.wait()  # it is stuck; three more fit
    for record in records[1:]:
        handler.handle(record)
    assert handler.dropped == 4
    readable.set()
    handler.close()
    events = [json.loads(line) for line in "".join(lines).splitlines()]
    assert [entry["event"] for entry in events if "lines" not in entry] == [
        *("line 0", "line 1", "line 2", "line 3")
    ]
    [told] = [entry for entry in events if "lines" in entry]
    assert (told["event"], told["level"], told["lines"]) == ("log_lines_dropped", "WARNING", 4)


def test_lines_of_one_moment_are_written_together(monkeypatch):
    """The thread wakes once for them, and closing does not wait for others."""
    monkeypatch.setattr(logs, "GATHER_SECONDS", 60)
    written: list[str] = []
    handler = ThreadHandler(written.append)
    for number in range(3):
        handler.handle(logging.makeLogRecord({"msg": f"line {number}"}))
    handler.close()
    assert written == ["line 0\nline 1\nline 2\n"]


def test_lines_are_lost_and_counted_when_nobody_is_at_the_other_end():
    """The thread lives on, for a reader who comes back."""
    lines: list[str] = []
    tried = threading.Semaphore(0)
    there = False

    def write(line: str) -> None:
        tried.release()
        if not there:
            raise BrokenPipeError
        lines.append(line)

    handler = ThreadHandler(write)
    handler.handle(logging.makeLogRecord({"msg": "lost"}))
    for _ in range(2):  # the line, and the line that tells of it
        tried.acquire()
    there = True
    handler.handle(logging.makeLogRecord({"msg": "here"}))
    handler.close()
    assert lines[0] == "here\n"
    assert handler.dropped == 2


TALKATIVE = """
import logging, sys
from listenai.telemetry.logs import start_logging
handler = start_logging("INFO", "json")
for number in range(int(sys.argv[1])):
    logging.getLogger("a").info("line %d", number)
print(handler.dropped, flush=True)
"""


def test_a_standard_error_that_nobody_reads_stops_nobody():
    """The process logs on, drops and counts, and ends in a bounded time with its own status."""
    command = [sys.executable, "-c", TALKATIVE, "20000"]
    # Where it is set, `sys.stderr` has no lock that could be held at exit.
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=buffered
    ) as process:
        guard = threading.Timer(30, process.kill)
        guard.start()
        assert process.stdout
        dropped = int(process.stdout.read())
        status = process.wait()
        guard.cancel()
    assert status == 0
    too_many = 20_000 - logs.MAX_WAITING
    taken = 4 * logs.MAX_LINES_AT_ONCE  # at most: what a pipe holds, and what is being written
    assert too_many - taken < dropped < too_many


def test_nothing_is_lost_at_exit():
    """What still waits when the program is over is written."""
    command = [sys.executable, "-c", TALKATIVE, "5000"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "0\n"
    said = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert said == [f"line {number}" for number in range(5000)]
