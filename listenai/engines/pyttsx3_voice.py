"""pyttsx3: the voices of the operating system; espeak-ng's where that is Linux.

It makes a phrase whole before any of it can be heard, and nothing stops it: each phrase goes to a
process that does nothing else (`pyttsx3_worker`), which is killed when nobody wants to hear the
phrase any more, and replaced behind everybody's back.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import trio

from listenai.audio import SAMPLE_BYTES
from listenai.engines.base import SpeechChunk
from listenai.errors import SynthesizerError

DEFAULT_VOICES = ("default", "doubao-通用女声")  # the second: spec 000's example
DEFAULT_PROCESSES = 2  # spec 001's STREAM_TTS_THREAD_WORKERS
CHUNK_MS = 200
MAX_PHRASE_CHARACTERS = 2000
MAX_PHRASE_BYTES = 32 * 1024 * 1024  # of audio: six minutes at 44 100 Hz
START_SECONDS = 20.0  # a cold disk; 0.2 s otherwise
_WORKER = (sys.executable, "-m", "listenai.engines.pyttsx3_worker")
# What drivers call languages that we call otherwise.
_LANGUAGES = {"zh": "cmn"}
_DIED = "the process in which pyttsx3 speaks has died: its own words are in the server's log"
_INSTALL = (
    "install it with  pip install 'listenai[pyttsx3]',  and on Linux  apt-get install espeak-ng,  "
    "or choose another TTS_ENGINE"
)


class Pyttsx3Synthesizer:
    """Speaks with the system's voices (engines.base.Synthesizer); made by `open`.

    No word timings; the default voice follows the language where there is one for it.
    """

    def __init__(
        self,
        workers: Sequence[_Worker],
        greeting: _Greeting,
        nursery: trio.Nursery,
        timeout_seconds: float,
    ) -> None:
        """Not for callers: see `open`."""
        self.sample_rate = greeting.sample_rate
        self.voices: Mapping[str, str] = {
            **dict.fromkeys(DEFAULT_VOICES, "a voice of the conversation's language"),
            **greeting.names,
        }
        self._languages = greeting.languages
        self._nursery = nursery
        self._timeout_seconds = timeout_seconds
        self._idle_in, self._idle = trio.open_memory_channel[_Worker](len(workers))
        for worker in workers:
            nursery.start_soon(self._give_back, worker)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *,
        timeout_seconds: float = 10.0,
        processes: int = DEFAULT_PROCESSES,
        command: Sequence[str] = _WORKER,
    ) -> AsyncIterator[Pyttsx3Synthesizer]:
        """Starts a process, the others behind its back; alive in the `async with`.

        timeout_seconds: that one phrase may take.  processes: phrases made at a time.
        command: starts one, given the name of a file of its own.
        Raises SynthesizerError where pyttsx3 cannot speak here.
        """
        with TemporaryDirectory(prefix="listenai-pyttsx3-") as folder:
            workers = [_Worker([*command, f"{folder}/{at}.wav"]) for at in range(processes)]
            try:
                greeting = await workers[0].warm()
                async with trio.open_nursery() as nursery:
                    yield cls(workers, greeting, nursery, timeout_seconds)
                    nursery.cancel_scope.cancel()
            finally:
                for worker in workers:
                    await worker.aclose()

    @trio.as_safe_channel
    async def open_speech(
        self, text: str, *, voice_id: str, language: str
    ) -> AsyncGenerator[SpeechChunk, None]:
        """Streams one phrase in chunks of 200 ms, once it is whole; none without words.

        Raises SynthesizerError for an unknown voice, more than MAX_PHRASE_CHARACTERS, or a driver
        that fails or takes too long.
        """
        voice = self._voice_of(voice_id, language)
        if len(text) > MAX_PHRASE_CHARACTERS:
            raise SynthesizerError(
                f"a phrase of {len(text)} characters is too long, allowed are "
                f"{MAX_PHRASE_CHARACTERS}; split it into shorter ones"
            )
        if not any(character.isalnum() for character in text):
            return
        pcm = await self._speak(text, voice)
        step = self.sample_rate * CHUNK_MS // 1000 * SAMPLE_BYTES
        for start in range(0, len(pcm), step):
            yield SpeechChunk(pcm[start : start + step])

    async def _speak(self, text: str, voice: str) -> bytes:
        worker = await self._idle.receive()
        try:
            with trio.fail_after(self._timeout_seconds):
                return await worker.speak(text, voice)
        except trio.TooSlowError as error:
            raise SynthesizerError(
                f"pyttsx3 took longer than {self._timeout_seconds:g} s for {len(text)} characters; "
                "allow more with TTS_TIMEOUT"
            ) from error
        finally:
            self._nursery.start_soon(self._give_back, worker)

    async def _give_back(self, worker: _Worker) -> None:
        with suppress(SynthesizerError):  # whoever needs it tries again, and is told
            await worker.warm()
        self._idle_in.send_nowait(worker)

    def _voice_of(self, voice_id: str, language: str) -> str:
        if voice_id not in DEFAULT_VOICES:
            if voice_id not in self.voices:
                raise SynthesizerError(
                    f"there is no voice {voice_id!r}; choose one of {', '.join(self.voices)}"
                )
            return voice_id
        wanted = language.lower().replace("_", "-")
        primary = wanted.split("-")[0]
        for code in (wanted, _LANGUAGES.get(primary, primary)):
            for voice, spoken in self._languages.items():
                if code in spoken:
                    return voice
        # "en-us" and no "en" is English all the same.
        for voice, spoken in self._languages.items():
            if any(each.split("-")[0] == primary for each in spoken):
                return voice
        return next(iter(self._languages), "")


@attrs.frozen
class _Greeting:
    """What a process says of its driver when it has started."""

    sample_rate: int
    names: Mapping[str, str]  # by voice
    languages: Mapping[str, Sequence[str]]  # by voice, like "en-us"

    @classmethod
    def read(cls, line: Mapping[str, Any]) -> _Greeting:
        voices: Mapping[str, Sequence[str]] = line["voices"]
        return cls(
            line["sample_rate"],
            {voice: f"{name} ({', '.join(of)})" for voice, (name, *of) in voices.items()},
            {
                voice: [each.lower().replace("_", "-") for each in of]
                for voice, (_, *of) in voices.items()
            },
        )


class _Refused(Exception):
    """The process could not do it, says why, and waits for the next phrase."""


class _Worker:
    """A place for a process that speaks; for one task at a time."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._waiting: tuple[_Process, _Greeting] | None = None  # for a phrase

    async def warm(self) -> _Greeting:
        """Sees to it that a process waits for a phrase; raises SynthesizerError."""
        if self._waiting is None:
            process = await _Process.start(self._command)
            try:
                with trio.fail_after(START_SECONDS):
                    greeting = _Greeting.read(await process.read_line())
            except trio.TooSlowError as error:
                await process.aclose()
                problem = f"pyttsx3 did not start within {START_SECONDS:g} s"
                raise SynthesizerError(f"{problem}; {_INSTALL}") from error
            except _Refused as error:
                await process.aclose()
                raise SynthesizerError(
                    f"pyttsx3 cannot speak here ({error}); {_INSTALL}"
                ) from error
            except BaseException:
                await process.aclose()
                raise
            self._waiting = process, greeting
        return self._waiting[1]

    async def speak(self, text: str, voice: str) -> bytes:
        """The audio of a phrase; whoever is cancelled leaves no process.

        Raises SynthesizerError.
        """
        await self.warm()
        assert self._waiting
        (process, greeting), self._waiting = self._waiting, None
        try:
            pcm = await process.speak(text, voice)
        except _Refused as error:
            self._waiting = process, greeting
            raise SynthesizerError(f"pyttsx3 failed: {error}") from error
        except BaseException:
            await process.aclose()
            raise
        self._waiting = process, greeting
        return pcm

    async def aclose(self) -> None:
        """Ends its process."""
        waiting, self._waiting = self._waiting, None
        if waiting:
            await waiting[0].aclose()


