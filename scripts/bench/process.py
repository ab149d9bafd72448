"""A server's process: started, watched through /proc (Linux), stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

import attrs

REFERENCE = Path(__file__).with_name("reference_server.py")
START_SECONDS = 30.0
STOP_SECONDS = 5.0
# Everybody gets in: how many a server carries is what is being asked.
_LIMITS = {
    "CLOUD_MAX_CONNECTIONS": "10000",
    "CLOUD_MAX_CONCURRENT": "10000",
    "CLOUD_MEMORY_BUDGET_MB": "1000000",
}
_ADDRESS = re.compile(r"ws://[^:\s]+:(\d+)/")


@attrs.frozen
class Usage:
    """What a process has used so far, in seconds, over all its threads."""

    at: float
    cpu: float
    waited: float  # ready to run, but another had the core: how busy the machine was

    def since(self, before: Usage) -> tuple[float, float]:
        """CPU and waiting since then, as shares of one core."""
        wall = self.at - before.at
        return (self.cpu - before.cpu) / wall, (self.waited - before.waited) / wall


@attrs.frozen
class Server:
    """A running server under test."""

    name: str
    port: int
    pid: int

    def usage(self) -> Usage:
        """CPU time and run-queue waiting so far."""
        return usage_of(self.pid)

    def memory_kib(self) -> int:
        """Unique set size: what the machine would get back if the server ended now."""
        fields = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in fields if line.startswith("Private_"))

    def resident_kib(self) -> tuple[int, int]:
        """RSS, and PSS, in which memory shared with other processes counts in part."""
        fields = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in fields if line[-2:] == "kB"}
        return sizes["Rss"], sizes["Pss"]

    def threads(self) -> int:
        """How many threads there are."""
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def files(self) -> int:
        """How many file descriptors are open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def usage_of(pid: int) -> Usage:
    """A process's CPU time and run-queue waiting; threads that have ended do not count."""
    cpu = waited = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError):  # the thread has just ended
            on_core, on_queue, _ = path.read_text().split()
            cpu, waited = cpu + int(on_core), waited + int(on_queue)
    return Usage(time.monotonic(), cpu / 1e9, waited / 1e9)


def command_of(name: str, speech_ms: int) -> list[str]:
    """How to start a server that chooses its port and prints its address."""
    if name == "reference":
        return [sys.executable, str(REFERENCE), str(speech_ms)]
    options = ["--host", "127.0.0.1", "--port", "0"]
    if name == "embedded":
        return [sys.executable, "-m", "listenai", "serve", *options]
    options += ["--fake-engines"]
    return [sys.executable, "-m", "listenai", "serve", *options, "--fake-speech-ms", str(speech_ms)]


@contextmanager
def started(
    name: str,
    *,
    speech_ms: int,
    core: int | None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Server]:
    """The server, listening; stopped at the end.  RuntimeError when it does not start.

    name: "listenai" with timed engines, "embedded" with the embedded ones, or "reference".
    core: the one the server is held to; None: wherever the system puts it.
    variables: of its environment; an empty one is not set.
    """
    command = command_of(name, speech_ms)
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    environment = {k: v for k, v in (os.environ | _LIMITS | variables).items() if v}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield Server(name, _read_port(process, command), process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            process.kill()


def _read_port(process: subprocess.Popen[str], command: Sequence[str]) -> int:
    assert process.stdout
    said = ""
    for line in process.stdout:  # ends when the process does
        said += line
        if found := _ADDRESS.search(line):
            return int(found[1])
    raise RuntimeError(f"the server ended without listening: {' '.join(command)}\n{said}")
