"""What every browser must do with the harness: connect, capture, play, pause, resume, flush."""

from __future__ import annotations

import statistics

import numpy as np
from watched import LOUD, Harness

TONE_HZ, TONE_RATE = 500, 24_000
PAUSES = 3
SILENT_MS = 60  # after pause or flush, also where the machine is busy
TONE = f"""Int16Array.from({{length: 10 * {TONE_RATE}}},
    (_, k) => 12000 * Math.sin(2 * Math.PI * {TONE_HZ} * k / {TONE_RATE}))"""
NOW = "({played: harness.player.analyser.context.currentTime})"


def check_smoke(harness: Harness) -> None:
    """Drives a harness whose server runs; its microphone must hear something."""
    harness.until("harness.player.unlock()", 20, "the loudspeaker runs")
    harness.until("tap.rate() > 0", 5)
    harness.call("harness.connection.connect()")
    harness.event(type="state", state="open")
    _check_capture(harness)
    _check_answer(harness)
    _check_player(harness)
    assert not harness.has(type="failed")
    assert not harness.has(type="dropped")


def _check_capture(harness: Harness) -> None:
    """A frame each 20 ms, with sound in it, and the server gets it."""
    harness.call("harness.microphone.start({})")
    harness.event(type="state", state="live", seconds=20)
    harness.until("harness.microphoneSamples.loud > 8000", 10, "half a second of sound is heard")
    clock = "[harness.microphone.analyser.context.currentTime, harness.microphoneSamples.count]"
    began = harness.call(clock)
    harness.until(f"harness.microphoneSamples.count > {began[1] + 32_000}", 10)
    ended = harness.call(clock)
    rate = (ended[1] - began[1]) / (ended[0] - began[0])
    assert 15_000 < rate < 17_000, f"{rate:.0f} samples a second of the microphone's clock"
    assert harness.call("harness.microphoneSamples.frame") == 320
    audio = "harness.events.some((e) => e.type === 'sent' && e.message.type === 'audio')"
    harness.until(audio, 5, "a second of audio is sent")
    harness.call("harness.microphone.stop()")
    harness.call('harness.connection.send({type: "interrupt"})')  # whatever it made of that


def _check_answer(harness: Harness) -> None:
    """A typed question is answered aloud, and interrupted by the button."""
    harness.call('harness.connection.send({type: "text", text: "Tell me a story."})')
    start = harness.message("tts_audio", state="start", seconds=20)
    stream_id = start["message"]["stream_id"]
    harness.event(type="report", streamId=stream_id, final=False)
    harness.call('harness.connection.send({type: "interrupt"})')
    harness.message("flush", stream_id=stream_id)
    report = harness.event(type="report", streamId=stream_id, final=True)
    interrupted = harness.message("interrupted", turn_id=start["message"]["turn_id"])["message"]
    assert interrupted["certainty"] == "reported"
    counts = harness.call(f"harness.flushed({stream_id})")
    assert counts["played"] == report["playedSamples"] > 0
    assert counts["played"] + counts["discarded"] == len(harness.received(stream_id))


def _check_player(harness: Harness) -> None:
    """Silent soon after pause and flush, where it was after resume; gapless in between."""
    harness.call(f"harness.player.open(900, {TONE_RATE}), harness.player.push(900, {TONE})")
    harness.event(type="report", streamId=900)
    began = _after(harness, "")
    pauses = [
        (
            _after(harness, "harness.player.pause(900)"),
            _after(harness, "harness.player.resume(900)"),
        )
        for _ in range(PAUSES)
    ]
    paused, resumed = pauses[0][0], pauses[-1][1]
    flushed = harness.call(
        f"(async () => {{ const at = {NOW}.played;"
        " return {at, ...await harness.player.flush(900)}; })()"
    )
    ended = _after(harness, "")
    assert flushed["played"] > 0
    heard = harness.between(began, paused).astype(float)
    assert np.abs(heard).max() > LOUD
    # A sine of which nothing is missing and to which nothing was added fits one sine.
    turns = 2 * np.pi * TONE_HZ * np.arange(len(heard)) / harness.call("tap.rate()")
    waves = np.stack((np.sin(turns), np.cos(turns)), axis=1)
    fit = waves @ np.linalg.lstsq(waves, heard, rcond=None)[0]
    assert np.abs(heard - fit).max() < 0.02 * np.abs(heard).max()
    # One of them may meet a moment in which the machine does something else.
    sounds_ms = statistics.median(harness.sound_after_ms(*pause) for pause in pauses)
    assert sounds_ms <= SILENT_MS, f"{sounds_ms:.1f} ms of sound after pause"
    assert np.abs(harness.between(resumed, {"played": flushed["at"]})).max() > LOUD
    sounds_ms = harness.sound_after_ms({"played": flushed["at"]}, ended)
    assert sounds_ms <= SILENT_MS, f"{sounds_ms:.1f} ms of sound after flush"


def _after(harness: Harness, action: str) -> dict[str, float]:
    """The loudspeaker's time at an action, half a second after which it goes on."""
    now = harness.call(f"(() => {{ const now = {NOW}; {action}; return now; }})()")
    harness.until(f"{NOW}.played > {now['played'] + 0.5}", 5)
    return now
