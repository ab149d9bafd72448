"""Music that is asked for aloud: heard, talked over, turned down and stopped, at the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import trio
from end_to_end_assistant import open_assistant
from end_to_end_server import TEXTS, recording

from listenai.client.device import Device
from listenai.client.speaker import timeline
from listenai.client.turns import Turn

pytestmark = pytest.mark.engines

TONE_HERTZ = 7000.0  # where a voice has little
TONE_LEVEL = 0.25  # of full scale
FILE_RATE = 44_100
SECONDS = 120.0  # longer than a test


def tone(hertz: float, seconds: float = SECONDS, level: float = TONE_LEVEL) -> np.ndarray:
    at = np.arange(round(seconds * FILE_RATE)) / FILE_RATE
    return np.stack([level * np.sin(2 * np.pi * hertz * at)] * 2, axis=1)


@pytest.fixture
def one_tone(tmp_path: Path) -> str:
    """A folder with one long track, which can be told from a voice."""
    soundfile.write(tmp_path / "Whistle.wav", tone(TONE_HERTZ), FILE_RATE)
    return str(tmp_path)


# --- what the device hears -----------------------------------------------------------------


def heard(device: Device, begin: float, end: float) -> tuple[np.ndarray, int]:
    """What its loudspeaker played between two times of Trio's clock; silence where nothing."""
    spans = [span for span in device.speaker.spans if span.ended_at > begin]
    spans = [span for span in spans if span.started_at < end]
    rate = max((span.sample_rate for span in spans), default=16_000)
    room = np.zeros(round((end - begin) * rate))
    if spans:
        first = min(span.started_at for span in spans)
        played = np.frombuffer(timeline(spans, rate), np.int16) / 32768
        skip = round((first - begin) * rate)
        played = played[-skip:] if skip < 0 else played
        start = max(0, skip)
        played = played[: len(room) - start]
        room[start : start + len(played)] = played
    return room, rate


def level(device: Device, begin: float, end: float) -> float:
    """RMS in dBFS, -120 for silence."""
    room, _ = heard(device, begin, end)
    return float(20 * np.log10(max(np.sqrt(np.mean(room**2)), 1e-6)))


def tone_level(device: Device, begin: float, end: float, hertz: float = TONE_HERTZ) -> float:
    """Amplitude of the tone alone, in dB of full scale, whatever is said over it."""
    room, rate = heard(device, begin, end)
    at = np.arange(len(room)) / rate
    window = np.hanning(len(room))
    found = abs(np.sum(room * window * np.exp(-2j * np.pi * hertz * at))) * 2 / window.sum()
    return float(20 * np.log10(max(found, 1e-6)))


def streams(device: Device, source: str) -> list[tuple[float, int]]:
    """(when, id) of each stream that began and carries this."""
    started = [event for event in device.log.events if event.type == "tts_audio"]
    return [
        (event.at, event.message["stream_id"])
        for event in started
        if event.message["state"] == "start" and event.message["source"] == source
    ]


async def wait_music(device: Device, after: float = 0.0) -> float:
    """When music began to play alone, after this time."""
    await device.wait_until(lambda: any(at > after for at, _ in streams(device, "music")))
    return next(at for at, _ in streams(device, "music") if at > after)


async def wait_turn(device: Device, turn_id: int) -> Turn:
    """The turn when it is over; music may play on."""
    await device.wait_until(
        lambda: turn_id in device.log.turns and device.log.turns[turn_id].closed
    )
    return device.log.turns[turn_id]


async def say(device: Device, name: str) -> Turn:
    """The turn that answers a spoken fixture, when it is over."""
    before = device.log.last_turn_id
    await device.speak(recording(name))
    with trio.fail_after(20):
        turn = await wait_turn(device, before + 1)
    assert turn.transcript == TEXTS[name]
    assert not turn.errors
    return turn


def check_account(device: Device) -> None:
    """The laws of audio, and nothing lost: what was received was played or forgotten."""
    assert not device.log.violations
    for stream in device.speaker.streams.values():
        queued = device.speaker.queued(stream.id)
        assert stream.received == stream.played + stream.discarded + queued


# --- a talk with music ---------------------------------------------------------------------


