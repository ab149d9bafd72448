"""The Hotpin dialect (spec 002, section 3): a button is held, and one WAV file is the answer.

Theory.  The device records, says that it has done so (EOS), waits, and plays what it was
sent when it is told `complete`.  Then, and only then, the reply can no longer be stopped;
before, a reply that is given up was not heard at all.  So a reply is collected here
(`hotpin_reply`), and one that is cut or given up is interrupted like any other, with a report
of what the device was really sent: history holds no more than that.

Requests follow from the device's messages and from deadlines alone.  What a notice makes
necessary (a turn nobody waits for has to be left) is *owed*: a deadline in the past asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Any, Final

import attrs

from listenai import events
from listenai.audio import SAMPLE_BYTES
from listenai.device import Capabilities, DeviceProfile, Echo
from listenai.dialects import hotpin_messages as told
from listenai.dialects.base import NEVER
from listenai.dialects.hotpin_reply import HotpinReply
from listenai.dialects.json_text import check_size
from listenai.errors import ErrorCode, ProtocolError
from listenai.settings import Configuration
from listenai.wire import Message

# The device gives up 10 s after EOS (7.2); the file has to be there by then.
MAX_REPLY_SECONDS = 8.0

PROFILE = DeviceProfile(
    history_messages=20,  # 2.3.2: 10 turns
    temperature=0.2,  # 2.3.1
    max_tokens=200,
    utterance_seconds=60.0,
    paced=False,
    # No multiple of what engines speak in: a sentence's last chunk is a shorter one.
    chunk_seconds=0.127,
    configuration=Configuration(
        end_of_turn_ms=math.inf,  # the device says so
        # Nothing comes of a pause.  In a longer segment a short word is kept, however short.
        vad_silence_frames=50,
        partial_results=False,  # nobody would see them
    ),
)
# It records and plays by turns: it never hears itself.
CAPABILITIES = Capabilities(echo=Echo.CANCELLED)


def claims(opening: events.JsonObject) -> bool:
    """Whether a first message, on a path that dialects share, is a Hotpin device's."""
    return "session_id" in opening and "type" not in opening


class _Stage(Enum):
    """What the device is doing, as far as it was told."""

    OPENING = auto()  # has not said who it is
    IDLE = auto()
    RECORDING = auto()
    TRANSCRIBING = auto()  # EOS came; whether there are words is not yet known
    REPLYING = auto()  # what is asked is known


_PROCESSING = (_Stage.TRANSCRIBING, _Stage.REPLYING)


