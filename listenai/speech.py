"""What is heard: tiny frozen facts, from a recognizer to the floor."""

from __future__ import annotations

import attrs

from listenai.errors import ErrorCode


@attrs.frozen
class SpeechStarted:
    """The detector's first speech frame: `speeching` is true from here on."""

    segment_id: int
    loudness_threshold: float | None = None  # dBFS, of a noise floor that adapts


@attrs.frozen
class SpeechSuspected:
    """Enough speech frames of this segment to think that somebody really speaks."""

    segment_id: int


@attrs.frozen
class SpeechEnded:
    """The detector's silence frames are complete: the segment is over.

    A FinalTranscript or TranscriptionFailed for it follows if, and only if,
    `transcript_follows`; otherwise it was too short to be speech.
    """

    segment_id: int
    last_speech_at: float  # Trio's time of the last speech frame
    transcript_follows: bool


@attrs.frozen
class PartialTranscript:
    """What the words of the utterance are so far; may still change."""

    segment_id: int
    text: str


@attrs.frozen
class FinalTranscript:
    """The text of the whole utterance, up to and including this segment."""

    segment_id: int
    text: str  # empty: no words in it
    complete: bool | None = None  # a whole sentence?  None: the transcriber cannot tell


@attrs.frozen
class TranscriptionFailed:
    """No text for this segment."""

    segment_id: int
    code: ErrorCode
    message: str
    timed_out: bool = False


@attrs.frozen
class TranscriptionDelayed:
    """The transcriber is away: this segment's text comes when it is back, if that is soon."""

    segment_id: int
    code: ErrorCode
    message: str


SpeechEvent = (
    SpeechStarted
    | SpeechSuspected
    | SpeechEnded
    | PartialTranscript
    | FinalTranscript
    | TranscriptionFailed
    | TranscriptionDelayed
)
