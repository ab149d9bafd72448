"""How a variable becomes a field of the configuration."""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs

from listenai.config.checks import Check
from listenai.config.loading import Setting
from listenai.config.masking import shown


def setting(variable: str, default: Any, check: Check, meaning: str, idle: str = "") -> Any:
    """A field that is read from this variable; the other arguments are those of Setting."""
    return attrs.field(
        default=default,
        repr=partial(shown, variable),
        metadata={"setting": Setting(variable, default, check, meaning, idle)},
    )
