"""ListenAI: a realtime voice assistant server."""

__version__ = "0.1.0"
