"""When what happened to an utterance and its reply: the `metrics` of Prompt Voice devices.

Everything is noted in Trio's time and told in seconds since the epoch, so that differences
stay exact whatever becomes of the wall clock.
"""

from __future__ import annotations

import attrs

from listenai.events import JsonObject, TurnMetrics

# A voice that comes back after a longer silence begins another utterance: what was heard before
# were no words for us.  No end-of-turn delay with its transcript is so long.
STALE_SECONDS = 5.0


@attrs.define
class Times:
    """One utterance and the reply to it; None: not (yet) reached, or not spoken."""

    audio_start: float | None = None  # t0
    first_partial: float | None = None  # t1
    transcript: float | None = None  # t2
    first_token: float | None = None  # t3
    first_audio: float | None = None  # t4, handed to the wire
    transcript_id: str | None = None
    speech_seconds: float = 0.0  # of audio, while the detector heard a voice

    def reach(self, name: str, now: float) -> None:
        """This happens now, unless it has happened before."""
        if getattr(self, name) is None:
            setattr(self, name, now)

    def metrics(self, turn: TurnMetrics, epoch: float) -> JsonObject:
        """What the device is told; epoch: the wall clock's seconds at Trio's zero.

        `rtf` is the real-time factor of speech recognition: how long it still worked after the
        voice had ended, as a share of how long the voice had lasted.
        """
        marks = (
            *(self.audio_start, self.first_partial, self.transcript),
            *(self.first_token, self.first_audio),
        )
        told = {
            f"t{index}": None if at is None else round(epoch + at, 3)
            for index, at in enumerate(marks)
        }
        return {"type": "metrics", "id": self.transcript_id, **told, "rtf": self._factor(turn)}

    def _factor(self, turn: TurnMetrics) -> float | None:
        ended, understood = turn.end_of_speech_ms, turn.transcript_ms
        if ended is None or understood is None or not self.speech_seconds:
            return None
        return round((understood - ended) / 1000 / self.speech_seconds, 3)


@attrs.define
class Hearing:
    """What is known of the utterance that is being said."""

    _times: Times = attrs.field(factory=Times)
    _received_seconds: float = 0.0  # of audio, since the beginning
    _received_at_start: float | None = None  # of the voice that is heard now
    _voice_ended: float | None = None

    def received(self, seconds: float) -> None:
        """So much audio has come."""
        self._received_seconds += seconds

    def voice(self, now: float, *, speaking: bool) -> None:
        """The detector says that a voice begins or ends."""
        if speaking:
            if self._voice_ended is not None and now - self._voice_ended > STALE_SECONDS:
                self._times = Times()
            if self._times.first_partial is None:  # else it goes on after a pause
                self._times.audio_start = now
            self._received_at_start = self._received_seconds
            return
        if self._received_at_start is not None:
            self._times.speech_seconds += self._received_seconds - self._received_at_start
        self._received_at_start, self._voice_ended = None, now

    def partial(self, now: float) -> None:
        """First words are known."""
        self._times.reach("first_partial", now)

    def final(self, transcript_id: str, now: float) -> Times:
        """The whole text is known; what is heard from here on is another utterance."""
        times, self._times = self._times, Times()
        times.transcript, times.transcript_id = now, transcript_id
        return times

    def forget(self) -> None:
        """What was said did not count."""
        self._times, self._received_at_start = Times(), None
