"""What one frame of 512 bytes costs, stage by stage: see README.md.

Each stage is called as the server calls it, alone, with the same speech; its figure is the CPU
time of the calling thread, which other programs on the machine lengthen less than they do wall
time.  The last row is a whole server process that listens to silence from many devices.
"""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import attrs
import click
import trio
from load import BINARY, Run, masked_frame
from process import Usage, started
from report import Row, table, write_json
from speech import SUSPICION, make_loop, read_clip

from listenai.audio import FRAME_BYTES, FRAME_SECONDS
from listenai.conversation.limits import RateLimits, measure
from listenai.device import UNCONDITIONED
from listenai.dialects.listenai import ListenAIDialect
from listenai.engines.ears import SegmentingRecognizerFactory
from listenai.engines.segmenter import Segmenter
from listenai.engines.ten_vad import TenVadDetector
from listenai.engines.timed import TimedTranscriber
from listenai.events import AudioReceived
from listenai.server.frames import Frames
from listenai.server.head import parse_head
from listenai.server.websocket import serve_websocket
from listenai.wire import Wire

FIXTURE = Path(__file__).parents[2] / "tests" / "data" / "weather_beijing.wav"
SPEECH_MS = 600
CAP_SECONDS = 30.0
MESSAGE_SECONDS = 0.001  # between two messages: the reader has gone to sleep before the next
WARM_FRAMES = 63  # a second: what the served devices play before the measurement
AUDIO_OWNER = ""
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
HEADINGS = {
    "stage": "stage",
    "us_p50": "us a frame, p50",
    "us_min": "min",
    "us_max": "max",
    "devices": "N",
    "waited": "waited",
}

Play = Callable[[Sequence[bytes]], Awaitable[None]]  # one round: a stage takes all the frames


class Recorded:
    """A detector that knows its answers: what is left is the rest of the recognizer."""

    def __init__(self, probabilities: Sequence[float]) -> None:
        self._probabilities = probabilities
        self._next = 0

    def process(self, _frame: bytes) -> float:
        """The next answer; after the last, the first again."""
        self._next += 1
        return self._probabilities[(self._next - 1) % len(self._probabilities)]


async def feed(frames: Sequence[bytes]) -> None:
    """Bytes to messages; a frame at a time, as a device in real time sends them."""
    core, head = Frames(), parse_head(HANDSHAKE)
    assert head
    core.shake_hands(head)
    with _counting("frames.feed") as count:
        for frame in _masked(frames):
            core.feed(frame)
            core.messages.popleft()
    count(len(frames))


async def read(frames: Sequence[bytes]) -> None:
    """A task that sleeps in `wire.receive`, woken by the socket; `frames.feed` is a part of it."""
    ours, theirs = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(_nonblocking(ours)))
    head = parse_head(HANDSHAKE)
    assert head

    async def converse(wire: Wire) -> None:
        sender = threading.Thread(target=_send_paced, args=(theirs, _masked(frames)))
        sender.start()
        with _counting("wire.receive, woken") as count:
            for _ in frames:
                await wire.receive()
        count(len(frames))
        sender.join()

    with theirs:
        serve = partial(serve_websocket, handshake_deadline=trio.current_time() + 5)
        await serve(stream, head, converse, close_seconds=0.0)


async def translate(frames: Sequence[bytes]) -> None:
    """A message to a request."""
    dialect, now = ListenAIDialect(), trio.current_time()
    with _counting("dialect.receive") as count:
        for frame in frames:
            dialect.receive(frame, now)
    count(len(frames))


async def limit(frames: Sequence[bytes]) -> None:
    """Whether the device sends too much."""
    rate = RateLimits(60).open(AUDIO_OWNER)
    requests = [AudioReceived(frame) for frame in frames]
    began = trio.current_time()
    with _counting("limits") as count:
        for number, request in enumerate(requests):
            kind, amount = measure(request)
            assert rate.take(kind, began + number * FRAME_SECONDS, amount) is None
    count(len(frames))


async def wake(frames: Sequence[bytes]) -> None:
    """One task wakes another, by a channel without room; what each hop more would cost."""
    give, take = trio.open_memory_channel[bytes](0)

    async def receive() -> None:
        async for _ in take:
            pass

    async with trio.open_nursery() as nursery, give:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        with _counting("task wake-up") as count:
            for frame in frames:
                await give.send(frame)
        count(len(frames))


async def detect(frames: Sequence[bytes]) -> None:
    """TEN VAD alone."""
    with TenVadDetector() as detector, _counting("TEN VAD") as count:
        for frame in frames:
            detector.process(frame)
    count(len(frames))


async def segment(frames: Sequence[bytes]) -> None:
    """From probabilities to segments; a part of the recognizer."""
    segmenter, probabilities = Segmenter(suspicion=SUSPICION), _probabilities(frames)
    with _counting("segmenter.push") as count:
        for probability in probabilities:
            segmenter.push(probability)
    count(len(frames))


