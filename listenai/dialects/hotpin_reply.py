"""A reply as a Hotpin device gets it: one WAV file in chunks, never more than its buffer takes.

Theory.  The device has room for 512 000 bytes and plays when the file is complete, so a
reply that is too long, or takes too long, is cut; and where it is cut, a sentence ends.
Audio is therefore known as *whole* up to the end of its last sentence.  An exact header
tells the size, so the file is released when nothing can change any more; one that tells no
size can go ahead of the audio, which then is released sentence by sentence.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from listenai.audio import SAMPLE_BYTES
from listenai.wav import HEADER_BYTES, wav_header

CHUNK_BYTES = 4096  # spec 002, 3.4.3
# Spec 002, 6.3.4: the device drops the chunk with which it would have 512 000 bytes, so
# there is one byte less, and a sample has two.
MAX_WAV_BYTES = 512_000 - SAMPLE_BYTES
# As much as any message may show, and more than is ever spoken into MAX_WAV_BYTES.
_KEPT_CHARACTERS = 1000


@attrs.define
class HotpinReply:
    """What is known of the reply to one utterance, and what of it was released."""

    turn_id: int
    exact: bool  # whether the header tells the size
    text: str = ""  # what the assistant has written, or the beginning of that
    text_told: bool = False
    stream_id: int | None = None
    sample_rate: int = 0  # Hz
    full: bool = False  # a sentence has no room
    _wav: bytearray = attrs.field(factory=bytearray)
    _whole: int = 0  # bytes of the file, up to the end of a sentence
    _released: int = 0  # bytes of the file

    def write(self, delta: str) -> None:
        """More of the text."""
        self.text = (self.text + delta)[:_KEPT_CHARACTERS]

    # --- the stream --------------------------------------------------------------------------

    def open_stream(self, stream_id: int, sample_rate: int) -> None:
        """The audio begins; sample_rate in Hz."""
        self.stream_id, self.sample_rate = stream_id, sample_rate
        self._wav += wav_header(sample_rate)

    def end_sentence(self) -> None:
        """The audio so far is whole sentences."""
        if not self.full:
            self._whole = len(self._wav)

    def add(self, pcm: bytes) -> None:
        """Audio of a sentence, int16 mono; the rest of one that has no room is not kept."""
        if self.full:
            return
        room = MAX_WAV_BYTES - len(self._wav)
        self._wav += pcm[:room]
        self.full = len(pcm) > room

    @property
    def has_audio(self) -> bool:
        """Whether there is anything to be heard."""
        return len(self._wav) > HEADER_BYTES

    @property
    def released_samples(self) -> int:
        """How much audio the device was sent."""
        return max(0, self._released - HEADER_BYTES) // SAMPLE_BYTES

    # --- what is sent ------------------------------------------------------------------------

    def release_whole(self) -> Sequence[bytes]:
        """The chunks that can be sent while the reply goes on."""
        if self.exact:
            return ()
        return self._release(self._whole - (self._whole - self._released) % CHUNK_BYTES)

    def release_all(self) -> Sequence[bytes]:
        """All chunks that are left: the reply is complete."""
        if self.exact:
            self._wav[:HEADER_BYTES] = wav_header(self.sample_rate, len(self._wav) - HEADER_BYTES)
        return self._release(len(self._wav))

    def cut(self) -> None:
        """Drops what is behind the last whole sentence; of a first one nothing."""
        if self._whole > HEADER_BYTES:
            del self._wav[self._whole :]

    def _release(self, end: int) -> Sequence[bytes]:
        starts = range(self._released, end, CHUNK_BYTES)
        self._released = max(self._released, end)
        return [bytes(self._wav[start : min(end, start + CHUNK_BYTES)]) for start in starts]
