"""The variables of the dialects that came with systems of their own."""

from __future__ import annotations

import attrs

from listenai.config.checks import number, switch, whole
from listenai.config.settings import setting


@attrs.frozen(slots=False)  # several bases cannot all have slots
class DialectSettings:
    """How their devices are treated."""

    prompt_voice_max_tokens: int = setting(
        "OPENAI_MAX_TOKENS", 150, whole(1, 10**6), "longest reply to Prompt Voice devices"
    )
    prompt_voice_temperature: float = setting(
        "OPENAI_TEMPERATURE", 0.7, number(0, 2), "randomness of replies to Prompt Voice devices"
    )
    prompt_voice_silence_ms: float = setting(
        "STREAM_VAD_SILENCE_MS",
        700.0,
        number(0, 10_000),
        "ms of silence that end what a Prompt Voice device's user says",
    )
    prompt_voice_partial_interval_ms: float = setting(
        "STREAM_PARTIAL_INTERVAL_MS",
        1000.0,
        number(0, 60_000),
        "ms between two partial transcripts for Prompt Voice devices, at least",
    )
    prompt_voice_llm_timeout: float = setting(
        "STREAM_LLM_TIMEOUT_S", 30.0, number(1, 3600), "seconds for a whole reply to Prompt Voice"
    )
    ninja_utterance_ms: int = setting(
        "MAX_AUDIO_DURATION", 180_000, whole(1000, 180_000), "ms of a Ninja user's longest speech"
    )
    hotpin_exact_wav: bool = setting(
        "HOTPIN_EXACT_WAV",
        True,
        switch(),
        "whole WAV files for Hotpin devices, not streams",
    )
