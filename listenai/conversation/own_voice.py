"""What our own voice does to listening: a microphone, the echo policy, and the ear behind them.

The device is told whenever more, or less, is known of its echo.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from listenai.audio import SAMPLE_BYTES, SAMPLE_RATE
from listenai.conversation.echo import EchoPolicy
from listenai.conversation.listening import MAX_PIECE_BYTES, Listening
from listenai.device import Duplex, Echo
from listenai.events import Notice, PlaybackReported


@attrs.define(eq=False)
class OwnVoice:
    """`found` is called with the duplex, whenever the echo is found to be another."""

    _policy: EchoPolicy
    _listening: Listening
    _found: Callable[[Duplex], None]
    _knows_when_it_sounds: bool  # not of a device that plays when it likes
    _told: Echo = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._told = self._policy.echo

    @property
    def duplex(self) -> Duplex:
        """Whether speech interrupts."""
        return self._policy.duplex

    @property
    def suspicion(self) -> tuple[int, int]:
        """Speech frames, of the last so many, that make a speaker."""
        return self._policy.suspicion

    async def listen(self, pcm: bytes) -> None:
        """Gives the microphone's audio to the ear, without what may be ours.

        In pieces, each as having come when its own last sample was heard: a long message may be
        ours in part.
        """
        now, left = trio.current_time(), len(pcm)
        for start in range(0, len(pcm), MAX_PIECE_BYTES):
            piece = pcm[start : start + MAX_PIECE_BYTES]
            left -= len(piece)
            heard = self._policy.heard(piece, now - left / SAMPLE_BYTES / SAMPLE_RATE)
            self._tell()
            await self._listening.put(heard)
            if left:
                await trio.lowlevel.checkpoint()

    def sent(self, notice: Notice) -> None:
        """The device is given this."""
        self._policy.sent(notice, trio.current_time())
        self._tell()

    def end(self) -> None:
        """What is heard next does not follow on what was heard last."""
        self._policy.end_audio()

    def report(self, report: PlaybackReported) -> None:
        """The device says what it has played."""
        self._policy.report(report, trio.current_time())

    def speech_began(self) -> None:
        """The detector says that somebody speaks."""
        self._policy.speech_began(trio.current_time())

    def is_own(self, text: str) -> bool:
        """Whether these are words of ours that came back."""
        if not self._knows_when_it_sounds:
            return False
        own = self._policy.is_own(text, trio.current_time())
        self._tell()
        return own

    def _tell(self) -> None:
        if self._policy.echo is not self._told:
            self._told = self._policy.echo
            self._listening.suspect_after(self._policy.suspicion)
            self._found(self._policy.duplex)
