"""The table of dialects: a new one is a row here and a module in `dialects`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from listenai.app.guards import profile
from listenai.config import Config
from listenai.dialects.listenai import ListenAIDialect
from listenai.dialects.negotiate import DialectRow
from listenai.effects import Effects
from listenai.server.authentication import Authentication


def dialect_rows(
    config: Config, authentication: Authentication, effects: Effects
) -> Sequence[DialectRow]:
    """Every dialect, where it is spoken and how its devices are treated."""
    return [
        DialectRow(
            "ListenAI", ("/", "/listenai", "/ws"), partial(ListenAIDialect, profile(config))
        ),
    ]
