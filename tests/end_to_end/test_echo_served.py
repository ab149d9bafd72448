"""Our own voice in the microphone, through a real socket to the embedded engines and back."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import numpy as np
import pytest
import soxr
import trio
from end_to_end_assistant import open_assistant
from end_to_end_server import recording
from fakes import FakeChatModel

from listenai.audio import FRAME_SAMPLES, SAMPLE_RATE
from listenai.client.device import CAPABILITIES, Device
from listenai.client.microphone import SilentRoom
from listenai.client.speaker import loudness
from listenai.conversation.dialogue import Engines

pytestmark = [pytest.mark.engines, pytest.mark.slow]

# 80 s and more in every voice.
STORY = 4 * (
    "Once upon a time there was a small village by the sea. Every morning the fishermen went out "
    "in their boats. One day a young girl found a bottle on the beach, and in it there was a "
    "letter. It told of an island far away, where the trees were blue and the birds could sing "
    "songs in every language of the world. She showed it to her grandfather. He smiled, for he "
    "had written it himself when he was a boy. "
)
VOICES = ("en-us", "en-us+f3", "en-gb")
ECHOES_DB = (-6.0, -20.0, -40.0)
REPLY_SECONDS = 60.0
CONFIRMED_SECONDS = 0.6
INTERRUPTIONS = ("what_time_is_it.wav", "stop_the_music.wav", "tell_me_a_story.wav")


class Room(SilentRoom):
    """A microphone beside a loudspeaker: what is played comes back, later and quieter.

    gain_db: of the echo; None: there is none.  There is always a little noise (-75 dBFS).
    """

    def __init__(self, gain_db: float | None, delay_seconds: float) -> None:
        super().__init__()
        self._gain = 0.0 if gain_db is None else 10 ** (gain_db / 20)
        self._delay = round(delay_seconds * SAMPLE_RATE)
        self._noise = np.random.default_rng(0)
        self._sound = np.zeros(180 * SAMPLE_RATE)
        self._heard = 0  # samples given out
        self._played = 0  # up to here the loudspeaker has sounded

    def play(self, pcm: bytes, sample_rate: int) -> None:
        """The loudspeaker has just played this."""
        sound = np.frombuffer(pcm, np.int16).astype(float)
        if sample_rate != SAMPLE_RATE:
            sound = soxr.resample(sound, sample_rate, SAMPLE_RATE)
        assert self._began_at is not None
        ended = round((trio.current_time() - self._began_at) * SAMPLE_RATE)
        start = ended - len(sound)
        if abs(start - self._played) < SAMPLE_RATE // 50:  # it goes on
            start = self._played
        self._played = start + len(sound)
        self._add(sound * self._gain, start + self._delay)

    def say(self, pcm: bytes) -> float:
        """The user speaks from now on; in how many seconds the first audible sample is sent."""
        self._add(np.frombuffer(pcm, np.int16).astype(float), self._heard)
        window, loud = loudness(pcm, SAMPLE_RATE)
        return int(loud.argmax()) * window / SAMPLE_RATE

    async def frame(self) -> bytes:
        await super().frame()
        frame = self._sound[self._heard : self._heard + FRAME_SAMPLES]
        frame = frame + self._noise.standard_normal(FRAME_SAMPLES) * 6
        self._heard += FRAME_SAMPLES
        return np.clip(np.rint(frame), -32768, 32767).astype(np.int16).tobytes()

    def _add(self, sound: np.ndarray, at: int) -> None:
        self._sound[at : at + len(sound)] += sound


@attrs.frozen
class Place:
    """A device in its room."""

    device: Device
    room: Room

    def told(self, *kinds: str, after: float = 0.0) -> list[tuple[str, float]]:
        """Messages of these types, and when they came."""
        events = self.device.log.events
        return [(e.type, e.at) for e in events if e.type in kinds and e.at >= after]

    @property
    def duplex(self) -> list[str]:
        """What was said of it, in order."""
        statuses = (e.message for e in self.device.log.events if e.type == "status")
        return [message["duplex"] for message in statuses if "duplex" in message]


@asynccontextmanager
async def placed(
    url: str, gain_db: float | None, *, voice: str = "en-us", **able: Any
) -> AsyncIterator[Place]:
    """A device that does not know its echo, unless it says so; it has been asked by text."""
    room = Room(gain_db, 0.06 if able.get("echo") else 0.15)
    capabilities = {**CAPABILITIES, "echo": "unknown"} | able
    async with Device.connect(
        url, capabilities=capabilities, microphone=room, loudspeaker=room.play
    ) as device:
        await device.configure(voice_id=voice)
        await device.type_text("tell me a very long story")
        await device.wait_event("tts_audio")
        yield Place(device, room)
        assert not device.log.violations


async def test_no_echo_interrupts_and_the_button_always_does():
    """Three voices at -6, -20 and -40 dB, 60 s each: nothing is held, nothing understood; the
    device is told why; the button stops it at once."""
    results: list[str] = []

    async def listen(url: str, voice: str, gain_db: float) -> None:
        async with placed(url, gain_db, voice=voice) as place:
            began_at = trio.current_time()
            await trio.sleep(REPLY_SECONDS)
            assert place.told("pause", "flush", "interrupted", "asr_result") == []
            assert place.duplex == ["half", "half"]  # at first, and when it was found
            assert place.device.log.state == "speaking"
            pressed_at = trio.current_time()
            await place.device.interrupt()
            await place.device.wait_event("interrupted")
            [(_, flushed_at)] = place.told("flush")
            assert flushed_at - pressed_at < 0.25
            results.append(f"{voice} {gain_db:g} dB: {flushed_at - pressed_at:.3f} s to flush")
            assert flushed_at - began_at > REPLY_SECONDS

    async with open_assistant(_tell_stories) as server, trio.open_nursery() as nursery:
        for voice, gain_db in itertools.product(VOICES, ECHOES_DB):
            nursery.start_soon(listen, server.ws, voice, gain_db)
    print("\n".join(sorted(results)))
    assert len(results) == 9


async def test_where_nothing_comes_back_a_word_interrupts():
    """Found in the first seconds, and told; from then on 600 ms from the first audible sample to
    the flush.

    Beside them a device that only *says* that it cancels its echo: it is held.
    """
    delays: dict[str, float] = {}
    one_at_a_time = trio.CapacityLimiter(1)  # there are as many transcribers as cores

    async def interrupt(url: str, voice: str, name: str) -> None:
        async with placed(url, None, voice=voice) as place:
            with trio.fail_after(20):
                await place.device.wait_until(lambda: place.duplex[-1:] == ["full"])
            async with one_at_a_time:
                delays[f"{voice} {name}"] = await interruption(place, name)

    async def lie(url: str) -> None:
        async with placed(url, -20.0, echo="cancelled") as place:
            with trio.fail_after(20):
                await place.device.wait_event("pause")
            await trio.sleep(3)  # a first transcription is not left in the middle

    async with open_assistant(_tell_stories) as server, trio.open_nursery() as nursery:
        nursery.start_soon(lie, server.ws)
        for voice, name in zip(VOICES, INTERRUPTIONS, strict=True):
            nursery.start_soon(interrupt, server.ws, voice, name)
    print("\n".join(f"{what}: {delay * 1000:.0f} ms" for what, delay in delays.items()))
    assert len(delays) == 3
    assert statistics.median(delays.values()) <= CONFIRMED_SECONDS  # one may meet a busy machine


async def interruption(place: Place, name: str) -> float:
    """Says it over the reply; how long from its first audible sample to the flush."""
    audible_at = trio.current_time() + place.room.say(recording(name))
    with trio.fail_after(10):
        await place.device.wait_event("interrupted")
    [(_, flushed_at)] = place.told("flush")
    return flushed_at - audible_at


def _tell_stories(engines: Engines) -> Engines:
    return attrs.evolve(
        engines, chat_model=FakeChatModel(STORY, delay=0.0), make_echo_canceller=None
    )
