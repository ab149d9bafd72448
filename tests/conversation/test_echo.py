"""What is our own voice, and what is done about it."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

import attrs
import numpy as np
import pytest
import trio
from fakes import FULL, FakeDevice, FakeSynthesizer, speech, talking
from hypothesis import given
from hypothesis import strategies as st

from listenai.audio import FRAME_BYTES, FRAME_SAMPLES, FRAME_SECONDS, SAMPLE_RATE
from listenai.conversation.echo import (
    BEGINNING_SECONDS,
    BURST_SECONDS,
    LONGEST_STALL_SECONDS,
    ROOM_SECONDS,
    SUSPICION,
    SUSPICION_WITH_ECHO,
    TAIL_SECONDS,
    EchoPolicy,
    is_repeated,
    open_policy,
)
from listenai.conversation.echo_evidence import (
    KEPT_SECONDS,
    EchoEvidence,
    Finding,
)
from listenai.conversation.echo_reference import EchoReference
from listenai.device import Capabilities, DeviceProfile, Duplex, Echo
from listenai.engines.base import SpeechChunk
from listenai.events import (
    AudioChunk,
    AudioReceived,
    InterruptPressed,
    PlaybackReported,
    SentenceStarted,
    Source,
    StatusChanged,
    StreamFlushed,
    StreamPaused,
    StreamResumed,
    StreamStarted,
    TextTyped,
    TurnInterrupted,
)
from listenai.speech import PartialTranscript, SpeechStarted, SpeechSuspected

CHUNK = SAMPLE_RATE * 60 // 1000  # samples
STORY = "Once upon a time there was a village by the sea."


def voice(seed: int, seconds: float, dbfs: float = -20.0) -> np.ndarray:
    """Noise with the rhythm of speech: syllables of different loudness, and pauses."""
    random = np.random.default_rng(seed)
    sound = np.zeros(int(seconds * SAMPLE_RATE))
    at = 0
    while at < len(sound):
        length = int(random.uniform(0.06, 0.22) * SAMPLE_RATE)
        loud = 10 ** (random.uniform(-14, 2) / 20)
        syllable = random.standard_normal(length) * np.hanning(length) * loud
        sound[at : at + length] = syllable[: len(sound) - at]
        pause = random.uniform(0.2, 0.5) if random.random() < 0.12 else random.uniform(0, 0.08)
        at += length + int(pause * SAMPLE_RATE)
    return sound / np.sqrt(np.mean(sound**2)) * 32768 * 10 ** (dbfs / 20)


def pcm(sound: np.ndarray) -> bytes:
    return np.clip(np.rint(sound), -32768, 32767).astype(np.int16).tobytes()


def room(
    played: np.ndarray, *, gain: float | None, delay: float = 0.1, noise: float = -75.0
) -> np.ndarray:
    """What a microphone hears beside a loudspeaker; gain and noise in dB."""
    heard = np.random.default_rng(1).standard_normal(len(played)) * 32768 * 10 ** (noise / 20)
    if gain is not None:
        late = int(delay * SAMPLE_RATE)
        heard[late:] += played[: len(played) - late] * 10 ** (gain / 20)
    return heard


def murmur(seconds: float) -> np.ndarray:
    """Something without a silent frame."""
    return np.full(round(seconds * SAMPLE_RATE), 500.0)


def frames(sound: np.ndarray) -> Iterator[bytes]:
    data = pcm(sound)
    for start in range(0, len(data) - FRAME_BYTES + 1, FRAME_BYTES):
        yield data[start : start + FRAME_BYTES]


def finding(played: np.ndarray, heard: np.ndarray) -> tuple[Finding | None, float]:
    """The first finding, and after how many seconds; the beginning is not looked at."""
    evidence = EchoEvidence()
    evidence.sent(pcm(played), SAMPLE_RATE, 50.0)
    for number, frame in enumerate(frames(heard)):
        late = number * FRAME_SECONDS - BEGINNING_SECONDS
        if late > 0 and (found := evidence.heard(frame, 50.0 + number * FRAME_SECONDS)):
            return found, (number + 1) * FRAME_SECONDS
    return None, len(heard) / SAMPLE_RATE


# --- the evidence --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("delay", [0.03, 0.2, 0.9])
@pytest.mark.parametrize("gain", [-6, -20, -40])
def test_an_echo_is_found(gain: float, delay: float, seed: int):
    """However quiet, whenever it comes, and when that was: within 6 s."""
    played = voice(seed, 8)
    found, after = finding(played, room(played, gain=gain, delay=delay))
    assert found
    assert found.echo is Echo.RAW
    assert found.delay_seconds == pytest.approx(delay, abs=0.041)
    assert after <= 6


@pytest.mark.parametrize("noise", [-200, -75, -50])
def test_where_nothing_comes_back_the_echo_is_cancelled(noise: float):
    """In digital silence as in noise, within 4.5 s."""
    played = voice(1, 8)
    found, after = finding(played, room(played, gain=None, noise=noise))
    assert found == Finding(Echo.CANCELLED)
    assert after <= 4.5


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("gain", [None, -20, -40])
def test_who_talks_over_it_proves_nothing(gain: float | None, seed: int):
    """Neither that there is no echo nor, where there is none, that there is one."""
    played = voice(seed, 16)
    found, _ = finding(played, room(played, gain=gain) + voice(100 + seed, 16, -25))
    assert found is None or (gain is not None and found.echo is Echo.RAW)


def test_it_is_found_once_the_user_is_silent():
    """Two seconds of talk delay the finding, no more."""
    played = voice(1, 14)
    heard = room(played, gain=None)
    heard[: 2 * SAMPLE_RATE] += voice(2, 2)
    found, after = finding(played, heard)
    assert found == Finding(Echo.CANCELLED)
    assert after > 2.5


def test_a_quiet_voice_proves_nothing():
    """Its echo would not be heard, and the user may turn it up."""
    played = voice(1, 14, -55)
    assert finding(played, room(played, gain=None))[0] is None


def test_a_steady_sound_proves_nothing():
    """It looks like any noise."""
    played = np.random.default_rng(1).standard_normal(14 * SAMPLE_RATE) * 3000
    assert finding(played, room(played, gain=-20))[0] is None


def test_little_is_kept():
    """However long there is no finding: less than 256 KiB."""
    played = [pcm(voice(seed, 1)) for seed in range(5)]
    other = [pcm(voice(seed, 1)) for seed in range(50, 57)]
    evidence = EchoEvidence()
    evidence.heard(other[0], 0.0)  # what numpy needs at first is not kept
    tracemalloc.start()
    evidence = EchoEvidence()
    for second in range(int(4 * KEPT_SECONDS)):
        evidence.sent(played[second % 5], SAMPLE_RATE, float(second))
        assert evidence.heard(other[second % 7], float(second)) is None
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"evidence: {size / 1024:.0f} KiB")
    assert size < 256 * 1024


# --- the policy ----------------------------------------------------------------------------


@attrs.define
class Stage:
    """A policy, and a device that plays what it is told in real time."""

    policy: EchoPolicy
    now: float = 100.0
    stream_id: int = 0

    def begin(self, *sentences: str, source: Source = Source.SPEECH) -> None:
        self.stream_id += 1
        self.policy.sent(StreamStarted(1, self.stream_id, SAMPLE_RATE, source), self.now)
        for text in sentences:
            self.policy.sent(SentenceStarted(self.stream_id, text, 0), self.now)

    def play(self, sound: np.ndarray) -> float:
        """Sends all of it now; when it will have been played."""
        data = pcm(sound)
        for start in range(0, len(data), 2 * CHUNK):
            chunk = AudioChunk(self.stream_id, data[start : start + 2 * CHUNK])
            self.policy.sent(chunk, self.now)
        return self.now + len(sound) / SAMPLE_RATE

    def hear(self, sound: np.ndarray, *, stalled_until: float = 0.0) -> list[bool]:
        """Real time; for each frame whether the recognizer gets it.

        stalled_until: until then nothing comes through, then all of it at once.
        """
        got = []
        for frame in frames(sound):
            self.now += FRAME_SECONDS
            passed = self.policy.heard(frame, max(self.now, stalled_until))
            assert len(passed) == len(frame)
            got.append(passed == frame)
            assert got[-1] or not any(passed) or self.policy.canceller
        return got

    def hears(self, seconds: float = 2 * FRAME_SECONDS) -> bool:
        """Whether the recognizer gets what the microphone hears now."""
        got = self.hear(murmur(seconds))
        assert len(set(got[1:])) == 1
        return got[-1]

    def wait_until(self, when: float) -> None:
        """The microphone goes on, silent."""
        self.hear(np.full(max(0, int((when - self.now) * SAMPLE_RATE)), 1.0))


def stage(echo: Echo, **able: bool) -> Stage:
    return Stage(EchoPolicy(Capabilities(**{"pause": True, "flush": True, "echo": echo} | able)))


@pytest.mark.parametrize("echo", [Echo.RAW, Echo.UNKNOWN])
def test_half_duplex_is_deaf_while_we_speak(echo: Echo):
    """And as long as the sound may be on its way; before and after, everything is heard."""
    talk = stage(echo)
    assert talk.policy.duplex is Duplex.HALF
    assert talk.policy.suspicion == SUSPICION_WITH_ECHO == (8, 10)
    assert talk.hears()
    talk.begin(STORY)
    assert talk.hears()
    ends_at = talk.play(voice(1, 2))
    assert not talk.hears()
    talk.wait_until(ends_at + TAIL_SECONDS - 0.05)
    assert not talk.hears()
    talk.wait_until(ends_at + TAIL_SECONDS + 0.02)
    assert talk.hears()


def test_full_duplex_hears_everything():
    """Of a device that cancels its echo not a sample is lost."""
    talk = stage(Echo.CANCELLED)
    assert talk.policy.duplex is Duplex.FULL
    assert talk.policy.suspicion == SUSPICION == (3, 4)
    talk.begin(STORY)
    talk.play(voice(1, 2))
    assert talk.hears(3.0)


def test_after_the_button_it_soon_hears_again():
    """A flushed device is silent."""
    talk = stage(Echo.RAW)
    talk.begin(STORY)
    talk.play(voice(1, 60))
    assert not talk.hears(1.0)
    talk.policy.sent(StreamFlushed(talk.stream_id), talk.now)
    talk.wait_until(talk.now + TAIL_SECONDS + 0.02)
    assert talk.hears()


def test_a_device_that_cannot_flush_plays_on():
    """So it stays deaf for as long."""
    talk = stage(Echo.RAW, flush=False, pause=False)
    talk.begin(STORY)
    ends_at = talk.play(voice(1, 3))
    talk.policy.sent(StreamFlushed(talk.stream_id), talk.now)
    talk.wait_until(ends_at + TAIL_SECONDS - 0.05)
    assert not talk.hears()
    talk.wait_until(ends_at + TAIL_SECONDS + 0.02)
    assert talk.hears()


def test_a_paused_device_is_silent():
    """And not when it goes on: as much later as it was paused."""
    talk = stage(Echo.RAW)
    talk.begin(STORY)
    ends_at = talk.play(voice(1, 3))
    assert not talk.hears(1.0)
    paused_at = talk.now
    talk.policy.sent(StreamPaused(talk.stream_id), paused_at)
    talk.wait_until(paused_at + TAIL_SECONDS + 0.02)
    assert talk.hears()
    talk.policy.sent(StreamResumed(talk.stream_id), talk.now)
    ends_at += talk.now - paused_at
    assert not talk.hears()
    talk.wait_until(ends_at + TAIL_SECONDS - 0.05)
    assert not talk.hears()
    talk.wait_until(ends_at + TAIL_SECONDS + 0.02)
    assert talk.hears()


def test_a_device_that_is_behind_is_believed():
    """It reports what it has played: what is left will still sound."""
    talk = stage(Echo.RAW)
    talk.begin(STORY)
    ends_at = talk.play(voice(1, 2))
    talk.wait_until(ends_at - 0.1)
    half = PlaybackReported(talk.stream_id, SAMPLE_RATE, output_latency_ms=200.0)
    talk.policy.report(half, talk.now)
    ends_at = talk.now + 1.2
    talk.wait_until(ends_at + TAIL_SECONDS - 0.05)
    assert not talk.hears()
    talk.wait_until(ends_at + TAIL_SECONDS + 0.02)
    assert talk.hears()


def test_what_comes_late_was_heard_in_time():
    """A stalled network delivers the echo when we are silent already."""
    talk = stage(Echo.RAW)
    talk.begin(STORY)
    ends_at = talk.play(voice(1, 2))
    talk.wait_until(ends_at - 0.5)
    until = talk.now + 2 * LONGEST_STALL_SECONDS
    assert not any(talk.hear(murmur(0.5 + TAIL_SECONDS - 0.05), stalled_until=until))
    assert all(talk.hear(murmur(4.0), stalled_until=until)[8:])


def test_a_microphone_that_was_off_is_not_late():
    """Off for long, it is heard almost at once; off for a moment, what it hears may still be of
    the reply."""
    talk = stage(Echo.RAW)
    talk.hears()
    talk.begin(STORY)
    talk.now = talk.play(voice(1, 3)) + TAIL_SECONDS
    assert all(talk.hear(murmur(1.0))[round(BURST_SECONDS / FRAME_SECONDS) + 2 :])
    talk.begin(STORY)
    talk.now = talk.play(voice(1, 1)) + TAIL_SECONDS
    got = talk.hear(murmur(1.0))
    assert not got[0]
    assert all(got[round(TAIL_SECONDS / FRAME_SECONDS) + 2 :])


def test_music_alone_leaves_the_microphone_open():
    """Who wants it to stop can say so."""
    talk = stage(Echo.RAW)
    talk.begin(source=Source.MUSIC)
    talk.play(voice(1, 3))
    assert talk.hears(1.0)


@pytest.mark.parametrize("delay", [0.1, 0.7])
@pytest.mark.parametrize("gain", [-6, -20, -40])
def test_an_echo_makes_it_half_duplex_for_good(gain: float, delay: float):
    """Found in the first reply; a long delay is waited for."""
    talk = stage(Echo.UNKNOWN)
    talk.begin(STORY)
    played = voice(1, 10)
    ends_at = talk.play(played)
    assert not any(talk.hear(room(played, gain=gain, delay=delay)))
    assert talk.policy.echo is Echo.RAW
    talk.wait_until(ends_at + max(delay + ROOM_SECONDS, TAIL_SECONDS) - 0.1)
    assert not talk.hears()
    talk.wait_until(ends_at + max(delay + ROOM_SECONDS, TAIL_SECONDS) + 0.08)
    assert talk.hears()


def test_no_echo_makes_it_full_duplex():
    """In the first reply, which can then be interrupted."""
    talk = stage(Echo.UNKNOWN)
    talk.begin(STORY)
    played = voice(1, 10)
    talk.play(played)
    got = talk.hear(room(played, gain=None))
    assert talk.policy.duplex is Duplex.FULL
    assert talk.policy.suspicion == SUSPICION
    assert got.index(True) * FRAME_SECONDS < 5
    assert all(got[got.index(True) :])


def test_short_replies_count_together():
    """Each is too short to tell."""
    talk = stage(Echo.UNKNOWN)
    for reply in range(8):
        talk.begin(STORY)
        played = voice(reply, 1.5)
        talk.play(played)
        talk.hear(room(np.append(played, np.zeros(2 * SAMPLE_RATE)), gain=-20))
        if reply < 2:
            assert talk.policy.echo is Echo.UNKNOWN
    assert talk.policy.echo is Echo.RAW


def test_a_pause_does_not_confuse_the_evidence():
    """What was queued then comes back later, too."""
    talk = stage(Echo.UNKNOWN)
    talk.begin(STORY)
    played = voice(1, 12)
    talk.play(played)
    heard = room(played, gain=-20)
    talk.hear(heard[: 2 * SAMPLE_RATE])
    talk.policy.sent(StreamPaused(talk.stream_id), talk.now)
    talk.hear(room(np.zeros(SAMPLE_RATE), gain=None))
    talk.policy.sent(StreamResumed(talk.stream_id), talk.now)
    talk.hear(heard[2 * SAMPLE_RATE :])
    assert talk.policy.echo is Echo.RAW


@pytest.mark.parametrize("size", [511, 640, 8192])
def test_messages_of_any_size_tell_the_same(size: int):
    """Odd ones too."""
    talk = stage(Echo.UNKNOWN)
    talk.begin(STORY)
    played = voice(1, 10)
    talk.play(played)
    data = pcm(room(played, gain=-20))
    for start in range(0, len(data), size):
        talk.policy.heard(data[start : start + size], talk.now + (start + size) / 32000)
    assert talk.policy.echo is Echo.RAW


@given(sizes=st.lists(st.integers(0, 2000), max_size=30), echo=st.sampled_from(Echo))
def test_the_recognizer_always_gets_as_much_as_came(sizes: list[int], echo: Echo):
    """Its own clock counts samples."""
    talk = stage(echo)
    talk.begin(STORY)
    talk.play(voice(1, 0.3))
    for size in sizes:
        assert len(talk.policy.heard(bytes(size), talk.now)) == size
        talk.now += size / 32000


def test_false_alarms_reopen_what_was_found():
    """What seemed to be the user may have been we, unless the device said that it cannot be; one
    or two in a reply are the user's first sounds."""
    for echo, duplex in ((Echo.UNKNOWN, Duplex.HALF), (Echo.CANCELLED, Duplex.FULL)):
        talk = stage(echo)
        talk.begin(STORY)
        played = voice(1, 20)
        talk.play(played)
        talk.hear(room(played[: 8 * SAMPLE_RATE], gain=None))
        for number in range(3):
            assert talk.policy.duplex is Duplex.FULL, number
            talk.policy.sent(StreamPaused(talk.stream_id), talk.now)
            talk.policy.sent(StreamResumed(talk.stream_id), talk.now)
        assert talk.policy.duplex is duplex


