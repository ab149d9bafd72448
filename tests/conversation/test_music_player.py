"""Music in a conversation: below the voice, alone, given way, and stopped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import trio
from fakes import (
    ANSWER,
    FULL,
    MUSIC_SAMPLE,
    RATE,
    FakeChatModel,
    FakeDevice,
    FakeLibrary,
    Talking,
    call,
    speech,
    talking,
)

from listenai.device import Capabilities, Echo
from listenai.engines.base import ReplyText
from listenai.events import (
    AudioChunk,
    ErrorReported,
    InterruptPressed,
    Source,
    StreamEnded,
    StreamFlushed,
    StreamStarted,
    TextTyped,
)
from listenai.music import MusicError
from listenai.settings import Configuration
from listenai.speech import FinalTranscript, SpeechEnded

pytestmark = pytest.mark.usefixtures("schedule", "nothing_left")


def dj(messages: Sequence[Any]) -> Sequence[Any]:
    """Does what "play …" or "stop" say with play_music, else answers."""
    last = messages[-1]
    if last.role == "tool":
        return [ReplyText("Okay.")]
    action, *query = last.content.split(" ", 1)
    if action not in ("play", "stop", "pause", "resume", "next"):
        return [ReplyText(word + " ") for word in ANSWER.split()]
    arguments = f'{{"action": "{action}"' + (f', "query": "{query[0]}"}}' if query else "}")
    return [call("play_music", arguments, f"call-{len(messages)}")]


def playing(library: FakeLibrary | None = None, **options: Any) -> Any:
    return talking(chat=FakeChatModel(dj), library=library or FakeLibrary(), **options)


def music_streams(talk: Talking) -> list[int]:
    started = talk.device.events(StreamStarted)
    return [event.stream_id for event in started if event.source is Source.MUSIC]


def samples(talk: Talking, stream_id: int) -> np.ndarray:
    chunks = [e.pcm for e in talk.device.events(AudioChunk) if e.stream_id == stream_id]
    return np.frombuffer(b"".join(chunks), np.int16)


def longest_silence(talk: Talking, since: float) -> float:
    """Seconds for which a device that plays what it gets had nothing to play."""
    longest, plays_until = 0.0, float("inf")
    for at, event in talk.device.got:
        if isinstance(event, AudioChunk):
            if at >= since:
                longest = max(longest, at - plays_until)
            plays_until = at if plays_until == float("inf") else max(plays_until, at)
            plays_until += len(event.pcm) / 2 / RATE
        elif isinstance(event, StreamFlushed):
            plays_until = at
    return longest


async def start_music(talk: Talking) -> int:
    """Asks for music; returns when it plays alone, with its stream."""
    talk.ask("play")
    while not music_streams(talk):  # noqa: ASYNC110  # the mock clock's sleep
        await trio.sleep(0.05)
    return music_streams(talk)[0]


async def test_music_plays_on_after_its_turn(autojump_clock):
    """A stream of its own, at full level, paced by the device's clock."""
    async with playing() as talk:
        stream_id = await start_music(talk)
        assert not talk.dialogue.floor.busy
        await trio.sleep(10)
        heard = samples(talk, stream_id)
        assert 10 * RATE <= len(heard) <= 10.8 * RATE
        assert heard[-1] == MUSIC_SAMPLE
        assert music_streams(talk) == [stream_id]


async def test_music_is_below_the_voice_of_a_turn(autojump_clock):
    """Ducked by 18 dB in the turn's own stream; alone again when the turn is over."""
    async with playing() as talk:
        await start_music(talk)
        await trio.sleep(3)
        talk.device.say(TextTyped("hello"))
        await trio.sleep(6)
        [first, second] = music_streams(talk)
        speaking = talk.device.events(StreamStarted)[-2]
        assert speaking.source is Source.SPEECH
        voice = samples(talk, speaking.stream_id)  # the fake voice is silent: music alone is seen
        assert voice[RATE] == pytest.approx(MUSIC_SAMPLE * 10 ** (-18 / 20), abs=2)
        assert samples(talk, second)[RATE] == MUSIC_SAMPLE
        assert first != second


async def test_music_gives_way_while_the_user_speaks(autojump_clock):
    """Flushed at the suspicion; after a false alarm it goes on where the device stopped."""
    library = FakeLibrary(seconds=20.0)
    async with playing(library) as talk:
        first = await start_music(talk)
        await trio.sleep(3)
        began = trio.current_time()
        talk.device.utter(*speech(2))
        await trio.sleep(0.5)
        assert talk.device.times(StreamFlushed) == [pytest.approx(began, abs=0.01)]
        assert talk.device.times(AudioChunk)[-1] <= began
        talk.device.utter(SpeechEnded(2, trio.current_time(), transcript_follows=False))
        await trio.sleep(30)
        [_, second] = music_streams(talk)
        speech_stream = talk.device.events(StreamStarted)[0].stream_id
        played = [3 * RATE, len(samples(talk, second)), len(samples(talk, speech_stream))]
        assert sum(played) == pytest.approx(20 * RATE, abs=0.2 * RATE)
        assert first != second


async def test_stop_the_music_spoken_over_it(autojump_clock):
    """The user's words stop it, and it stays stopped."""
    async with playing() as talk:
        stream_id = await start_music(talk)
        await trio.sleep(2)
        talk.ask("stop", 2)
        await trio.sleep(5)
        assert talk.history[-1] == ("assistant", "Okay.")
        assert music_streams(talk) == [stream_id]
        quiet_since = talk.device.times(AudioChunk)[-1]
        await trio.sleep(5)
        assert talk.device.times(AudioChunk)[-1] == quiet_since