@pytest.mark.slow
async def test_music_is_played_talked_over_and_stopped_by_voice(one_tone: str):
    """Asked for, it plays past its turn; it is silent while the user speaks and 18 dB lower under
    the reply; then it is back, until "stop the music" is said over it."""
    async with (
        open_assistant(llm_engine="embedded", music_dir=one_tone) as server,
        Device.connect(server.ws) as device,
    ):
        asked = await say(device, "comma_pause.wav")
        [run] = asked.tools
        assert (run.name, run.target, run.ok) == ("play_music", "server", True)
        began = await wait_music(device)
        await trio.sleep(2.5)
        alone = tone_level(device, began + 1.0, began + 2.0)
        assert alone == pytest.approx(20 * np.log10(TONE_LEVEL), abs=1.0)
        assert level(device, began + 1.0, began + 2.0) > -20

        # A question over it: silence from the first words to the reply, which is above the music.
        speaks = trio.current_time()
        answered = await say(device, "what_time_is_it.wav")
        [(replied, _)] = [stream for stream in streams(device, "speech") if stream[0] > speaks]
        [flushed] = [e.at for e in device.log.events if e.type == "flush" and e.at > speaks]
        assert flushed - speaks < 0.7  # 0.3 s of silence, and the beginning of a word
        assert level(device, flushed + 0.02, replied) == -120
        over = next(e.at for e in answered.events if e.type == "turn_metrics")
        below = tone_level(device, replied + 0.3, over - 0.2)
        assert alone - below == pytest.approx(18.0, abs=1.5)
        assert level(device, replied + 0.3, over - 0.2) > below + 7  # the voice, and its pauses

        # Alone again, at its old level.
        back = await wait_music(device, over)
        assert back - over < 0.3
        await trio.sleep(2.0)
        assert tone_level(device, back + 0.8, back + 1.8) == pytest.approx(alone, abs=0.5)

        stopping = await say(device, "stop_the_music.wav")
        assert stopping.tools[0].arguments == {"action": "stop"}
        await device.wait_until(lambda: device.speaker.idle)
        quiet_since = trio.current_time()
        await trio.sleep(1.5)
        assert level(device, quiet_since, quiet_since + 1.5) == -120
        assert len(streams(device, "music")) == 2
        check_account(device)
        print(f"music alone {alone:.1f} dB, under the reply {below:.1f} dB")


async def ask(device: Device, text: str) -> Turn:
    """The turn that answers a typed sentence, when it is over."""
    before = device.log.last_turn_id
    await device.type_text(text)
    with trio.fail_after(20):
        return await wait_turn(device, before + 1)


@pytest.mark.slow
async def test_files_of_every_format_are_played_one_after_the_other(tmp_path: Path):
    """WAV, FLAC, Ogg and MP3, also of a subfolder: each is heard as what it holds."""
    files = {"1. one.wav": 500, "2. two.flac": 700, "3. three.ogg": 900, "4/four.mp3": 1100}
    (tmp_path / "4").mkdir()
    for name, hertz in files.items():
        soundfile.write(tmp_path / name, tone(hertz, seconds=20.0), FILE_RATE)
    (tmp_path / "5 notes.txt").write_text("no music")
    async with (
        open_assistant(llm_engine="embedded", music_dir=str(tmp_path)) as server,
        Device.connect(server.ws) as device,
    ):
        titles = []
        for hertz in files.values():
            turn = await ask(device, "play some music" if not titles else "next song")
            titles.append(turn.tools[0].outcome["title"])
            began = await wait_music(device, turn.events[0].at)
            await trio.sleep(1.2)
            loudest = max(
                files.values(), key=lambda f: tone_level(device, began + 0.5, began + 1.0, f)
            )
            assert loudest == hertz
            assert tone_level(device, began + 0.5, began + 1.0, hertz) > -15
        assert titles == ["one", "two", "three", "four"]
        check_account(device)


@pytest.mark.slow
async def test_the_volume_is_that_of_speech_and_of_music(one_tone: str):
    """Set aloud over music, to a half: 6 dB less of both, and kept for the next reply."""
    async with (
        open_assistant(llm_engine="embedded", music_dir=one_tone) as server,
        Device.connect(server.ws) as device,
    ):
        levels = []
        for setting in (None, "volume_fifty.wav"):
            if setting:
                turn = await say(device, setting)
                assert turn.tools[0].outcome["level"] == 50
                await ask(device, "stop the music")
            greeting = await ask(device, "how are you")
            [stream_id] = greeting.stream_ids
            [span] = device.speaker.heard([stream_id])
            await ask(device, "play some music")
            began = await wait_music(device, span.ended_at)
            await trio.sleep(1.5)
            levels.append(
                (
                    level(device, span.started_at, span.ended_at),
                    tone_level(device, began + 0.7, began + 1.4),
                )
            )
        [(loud_voice, loud_music), (voice, music)] = levels
        half = 20 * np.log10(0.5)
        assert voice - loud_voice == pytest.approx(half, abs=0.3)
        assert music - loud_music == pytest.approx(half, abs=0.3)
        check_account(device)


async def test_a_device_with_a_player_of_its_own_is_asked_instead(one_tone: str):
    """Its play_music and set_volume hide ours: it is called, and we play nothing."""
    properties = {
        "play_music": {"action": {"type": "string"}},
        "set_volume": {"level": {"type": "integer"}},
    }
    own = [
        {
            "name": name,
            "description": name,
            "parameters": {"type": "object", "properties": fields},
        }
        for name, fields in properties.items()
    ]
    async with (
        open_assistant(llm_engine="embedded", music_dir=one_tone) as server,
        Device.connect(server.ws, device_tools=own) as device,
    ):
        for text, name, arguments, result, reply in (
            ("play some music", "play_music", {"action": "play"}, {"title": "Radio"}, "Radio"),
            ("set the volume to fifty percent", "set_volume", {"level": 50}, {"level": 50}, "50"),
        ):
            before = trio.current_time()
            await device.type_text(text)
            called = (await device.wait_event("tool_call", after=before)).message
            assert (called["name"], called["target"]) == (name, "device")
            assert called["arguments"] == arguments
            await device.send(
                {"type": "tool_result", "call_id": called["call_id"], "result": result}
            )
            turn = await wait_turn(device, called["turn_id"])
            assert reply in turn.text
        assert not streams(device, "music")
        check_account(device)
