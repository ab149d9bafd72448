"""A loaded VoxCPM model, and the voices prepared for it.

Everything here waits for the processor.  What belongs to one model is to be called from
one and the same thread: compiled for a GPU, it keeps its recorded graphs per thread.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Mapping
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import attrs
import numpy as np
import soxr

from listenai.engines.model_files import MODELS, refusal
from listenai.engines.voxcpm_voices import Voice
from listenai.errors import SynthesizerError
from listenai.wav import read_wav

# Without a recording the model speaks with another voice each time.  So it says this once,
# from a fixed seed, and then goes on from that.
OWN_VOICE_TEXT = "Hello, it is good to hear from you. What would you like to know today?"
OWN_VOICE_SEED = 1
OWN_VOICE_SECONDS = 8.0  # at most: it takes five, and some attempts do not find their end

_MODEL_WITH_STYLES = "VoxCPM2Model"


@attrs.frozen
class Prompt:
    """A voice as the model takes it; serves all models loaded from the same files."""

    cache: Any = None  # what was said so far, as text and features
    style: str = ""  # a description of the voice, in place of that
    cfg_value: float | None = None
    inference_timesteps: int | None = None


class VoxcpmModel:
    """One VoxCPM; one sentence at a time.

    chunk_seconds: what `speak` yields at once.  has_styles: VoxCPM 2, which can speak as a
    description says.
    """

    def __init__(self, model: Any) -> None:
        """Not for callers: see `load`."""
        self._model = model
        self.sample_rate = int(model.sample_rate)
        self.has_styles = type(model).__name__ == _MODEL_WITH_STYLES
        # VoxCPM 2 speaks at another rate than it listens; its patches are counted in the latter.
        self.chunk_seconds = model.patch_size * model.chunk_size / model.audio_vae.sample_rate

    @classmethod
    def load(cls, folder: Path, device: str) -> VoxcpmModel:
        """Reads the weights: seconds, gigabytes; on a GPU it is compiled too, for a minute.

        Raises SynthesizerError.
        """
        if problem := refusal(MODELS["voxcpm-0.5b"], folder):
            raise SynthesizerError(problem)
        try:
            _provide_torchaudio()
            if device.startswith("cpu"):
                _leave_a_core()
            loaded = import_module("voxcpm").VoxCPM.from_pretrained(
                str(folder),
                load_denoiser=False,
                optimize=device.startswith("cuda"),
                device=device,
                local_files_only=True,
            )
            _fit_library()
        except ImportError as error:
            raise SynthesizerError(
                f"VoxCPM needs packages that are not installed ({error}); type  pip install "
                "torch,  then  pip install 'listenai[voxcpm]'  and  pip install --no-deps "
                "voxcpm,  or choose another synthesizer"
            ) from error
        except Exception as error:  # the library has no exceptions of its own
            raise SynthesizerError(f"VoxCPM could not be loaded from {folder}: {error}") from error
        return cls(loaded.tts_model)

    def prompt_of(self, voice: Voice, folder: Path) -> Prompt:
        """Prepares a voice; `folder` holds its recording.  Raises SynthesizerError."""
        settings = voice.cfg_value, voice.inference_timesteps
        if voice.style:
            if not self.has_styles:
                raise SynthesizerError(
                    f"voice {voice.id!r} has a style, which only VoxCPM 2 understands; give a "
                    "recording in that style instead: wav and text"
                )
            return Prompt(None, voice.style, *settings)
        try:
            cache = self._model.build_prompt_cache(
                prompt_text=voice.text, prompt_wav_path=str(folder / str(voice.wav))
            )
        except Exception as error:  # the library has no exceptions of its own
            raise SynthesizerError(f"voice {voice.id!r} cannot be used: {error}") from error
        return Prompt(cache, "", *settings)

    def own_prompt(self, cfg_value: float, inference_timesteps: int) -> Prompt:
        """A voice for those who have no recording, the same at each start."""
        torch = import_module("torch")
        torch.manual_seed(OWN_VOICE_SEED)
        _, _, features = self._model.generate_with_prompt_cache(
            target_text=OWN_VOICE_TEXT,
            prompt_cache=None,
            cfg_value=cfg_value,
            inference_timesteps=inference_timesteps,
            max_len=self._steps(OWN_VOICE_SECONDS),
        )
        return Prompt(self._model.merge_prompt_cache(None, OWN_VOICE_TEXT, features))

    def speak(
        self, text: str, prompt: Prompt, *, max_seconds: float
    ) -> Generator[bytes, None, None]:
        """Chunks of int16 mono PCM; `close` it to stop between two.  Raises SynthesizerError."""
        chunks = self._model.generate_with_prompt_cache_streaming(
            target_text=(f"({prompt.style})" if prompt.style else "") + " ".join(text.split()),
            prompt_cache=prompt.cache,
            cfg_value=prompt.cfg_value,
            inference_timesteps=prompt.inference_timesteps,
            max_len=self._steps(max_seconds),
        )
        try:
            for samples, _, _ in chunks:
                yield _pcm(samples)
        except Exception as error:  # the library has no exceptions of its own
            raise SynthesizerError(
                f"VoxCPM failed on {len(text)} characters: {type(error).__name__}"
            ) from error
        finally:
            chunks.close()

    def _steps(self, seconds: float) -> int:
        return int(seconds / self.chunk_seconds)


def _pcm(samples: Any) -> bytes:
    wave = samples.reshape(-1).float().cpu().numpy()
    return bytes((np.clip(wave, -1, 1) * 32767).astype("<i2").tobytes())


# --- the library's surroundings ------------------------------------------------------------


def _load_audio(path: str) -> tuple[Any, int]:
    """A WAV file as float32 tensor (channels, samples), and its rate."""
    recording = read_wav(Path(path))
    samples = np.ascontiguousarray(recording.samples.T, np.float32) / np.float32(32768)
    return import_module("torch").from_numpy(samples), recording.sample_rate


def _resample(samples: Any, from_rate: int, to_rate: int) -> Any:
    converted = soxr.resample(samples.numpy().T, from_rate, to_rate)
    return import_module("torch").from_numpy(np.ascontiguousarray(converted.T))


def _load_mono(path: str, sr: int, mono: bool = True) -> tuple[Any, int]:
    """As librosa does: float32 (samples,) at the rate `sr`."""
    del mono
    recording = read_wav(Path(path))
    samples = recording.samples.mean(1, dtype=np.float32) / np.float32(32768)
    return soxr.resample(samples, recording.sample_rate, sr), sr


# What VoxCPM wants of torchaudio.  The real one reads files only with torchcodec and
# FFmpeg's libraries, and many builds of it do not fit the PyTorch beside them.
_FUNCTIONS: Mapping[str, Any] = {
    "load": _load_audio,
    "functional": SimpleNamespace(resample=_resample),
}


def _leave_a_core() -> None:
    """Fewer threads than there are cores, or as few as somebody has allowed.

    PyTorch takes all of them, and its threads spin while they wait for each other: the server
    beside this process would come to run late, and whoever listens hears gaps.
    """
    torch = import_module("torch")
    torch.set_num_threads(min(torch.get_num_threads(), max(1, (os.cpu_count() or 1) - 1)))


def _provide_torchaudio() -> None:
    """Lets `import torchaudio` succeed where there is none, or none that can be loaded."""
    try:
        import_module("torchaudio")
    except (ImportError, OSError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        stand_in = ModuleType("torchaudio", "Only what VoxCPM needs of it.")
        stand_in.__spec__ = ModuleSpec("torchaudio", None)
        stand_in.__dict__.update(_FUNCTIONS)
        sys.modules["torchaudio"] = stand_in


def _fit_library() -> None:
    """Gives VoxCPM our reader of WAV files, and keeps its progress bars off the log."""
    for name in ("voxcpm", "voxcpm2"):
        module = import_module(f"voxcpm.model.{name}")
        module.__dict__["tqdm"] = lambda steps, **_: steps
        module.__dict__["torchaudio"] = SimpleNamespace(**_FUNCTIONS)
        # librosa compiles itself when it is first used, which took 40 s.
        module.__dict__["librosa"] = SimpleNamespace(load=_load_mono)
