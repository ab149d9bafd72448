"""Chance and the calendar, given from outside so that runs can be repeated."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable

import attrs


def _system_random() -> random.Random:
    return random.SystemRandom()


@attrs.frozen
class Effects:
    """Ids, randomness and wall clock.  Tests give seeded ones."""

    random: random.Random = attrs.field(factory=_system_random)
    wall_clock: Callable[[], float] = time.time  # seconds since the epoch, UTC

    def new_id(self) -> str:
        """A fresh UUID (version 4)."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))