@attrs.define
class HotpinDialect:
    """One Hotpin device's translator.

    exact_wav: whether the WAV header tells the size, so that audio is sent when all of it is
    there; else it tells none, and whole sentences go ahead.
    """

    exact_wav: bool = True
    profile: DeviceProfile = PROFILE
    _session_id: str = ""
    _stage: _Stage = _Stage.OPENING
    _reply: HotpinReply | None = None  # while REPLYING
    _newest_turn_id: int = 0  # of those that were told
    # EOS that came, and whose answer was sent: what is told before that is of an older one.
    _questions: int = 0
    _questions_answered: int = 0
    _cut_at: float = NEVER
    _owed: list[events.Request] = attrs.field(factory=list)

    # --- from the device ---------------------------------------------------------------------

    def receive(self, message: Message, now: float) -> Sequence[events.Request]:
        """What a handshake, audio or a signal asks for; raises ProtocolError."""
        if self._stage is _Stage.OPENING:
            return self._open(message)
        if isinstance(message, bytes):
            check_size(len(message))
            return self._record(message)
        return self._end_recording(now) if told.signal_of(message) == "EOS" else self._reset()

    def _open(self, message: Message) -> Sequence[events.Request]:
        try:
            self._session_id = told.session_of(message)
        except ProtocolError as error:
            refusal = told.error(f'{error}; begin with {{"session_id":"your-device-id"}}')
            return events.Answer((refusal,)), events.HangUp(1008, "no session_id")
        self._stage = _Stage.IDLE
        return (events.SessionStart(self._session_id, CAPABILITIES),)

    def _record(self, pcm: bytes) -> Sequence[events.Request]:
        """The user speaks, and has the floor."""
        if not pcm:
            return ()
        before = () if self._stage is _Stage.RECORDING else self._leave()
        self._stage = _Stage.RECORDING
        return *before, events.AudioReceived(pcm)

    def _end_recording(self, now: float) -> Sequence[events.Request]:
        if self._stage in _PROCESSING:
            return (events.Answer((told.error(told.BUSY),)),)
        if self._stage is _Stage.IDLE:
            return (events.Answer((told.error(told.EMPTY_AUDIO),)),)
        self._stage, self._cut_at = _Stage.TRANSCRIBING, now + MAX_REPLY_SECONDS
        self._questions += 1
        return events.Answer((told.TRANSCRIBING,)), events.SpeechFinished()

    def _reset(self) -> Sequence[events.Request]:
        """What was recorded, and what is being answered, belongs to what is forgotten."""
        return *self._leave(), events.HistoryForgotten(), events.Answer((told.RESET,))

    def _leave(self) -> Sequence[events.Request]:
        """Gives up what is going on; a device that waits for it is told."""
        requests: list[events.Request] = []
        if self._stage in (_Stage.RECORDING, _Stage.TRANSCRIBING):
            requests.append(events.SpeechDiscarded())
        if self._stage is not _Stage.RECORDING:  # also a turn that is still to be told, or heard
            requests += self._interrupt()
        if self._stage in _PROCESSING:
            requests.append(events.Answer((told.error(told.INTERRUPTED),)))
        self._rest()
        return requests

    def _interrupt(self) -> Sequence[events.Request]:
        """Ends the turn; of its reply, only what was sent is heard."""
        reply = self._reply
        if not reply or reply.stream_id is None:
            return (events.InterruptPressed(),)
        report = events.PlaybackReported(reply.stream_id, reply.released_samples)
        return events.InterruptPressed(), report

    def _rest(self) -> None:
        self._stage, self._reply, self._cut_at = _Stage.IDLE, None, NEVER

    # --- deadlines ---------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """Long ago while something is owed; else when a reply has to be cut."""
        return -math.inf if self._owed else self._cut_at

    def expire(self, now: float) -> Sequence[events.Request]:
        """What is owed; and a reply that is too long, in bytes or seconds, is over."""
        owed, self._owed = self._owed, []
        return [*owed, *self._cut()] if now >= self._cut_at else owed

    def _cut(self) -> Sequence[events.Request]:
        reply, messages = self._reply, [told.error(told.UNAVAILABLE)]
        if reply and reply.has_audio:
            reply.cut()
            messages = self._complete(reply)
        discarded = (events.SpeechDiscarded(),) if self._stage is _Stage.TRANSCRIBING else ()
        interruption = self._interrupt()
        self._rest()
        return *discarded, *interruption, events.Answer(tuple(messages))

    def undelivered(self, messages: Sequence[Message], now: float) -> None:
        """Nothing is kept: a device that was away has forgotten what it asked."""

    # --- to the device -----------------------------------------------------------------------

    def send(self, event: events.Notice, now: float) -> Sequence[Message]:
        """The messages that tell the device this."""
        tell = _TELL.get(type(event))
        return tell(self, event, now) if tell else ()

    def _status(self, event: events.StatusChanged, _now: float) -> Sequence[Message]:
        if event.state is not events.State.READY or event.session_id != self._session_id:
            return ()
        return (told.connected(event.session_id),)

    def _transcript(self, event: events.UserTranscript, _now: float) -> Sequence[Message]:
        if not event.is_final:
            return ()
        self._newest_turn_id = max(self._newest_turn_id, event.turn_id)
        if self._stage not in _PROCESSING or not self._asked_last():
            return ()  # of an utterance that was given up, as its turn was
        self._stage, self._reply = _Stage.REPLYING, HotpinReply(event.turn_id, self.exact_wav)
        return (told.thinking(event.text),)

    def _nothing_understood(self, _event: events.Notice, _now: float) -> Sequence[Message]:
        awaited = self._stage is _Stage.TRANSCRIBING and self._asked_last()
        return self._fail(told.NOT_UNDERSTOOD) if awaited else ()

    def _asked_last(self) -> bool:
        """Whether what is told now of an utterance is of the one that the device waits for."""
        return self._questions_answered == self._questions

    def _answered(self, event: events.Answer, _now: float) -> Sequence[Message]:
        self._questions_answered += event.messages == (told.TRANSCRIBING,)
        return ()  # it is sent as it is

    def _reply_of(self, turn_id: int) -> HotpinReply | None:
        """The reply that a turn is; one that was not asked for is told to an idle device."""
        if self._reply and self._reply.turn_id == turn_id:
            return self._reply
        if turn_id > self._newest_turn_id:
            self._newest_turn_id = turn_id
            if self._stage is _Stage.IDLE:
                self._stage, self._reply = _Stage.REPLYING, HotpinReply(turn_id, self.exact_wav)
                return self._reply
            self._owed.append(events.InterruptPressed())
        return None

    def _text_delta(self, event: events.TextDelta, _now: float) -> Sequence[Message]:
        if reply := self._reply_of(event.turn_id):
            reply.write(event.text)
        return ()

    def _text_done(self, event: events.TextDone, _now: float) -> Sequence[Message]:
        reply = self._reply_of(event.turn_id)
        if not reply or not event.text.strip():
            return ()
        reply.text = event.text
        return self._told_text(reply)

    def _told_text(self, reply: HotpinReply) -> list[Message]:
        """The text, once and before any audio: the device empties its buffer now."""
        if reply.text_told:
            return []
        reply.text_told = True
        return [told.speaking(reply.text.strip())]

    def _stream_started(self, event: events.StreamStarted, _now: float) -> Sequence[Message]:
        if event.source is events.Source.MUSIC:  # without end: it would never be complete
            self._owed.append(events.InterruptPressed())
        elif reply := self._reply_of(event.turn_id):
            reply.open_stream(event.stream_id, event.sample_rate)
        return ()

    def _reply_in(self, stream_id: int) -> HotpinReply | None:
        reply = self._reply
        return reply if reply and reply.stream_id == stream_id else None

    def _sentence(self, event: events.SentenceStarted, _now: float) -> Sequence[Message]:
        reply = self._reply_in(event.stream_id)
        return self._end_sentence(reply) if reply else ()

    def _audio(self, event: events.AudioChunk, now: float) -> Sequence[Message]:
        reply = self._reply_in(event.stream_id)
        if not reply:
            return ()
        reply.add(event.pcm)
        if reply.full:
            self._cut_at = now
        # The next sentence may be long in coming; that this one is whole is known before.
        whole = int(reply.sample_rate * self.profile.chunk_seconds) * SAMPLE_BYTES
        return self._end_sentence(reply) if len(event.pcm) < whole else ()

    def _end_sentence(self, reply: HotpinReply) -> Sequence[Message]:
        reply.end_sentence()
        chunks = reply.release_whole()
        return [*self._told_text(reply), *chunks] if chunks else ()

    def _stream_ended(self, event: events.StreamEnded, _now: float) -> Sequence[Message]:
        reply = self._reply_in(event.stream_id)
        if not reply or reply.full:  # then it is cut, at once
            return ()
        if not reply.has_audio:
            return self._fail(told.NO_SPEECH)
        messages = self._complete(reply)
        self._rest()
        return messages

    def _complete(self, reply: HotpinReply) -> list[Message]:
        return [*self._told_text(reply), *reply.release_all(), told.COMPLETE]

    def _turn_over(self, event: events.TurnMetrics, _now: float) -> Sequence[Message]:
        """A reply without a word, or one that somebody else has ended."""
        mine = self._reply is not None and self._reply.turn_id == event.turn_id
        return self._fail(told.UNAVAILABLE) if mine else ()

    # --- errors ------------------------------------------------------------------------------

    def _error_reported(self, event: events.ErrorReported, _now: float) -> Sequence[Message]:
        text = told.ERRORS.get(event.code, event.message)
        if event.turn_id is not None:
            if not self._reply_of(event.turn_id):
                return ()
            self._owed += self._interrupt()
            return self._fail(text)
        if event.code is ErrorCode.ASR_ERROR:
            return ()  # what of it matters is known after EOS: words, or none
        if event.code is ErrorCode.SESSION_ERROR:
            self._owed.append(events.HangUp(1008, "no session"))
        awaited = self._stage is _Stage.TRANSCRIBING and self._asked_last()
        if event.code is ErrorCode.RATE_LIMITED and awaited:
            return self._fail(text)  # nothing else will come of the utterance
        return (told.error(text),)

    def _fail(self, text: str) -> Sequence[Message]:
        """What the device waits for will not come."""
        self._rest()
        return (told.error(text),)


_TELL: Final[Mapping[type, Callable[[HotpinDialect, Any, float], Sequence[Message]]]] = {
    events.Answer: HotpinDialect._answered,
    events.StatusChanged: HotpinDialect._status,
    events.UserTranscript: HotpinDialect._transcript,
    events.NothingUnderstood: HotpinDialect._nothing_understood,
    events.TextDelta: HotpinDialect._text_delta,
    events.TextDone: HotpinDialect._text_done,
    events.StreamStarted: HotpinDialect._stream_started,
    events.SentenceStarted: HotpinDialect._sentence,
    events.AudioChunk: HotpinDialect._audio,
    events.StreamEnded: HotpinDialect._stream_ended,
    events.TurnMetrics: HotpinDialect._turn_over,
    events.ErrorReported: HotpinDialect._error_reported,
}
