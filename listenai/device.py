"""What a device can do, and how a dialect's devices are treated."""

from __future__ import annotations

import math
from enum import StrEnum

import attrs

from listenai.settings import Configuration


class Echo(StrEnum):
    """Whether the device's microphone hears its loudspeaker."""

    CANCELLED = "cancelled"
    RAW = "raw"
    UNKNOWN = "unknown"


class Duplex(StrEnum):
    """Whether speech interrupts a reply."""

    FULL = "full"
    HALF = "half"  # only the button does, and typed text: our own voice is in the microphone


@attrs.frozen
class Capabilities:
    """What the device said it can do; all default to no, the echo to unknown."""

    pause: bool = False  # obeys `pause` and `resume`
    flush: bool = False  # obeys `flush`
    playback_reports: bool = False  # says how many samples were played
    display_text: bool = False  # shows the reply's text: shown counts as seen
    echo: Echo = Echo.UNKNOWN


@attrs.frozen
class Conditioning:
    """What is done to a device's sound before speech is looked for in it."""

    noise_reduction: bool = False
    automatic_gain: bool = False
    adaptive_threshold: bool = False  # nothing that does not stand out of the noise is speech


UNCONDITIONED = Conditioning()


@attrs.frozen
class DeviceProfile:
    """How a dialect's devices are treated."""

    history_messages: int = 10
    temperature: float = 0.7
    max_tokens: int = 2048
    token_seconds: float = math.inf  # the longest to wait for the chat model's next token
    reply_seconds: float = math.inf  # ... and for its whole reply
    utterance_seconds: float = 30.0  # longer ones are cut into segments
    lead_seconds: float = 0.5  # audio at the device ahead of its clock, where it can stop
    lead_seconds_unstoppable: float = 0.16  # where it can neither pause nor flush: its tail
    chunk_seconds: float = 0.06  # longest audio message
    speaks: bool = True  # else replies are text alone
    paced: bool = True  # else the whole reply goes out as soon as it is there
    tell_voice: bool = False  # whether VoiceNoticed is wanted
    conditioning: Conditioning = UNCONDITIONED
    configuration: Configuration = attrs.field(factory=Configuration)  # of a new session

    def lead(self, capabilities: Capabilities) -> float:
        """Seconds of audio the device may hold ahead of its clock."""
        if not self.paced:
            return math.inf
        stoppable = capabilities.pause or capabilities.flush
        return self.lead_seconds if stoppable else self.lead_seconds_unstoppable
