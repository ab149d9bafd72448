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
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Self

import click
import trio
import trio.testing
from load import BINARY, Run, masked_frame
from process import Usage, started
from report import Row, table, write_json
from speech import SUSPICION, make_loop, read_clip

from listenai.audio import FRAME_BYTES, FRAME_SECONDS
from listenai.conversation.limits import Kind, RateLimits
from listenai.device import UNCONDITIONED
from listenai.dialects.listenai import ListenAIDialect
from listenai.engines.ears import SegmentingRecognizerFactory
from listenai.engines.segmenter import Segmenter
from listenai.engines.ten_vad import TenVadDetector
from listenai.engines.timed import TimedTranscriber
from listenai.server.frames import Frames
from listenai.server.head import parse_head
from listenai.server.websocket import serve_websocket
from listenai.wire import Wire

FIXTURE = Path(__file__).parents[2] / "tests" / "data" / "weather_beijing.wav"
SPEECH_MS = 600
CAP_SECONDS = 30.0
MESSAGE_SECONDS = 0.001  # between two messages: the reader has gone to sleep before the next
WARM_FRAMES = 63  # a second: what the served devices play before the measurement
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


class Stopwatch:
    """CPU time of this thread inside the `with`."""

    nanoseconds = 0

    def __enter__(self) -> Self:
        self.nanoseconds = -time.thread_time_ns()
        return self

    def __exit__(self, *_: object) -> None:
        self.nanoseconds += time.thread_time_ns()


class Recorded:
    """A detector that knows its answers: what is left is the rest of the recognizer."""

    def __init__(self, probabilities: Sequence[float]) -> None:
        self._probabilities = probabilities
        self._next = 0

    def process(self, _frame: bytes) -> float:
        """The next answer; after the last, the first again."""
        self._next += 1
        return self._probabilities[(self._next - 1) % len(self._probabilities)]


async def feed(frames: Sequence[bytes]) -> int:
    """Bytes to messages; a frame at a time, as a device in real time sends them."""
    core, head = Frames(), parse_head(HANDSHAKE)
    assert head
    core.shake_hands(head)
    messages = _masked(frames)
    with Stopwatch() as watch:
        for frame in messages:
            core.feed(frame)
            core.messages.popleft()
    return watch.nanoseconds


async def read(frames: Sequence[bytes]) -> int:
    """A task that sleeps in `wire.receive`, woken by the socket; `frames.feed` is a part of it."""
    ours, theirs = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(_nonblocking(ours)))
    head = parse_head(HANDSHAKE)
    assert head

    watch = Stopwatch()

    async def converse(wire: Wire) -> None:
        sender = threading.Thread(target=_send_paced, args=(theirs, _masked(frames)))
        sender.start()
        with watch:
            for _ in frames:
                await wire.receive()
        sender.join()

    with theirs:
        serve = partial(serve_websocket, handshake_deadline=trio.current_time() + 5)
        await serve(stream, head, converse, close_seconds=0.0)
    return watch.nanoseconds


async def translate(frames: Sequence[bytes]) -> int:
    """A message to a request."""
    dialect, now = ListenAIDialect(), trio.current_time()
    with Stopwatch() as watch:
        for frame in frames:
            dialect.receive(frame, now)
    return watch.nanoseconds


async def limit(frames: Sequence[bytes]) -> int:
    """Whether the device sends too much."""
    rate = RateLimits(60).open("")
    began = trio.current_time()
    with Stopwatch() as watch:
        for number, frame in enumerate(frames):
            assert rate.take(Kind.AUDIO, began + number * FRAME_SECONDS, len(frame)) is None
    return watch.nanoseconds


async def wake(frames: Sequence[bytes]) -> int:
    """One task wakes another, by a channel without room; what each hop more would cost."""
    give, take = trio.open_memory_channel[bytes](0)

    async def receive() -> None:
        async for _ in take:
            pass

    async with trio.open_nursery() as nursery, give:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        with Stopwatch() as watch:
            for frame in frames:
                await give.send(frame)
    return watch.nanoseconds


async def detect(frames: Sequence[bytes]) -> int:
    """TEN VAD alone."""
    with TenVadDetector() as detector, Stopwatch() as watch:
        for frame in frames:
            detector.process(frame)
    return watch.nanoseconds


async def segment(frames: Sequence[bytes]) -> int:
    """From probabilities to segments; a part of the recognizer."""
    segmenter, probabilities = Segmenter(suspicion=SUSPICION), _probabilities(frames)
    with Stopwatch() as watch:
        for probability in probabilities:
            segmenter.push(probability)
    return watch.nanoseconds


async def recognize(frames: Sequence[bytes]) -> int:
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
        with Stopwatch() as watch:
            for frame in frames:
                ear.accept(frame)
                await trio.lowlevel.checkpoint()  # its task follows behind
        ear.commit()
    return watch.nanoseconds


STAGES: Mapping[str, Callable[[Sequence[bytes]], Awaitable[int]]] = {
    "wire.receive, woken": read,
    "  of it frames.feed": feed,
    "dialect.receive": translate,
    "limits": limit,
    "task wake-up": wake,
    "TEN VAD": detect,
    "recognizer, rest": recognize,
    "  of it segmenter": segment,
}


def measure_stages(frames: Sequence[bytes], rounds: int) -> list[Row]:
    """A row for each stage, over so many rounds after one that does not count."""
    took: dict[str, list[float]] = {name: [] for name in STAGES}
    for number in range(rounds + 1):
        for name, stage in STAGES.items():
            nanoseconds = trio.run(stage, frames)
            if number:
                took[name].append(nanoseconds / len(frames) / 1e3)
    return [
        {
            "stage": name,
            "frames": len(frames),
            "us_p50": statistics.median(each),
            "us_min": min(each),
            "us_max": max(each),
        }
        for name, each in took.items()
    ]


def measure_served(devices: int, seconds: float, core: int | None) -> Row:
    """A whole server that listens to silence: its CPU, divided by the frames."""
    silence = [masked_frame(BINARY, bytes(FRAME_BYTES))] * WARM_FRAMES
    usages: list[Usage] = []
    quiet = {"CLOUD_LOG_LEVEL": "WARNING"}
    with started("listenai", speech_ms=SPEECH_MS, core=core, variables=quiet) as server:
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
    loop = make_loop(read_clip(FIXTURE)).messages
    rows = measure_stages((loop * (frames // len(loop) + 1))[:frames], rounds)
    if devices:
        rows.append(measure_served(devices, seconds, core))
    click.echo(table(rows, HEADINGS))
    if json_path:
        write_json(json_path, "frame path", rows)


if __name__ == "__main__":
    main()
