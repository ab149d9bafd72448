"""The composition root: the only package that names concrete engines, dialects and observers."""

from listenai.app.engines import open_engines
from listenai.app.guards import Guards, bounds_of, make_admission, make_guards
from listenai.app.server import (
    FIRST_MESSAGE_SECONDS,
    choose_voice,
    make_sessions,
    serve,
    start_logging,
)

__all__ = [
    "FIRST_MESSAGE_SECONDS",
    "Guards",
    "bounds_of",
    "choose_voice",
    "make_admission",
    "make_guards",
    "make_sessions",
    "open_engines",
    "serve",
    "start_logging",
]
