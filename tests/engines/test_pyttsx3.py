"""pyttsx3 in processes of its own: the system's real voices, and processes that misbehave."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ctypes.util import find_library
from pathlib import Path

import numpy as np
import psutil
import pytest
import trio

from listenai.engines.base import SpeechChunk
from listenai.engines.pyttsx3_voice import MAX_PHRASE_CHARACTERS, Pyttsx3Synthesizer
from listenai.errors import SynthesizerError


@pytest.fixture
def system_voices() -> None:
    """What the real driver needs."""
    pytest.importorskip("pyttsx3", reason="pyttsx3 is missing: pip install '.[pyttsx3]'")
    if sys.platform == "linux" and not find_library("espeak-ng"):
        pytest.skip("pyttsx3's voices are missing: apt-get install espeak-ng")


real = pytest.mark.usefixtures("system_voices")

# A process like pyttsx3_worker: what it does depends on the text.  Its file tells how often it
# was started.
STAND_IN = """
import json, sys, time
starts = open(sys.argv[1] + ".starts", "a"); starts.write("x"); starts.close()
def say(line, pcm=b""):
    sys.stdout.buffer.write(json.dumps(line).encode() + b"\\n" + pcm); sys.stdout.buffer.flush()
voices = {"gmw/en": ["English", "en-gb"], "sit/cmn": ["Mandarin", "cmn"]}
say({"sample_rate": 8000, "voices": voices})
for line in sys.stdin:
    asked = json.loads(line)
    match asked["text"].split()[0]:
        case "hang": time.sleep(1000)
        case "half": say({"bytes": 4}, b"ab"); time.sleep(1000)
        case "die": sys.exit(1)
        case "fail": say({"error": "OSError: no such voice"})
        case "huge": say({"bytes": 1 << 40})
        case "voice":
            pcm = asked["voice"].encode("utf-16-le")
            say({"bytes": len(pcm)}, pcm)
        case _:
            pcm = asked["text"].encode("utf-16-le")
            say({"bytes": len(pcm)}, pcm)
