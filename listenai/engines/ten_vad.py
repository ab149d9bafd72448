"""TEN VAD: voice activity detection by a small native library.

The package's own Python wrapper creates its handle inside an `assert` (so not
at all under `python -O`), ignores failures of `process`, and reads strided arrays
as if they were contiguous; we call the library ourselves.  The calls keep the
GIL: one takes some 60 µs, and to give the GIL away for that long costs up to a
whole switch interval (5 ms) to get it back while another thread runs Python.

A detector has no reset: whoever wants a fresh one makes one (0.3 ms, 620 KiB).
"""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import weakref
from functools import cache
from pathlib import Path
from typing import Self

from listenai.audio import FRAME_BYTES, FRAME_SAMPLES
from listenai.errors import EngineError

_LIBRARIES = {  # (system, machine) -> where the package keeps the library
    ("Linux", "x86_64"): "lib/Linux/x64/libten_vad.so",
    ("Darwin", "arm64"): "lib/macOS/ten_vad.framework/Versions/A/ten_vad",
    ("Darwin", "x86_64"): "lib/macOS/ten_vad.framework/Versions/A/ten_vad",
    ("Windows", "AMD64"): "lib/Windows/x64/ten_vad.dll",
}
_FLAG_THRESHOLD = 0.5  # of the library's own yes or no, which nobody asks for


def find_library() -> Path:
    """Where the installed package keeps its native library; EngineError when it has none for us."""
    spec = importlib.util.find_spec("ten_vad")
    if spec is None or not spec.submodule_search_locations:
        raise EngineError(
            "TEN VAD (the package ten-vad) is not installed; install it with: "
            "pip install 'listenai[embedded]'"
        )
    here = (platform.system(), platform.machine())
    if here not in _LIBRARIES:
        supported = ", ".join(" ".join(pair) for pair in _LIBRARIES)
        raise EngineError(
            f"TEN VAD has no native library for {' '.join(here)}, only for {supported}; "
            "run the server on one of these or configure another detector"
        )
    return Path(spec.submodule_search_locations[0], _LIBRARIES[here])


@cache
def load_library(path: Path) -> ctypes.PyDLL:
    """The native library with its signatures declared; EngineError says what to install."""
    try:
        library = ctypes.PyDLL(str(path))
    except OSError as error:
        raise EngineError(
            f"TEN VAD's native library cannot be loaded: {error}. It needs the C++ runtime libc++; "
            "install it (Debian and Ubuntu: apt-get install libc++1) and start again"
        ) from error
    handle = ctypes.POINTER(ctypes.c_void_p)
    library.ten_vad_create.argtypes = [handle, ctypes.c_size_t, ctypes.c_float]
    library.ten_vad_destroy.argtypes = [handle]
    library.ten_vad_process.argtypes = [
        ctypes.c_void_p,
        ctypes.c_char_p,  # int16 samples; of `bytes`, ctypes passes the address and copies nothing
        ctypes.c_size_t,
        ctypes.POINTER(ctypes.c_float),
        ctypes.POINTER(ctypes.c_int32),
    ]
    return library


class TenVadDetector:
    """Tells speech from silence for one device; hears its frames in order.

    Raises EngineError when the library is missing or fails.  Close it, or use it
    as a context manager: that frees the native instance at once.
    """

    def __init__(self) -> None:
        self._library = load_library(find_library())
        self._handle = ctypes.c_void_p()
        self._probability = ctypes.c_float()
        self._flag = ctypes.c_int32()
        self._outputs = ctypes.byref(self._probability), ctypes.byref(self._flag)
        code = self._library.ten_vad_create(
            ctypes.byref(self._handle), FRAME_SAMPLES, _FLAG_THRESHOLD
        )
        if code or not self._handle:
            raise EngineError(
                f"TEN VAD could not create an instance (code {code}); the machine may be out of "
                "memory: allow fewer connections"
            )
        self._destroy = weakref.finalize(self, _destroy, self._library, self._handle)

    def process(self, frame: bytes) -> float:
        """The probability of speech, 0 to 1, in one frame of 512 bytes (int16 mono 16 kHz)."""
        if len(frame) != FRAME_BYTES:
            raise ValueError(
                f"a frame has {len(frame)} bytes; TEN VAD takes {FRAME_BYTES} bytes "
                f"({FRAME_SAMPLES} samples of int16); cut the audio with listenai.audio.Framer"
            )
        if not self._destroy.alive:
            raise EngineError("this TEN VAD detector is closed; make a new one")
        code = self._library.ten_vad_process(self._handle, frame, FRAME_SAMPLES, *self._outputs)
        if code:
            raise EngineError(f"TEN VAD failed on a frame (code {code}); make a new detector")
        return self._probability.value

    def close(self) -> None:
        """Frees the native instance; more than once is fine."""
        self._destroy()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _destroy(library: ctypes.PyDLL, handle: ctypes.c_void_p) -> None:
    library.ten_vad_destroy(ctypes.byref(handle))
