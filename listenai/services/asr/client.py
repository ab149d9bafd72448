"""Speech recognition by ASR services, as a transcriber (engines.base.Transcriber).

The server's own detector has decided what an utterance is, and the service must neither cut nor
drop any of it: its threshold is set to 0, which calls every frame speech, and `finish` ends the
utterance however short it is.  A service cuts what is longer than it takes at once, or what
stops coming for a while; such an utterance has several final results, whose texts are joined.

The last frame is kept back until `finish`.  So there is always some audio that opens a segment
for what the service may have put aside as too short when the audio stopped.

A lost connection costs no words: the utterance's audio is kept, up to REPLAY_SECONDS, and sent
again on another connection, to another service or to the same one started anew.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import attrs
import trio

from listenai.audio import FRAME_BYTES, SAMPLE_BYTES, SAMPLE_RATE
from listenai.engines.base import SpeakerMemory, Transcript
from listenai.errors import TranscriberAway, TranscriberError
from listenai.services.asr.lines import Line, Lines, News
from listenai.services.asr.protocol import (
    Configure,
    Error,
    Finish,
    Finished,
    Result,
    ServiceErrorCode,
)
from listenai.services.pool import Unreachable

DEFAULT_LANGUAGES = ("zh", "en", "ja")  # spec 000; until a service has told its own
REPLAY_SECONDS = 30.0  # of an utterance: what the server takes at once; 938 KiB
RECONNECT_SECONDS = 5.0  # how long a lost connection is replaced before that is an error
MAX_REPLAYS = 3  # a service that dies of an utterance is not fed it for ever
PIECE_BYTES = 32 * 1024  # a second of a replay a message
SPEAKER = "asr_service.speaker"  # in SpeakerMemory: whose voice it is, as an object of ours
UNSPACED_LANGUAGES = ("zh", "ja", "yue", "th")
_REPLAY_BYTES = int(REPLAY_SECONDS * SAMPLE_RATE) * SAMPLE_BYTES


class AsrServiceTranscriber:
    """Transcribes by services at these URLs (engines.base.Transcriber); works while `serve` runs.

    urls: like ws://127.0.0.1:9200; the least loaded one is used, and another when one fails.
    chance: gives numbers from 0 to 1.  timeout_seconds: the longest that a call may take.
    warm: connections that are kept ready.  hotwords: words that speakers are likely to say.
    Raises ConfigurationError for a bad URL, ValueError for no URL.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        chance: Callable[[], float],
        timeout_seconds: float = 60.0,
        warm: int = 2,
        hotwords: Sequence[str] = (),
    ) -> None:
        if not urls:
            raise ValueError("an ASR service has at least one URL, like ws://127.0.0.1:9200")
        self._lines = Lines(urls, warm=warm, chance=chance)
        self._timeout_seconds, self._hotwords = timeout_seconds, tuple(hotwords)

    @property
    def languages(self) -> Sequence[str]:
        """What the services understand, as they tell; until then DEFAULT_LANGUAGES."""
        return self._lines.languages or DEFAULT_LANGUAGES

    @property
    def names(self) -> tuple[str, ...]:
        """The URLs as they may be shown to anyone."""
        return tuple(upstream.name for upstream in self._lines.upstreams)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps connections ready, until cancelled; has started before any service answers."""
        await self._lines.serve(task_status=task_status)

    async def wait_ready(self) -> None:
        """Waits until a service has answered; `languages` are its own from then on."""
        await self._lines.wait_ready()

    @asynccontextmanager
    async def open_utterance(
        self, *, language: str, speaker: SpeakerMemory
    ) -> AsyncIterator[AsrServiceUtterance]:
        """One utterance on a connection of its own.

        Raises TranscriberAway when no service answers, TranscriberError for a language that
        none of them understands.
        """
        voice = speaker.values.setdefault(SPEAKER, object())
        # Silence frames do not matter where every frame is speech.
        settings = Configure(language, self._hotwords, threshold=0.0)
        utterance = AsrServiceUtterance(self._lines, voice, settings, self._timeout_seconds)
        try:
            await utterance.connect()
            yield utterance
        finally:
            utterance.close()


@attrs.define(eq=False)
class _Heard:
    """What a service has told of one utterance."""

    finals: list[Result] = attrs.field(factory=list)
    partial: Result | None = None  # after the last final one
    failure: TranscriberError | None = None
    lost: str | None = None  # why the connection is gone
    finished: bool = False
    changed: trio.Event = attrs.field(factory=trio.Event)

    def tell(self, news: News) -> None:
        """Takes the next message."""
        match news:
            case Result(is_final=True):
                self.finals.append(news)
                self.partial = None
            case Result():
                self.partial = news
            case Finished():
                self.finished = True
            case Unreachable():
                self.lost = str(news)
            case Error(code=ServiceErrorCode.ASR_ERROR | ServiceErrorCode.INVALID_MESSAGE):
                self.failure = TranscriberError(f"the ASR service says: {news.message}")
        self.changed.set()

    async def wait_end(self) -> None:
        """Waits until the utterance is finished, or its line lost."""
        while not self.finished and self.lost is None:
            self.changed = trio.Event()
            await self.changed.wait()


class AsrServiceUtterance:
    """One utterance (engines.base.Utterance); made by AsrServiceTranscriber.open_utterance."""

    def __init__(
        self, lines: Lines, voice: object, settings: Configure, timeout_seconds: float
    ) -> None:
        self._lines, self._voice, self._settings = lines, voice, settings
        self._timeout_seconds = timeout_seconds
        self._line: Line | None = None
        self._heard = _Heard()
        self._audio = bytearray()  # from byte `_forgotten` of the utterance on
        self._forgotten = 0
        self._sent = 0  # bytes of the utterance
        self._shown = ""  # the last partial text
        self._shown_before = ""  # the one before a replay, until there is more
        self._replays = 0

    async def connect(self) -> None:
        """Takes a line; raises TranscriberAway at once when there is none."""
        with self._deadline():
            await self._attempt(_nothing)

    async def accept(self, pcm: bytes) -> None:
        """Sends audio, int16 mono 16 kHz of any length, but for the last frame."""
        self._audio += pcm
        with self._deadline():
            await self._attempt(self._send_audio)
        spare = len(self._audio) - _REPLAY_BYTES
        if spare > 0:  # a replay is not possible any more: no use in keeping half of it
            cut = self._sent - self._forgotten
            del self._audio[:cut]
            self._forgotten += cut

    async def partial(self) -> str:
        """The words so far, as the service has told them without being asked."""
        await trio.lowlevel.checkpoint()
        heard = self._heard
        text = self._joined([*heard.finals, *([heard.partial] if heard.partial else [])])
        if len(text) < len(self._shown_before):
            return self._shown_before  # of a replay: that would look like a step back
        self._shown, self._shown_before = text, ""
        return text

    async def finish(self) -> Transcript:
        """The words of everything accepted.

        Raises TranscriberAway when the line is lost and there is no other, TranscriberError when
        the service fails or does not answer in time.
        """
        if not self._audio and not self._forgotten:
            return Transcript("")
        with self._deadline():
            await self._attempt(self._send_rest)
        heard = self._heard
        if heard.failure is not None:
            raise heard.failure
        complete = heard.finals[-1].complete if heard.finals else None
        return Transcript(self._joined(heard.finals), complete)

    def close(self) -> None:
        """Gives the line back."""
        if self._line is not None:
            self._lines.give_back(self._line, finished=self._heard.finished)
            self._line = None

    # --- sending -----------------------------------------------------------------------------

    async def _send_audio(self, line: Line) -> None:
        await self._send_until(line, self._forgotten + len(self._audio) - FRAME_BYTES)

    async def _send_rest(self, line: Line) -> None:
        await self._send_until(line, self._forgotten + len(self._audio))
        await line.send(Finish())
        await self._heard.wait_end()
        if not self._heard.finished:
            raise Unreachable(self._heard.lost or "")

    async def _send_until(self, line: Line, end: int) -> None:
        while self._sent < end:
            start = self._sent - self._forgotten
            piece = bytes(self._audio[start : start + min(PIECE_BYTES, end - self._sent)])
            await line.send(piece)
            self._sent += len(piece)

    async def _attempt(self, work: Callable[[Line], Awaitable[None]]) -> None:
        """Does it; on another line, with all audio again, when this one is lost."""
        give_up_at = -math.inf  # a first line is there at once or not at all
        while True:
            try:
                await work(self._line or await self._take_line())
            except Unreachable as error:
                self._leave_line(error)
                give_up_at = trio.current_time() + RECONNECT_SECONDS
            except TranscriberAway:
                if trio.current_time() >= give_up_at:
                    raise
                await trio.sleep(self._lines.pause_seconds())
            else:
                return

    async def _take_line(self) -> Line:
        heard = _Heard()
        line = await self._lines.take(self._voice, self._settings.language or "", heard.tell)
        self._line, self._heard = line, heard
        await line.begin(self._voice, self._settings)
        return line

    def _leave_line(self, error: Unreachable) -> None:
        """The line is lost: what was sent has to be sent again."""
        self._shown_before = self._shown
        self.close()
        self._replays += 1
        if self._forgotten or self._replays > MAX_REPLAYS:
            why = "again and again" if self._replays > MAX_REPLAYS else "in a long utterance"
            raise TranscriberAway(f"the ASR service was lost {why}: {error}") from error
        self._sent = 0

    @contextmanager
    def _deadline(self) -> Iterator[None]:
        """The longest that a call may take; a service that needs longer is left alone."""
        with trio.move_on_after(self._timeout_seconds) as waiting:
            yield
        if not waiting.cancelled_caught:
            return
        problem = f"no answer within {self._timeout_seconds:g} s"
        if self._line is not None:
            self._lines.give_up(self._line, problem)
        raise TranscriberError(f"the ASR service gave {problem}; speak again", timed_out=True)

    def _joined(self, results: Sequence[Result]) -> str:
        space = "" if (self._settings.language or "").startswith(UNSPACED_LANGUAGES) else " "
        return space.join(result.text for result in results if result.text)


async def _nothing(_: Line) -> None:
    """A line is all that is wanted."""