async def test_pause_and_resume_keep_the_place(autojump_clock):
    """What is resumed is the rest of the track."""
    library = FakeLibrary(seconds=10.0)
    async with playing(library) as talk:
        await start_music(talk)
        await trio.sleep(2)
        talk.ask("pause", 2)
        await trio.sleep(5)
        assert len(music_streams(talk)) == 1
        talk.ask("resume", 3)
        await trio.sleep(15)
        assert library.opened == ["One tune"]
        rest = samples(talk, music_streams(talk)[-1])
        assert 4 * RATE <= len(rest) <= 7.5 * RATE


async def test_the_next_track_follows_without_a_gap_and_the_last_ends_the_music(autojump_clock):
    """In the same stream, which ends with the library."""
    library = FakeLibrary("One", "Two", seconds=5.0)
    async with playing(library) as talk:
        stream_id = await start_music(talk)
        await trio.sleep(20)
        assert library.opened == ["One", "Two"]
        assert music_streams(talk) == [stream_id]
        assert talk.device.events(StreamEnded)[-1].stream_id == stream_id
        speech_stream = talk.device.events(StreamStarted)[0].stream_id
        in_all = len(samples(talk, stream_id)) + len(samples(talk, speech_stream))
        assert in_all == pytest.approx(10 * RATE, abs=RATE)


async def test_a_device_that_cannot_flush_plays_out_its_lead(autojump_clock):
    """Nothing more is sent; the stream is told to be complete."""
    async with playing(device=FakeDevice(Capabilities(echo=Echo.CANCELLED))) as talk:
        stream_id = await start_music(talk)
        await trio.sleep(2)
        talk.device.utter(*speech(2))
        await trio.sleep(1)
        assert not talk.device.events(StreamFlushed)
        assert talk.device.events(StreamEnded)[-1].stream_id == stream_id
        assert talk.device.times(AudioChunk)[-1] <= trio.current_time() - 0.9


async def test_music_goes_on_between_sentences(autojump_clock):
    """A slow chat model does not make holes in the music."""

    def slowly(messages: Sequence[Any]) -> Sequence[Any]:
        if messages[-1].content == "slowly":
            return [ReplyText("One. "), *[ReplyText(" ")] * 300, ReplyText("Two.")]
        return dj(messages)

    async with talking(chat=FakeChatModel(slowly), library=FakeLibrary()) as talk:
        await start_music(talk)
        talk.device.say(TextTyped("slowly"))
        await trio.sleep(0.2)
        began = trio.current_time()
        await trio.sleep(6)
        assert longest_silence(talk, began) < 0.03
        assert ("assistant", "One." + " " * 301 + "Two.") in talk.history


async def test_another_output_rate_begins_the_track_anew(autojump_clock):
    """A device may ask for another rate while music plays."""
    library = FakeLibrary()
    async with playing(library) as talk:
        await start_music(talk)
        talk.device.say(Configuration(output_sample_rate=24_000), TextTyped("hello"))
        await trio.sleep(6)
        assert talk.device.events(StreamStarted)[-1].sample_rate == 24_000
        assert talk.device.events(StreamStarted)[-1].source is Source.MUSIC
        assert library.opened == ["One tune", "One tune"]


async def test_two_conversations_have_their_own_music(autojump_clock):
    """One that stops does not stop the other."""
    async with playing(device=FakeDevice(FULL)) as one, playing(device=FakeDevice(FULL)) as other:
        await start_music(one)
        await start_music(other)
        one.ask("stop", 2)
        await trio.sleep(3)
        assert one.device.times(AudioChunk)[-1] < trio.current_time() - 1
        assert other.device.times(AudioChunk)[-1] > trio.current_time() - 0.1


async def test_an_interrupted_reply_takes_its_music_back(autojump_clock):
    """What was mixed below words that were never played is played again."""
    library = FakeLibrary(seconds=30.0)
    async with playing(library) as talk:
        await start_music(talk)
        talk.device.say(TextTyped("hello"))
        await trio.sleep(1)
        talk.device.utter(*speech(2))
        await trio.sleep(0.1)
        talk.device.utter(
            SpeechEnded(2, trio.current_time(), True), FinalTranscript(2, "hello again", True)
        )
        await trio.sleep(40)
        assert talk.device.events(StreamEnded)[-1].stream_id == music_streams(talk)[-1]


async def test_a_track_that_cannot_be_read_is_passed_over(autojump_clock):
    """The next one plays; a library of broken ones falls silent."""

    class Damaged(FakeLibrary):
        def open(self, track: Any, rate: int) -> Any:
            if track.title == "Broken":
                raise MusicError("Broken is damaged")
            return super().open(track, rate)

    async with playing(Damaged("Broken", "Whole")) as talk:
        await start_music(talk)
        await trio.sleep(3)
        assert samples(talk, music_streams(talk)[0])[-1] == MUSIC_SAMPLE
    async with playing(Damaged("Broken")) as talk:
        talk.ask("play")
        await trio.sleep(10)
        assert not music_streams(talk)
        assert not talk.device.events(ErrorReported)


async def test_the_button_pauses_music_that_plays_alone(autojump_clock):
    """And while a reply speaks over it, the reply is what it stops."""
    async with playing() as talk:
        stream_id = await start_music(talk)
        await trio.sleep(2)
        talk.device.say(InterruptPressed())
        await trio.sleep(3)
        assert talk.device.events(StreamFlushed)[-1].stream_id == stream_id
        assert talk.device.times(AudioChunk)[-1] < trio.current_time() - 2.9
        talk.ask("resume", 2)
        await trio.sleep(4)
        assert len(music_streams(talk)) == 2
        talk.device.say(TextTyped("hello"))
        await trio.sleep(1)
        talk.device.say(InterruptPressed())
        await trio.sleep(2)
        assert len(music_streams(talk)) == 3