# --- with a canceller ----------------------------------------------------------------------


@attrs.define
class LearningCanceller:
    """Lets everything through for some seconds; from then on noise."""

    seconds: float
    played: bytearray = attrs.field(factory=bytearray)
    heard: bytearray = attrs.field(factory=bytearray)

    def process(self, heard: bytes, played: bytes) -> bytes:
        assert len(heard) == len(played)
        self.heard += heard
        self.played += played
        if len(self.heard) < self.seconds * 2 * SAMPLE_RATE:
            return heard
        random = np.random.default_rng(len(self.heard))
        return pcm(random.standard_normal(len(heard) // 2) * 5)


def test_what_a_canceller_leaves_is_what_counts():
    """Half duplex while it learns the room; full as soon as nothing is left, with a longer
    suspicion; half again when the device is moved: all of it in one reply."""
    canceller = LearningCanceller(14.0)
    talk = Stage(EchoPolicy(Capabilities(flush=True, echo=Echo.RAW), canceller))
    talk.begin(STORY)
    played = voice(1, 52)
    heard, step = room(played, gain=-6), 64 * FRAME_SAMPLES
    for number, start in enumerate(range(0, len(played) - step, step)):
        talk.play(played[start : start + step])
        for frame in frames(heard[start : start + step]):
            talk.now += FRAME_SECONDS
            talk.policy.heard(frame, talk.now)
        if number == 13:
            assert talk.policy.echo is Echo.RAW
        if number == 28:
            assert talk.policy.duplex is Duplex.FULL
            assert talk.policy.suspicion == SUSPICION_WITH_ECHO
            canceller.seconds = 1e9
    assert talk.policy.echo is Echo.RAW


@pytest.mark.parametrize("event", ["another reply", "a jump of the clock"])
def test_a_canceller_that_has_to_learn_anew_is_not_believed(event: str):
    """The delay is another one: half duplex until nothing is left again."""
    talk = Stage(EchoPolicy(Capabilities(flush=True), LearningCanceller(0.0)))
    talk.begin(STORY)
    played = voice(1, 15)
    heard, step = room(played, gain=-6), 64 * FRAME_SAMPLES
    for start in range(0, len(played) - step, step):
        talk.play(played[start : start + step])
        talk.hear(heard[start : start + step])
    assert talk.policy.duplex is Duplex.FULL
    if event == "another reply":
        talk.hear(murmur(2.0))
        talk.begin(STORY)
        talk.play(played[:step])
    else:
        talk.now += 0.2
        for start in range(0, 5 * step, step):
            talk.play(played[start : start + step])
            talk.hear(heard[start : start + step])
    assert talk.policy.duplex is Duplex.HALF


def test_a_canceller_gets_what_is_played_when_it_is_heard():
    """Whatever the sizes of messages, and however they come: without a jump."""
    canceller = LearningCanceller(1e9)
    talk = Stage(EchoPolicy(Capabilities(flush=True), canceller))
    talk.hear(murmur(1.0))
    assert not canceller.heard  # nothing was played yet
    talk.begin(STORY)
    sound = voice(1, 4)
    data = pcm(room(sound, gain=0.0, delay=0.0, noise=-200))
    talk.play(sound[: 2 * SAMPLE_RATE])
    began_at, jitter = talk.now, np.random.default_rng(0)
    for start in range(0, len(data), 333):
        at = began_at + (start + 333) / 32000
        if at > began_at + 1.0 > talk.now:
            talk.now = at
            talk.play(sound[2 * SAMPLE_RATE :])
        talk.policy.heard(data[start : start + 333], at + jitter.uniform(0, 0.03))
    got = np.frombuffer(canceller.played, np.int16)[: 3 * SAMPLE_RATE].astype(float)
    mixed = np.frombuffer(canceller.heard, np.int16)[: 3 * SAMPLE_RATE].astype(float)
    shifts = range(-SAMPLE_RATE // 20, SAMPLE_RATE // 20)
    alike = [np.corrcoef(got[1000:-1000], np.roll(mixed, by)[1000:-1000])[0, 1] for by in shifts]
    assert max(alike) > 0.99


def test_a_reference_is_silent_around_what_is_played():
    """And after what was forgotten; a pause moves the rest."""
    second = bytes([1, 1]) * SAMPLE_RATE
    reference = EchoReference()
    assert reference.read(9.0, 3) == bytes(6)
    reference.play(second, 10.0)
    read = reference.read(9.5, 2 * SAMPLE_RATE)
    assert read == bytes(SAMPLE_RATE) + second + bytes(SAMPLE_RATE)
    reference.pause(10.5)
    assert reference.read(10.5, SAMPLE_RATE) == bytes(2 * SAMPLE_RATE)
    reference.resume(10.75)
    read = reference.read(10.25, SAMPLE_RATE)
    assert read == second[: SAMPLE_RATE // 2] + bytes(SAMPLE_RATE // 2) + second[:SAMPLE_RATE]
    reference.forget_after(11.0)
    assert reference.read(10.75, SAMPLE_RATE // 2) == second[: SAMPLE_RATE // 2].ljust(
        SAMPLE_RATE, b"\0"
    )


def test_a_reference_is_bounded():
    """However much is sent, and whenever."""
    reference = EchoReference()
    for at in (0.0, 100.0, *np.arange(100, 160, 0.5).tolist(), 3.0):
        reference.play(bytes([1, 1]) * SAMPLE_RATE, at)
        assert len(reference._audio) <= 4 * 2 * SAMPLE_RATE
    assert any(reference.read(159.5, SAMPLE_RATE))


@pytest.mark.parametrize(
    ("able", "paced", "cancels"),
    [
        ({"playback_reports": True}, True, True),
        ({"playback_reports": True, "echo": Echo.RAW}, True, True),
        ({"playback_reports": True, "echo": Echo.CANCELLED}, True, False),
        ({"playback_reports": True}, False, False),
        ({}, True, False),
    ],
)
def test_a_canceller_is_for_devices_that_say_what_they_play(
    able: dict[str, Any], paced: bool, cancels: bool
):
    """And do not cancel themselves."""
    capabilities, profile = Capabilities(**able), DeviceProfile(paced=paced)
    policy = open_policy(capabilities, profile, lambda: LearningCanceller(1.0))
    assert bool(policy.canceller) is cancels
    assert open_policy(capabilities, profile, None).canceller is None


# --- our own words -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("once upon a time", True),
        ("there was a village", True),
        ("there was a villages by sea", True),  # endings are misheard
        ("wants upon a time", True),
        ("ONCE, upon... a time!", True),
        ("village", True),
        ("what time is it", False),
        ("stop", False),
        ("sea the by village a", False),  # not in our order
        ("once upon a time I was hungry so tell me something else", False),
        ("", False),
        ("...", False),
    ],
)
def test_our_own_words_are_known_again(text: str, own: bool):
    assert is_repeated(text, STORY) is own


@pytest.mark.parametrize(
    ("text", "own"), [("从前有一个", True), ("从前有两个村庄", True), ("现在几点了", False)]
)
def test_our_own_words_without_spaces(text: str, own: bool):
    assert is_repeated(text, "从前有一个小村庄，在海边。") is own


def test_who_speaks_into_our_silence_uses_their_own_words():
    """ "Tea or coffee?"  "Coffee." """
    talk = stage(Echo.RAW)
    talk.begin("Do you want tea or coffee?")
    talk.now = talk.play(voice(1, 2)) + TAIL_SECONDS + ROOM_SECONDS + 0.05
    talk.policy.speech_began(talk.now)
    assert not talk.policy.is_own("coffee", talk.now + 0.5)


def test_an_echo_that_comes_late_is_known_by_its_words():
    """Half duplex was over a moment too soon."""
    talk = stage(Echo.RAW)
    talk.begin("Do you want tea or coffee?")
    talk.now = talk.play(voice(1, 2)) + TAIL_SECONDS + 0.05
    talk.policy.speech_began(talk.now)
    assert talk.policy.is_own("coffee", talk.now + 0.5)


def test_words_of_long_ago_are_nobodys():
    """Who quotes us after 10 s has something to say."""
    talk = stage(Echo.CANCELLED)
    talk.begin("Once upon a time.")
    talk.play(voice(1, 1))
    talk.policy.sent(SentenceStarted(talk.stream_id, "There was a village.", 0), talk.now)
    talk.play(voice(1, 15))
    for seconds, own in ((2.0, True), (12.0, False)):
        talk.policy.speech_began(talk.now + seconds)
        assert talk.policy.is_own("once upon a time", talk.now + seconds + 0.5) is own
        assert talk.policy.is_own("there was a village", talk.now + seconds + 0.5)


def test_own_words_reopen_what_was_found():
    """The headphones were unplugged; a device that was *said* to cancel is still believed."""
    talk = stage(Echo.UNKNOWN)
    talk.begin(STORY)
    played = voice(1, 30)
    talk.play(played)
    talk.hear(room(played[: 8 * SAMPLE_RATE], gain=None))
    assert talk.policy.duplex is Duplex.FULL
    talk.policy.speech_began(talk.now)
    assert not talk.policy.is_own("what time is it", talk.now)
    assert talk.policy.duplex is Duplex.FULL
    assert talk.policy.is_own("upon", talk.now)
    assert talk.policy.echo is Echo.UNKNOWN
    assert not talk.hears()

    said = stage(Echo.CANCELLED)
    said.begin(STORY)
    said.play(played)
    said.policy.speech_began(said.now)
    assert not said.policy.is_own("upon", said.now)
    assert said.policy.is_own("upon a time", said.now)
    assert said.policy.duplex is Duplex.FULL


# --- in a conversation ---------------------------------------------------------------------

UNKNOWN = attrs.evolve(FULL, echo=Echo.UNKNOWN)
MICROPHONE = b"\1\0" * 256


class RhythmicVoice(FakeSynthesizer):
    """Speaks with the rhythm of speech."""

    async def _stream(self, text: str) -> AsyncGenerator[SpeechChunk]:
        sound = pcm(voice(1, self.seconds))
        async with aclosing(super()._stream(text)) as chunks:
            at = 0
            async for chunk in chunks:
                yield attrs.evolve(chunk, pcm=sound[at : at + len(chunk.pcm)])
                at += len(chunk.pcm)


def heard_frames(accepted: list[bytes]) -> int:
    return accepted.count(MICROPHONE)


@pytest.mark.usefixtures("schedule", "nothing_left")
@pytest.mark.parametrize("echo", [Echo.RAW, Echo.UNKNOWN])
async def test_a_reply_cannot_be_interrupted_by_what_is_heard(autojump_clock, echo: Echo):
    """The recognizer hears silence; the button works at once, then the user is heard."""
    device = FakeDevice(attrs.evolve(FULL, echo=echo))
    async with talking(device=device, voice=FakeSynthesizer(3.0)) as talk:
        talk.ask()
        await trio.sleep(1)
        device.say(AudioReceived(MICROPHONE))
        device.utter(*speech(2, "stop it now"))
        await trio.sleep(1)
        assert not heard_frames(talk.recognizer.accepted)
        assert not device.events(StreamPaused, StreamFlushed)
        pressed_at = trio.current_time()
        device.say(InterruptPressed())
        for _ in range(int(1.5 / FRAME_SECONDS)):
            device.say(AudioReceived(MICROPHONE))
            await trio.sleep(FRAME_SECONDS)
        assert heard_frames(talk.recognizer.accepted) > 0.5 / FRAME_SECONDS
        assert device.times(StreamFlushed) == [pytest.approx(pressed_at, abs=0.01)]
        assert device.events(TurnInterrupted)
        talk.ask("and now", 3)
        await trio.sleep(1)
        assert talk.chat.questions == ["hello", "and now"]


@pytest.mark.usefixtures("schedule", "nothing_left")
async def test_typed_text_interrupts_in_half_duplex(autojump_clock):
    """It can be no echo."""
    async with talking(device=FakeDevice(UNKNOWN), voice=FakeSynthesizer(3.0)) as talk:
        talk.ask()
        await trio.sleep(1)
        talk.device.say(TextTyped("stop"))
        await trio.sleep(0.1)
        assert talk.device.events(StreamFlushed)


@pytest.mark.usefixtures("schedule", "nothing_left")
async def test_the_device_is_told_what_was_found(autojump_clock):
    """Half when ready; full as soon as a reply has shown that nothing comes back.  Then speech
    interrupts, after few frames."""
    async with talking(device=FakeDevice(UNKNOWN), voice=RhythmicVoice(8.0)) as talk:
        assert talk.recognizers.suspicions == [(8, 10)]
        talk.ask()
        await trio.sleep(0.5)
        for _ in range(int(6 / FRAME_SECONDS)):
            talk.device.say(AudioReceived(MICROPHONE))
            await trio.sleep(FRAME_SECONDS)
        told = [e.duplex for e in talk.device.events(StatusChanged) if e.duplex]
        assert told == [Duplex.HALF, Duplex.FULL]
        assert talk.recognizer.suspicions == [(3, 4)]
        talk.device.utter(SpeechStarted(2), SpeechSuspected(2), PartialTranscript(2, "stop"))
        await trio.sleep(0.01)
        assert talk.device.events(StreamFlushed)


@pytest.mark.usefixtures("schedule", "nothing_left")
async def test_our_words_do_not_confirm_in_full_duplex(autojump_clock):
    """They hold the reply; what the user says flushes it."""
    async with talking(voice=FakeSynthesizer(5.0)) as talk:
        talk.ask()
        await trio.sleep(1)
        talk.device.utter(SpeechStarted(2), SpeechSuspected(2))
        talk.device.utter(PartialTranscript(2, "one two three"))
        await trio.sleep(0.1)
        assert talk.device.events(StreamPaused)
        assert not talk.device.events(StreamFlushed)
        talk.device.utter(PartialTranscript(2, "one more question"))
        await trio.sleep(0.1)
        assert talk.device.events(StreamFlushed)


@pytest.mark.parametrize("echo", Echo)
def test_a_stream_may_be_flushed_before_its_first_sound(echo: Echo) -> None:
    """Nothing was played, so nothing has to be forgotten."""
    policy = EchoPolicy(Capabilities(flush=True, echo=echo))
    policy.sent(StreamStarted(1, 1, 16_000), 1.0)
    policy.sent(StreamFlushed(1), 1.1)
    assert policy.suspicion
