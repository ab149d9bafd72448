"""Acoustic echo cancellation with WebRTC's AEC3 (package pywebrtc-audio, Apache-2.0, 0.9 MiB).

It finds the delay between what was played and what came back by itself, as long as that hardly
changes, and needs a second or two of sound to learn the room.  The library works in steps of
10 ms and fills up what is shorter with silence; here the rest waits for the next audio, so that
everything comes out 10 ms late and nothing is invented.
"""

from __future__ import annotations

import importlib.util
from importlib import import_module

import numpy as np

from listenai.audio import SAMPLE_BYTES, SAMPLE_RATE
from listenai.errors import EngineError

_STEP_BYTES = SAMPLE_RATE // 100 * SAMPLE_BYTES


def is_installed() -> bool:
    """Whether the library is there; to look costs nothing."""
    return importlib.util.find_spec("pywebrtc_audio") is not None


class WebrtcEchoCanceller:
    """Takes our own voice out of one device's microphone (engines.base.EchoCanceller).

    Raises EngineError when the library cannot be loaded.
    """

    def __init__(self) -> None:
        try:
            library = import_module("pywebrtc_audio")
        except ImportError as error:
            raise EngineError(
                f"echo cannot be cancelled: the package pywebrtc-audio cannot be loaded ({error}); "
                "install it with: pip install 'listenai[aec]', or uninstall what is left of it"
            ) from error
        self._canceller = library.EchoCanceller(SAMPLE_RATE)
        self._heard = self._played = b""
        self._ready = bytes(_STEP_BYTES)

    def process(self, heard: bytes, played: bytes) -> bytes:
        """As much as was heard, 10 ms late, without what was played; the two are equally long.

        ValueError for another length, or half a sample.
        """
        if len(heard) != len(played) or len(heard) % SAMPLE_BYTES:
            raise ValueError(
                f"{len(heard)} bytes were heard and {len(played)} played; echo cancellation takes "
                "equally many whole int16 samples of both"
            )
        self._heard += heard
        self._played += played
        whole = len(self._heard) - len(self._heard) % _STEP_BYTES
        if whole:
            clean = self._canceller.process(
                np.frombuffer(self._heard[:whole], np.int16),
                np.frombuffer(self._played[:whole], np.int16),
            )
            self._heard, self._played = self._heard[whole:], self._played[whole:]
            self._ready += clean.tobytes()
        ready, self._ready = self._ready[: len(heard)], self._ready[len(heard) :]
        return ready
