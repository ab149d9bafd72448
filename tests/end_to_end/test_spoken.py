"""Speech through a real socket to the embedded engines and back."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from end_to_end_server import TEXTS, RunningServer, recording

from listenai.audio import FRAME_BYTES
from listenai.client.device import Device
from listenai.client.microphone import Utterance
from listenai.client.turns import Reply
from listenai.engines.segmenter import Change, Segmenter
from listenai.engines.ten_vad import TenVadDetector

sys.path.append(str(Path(__file__).parents[2] / "scripts" / "bench"))
import accuracy

pytestmark = [pytest.mark.engines, pytest.mark.slow]

DEVICES = 4  # side by side: real time is the cost of these tests


async def ask(server: RunningServer, name: str) -> Reply:
    """One fixture asked by a device of its own."""
    async with Device.connect(server.url) as device:
        await device.speak(recording(name))
        reply = await device.wait_reply()
        assert not device.log.violations
        return reply


async def test_every_fixture_is_understood_and_answered(server):
    """The exact words; a reply as loud and as long as its text needs."""
    replies: dict[str, Reply] = {}
    limiter = trio.CapacityLimiter(DEVICES)

    async def ask_one(name: str) -> None:
        async with limiter:
            replies[name] = await ask(server, name)

    async with trio.open_nursery() as nursery:
        for name in TEXTS:
            nursery.start_soon(ask_one, name)
    for name, reply in replies.items():
        assert reply.transcript == TEXTS[name], name
        assert reply.audible, name
        assert reply.level_dbfs > -40, name
        seconds = len(reply.audio) / 2 / reply.sample_rate
        assert 8 <= len(reply.text) / seconds <= 25, (name, reply.text, seconds)
        assert not reply.errors, name
        if name == "tell_me_a_story.wav":
            assert seconds >= 20


async def test_weather_uses_the_tool(server):
    """The tool is called with the city; offline the assistant says so."""
    reply = await ask(server, "weather_beijing.wav")
    [run] = reply.tools
    assert (run.name, run.arguments["city"]) == ("get_weather", "Beijing")
    assert run.ok is not None


def suspicion_in(utterance: Utterance, *others: Utterance) -> int:
    """The frame of the utterance at which TEN VAD, run offline over all the device sent, has
    the third speech frame of four."""
    spoken = {
        one.first_frame + index: one.pcm[index * FRAME_BYTES : (index + 1) * FRAME_BYTES]
        for one in (utterance, *others)
        for index in range(len(one.sent_at))
    }
    segmenter = Segmenter(suspicion=(3, 4))
    with TenVadDetector() as detector:
        for index in range(utterance.first_frame + len(utterance.sent_at)):
            frame = spoken.get(index, b"").ljust(FRAME_BYTES, b"\0")
            change = segmenter.push(detector.process(frame))
            if Change.SUSPECTED in change and index >= utterance.first_frame:
                return index - utterance.first_frame
    raise AssertionError("no speech in it")


async def test_speech_over_a_story_pauses_flushes_and_is_answered(server):
    """20 interruptions: `pause` within 40 ms (p90), and the history holds what was heard."""
    question = recording("what_time_is_it.wav")
    delays: list[float] = []
    limiter = trio.CapacityLimiter(DEVICES)

    async def interrupt_once(number: int) -> None:
        async with limiter, Device.connect(server.url) as device:
            asked = await device.speak(recording("tell_me_a_story.wav"))
            story, _ = await device.wait_sound()
            await trio.sleep(1.0 + number * 0.13)
            began_at = trio.current_time()
            utterance = await device.speak(question)
            reply = await device.wait_reply()
            assert not device.log.violations
            assert reply.transcript == TEXTS["what_time_is_it.wav"]
            assert reply.audible
            pauses = [e.at for e in device.log.events if e.type == "pause" and e.at > began_at]
            delays.append(pauses[0] - utterance.sent_at[suspicion_in(utterance, asked)])
            assert story.interrupted
            assert story.interrupted["certainty"] == "reported"
            heard = story.interrupted["heard_text"]
            assert heard
            assert story.text.startswith(heard)
            requests = [
                [(m.role, m.content) for m in asked[1:]] for asked in server.chat_model.asked
            ]
            assert [
                ("user", TEXTS["tell_me_a_story.wav"]),
                ("assistant", heard),
                ("user", reply.transcript),
            ] in requests

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(interrupt_once, number)
    p90 = statistics.quantiles(delays, n=10)[-1]
    figures = [round(delay * 1000, 1) for delay in sorted(delays)]
    print(f"pause after the third speech frame, ms: p90 {p90 * 1000:.1f} of {figures}")
    assert p90 <= 0.040


async def transcribe_in_turn(
    server: RunningServer, spoken: Sequence[tuple[str, str, float]]
) -> list[str]:
    """Says (text, voice, stretch) one after the other on one device; what was understood."""
    understood = []
    async with Device.connect(server.url) as device:
        for text, voice, stretch in spoken:
            turns_before = len(device.log.turns)
            utterance = await device.speak(accuracy.speak(text, voice, stretch))
            await device.wait_until(lambda n=turns_before: _final(device, n) is not None)
            await trio.sleep(0.3)  # a second turn would begin here, if it had been cut in two
            understood.append(" / ".join(_finals(device, turns_before)))
            await device.interrupt()
            await device.wait_reply()
            assert utterance.sent.is_set()
    return understood


async def test_commands_in_many_voices(server):
    """95 % of 50 drawn sentences exact; 75 % with an accent; open speech 20 % wrong at most."""
    drawn = [s for s in accuracy.sentences(2026, 70) if s not in TEXTS.values()][:50]
    cycle = [(v, s) for s in accuracy.STRETCHES for v in accuracy.VOICES]
    spoken = [(text, *cycle[i % len(cycle)]) for i, text in enumerate(drawn)]
    jobs = {
        **{v: [one for one in spoken if one[1] == v] for v in accuracy.VOICES},
        **{f"awb{half}": [(text, "awb", 1.0) for text in drawn[half::2]] for half in (0, 1)},
        "open": [
            (t, "slt" if i % 2 else "rms", 1.0) for i, t in enumerate(accuracy.OPEN_SENTENCES)
        ],
    }
    scores: dict[str, accuracy.Score] = {}

    async def run(name: str) -> None:
        texts = tuple(text for text, _, _ in jobs[name])
        group = accuracy.Group("open" if name == "open" else "commands", name, 1.0, texts)
        scores[name] = accuracy.score(group, await transcribe_in_turn(server, jobs[name]))

    async with trio.open_nursery() as nursery:
        for name in jobs:
            nursery.start_soon(run, name)

    def exact(*names: str) -> float:
        return sum(scores[n].exact for n in names) / sum(scores[n].count for n in names)

    usual, accented = exact(*accuracy.VOICES), exact("awb0", "awb1")
    wrong = scores["open"].word_errors / scores["open"].words
    print(f"through a socket: {usual:.0%} exact, accented {accented:.0%}, open WER {wrong:.0%}")
    for name, score in scores.items():
        print(name, *(f"\n    {said!r} -> {got!r}" for said, got in score.mistakes))
    assert usual >= 0.95
    assert accented >= 0.75
    assert wrong <= 0.20


def _finals(device: Device, turns_before: int) -> list[str]:
    turns = list(device.log.turns.values())[turns_before:]
    return [turn.transcript for turn in turns if turn.transcript is not None]


def _final(device: Device, turns_before: int) -> str | None:
    return next(iter(_finals(device, turns_before)), None)
