"""The sound card of `talk --mic`: a real microphone and a real loudspeaker.

PortAudio calls from threads of its own; bounded buffers hand over to and from Trio.
Both drop their oldest sound when full, and count it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import soxr
import trio

from listenai.audio import FRAME_BYTES, FRAME_SAMPLES, SAMPLE_BYTES, SAMPLE_RATE
from listenai.errors import ListenAIError

CAPTURED_FRAMES = 64  # 1 s of microphone: a pause of the program longer than that loses sound
PLAYBACK_BYTES = SAMPLE_RATE * SAMPLE_BYTES * 3 // 10  # 300 ms that the card has not taken yet
PREFILL_BLOCKS = 3  # 48 ms wait before playing: the Trio clock and the card's differ


class NoSoundCard(ListenAIError):
    """No microphone or loudspeaker can be used; the message says what to install."""


class SoundCard:
    """A microphone of frames, and a loudspeaker that takes PCM of any rate."""

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self.dropped_frames = 0  # microphone
        self.dropped_bytes = 0  # loudspeaker
        self._token = token
        self._captured: deque[bytes] = deque(maxlen=CAPTURED_FRAMES)
        self._arrived = trio.Event()
        self._lock = threading.Lock()  # held for a copy of a few ms of sound
        self._to_play = bytearray()
        self._waited_blocks = 0
        self._resampler: tuple[int, Any] | None = None

    async def frame(self) -> bytes:
        """The next frame of the microphone: int16 mono 16 kHz, FRAME_BYTES."""
        while not self._captured:
            self._arrived = trio.Event()
            if not self._captured:  # else the card was quicker
                await self._arrived.wait()
        await trio.lowlevel.checkpoint()
        return self._captured.popleft()

    def play(self, pcm: bytes, sample_rate: int) -> None:
        """Plays int16 mono PCM after what is playing."""
        if sample_rate != SAMPLE_RATE:
            pcm = self._resampled(pcm, sample_rate)
        with self._lock:
            self._to_play += pcm
            if (excess := len(self._to_play) - PLAYBACK_BYTES) > 0:
                del self._to_play[:excess]
                self.dropped_bytes += excess

    def _resampled(self, pcm: bytes, sample_rate: int) -> bytes:
        if self._resampler is None or self._resampler[0] != sample_rate:
            stream = soxr.ResampleStream(sample_rate, SAMPLE_RATE, 1, dtype="int16")
            self._resampler = (sample_rate, stream)
        return bytes(self._resampler[1].resample_chunk(np.frombuffer(pcm, np.int16)))

    # --- called by PortAudio's threads ----------------------------------------------------

    def capture(self, indata: Any, _frames: int, _time: Any, _status: Any) -> None:
        """Takes a block from the microphone."""
        self.dropped_frames += len(self._captured) == CAPTURED_FRAMES
        self._captured.append(bytes(indata))
        self._token.run_sync_soon(self._wake, idempotent=True)

    def render(self, outdata: Any, _frames: int, _time: Any, _status: Any) -> None:
        """Fills a block for the loudspeaker; silence where there is nothing."""
        with self._lock:
            self._waited_blocks = self._waited_blocks + 1 if self._to_play else 0
            size = len(outdata) if self._waited_blocks > PREFILL_BLOCKS else 0
            sound = bytes(self._to_play[:size])
            del self._to_play[:size]
        outdata[:] = sound.ljust(len(outdata), b"\0")

    def _wake(self) -> None:
        self._arrived.set()


@asynccontextmanager
async def open_sound_card(driver: Any = None) -> AsyncIterator[SoundCard]:
    """The default microphone and loudspeaker, running; `driver` is `sounddevice`, or like it.

    Raises NoSoundCard.
    """
    driver = driver or _sounddevice()
    card = SoundCard(trio.lowlevel.current_trio_token())
    settings = {
        "samplerate": SAMPLE_RATE,
        "channels": 1,
        "dtype": "int16",
        "blocksize": FRAME_SAMPLES,
        "latency": "low",
    }
    try:
        microphone = driver.RawInputStream(callback=card.capture, **settings)
        loudspeaker = driver.RawOutputStream(callback=card.render, **settings)
    except driver.PortAudioError as error:
        raise NoSoundCard(
            f"no microphone or loudspeaker that does 16 kHz mono: {error}; "
            "`python -m sounddevice` lists what there is"
        ) from error
    with microphone, loudspeaker:
        yield card


def _sounddevice() -> Any:
    try:
        import sounddevice  # noqa: PLC0415  an optional extra
    except ImportError:
        raise NoSoundCard("--mic needs a package: pip install 'listenai[microphone]'") from None
    except OSError as error:  # the package is there, its library is not
        raise NoSoundCard(
            f"--mic needs the PortAudio library ({error}); on Debian: apt install libportaudio2"
        ) from None
    return sounddevice


LATENCY_MS = (PREFILL_BLOCKS + 1) * FRAME_BYTES / SAMPLE_BYTES / SAMPLE_RATE * 1000