"""


@asynccontextmanager
async def stand_in(
    tmp_path: Path, *, timeout_seconds: float = 20.0, processes: int = 1, script: str = STAND_IN
) -> AsyncIterator[Pyttsx3Synthesizer]:
    path = tmp_path / "stand_in.py"
    path.write_text(script)
    async with Pyttsx3Synthesizer.open(
        timeout_seconds=timeout_seconds, processes=processes, command=[sys.executable, str(path)]
    ) as synthesizer:
        yield synthesizer


async def speak(
    synthesizer: Pyttsx3Synthesizer, text: str, voice_id: str = "default", language: str = "en"
) -> Sequence[SpeechChunk]:
    async with synthesizer.open_speech(text, voice_id=voice_id, language=language) as chunks:
        return [chunk async for chunk in chunks]


async def failing(synthesizer: Pyttsx3Synthesizer, text: str, voice_id: str = "default") -> str:
    with pytest.raises(SynthesizerError) as caught:
        await speak(synthesizer, text, voice_id)
    return str(caught.value)


def pcm_of(chunks: Sequence[SpeechChunk]) -> bytes:
    return b"".join(chunk.pcm for chunk in chunks)


def children() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if each.status() != "zombie"]


# --- the system's voices -----------------------------------------------------------------


@real
async def test_a_phrase_is_spoken_in_chunks() -> None:
    """By the real driver, at its own rate; a second phrase by the same process; then it is gone."""
    before = children()
    async with Pyttsx3Synthesizer.open(processes=1) as synthesizer:
        process = set(children()) - set(before)
        chunks = await speak(synthesizer, "Hello there, how are you?")
        again = await speak(synthesizer, "Fine.")
        assert set(children()) - set(before) == process
        rate = synthesizer.sample_rate
    assert children() == before
    assert rate == 22_050 or sys.platform != "linux"
    seconds = len(pcm_of(chunks)) / 2 / rate
    assert 1.0 < seconds < 3.0
    assert len(chunks) > 4
    assert max(len(chunk.pcm) for chunk in chunks) == rate // 5 * 2
    assert np.abs(np.frombuffer(pcm_of(chunks), "<i2")).max() > 3000
    assert 0.2 < len(pcm_of(again)) / 2 / rate < seconds


@real
async def test_every_phrase_is_whole() -> None:
    """The driver loses one that comes too soon after another: then it is asked again."""
    phrases = ["one", "twenty two", "seven hundred"] * 10
    async with Pyttsx3Synthesizer.open(processes=1) as synthesizer:
        sizes = [len(pcm_of(await speak(synthesizer, phrase))) for phrase in phrases]
    for phrase in set(phrases):
        of_phrase = [size for size, said in zip(sizes, phrases, strict=True) if said == phrase]
        # It varies by some hundredths from one time to the next.
        assert min(of_phrase) > 0.85 * max(of_phrase)


@real
async def test_languages_of_the_driver_are_spoken() -> None:
    """A voice of each was found: the same letters take another time."""
    async with Pyttsx3Synthesizer.open(processes=1) as synthesizer:
        assert {"default", "doubao-通用女声", "gmw/en-us"} <= set(synthesizer.voices)
        english, chinese = [
            len(pcm_of(await speak(synthesizer, "你好，很高兴", language=language)))
            for language in ("en", "zh")
        ]
    assert english > 1.5 * chinese  # "Chinese letter, Chinese letter…"


@real
async def test_two_speak_at_once() -> None:
    """Each by a process of its own, and each hears its own phrase."""
    async with Pyttsx3Synthesizer.open(processes=2) as synthesizer:
        alone = [len(pcm_of(await speak(synthesizer, text))) for text in ("one", "twenty two")]
        together: dict[str, int] = {}

        async def say(text: str) -> None:
            together[text] = len(pcm_of(await speak(synthesizer, text)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, "one")
            nursery.start_soon(say, "twenty two")
    # It varies by some hundredths from one time to the next.
    assert [together["one"], together["twenty two"]] == pytest.approx(alone, rel=0.15)
    assert alone[1] > 1.4 * alone[0]


# What the real worker is given in place of pyttsx3: a driver that has the faults of espeak's,
# every time.
UNRELIABLE = """
import threading, wave
class Engine:
    listeners, tries = {}, 0
    def connect(self, topic, callback):
        self.listeners[topic] = callback
        return topic
    def disconnect(self, topic): del self.listeners[topic]
    def setProperty(self, name, value): pass
    def getProperty(self, name): return []
    def save_to_file(self, text, path): self.text, self.path = text, path
    def runAndWait(self):
        threading.Timer(0.05, self.write).start()  # and comes back at once
    def write(self):
        self.tries += 1
        said = self.text if self.tries % 2 == 0 else ""  # it was cancelled
        with wave.open(self.path, "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(said.encode("utf-16-le"))
        self.listeners["finished-utterance"](completed=True)
def init(): return Engine()
"""


def worker_with(tmp_path: Path, pyttsx3: str) -> str:
    """A script that is the real worker with this in place of pyttsx3."""
    (tmp_path / "pyttsx3.py").write_text(pyttsx3)
    worker = "listenai.engines.pyttsx3_worker"
    return (
        f"import sys, runpy; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"runpy.run_module({worker!r}, run_name='__main__')"
    )


async def test_a_driver_that_is_late_and_loses_phrases_speaks_them_all(tmp_path: Path) -> None:
    """The file is waited for, and an empty one is asked for again."""
    async with stand_in(tmp_path, script=worker_with(tmp_path, UNRELIABLE)) as synthesizer:
        for text in ("one", "two", "three"):
            assert pcm_of(await speak(synthesizer, text)).decode("utf-16-le") == text
        assert synthesizer.sample_rate == 8000


async def test_a_driver_that_writes_something_else_is_told(tmp_path: Path) -> None:
    """AIFF, as it may be on a Mac."""
    told = 'self.listeners["finished-utterance"]'
    aiff = UNRELIABLE.replace(told, f'open(self.path, "wb").write(b"FORM1234AIFF"); {told}')
    with pytest.raises(SynthesizerError, match="something else than 16-bit mono WAV files"):
        async with stand_in(tmp_path, script=worker_with(tmp_path, aiff)):
            pytest.fail("it cannot speak")


async def test_without_a_driver_it_says_what_to_install(tmp_path: Path) -> None:
    """With the driver's own complaint; a package that fails to import stands for a missing one."""
    script = worker_with(tmp_path, "raise ImportError('libespeak-ng.so.1 is missing')")
    with pytest.raises(SynthesizerError) as caught:
        async with stand_in(tmp_path, script=script):
            pytest.fail("it cannot speak")
    assert "libespeak-ng.so.1 is missing" in str(caught.value)
    assert "pip install 'listenai[pyttsx3]'" in str(caught.value)
    assert "apt-get install espeak-ng" in str(caught.value)


# --- processes that misbehave ------------------------------------------------------------


async def test_text_and_voice_reach_the_process(tmp_path: Path) -> None:
    """Whatever is in the text; nothing is asked where there are no words."""
    async with stand_in(tmp_path) as synthesizer:
        for text in ('say "hi"\n{}', "你好，世界", "x" * MAX_PHRASE_CHARACTERS):
            assert pcm_of(await speak(synthesizer, text)).decode("utf-16-le") == text
        assert await speak(synthesizer, " … ") == []
        assert "no voice 'x'; choose one of default, " in await failing(synthesizer, "hi", "x")
        assert "split it" in await failing(synthesizer, "x" * (MAX_PHRASE_CHARACTERS + 1))


@pytest.mark.parametrize(
    ("voice_id", "language", "voice"),
    [
        ("default", "en", "gmw/en"),
        ("doubao-通用女声", "en-US", "gmw/en"),
        ("default", "zh-CN", "sit/cmn"),
        ("sit/cmn", "en", "sit/cmn"),
        ("default", "fr", "gmw/en"),
    ],
)
async def test_the_default_voice_follows_the_language(
    tmp_path: Path, voice_id: str, language: str, voice: str
) -> None:
    """As the driver names languages; the first voice where it has none, the named one if any."""
    async with stand_in(tmp_path) as synthesizer:
        chunks = await speak(synthesizer, "voice", voice_id, language)
    assert pcm_of(chunks).decode("utf-16-le") == voice


@pytest.mark.parametrize("text", ["hang", "half"])
async def test_who_does_not_want_to_hear_it_is_gone_at_once(tmp_path: Path, text: str) -> None:
    """The process is killed in mid phrase, and another one speaks the next."""
    async with stand_in(tmp_path) as synthesizer:
        [process] = children()
        with trio.move_on_after(0.2) as scope:
            await speak(synthesizer, text)
        late = trio.current_time() - scope.deadline
        assert scope.cancelled_caught
        assert late < 0.5
        assert not process.is_running()
        assert pcm_of(await speak(synthesizer, "next")).decode("utf-16-le") == "next"
    assert children() == []


async def test_a_phrase_that_takes_too_long_is_an_error(tmp_path: Path) -> None:
    """The time is told, and how to allow more; the text is not."""
    async with stand_in(tmp_path, timeout_seconds=2.0) as synthesizer:
        said = await failing(synthesizer, "hang on, this is a secret")
        assert "longer than 2 s" in said
        assert "TTS_TIMEOUT" in said
        assert "secret" not in said
        assert pcm_of(await speak(synthesizer, "next"))


@pytest.mark.parametrize(
    ("text", "told", "starts"),
    [
        ("die", "has died", 2),
        ("huge", "bytes of audio", 2),
        ("fail", "pyttsx3 failed: OSError: no such voice", 1),
    ],
)
async def test_a_failure_is_told_and_the_next_phrase_is_spoken(
    tmp_path: Path, text: str, told: str, starts: int
) -> None:
    """By the same process where it lives, else by a new one."""
    counted = tmp_path / "starts.py"
    script = STAND_IN.replace("sys.argv[1]", repr(str(counted)))
    async with stand_in(tmp_path, script=script) as synthesizer:
        assert told in await failing(synthesizer, text)
        assert pcm_of(await speak(synthesizer, "next")).decode("utf-16-le") == "next"
    assert len(await trio.Path(f"{counted}.starts").read_text()) == starts
