"""What hearing, thinking and speaking are, whoever does them.

An engine is shared by all connections; what belongs to one utterance, reply or
sentence is opened from it and closed with its `async with`.  Whatever takes
longer than a millisecond runs in a thread, in steps of one chunk, and releases
the GIL.  Foreign exceptions are translated to `listenai.errors` here.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol

import attrs

from listenai.device import UNCONDITIONED, Conditioning
from listenai.events import ToolSchema
from listenai.speech import SpeechEvent

# --- hearing -----------------------------------------------------------------------------


class Detector(Protocol):
    """Voice activity detection for one device; cheap enough to run on the loop."""

    def process(self, frame: bytes) -> float:
        """The probability of speech in one frame (512 bytes, int16 mono 16 kHz)."""


@attrs.frozen
class Transcript:
    """What a transcriber understood."""

    text: str
    complete: bool | None = None  # a whole sentence?  None: cannot tell


class Utterance(Protocol):
    """One utterance being transcribed."""

    async def accept(self, pcm: bytes) -> None:
        """Takes the next audio: int16 mono 16 kHz, any length."""

    async def partial(self) -> str:
        """The words so far, "" when none or when partial results cost too much."""

    async def finish(self) -> Transcript:
        """The words of everything accepted; called once, last."""


HOTWORDS = "hotwords"  # in SpeakerMemory.values: words that this speaker may say, tuple[str, ...]


@attrs.define
class SpeakerMemory:
    """What a transcriber keeps about one device's voice and channel between utterances."""

    values: dict[str, Any] = attrs.field(factory=dict)


class Transcriber(Protocol):
    """Speech recognition: an utterance in, text out.  Raises TranscriberError."""

    @property
    def languages(self) -> Sequence[str]:
        """Codes of the languages that are understood."""

    def open_utterance(
        self, *, language: str, speaker: SpeakerMemory
    ) -> AbstractAsyncContextManager[Utterance]:
        """A private session; waits while all instances are busy."""


class Recognizer(Protocol):
    """One device's ear: frames in, speech events out, through the `hear` it was opened with."""

    def accept(self, pcm: bytes) -> None:
        """Takes audio of any length; never waits.  What the detector says is heard at once."""

    def end_speech(self) -> None:
        """Push-to-talk was let go: what was said ends here, whatever the detector thinks."""

    def commit(self) -> None:
        """The utterance has become a turn (or is forgotten): what comes next is a new one.

        Until then, segments are joined: each FinalTranscript covers the whole utterance.
        """

    def configure(self, *, language: str, threshold: float, silence_frames: int) -> None:
        """Settings from the next segment on."""

    def suspect_after(self, suspicion: tuple[int, int]) -> None:
        """SpeechSuspected after other frames than it was opened with, from the next frame on."""


class RecognizerFactory(Protocol):
    """Makes ears."""

    @property
    def languages(self) -> Sequence[str]:
        """Codes of the languages that are understood."""

    def open(
        self,
        hear: Callable[[SpeechEvent], None],
        *,
        suspicion: tuple[int, int],
        cap_seconds: float,
        conditioning: Conditioning = UNCONDITIONED,
    ) -> AbstractAsyncContextManager[Recognizer]:
        """An ear, alive inside the `async with`; `hear` is called from plain code, never waits.

        suspicion: SpeechSuspected after this many speech frames among the last so many.
        cap_seconds: a longer utterance is cut into segments.
        conditioning: what is done to the sound before.
        """


class EchoCanceller(Protocol):
    """Takes what a device plays out of what its microphone hears; cheap enough for the loop."""

    def process(self, heard: bytes, played: bytes) -> bytes:
        """As much as was heard, a little late.  Both int16 mono 16 kHz, equally long."""


# --- thinking ----------------------------------------------------------------------------


@attrs.frozen
class ToolCall:
    """A chat model asks for a tool; `arguments` is the JSON text the model wrote."""

    call_id: str
    name: str
    arguments: str


@attrs.frozen
class ChatMessage:
    """One message of the history as a chat model sees it."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()  # of an assistant message
    tool_call_id: str | None = None  # of a tool message


@attrs.frozen
class ReplyText:
    """An increment of the reply."""

    text: str


@attrs.frozen
class ReplyUsage:
    """What the reply cost, as the model counts; comes last, where the model tells."""

    prompt_tokens: int
    completion_tokens: int


ReplyPart = ReplyText | ToolCall | ReplyUsage


@attrs.frozen
class ChatSettings:
    """How to answer."""

    temperature: float = 0.7
    max_tokens: int = 2048
    language: str = "en"
    token_seconds: float = math.inf  # the longest to wait for the next token
    reply_seconds: float = math.inf  # ... and for the whole reply


class ChatModel(Protocol):
    """Messages and tools in, text increments and tool calls out.  Raises ChatModelError."""

    def open_reply(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[ToolSchema],
        settings: ChatSettings,
    ) -> AbstractAsyncContextManager[AsyncIterator[ReplyPart]]:
        """Streams one reply; leaving the `async with` stops the model."""


# --- speaking ----------------------------------------------------------------------------


@attrs.frozen
class WordTiming:
    """Where a word stands: characters in the sentence, and the sample at which it begins."""

    start: int
    end: int
    from_sample: int


@attrs.frozen
class SpeechChunk:
    """Audio, and the words that begin in it or were not yet told."""

    pcm: bytes  # int16 little-endian mono at the synthesizer's rate
    words: tuple[WordTiming, ...] = ()


class Synthesizer(Protocol):
    """Text in, audio and word timings out.  Raises SynthesizerError."""

    @property
    def sample_rate(self) -> int:
        """Hz of the audio."""

    @property
    def voices(self) -> Mapping[str, str]:
        """Voice id → what it is; ids and aliases."""

    def open_speech(
        self, text: str, *, voice_id: str, language: str
    ) -> AbstractAsyncContextManager[AsyncIterator[SpeechChunk]]:
        """Streams one sentence; leaving the `async with` stops the synthesis."""
