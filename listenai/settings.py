"""What a conversation is set to, what may be chosen, and what is counted of it."""

from __future__ import annotations

import attrs


@attrs.frozen
class Configuration:
    """What a device may change about its conversation; None leaves a setting as it is."""

    language: str | None = None
    voice_id: str | None = None
    system_prompt: str | None = None
    vad_threshold: float | None = None
    vad_silence_frames: int | None = None
    end_of_turn_ms: float | None = None
    interruptible: bool | None = None
    tools: bool | None = None
    partial_results: bool | None = None
    output_sample_rate: int | None = None


@attrs.frozen
class EffectiveConfiguration:
    """A conversation's settings, all of them known."""

    language: str = "en"
    voice_id: str = "default"
    system_prompt: str = ""
    vad_threshold: float = 0.5
    vad_silence_frames: int = 5
    end_of_turn_ms: float | None = None  # None: adaptive
    interruptible: bool = True
    tools: bool = True
    partial_results: bool = True
    output_sample_rate: int = 16_000  # Hz

    def merged(self, wanted: Configuration) -> EffectiveConfiguration:
        """These settings with the wanted ones put in."""
        changes = attrs.asdict(wanted, filter=lambda _, value: value is not None)
        return attrs.evolve(self, **changes)


@attrs.frozen
class Offer:
    """What this server can do, for `status ready`."""

    languages: tuple[str, ...] = ()
    voices: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()


@attrs.frozen
class SessionStatistics:
    """Spec 000, "Session Statistics"."""

    message_count: int
    interaction_count: int
    duration_seconds: float
    average_interaction_seconds: float | None
    last_activity: float  # seconds since the epoch
