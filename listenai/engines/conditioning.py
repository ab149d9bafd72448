"""What is done to a device's sound before it is listened to."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from listenai.audio import AudioStep
from listenai.device import Conditioning
from listenai.engines.gain_control import GainControl
from listenai.engines.noise_floor import NoiseFloor
from listenai.engines.noise_reduction import NoiseReduction
from listenai.errors import EngineError

_log = logging.getLogger(__name__)


def make_steps(conditioning: Conditioning) -> Sequence[AudioStep]:
    """The steps that are wanted, in the order in which they help each other.

    One that is not installed is left out and logged: a device may ask for what is not here.
    """
    steps: list[AudioStep] = []
    if conditioning.noise_reduction:
        try:
            steps.append(NoiseReduction())
        except EngineError as error:
            _log.warning("no_noise_reduction: %s", error)
    if conditioning.automatic_gain:
        steps.append(GainControl(NoiseFloor()))
    return steps
