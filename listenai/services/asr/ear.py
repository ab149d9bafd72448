"""One client's ear in the ASR service: its audio and commands in, messages out.

What a client says waits in its Inbox, so that the connection is read, and answers pings, while
a segment is being recognised.  Audio after a segment waits there until the segment's text is
known; then the segment is committed, so that each segment has its own text and no more.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager

import attrs
import trio

from listenai.audio import FRAME_BYTES, FRAME_SECONDS, Framer
from listenai.engines.base import (
    HOTWORDS,
    Detector,
    Recognizer,
    RecognizerFactory,
    SpeakerMemory,
    Transcriber,
    Utterance,
)
from listenai.services.asr.protocol import (
    Configure,
    Configured,
    Error,
    Finish,
    Finished,
    Result,
    ServiceErrorCode,
    ServiceMessage,
    Vad,
)
from listenai.speech import (
    FinalTranscript,
    PartialTranscript,
    SpeechEnded,
    SpeechEvent,
    SpeechStarted,
    TranscriptionDelayed,
    TranscriptionFailed,
)

_log = logging.getLogger(__name__)

SUSPICION = (3, 4)  # frames of speech after which a segment begins to be transcribed
MAX_UTTERANCE_SECONDS = 30.0  # a longer one is cut
PIECE_BYTES = 16 * FRAME_BYTES  # a millisecond of work between two checkpoints
COMMAND_BYTES = 512  # what a waiting command counts: memory is bounded for those too

OpenDetector = Callable[[], AbstractContextManager[Detector]]
MakeRecognizers = Callable[[OpenDetector, Transcriber], RecognizerFactory]


@attrs.frozen
class Hearing:
    """What ears are made of, shared by all connections."""

    transcriber: Transcriber
    open_detector: OpenDetector
    make_recognizers: MakeRecognizers  # like SegmentingRecognizerFactory
    partials: bool = True  # whether the transcriber tells words before the end
    max_utterance_seconds: float = MAX_UTTERANCE_SECONDS


@attrs.define(eq=False)
class Inbox:
    """What a client said and nobody has heard yet, in order; `put` waits while it is full."""

    limit_bytes: int
    held_bytes: int = attrs.field(default=0, init=False)
    _items: deque[bytearray | Finish | Configure] = attrs.field(factory=deque, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def put(self, item: bytes | Finish | Configure) -> None:
        """Adds audio, or a command that holds for what comes after it."""
        while self.held_bytes >= self.limit_bytes:
            await self._wait_changed()
        self.held_bytes += len(item) if isinstance(item, bytes) else COMMAND_BYTES
        if not isinstance(item, bytes):
            self._items.append(item)
        elif self._items and isinstance(last := self._items[-1], bytearray):
            last += item
        else:
            self._items.append(bytearray(item))
        self._changed.set()

    async def take(self) -> bytes | Finish | Configure:
        """The next command, or some of the next audio: at most PIECE_BYTES."""
        await trio.lowlevel.checkpoint()
        while not self._items:
            await self._wait_changed()
        item = self._items[0]
        self._changed.set()
        if isinstance(item, bytearray):
            piece = bytes(item[:PIECE_BYTES])
            del item[:PIECE_BYTES]
            self.held_bytes -= len(piece)
            if not item:
                self._items.popleft()
            return piece
        self._items.popleft()
        self.held_bytes -= COMMAND_BYTES
        return item

    def forget(self) -> None:
        """Drops what was said; settings that wait still hold for what comes."""
        kept = [item for item in self._items if isinstance(item, Configure)]
        self._items = deque(kept)
        self.held_bytes = len(kept) * COMMAND_BYTES
        self._changed.set()

    async def _wait_changed(self) -> None:
        self._changed = trio.Event()
        await self._changed.wait()


@attrs.define(eq=False)
class _Segment:
    id: int
    start_frame: int  # frames before it
    end_frame: int | None = None  # None: still going on


@attrs.define(eq=False)
class Ear:
    """Listens to what is in its inbox; lives from one `reset` to the next.

    tell: is given every message for the client, never waits.
    """

    hearing: Hearing
    inbox: Inbox
    tell: Callable[[ServiceMessage], None]
    settings: Configured = attrs.field(factory=Configured)
    frames: int = attrs.field(default=0, init=False)  # processed in total
    _framer: Framer = attrs.field(factory=Framer, init=False)
    _received_bytes: int = attrs.field(default=0, init=False)
    _probability: float = attrs.field(default=0.0, init=False)  # of speech in the last frame
    _segment: _Segment | None = attrs.field(default=None, init=False)  # the last one
    _owed: bool = attrs.field(default=False, init=False)  # its text is still to come
    _settled: trio.Event = attrs.field(factory=trio.Event, init=False)
    _recognizer: Recognizer | None = attrs.field(default=None, init=False)

    async def listen(self) -> None:
        """Listens until cancelled; raises EngineError where the detector cannot."""
        recognizers = self.hearing.make_recognizers(
            self._open_detector,
            _WithHotwords(self.hearing.transcriber, lambda: self.settings.hotwords),
        )
        async with recognizers.open(
            self._hear,
            suspicion=SUSPICION,
            cap_seconds=self.hearing.max_utterance_seconds,
        ) as recognizer:
            self._recognizer = recognizer
            self._apply(recognizer)
            while True:
                match await self.inbox.take():
                    case bytes() as pcm:
                        await self._listen_to(recognizer, pcm)
                    case Finish():
                        await self._finish(recognizer)
                    case Configure() as wanted:
                        self._configure(recognizer, wanted)

    async def _listen_to(self, recognizer: Recognizer, pcm: bytes) -> None:
        self._received_bytes += len(pcm)
        for frame in self._framer.push(pcm):
            await self._wait_settled()
            self.frames += 1
            recognizer.accept(frame)

    async def _finish(self, recognizer: Recognizer) -> None:
        """Ends what is being said; half a frame at its end is filled up with silence."""
        if rest := self._received_bytes % FRAME_BYTES:
            await self._listen_to(recognizer, bytes(FRAME_BYTES - rest))
        await self._wait_settled()
        recognizer.end_speech()
        await self._wait_settled()
        self.tell(Finished())

    def _configure(self, recognizer: Recognizer, wanted: Configure) -> None:
        languages = self.hearing.transcriber.languages
        if wanted.language is not None and wanted.language not in languages:
            problem = f"language {wanted.language!r} is not understood; allowed: "
            self.tell(Error(ServiceErrorCode.INVALID_MESSAGE, f"{problem}{', '.join(languages)}"))
            return
        self.settings = self.settings.changed(wanted)
        self._apply(recognizer)
        self.tell(self.settings)

    def _apply(self, recognizer: Recognizer) -> None:
        recognizer.configure(
            language=self.settings.language,
            threshold=self.settings.threshold,
            silence_frames=self.settings.silence_frames,
        )

    async def _wait_settled(self) -> None:
        """Waits for the text of a segment that is over."""
        while self._owed:
            self._settled = trio.Event()
            await self._settled.wait()

    # --- what the recognizer says: plain code -------------------------------------------------

    def _hear(self, event: SpeechEvent) -> None:
        match event:
            case SpeechStarted(segment_id=number):
                self._segment = _Segment(number, self.frames - 1)
                _log.info("speech_started frame=%d p=%.3f", self.frames, self._probability)
                self._tell_vad(speeching=True)
            case SpeechEnded(segment_id=number, transcript_follows=follows):
                assert self._segment is not None
                self._segment.end_frame = self.frames
                self._owed = follows
                length = self.frames - self._segment.start_frame
                _log.info("speech_ended segment=%d frames=%d kept=%s", number, length, follows)
                self._tell_vad(speeching=False)
            case PartialTranscript(text=text):
                self._tell_result(text, is_final=False, complete=None)
            case FinalTranscript(text=text, complete=complete):
                self._tell_result(text, is_final=True, complete=complete)
                self._settle()
            case TranscriptionFailed(segment_id=number, message=message):
                _log.warning("segment_failed segment=%d", number)
                self.tell(Error(ServiceErrorCode.ASR_ERROR, message))
                self._settle()
            case TranscriptionDelayed():
                _log.warning("transcriber_away")

    def _tell_vad(self, *, speeching: bool) -> None:
        self.tell(Vad(speeching, self.frames, round(self._probability, 3)))

    def _tell_result(self, text: str, *, is_final: bool, complete: bool | None) -> None:
        segment = self._segment
        assert segment is not None
        end = self.frames if segment.end_frame is None else segment.end_frame
        if is_final:
            length = end - segment.start_frame
            _log.info("segment_told segment=%d frames=%d", segment.id, length)
        self.tell(
            Result(
                text,
                is_final,
                segment.end_frame is None,
                segment.id,
                segment.start_frame * FRAME_SECONDS * 1000,
                end * FRAME_SECONDS * 1000,
                complete,
            )
        )

    def _settle(self) -> None:
        """The segment is told: the next one has a text of its own."""
        assert self._recognizer is not None
        self._owed = False
        self._recognizer.commit()
        self._settled.set()

    # --- between the recognizer and its engines -----------------------------------------------

    @contextmanager
    def _open_detector(self) -> Iterator[Detector]:
        with self.hearing.open_detector() as detector:
            yield _Probe(detector, self._note_probability)

    def _note_probability(self, probability: float) -> None:
        self._probability = probability


@attrs.frozen
class _Probe:
    """A detector that tells what it thinks, also to us."""

    inner: Detector
    note: Callable[[float], None]

    def process(self, frame: bytes) -> float:
        probability = self.inner.process(frame)
        self.note(probability)
        return probability


@attrs.frozen
class _WithHotwords:
    """A transcriber whose speaker says these words."""

    inner: Transcriber
    hotwords: Callable[[], tuple[str, ...]]

    @property
    def languages(self) -> Sequence[str]:
        return self.inner.languages

    def open_utterance(
        self, *, language: str, speaker: SpeakerMemory
    ) -> AbstractAsyncContextManager[Utterance]:
        speaker.values[HOTWORDS] = self.hotwords()
        return self.inner.open_utterance(language=language, speaker=speaker)
