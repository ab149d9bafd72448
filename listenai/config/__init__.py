"""Settings from options, the environment and `.env`, under the names of spec 000."""

from listenai.config.variables import DEFAULT_LLM_MODEL, DEFAULT_VOICE_ID, Config, Loaded, load

__all__ = ["DEFAULT_LLM_MODEL", "DEFAULT_VOICE_ID", "Config", "Loaded", "load"]
