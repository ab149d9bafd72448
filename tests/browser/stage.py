"""What browser tests play on: a server process, a web server for the harness, sounds, a speaker.

Everything listens on loopback, at ports that the kernel chose, and is gone after its block.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TypeVar
from urllib.parse import quote, urlsplit

import numpy as np
from end_to_end_server import recording

from listenai.server.page import HEADERS, web_directory

SAMPLE_RATE = 16_000
HERE = Path(__file__).parent
_TYPES = {".html": "text/html", ".js": "text/javascript", ".wav": "audio/wav"}

T = TypeVar("T")


def need(*programs: str) -> None:
    """Fails, saying what to install, where a program is not there."""
    packages = {"pactl": "pulseaudio-utils", "WebKitWebDriver": "webkit2gtk-driver", "Xvfb": "xvfb"}
    if missing := [packages.get(one, one) for one in programs if not shutil.which(one)]:
        raise AssertionError(f"please install: apt-get install -y {' '.join(missing)}")


def wait_for(what: Callable[[], T | None], seconds: float, words: str) -> T:
    """Asks until there is an answer; fails with what `words` say did not come."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, f"{words} within {seconds:g} s"
        time.sleep(0.02)  # another process cannot be waited for in any other way
    return answer


@contextmanager
def process(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
) -> Iterator[Callable[[], str]]:
    """A process that is killed at the end; gives what tells all that it has said so far.

    That goes to a file: whoever writes into a pipe that nobody reads stands still.
    """
    with (
        NamedTemporaryFile() as said,
        subprocess.Popen(
            command,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            pass_fds=pass_fds,
        ) as running,
    ):
        try:
            yield lambda: Path(said.name).read_text(errors="replace")
        finally:
            running.kill()


def wait_for_words(said: Callable[[], str], pattern: str, seconds: float = 30) -> str:
    """What a process says that matches; fails with all that it said."""
    try:
        return wait_for(lambda: re.search(pattern, said()), seconds, pattern)[0]
    except AssertionError as error:
        raise AssertionError(f"{error}; it said: {said()}") from None


@contextmanager
def server(port: int = 0, **environment: str) -> Iterator[str]:
    """A server with the embedded engines; the URL of its page.  environment: its variables."""
    command = [sys.executable, "-m", "listenai", "serve", "--host", "127.0.0.1"]
    # The harness is a page of another origin.
    env = {"CLOUD_LOG_LEVEL": "ERROR", "ALLOWED_ORIGINS": "*", **environment}
    with process([*command, "--port", str(port)], env=env) as said:
        yield wait_for_words(said, r"http://\S+/")


def websocket(url: str) -> str:
    """The WebSocket of a server, from the URL of its page."""
    return url.replace("http://", "ws://", 1)


class _Harness(BaseHTTPRequestHandler):
    """The page's modules and the harness, under the page's own policy."""

    def do_GET(self) -> None:
        name = urlsplit(self.path).path.lstrip("/")
        files = [directory / name for directory in (HERE, web_directory())]
        file = next((one for one in files if one.is_file() and one.suffix in _TYPES), None)
        content = file.read_bytes() if file else b"not here"
        self.send_response(200 if file else 404)
        for key, value in HEADERS.items():
            self.send_header(key, value)
        self.send_header("Content-Type", _TYPES.get(Path(name).suffix, "text/plain"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: a test says what went wrong."""


@contextmanager
def harness_server() -> Iterator[int]:
    """Serves the harness; its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Harness) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield httpd.server_address[1]
        finally:
            httpd.shutdown()
            thread.join()


def harness_url(port: int, server_url: str, *, host: str = "127.0.0.1", more: str = "") -> str:
    """The harness for a server."""
    return f"http://{host}:{port}/harness.html?server={quote(websocket(server_url))}{more}"


# --- sound ---------------------------------------------------------------------------------


def silence(seconds: float) -> bytes:
    """16 kHz PCM."""
    return bytes(2 * round(seconds * SAMPLE_RATE))


def microphone_file(path: Path, *parts: bytes | str) -> Path:
    """A WAV file for a fake microphone: silence as PCM, and spoken fixtures by name."""
    pcm = b"".join(recording(part) if isinstance(part, str) else part for part in parts)
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    # Chromium's fake microphone runs at 48 kHz.
    there = np.arange(len(samples) * 3) / 3
    there_pcm = np.interp(there, np.arange(len(samples)), samples).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(3 * SAMPLE_RATE)
        file.writeframes(there_pcm.tobytes())
    return path


# --- a sound card --------------------------------------------------------------------------

_SOUND_CARD = """\
load-module module-native-protocol-unix auth-anonymous=1 socket={socket}
load-module module-null-sink sink_name=speaker rate=48000 channels=2
load-module module-null-sink sink_name=room rate=48000 channels=1
load-module module-remap-source master=room.monitor source_name=microphone
set-default-sink speaker
set-default-source microphone
"""


@contextmanager
def sound_card(directory: Path) -> Iterator[dict[str, str]]:
    """A PulseAudio whose loudspeaker nobody hears; the environment of programs that use it."""
    need("pulseaudio")
    socket, script = directory / "pulse.sock", directory / "pulse.pa"
    script.write_text(_SOUND_CARD.format(socket=socket))
    command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"]
    home = {"HOME": str(directory), "XDG_RUNTIME_DIR": str(directory)}
    with process([*command, "-F", str(script)], env=home):
        wait_for(socket.exists, 10, "PulseAudio opens its socket")
        yield {**home, "PULSE_SERVER": f"unix:{socket}"}


def unplug(env: dict[str, str]) -> None:
    """The sound card of that environment goes, as when somebody pulls its plug."""
    need("pactl")
    subprocess.run(["pactl", "exit"], env={**os.environ, **env}, check=True)
