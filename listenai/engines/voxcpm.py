"""VoxCPM: speech with a recorded voice, on a GPU.

A pool of loaded models, each in a thread of its own that lives as long as the pool: what is
compiled for a GPU belongs to the thread that compiled it.  Sentences wait for whichever
thread is free.  A thread never waits for a listener: it puts the sentence into a buffer
that has room for all of it, and takes the next; before each chunk (80 ms of speech) it
looks whether somebody still listens.

PyTorch keeps the GIL for too long for a server that streams audio: run this in a process of
its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import attrs
import trio

from listenai.engines.base import SpeechChunk
from listenai.engines.voxcpm_model import Prompt, VoxcpmModel
from listenai.engines.voxcpm_voices import Voice, read_voices
from listenai.errors import SynthesizerError

DEFAULT_CFG_VALUE = 2.0
DEFAULT_INFERENCE_TIMESTEPS = 10
# The longest sentence, and so the buffer of one: 3.8 MB at 16 kHz.
MAX_SENTENCE_SECONDS = 120.0
OWN_VOICE = Voice("default", "a voice of the model's own making")
DEFAULT_VOICES = ("default", "doubao-通用女声")  # the second: spec 000's example
T = TypeVar("T")
CLOSED = "speech synthesis was closed meanwhile"


class VoxcpmSynthesizer:
    """Speaks with VoxCPM (engines.base.Synthesizer); see `open`.

    voices: those of the folder, and `default`.  free_instances: models that nobody uses now.
    """

    def __init__(
        self,
        prepared: _Prepared,
        sentences: trio.MemorySendChannel[_Sentence],
        wishes: _Wishes,
    ) -> None:
        """Not for callers: `open` also loads the models and serves them."""
        self.sample_rate = prepared.sample_rate
        self.voices: Mapping[str, str] = {
            **dict.fromkeys(DEFAULT_VOICES, "the voice that is used unless one is chosen"),
            **{voice.id: voice.description for voice in prepared.voices},
        }
        self._prepared = prepared
        self._sentences = sentences
        self._wishes = wishes

    @property
    def free_instances(self) -> int:
        """How many models wait for a sentence."""
        return self._sentences.statistics().tasks_waiting_receive

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        folder: Path,
        *,
        voices_folder: Path | None = None,
        instances: int = 1,
        device: str = "cpu",
        cfg_value: float = DEFAULT_CFG_VALUE,
        inference_timesteps: int = DEFAULT_INFERENCE_TIMESTEPS,
    ) -> AsyncIterator[VoxcpmSynthesizer]:
        """Loads `instances` models from their folder and serves them inside the `async with`.

        voices_folder: holds voices.json and its recordings (see voxcpm_voices); without one
        there is a single voice, of the model's own making.  device: "cpu", "cuda", "cuda:0".
        cfg_value: how closely it keeps to text and voice.  inference_timesteps: more is better
        and slower.  Raises SynthesizerError: packages, files or voices are missing or wrong.
        """
        if instances < 1:
            raise ValueError(f"{instances} instances cannot speak; allowed is 1 or more")
        voices = read_voices(voices_folder) if voices_folder else [OWN_VOICE]
        prepared = _Prepared(folder, voices_folder, device, voices, cfg_value, inference_timesteps)
        # No buffer: a sentence waits, where it can be cancelled, until a thread takes it.
        sentences_in, sentences = trio.open_memory_channel[_Sentence](0)
        threads = trio.CapacityLimiter(instances)
        failure: SynthesizerError | None = None
        async with sentences, trio.open_nursery() as nursery:
            try:
                for _ in range(instances):
                    await nursery.start(_serve_instance, prepared, sentences, threads)
            except SynthesizerError as error:
                failure = error  # raised outside the nursery: not in a group
            else:
                yield cls(prepared, sentences_in, _Wishes())
            nursery.cancel_scope.cancel()
        if failure:
            raise failure

    def tuned(
        self, *, cfg_value: float | None, inference_timesteps: int | None, style: str | None
    ) -> VoxcpmSynthesizer:
        """The same models and voices with these parameters; None: the voice's or the models' own.

        style: describes a voice that takes the place of the chosen one, like "warm, whispering";
        only VoxCPM 2 has that, others raise SynthesizerError.
        """
        if style and not self._prepared.has_styles:
            raise SynthesizerError(
                "this model has no styles; choose a voice that was recorded in that style"
            )
        wishes = _Wishes(cfg_value, inference_timesteps, style)
        return VoxcpmSynthesizer(self._prepared, self._sentences, wishes)

    @trio.as_safe_channel
    async def open_speech(
        self, text: str, *, voice_id: str, language: str
    ) -> AsyncGenerator[SpeechChunk, None]:
        """Streams one sentence, a chunk of 80 ms as soon as it is made; no word timings.

        Waits while all instances speak.  No chunks for text without words.  The voice speaks
        Chinese and English as the text has it.  Raises SynthesizerError for an unknown voice.
        """
        del language
        if voice_id not in self.voices:
            raise SynthesizerError(
                f"there is no voice {voice_id!r}; choose one of {', '.join(self.voices)}"
            )
        if not any(character.isalnum() for character in text):
            return
        size = int(MAX_SENTENCE_SECONDS / self._prepared.chunk_seconds) + 1
        chunks_in, chunks = trio.open_memory_channel[SpeechChunk](size)
        sentence = _Sentence(text, self._prepared.prompt_of(voice_id, self._wishes), chunks_in)
        async with chunks:
            try:
                await self._hand_over(sentence)
                async for chunk in chunks:
                    yield chunk
            finally:
                sentence.unwanted = True
        if sentence.failure:
            raise sentence.failure

    async def _hand_over(self, sentence: _Sentence) -> None:
        try:
            await self._sentences.send(sentence)
        except trio.BrokenResourceError as error:
            raise SynthesizerError(CLOSED) from error


@attrs.frozen
class _Wishes:
    """What was asked for beside a voice; None: nothing."""

    cfg_value: float | None = None
    inference_timesteps: int | None = None
    style: str | None = None


@attrs.define(eq=False)
class _Sentence:
    """What a thread is to say, and where it puts it."""

    text: str
    prompt: Prompt  # complete: nothing in it is None but what was said so far
    chunks: trio.MemorySendChannel[SpeechChunk]
    unwanted: bool = False  # read between two chunks by the thread
    failure: SynthesizerError | None = None


@attrs.define
class _Prepared:
    """What all instances share; the first one that is loaded completes it."""

    folder: Path
    voices_folder: Path | None
    device: str
    voices: Sequence[Voice]  # the default one first
    cfg_value: float
    inference_timesteps: int
    sample_rate: int = 0  # Hz
    chunk_seconds: float = 0.0
    has_styles: bool = False
    prompts: dict[str, Prompt] = attrs.field(factory=dict)

    def load(self) -> VoxcpmModel:
        model = VoxcpmModel.load(self.folder, self.device)
        if not self.prompts:
            self.sample_rate, self.chunk_seconds = model.sample_rate, model.chunk_seconds
            self.has_styles = model.has_styles
            for voice in self.voices:
                self.prompts[voice.id] = (
                    model.prompt_of(voice, self.voices_folder)
                    if self.voices_folder
                    else model.own_prompt(self.cfg_value, self.inference_timesteps)
                )
        return model

    def prompt_of(self, voice_id: str, wishes: _Wishes) -> Prompt:
        """The voice with what was asked for, else with its own parameters, else with ours."""
        prompt = self.prompts.get(voice_id) or self.prompts[self.voices[0].id]
        if wishes.style:
            prompt = Prompt(style=wishes.style)
        return attrs.evolve(
            prompt,
            cfg_value=_first(wishes.cfg_value, prompt.cfg_value, self.cfg_value),
            inference_timesteps=_first(
                wishes.inference_timesteps, prompt.inference_timesteps, self.inference_timesteps
            ),
        )

    def speak(self, model: VoxcpmModel, sentence: _Sentence) -> None:
        """Gives the sentence's chunks, in the thread of the model."""
        chunks = model.speak(sentence.text, sentence.prompt, max_seconds=MAX_SENTENCE_SECONDS)
        for pcm in chunks:
            trio.from_thread.check_cancelled()
            if sentence.unwanted:
                break
            trio.from_thread.run_sync(_give, sentence, SpeechChunk(pcm))
        chunks.close()


def _first(wished: T | None, of_voice: T | None, otherwise: T) -> T:
    given = wished if wished is not None else of_voice
    return given if given is not None else otherwise


def _give(sentence: _Sentence, chunk: SpeechChunk) -> None:
    if not sentence.unwanted:
        sentence.chunks.send_nowait(chunk)


async def _serve_instance(
    prepared: _Prepared,
    sentences: trio.MemoryReceiveChannel[_Sentence],
    threads: trio.CapacityLimiter,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Loads a model and says one sentence after the other, all in one thread."""

    def serve() -> None:
        model = prepared.load()
        trio.from_thread.run_sync(task_status.started)
        while True:
            sentence = trio.from_thread.run(sentences.receive)
            try:
                prepared.speak(model, sentence)
            except SynthesizerError as error:
                sentence.failure = error
            except trio.Cancelled:
                sentence.failure = SynthesizerError(CLOSED)
                raise
            finally:
                trio.from_thread.run_sync(sentence.chunks.close)

    await trio.to_thread.run_sync(serve, limiter=threads)