class _Process:
    """A process that speaks, and what it has said (see pyttsx3_worker)."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._said = bytearray()  # and not yet read

    @classmethod
    async def start(cls, command: Sequence[str]) -> _Process:
        try:
            process = await trio.lowlevel.open_process(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        except OSError as error:
            raise SynthesizerError(f"pyttsx3's process cannot be started: {error}") from error
        return cls(process)

    async def speak(self, text: str, voice: str) -> bytes:
        assert self._process.stdin
        request = json.dumps({"text": text, "voice": voice}).encode() + b"\n"
        try:
            await self._process.stdin.send_all(request)
        except trio.BrokenResourceError as error:
            raise SynthesizerError(_DIED) from error
        size = (await self.read_line())["bytes"]
        if size > MAX_PHRASE_BYTES:
            raise SynthesizerError(
                f"pyttsx3 made {size} bytes of audio of {len(text)} characters; allowed are "
                f"{MAX_PHRASE_BYTES}"
            )
        while len(self._said) < size:
            await self._read()
        return self._take(size)

    async def read_line(self) -> Mapping[str, Any]:
        """The next line; raises _Refused for an error, SynthesizerError for the end."""
        while b"\n" not in self._said:
            await self._read()
        line: Mapping[str, Any] = json.loads(self._take(self._said.index(b"\n") + 1))
        if "error" in line:
            raise _Refused(line["error"])
        return line

    async def _read(self) -> None:
        assert self._process.stdout
        if not (data := await self._process.stdout.receive_some()):
            raise SynthesizerError(_DIED)
        self._said += data

    def _take(self, size: int) -> bytes:
        taken = bytes(self._said[:size])
        del self._said[:size]
        return taken

    async def aclose(self) -> None:
        """Kills it, and waits for that: milliseconds."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.kill()
        with trio.CancelScope(shield=True):
            await self._process.wait()
            await self._process.stdin.aclose()
            await self._process.stdout.aclose()