async def recognize(frames: Sequence[bytes]) -> None:
    """The ear without its detector: framing, segments, and the task that transcribes them."""
    detector = Recorded(_probabilities(frames))

    @contextmanager
    def open_detector() -> Iterator[Recorded]:
        yield detector

    ears = SegmentingRecognizerFactory(open_detector, TimedTranscriber())
    opening = ears.open(
        lambda _: None, suspicion=SUSPICION, cap_seconds=CAP_SECONDS, conditioning=UNCONDITIONED
    )
    async with opening as ear:
        with _counting("recognizer, rest") as count:
            for frame in frames:
                ear.accept(frame)
                await trio.lowlevel.checkpoint()  # its task follows behind
        count(len(frames))
        ear.commit()


STAGES: Sequence[Play] = (read, feed, translate, limit, wake, detect, recognize, segment)
_found: dict[str, list[float]] = {}  # stage -> microseconds a frame, one of each round


@contextmanager
def _counting(stage: str) -> Iterator[Callable[[int], None]]:
    """Notes the CPU time that the block took, divided by what is given to the result."""
    spent = 0

    def count(frames: int) -> None:
        _found.setdefault(stage, []).append(spent / frames / 1e3)

    began = time.thread_time_ns()
    yield count
    spent = time.thread_time_ns() - began


def measure_stages(frames: Sequence[bytes], rounds: int) -> list[Row]:
    """A row for each stage, over so many rounds after one that does not count."""
    _found.clear()
    for number in range(rounds + 1):
        for stage in STAGES:
            trio.run(stage, frames)
        if number == 0:
            _found.clear()
    return [
        {
            "stage": stage,
            "frames": len(frames),
            "us_p50": statistics.median(took),
            "us_min": min(took),
            "us_max": max(took),
        }
        for stage, took in _found.items()
    ]


def measure_served(devices: int, seconds: float, core: int | None) -> Row:
    """A whole server that listens to silence: its CPU, divided by the frames."""
    silence = [masked_frame(BINARY, bytes(FRAME_BYTES))] * WARM_FRAMES
    usages: list[Usage] = []
    with started("listenai", speech_ms=SPEECH_MS, core=core) as server:
        run = Run(server.port, silence, ())
        played = run.play(
            devices,
            WARM_FRAMES * FRAME_SECONDS + seconds,
            steady=lambda: usages.append(server.usage()),
        )
        cpu, waited = server.usage().since(usages[0])
        gone = sum(device.diary.gone for device in played)
        for device in played:
            device.close()
    if gone:
        raise click.ClickException(f"the server ended {gone} of {devices} connections")
    took = cpu * FRAME_SECONDS / devices * 1e6
    return {"stage": "served, silence", "us_p50": took, "devices": devices, "waited": waited}


def _masked(frames: Sequence[bytes]) -> list[bytes]:
    return [masked_frame(BINARY, frame) for frame in frames]


def _probabilities(frames: Sequence[bytes]) -> list[float]:
    with TenVadDetector() as detector:
        return [detector.process(frame) for frame in frames]


def _nonblocking(ours: socket.socket) -> socket.socket:
    ours.setblocking(False)
    return ours


def _send_paced(theirs: socket.socket, messages: Sequence[bytes]) -> None:
    theirs.recv(4096)  # the handshake's answer
    for message in messages:
        theirs.send(message)
        time.sleep(MESSAGE_SECONDS)


@attrs.frozen
class _Asked:
    frames: int
    rounds: int
    devices: int
    seconds: float
    core: int | None


def rows_of(asked: _Asked) -> list[Row]:
    """All rows: of the stages, and of a server where there are devices."""
    loop = make_loop(read_clip(FIXTURE)).messages
    frames = (loop * (asked.frames // len(loop) + 1))[: asked.frames]
    rows = measure_stages(frames, asked.rounds)
    if asked.devices:
        rows.append(measure_served(asked.devices, asked.seconds, asked.core))
    return rows


@click.command()
@click.option("--frames", type=click.IntRange(1), default=1000, help="In a round.  [1000]")
@click.option("--rounds", type=click.IntRange(1), default=7, help="[7]")
@click.option("--devices", type=click.IntRange(0), default=25, help="Of the server; 0: none.  [25]")
@click.option("--secs", "seconds", type=click.FloatRange(0.1), default=8.0, help="So long.  [8]")
@click.option("--core", type=int, help="Hold the server to this core (needs taskset).")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the rows here.")
def main(
    *, frames: int, rounds: int, devices: int, seconds: float, core: int | None, json_path: Path
) -> None:
    """Microseconds of CPU for each 16 ms of a device's sound."""
    rows = rows_of(_Asked(frames, rounds, devices, seconds, core))
    click.echo(table(rows, HEADINGS))
    if json_path:
        write_json(json_path, "frame path", rows)


if __name__ == "__main__":
    main()
