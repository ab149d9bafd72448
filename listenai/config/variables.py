"""Every variable: unit, default, check.  The table is the class `Config`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from listenai.config.checks import (
    choice,
    date,
    number,
    only,
    ports,
    switch,
    text,
    url,
    urls,
    whole,
    words,
)
from listenai.config.dialect_variables import DialectSettings
from listenai.config.engine_variables import EngineSettings
from listenai.config.loading import EffectiveSetting, Setting, read_settings
from listenai.config.settings import setting as _setting
from listenai.sessions.base import MAX_SESSIONS

DEFAULT_LLM_MODEL = "gpt-3.5-turbo"
DEFAULT_VOICE_ID = "doubao-通用女声"

_AUTOMATIC = "chosen automatically"
_ONE_FORMAT = "the only one that works yet"


@attrs.frozen
class Config(DialectSettings, EngineSettings):
    """The effective settings; times in seconds."""

    # The server.
    host: str = _setting("CLOUD_HOST", "0.0.0.0", text(), "address to listen on")  # noqa: S104  # spec 000's default
    port: int = _setting("CLOUD_PORT", 9400, whole(0, 65535), "port; 0: any free one")
    extra_ports: tuple[int, ...] = _setting(
        "CLOUD_EXTRA_PORTS", (), ports(), "more ports with the same behind them"
    )
    ping_interval: float = _setting(
        "CLOUD_PING_INTERVAL", 30.0, number(1, 3600), "seconds between WebSocket pings"
    )
    ping_timeout: float = _setting(
        "CLOUD_PING_TIMEOUT", 300.0, number(1, 86400), "seconds to wait for a pong"
    )
    max_connections: int = _setting(
        "CLOUD_MAX_CONNECTIONS", 100, whole(1, 10**6), "connections at a time; more get a 503"
    )
    memory_budget_mb: int = _setting(
        "CLOUD_MEMORY_BUDGET_MB",
        0,
        whole(0, 10**8),
        "MiB for all connections together; 0: half of what is available at the start",
    )
    max_concurrent: int = _setting(
        "CLOUD_MAX_CONCURRENT",
        50,
        whole(1, 10**6),
        "replies at a time; more wait in a fair queue",
    )
    max_connections_per_ip: int = _setting(
        "CLOUD_MAX_CONNECTIONS_PER_IP",
        0,
        whole(0, 10**6),
        "connections of one address (IPv6: /64); 0: not limited",
    )
    trusted_proxies: tuple[str, ...] = _setting(
        "CLOUD_TRUSTED_PROXIES",
        (),
        words("addresses or networks", or_empty="none"),
        "proxies whose X-Forwarded-For is believed",
    )
    interaction_timeout: float = _setting(
        "CLOUD_INTERACTION_TIMEOUT", 600.0, number(1, 86400), "seconds that a turn may take"
    )
    session_timeout: float = _setting(
        "CLOUD_SESSION_TIMEOUT", 3600.0, number(1, 86400), "seconds that an unused session is kept"
    )
    max_sessions: int = _setting(
        "CLOUD_MAX_SESSIONS",
        MAX_SESSIONS,
        whole(1, 10**6),
        "sessions kept; the longest unused one makes room",
    )
    drain_timeout: float = _setting(
        "CLOUD_DRAIN_TIMEOUT", 20.0, number(0, 3600), "seconds for replies to end after SIGTERM"
    )
    rate_limit_enabled: bool = _setting(
        "CLOUD_RATE_LIMIT_ENABLED", True, switch(), "whether requests are limited"
    )
    rate_limit_per_minute: int = _setting(
        "CLOUD_RATE_LIMIT_PER_MINUTE",
        60,
        whole(1, 10**6),
        "turns and control messages a minute, of a key or else of a connection",
    )
    log_level: str = _setting(
        "CLOUD_LOG_LEVEL", "INFO", choice("DEBUG", "INFO", "WARNING", "ERROR"), "what is logged"
    )
    log_format: str = _setting(
        "CLOUD_LOG_FORMAT", "json", choice("json", "text"), "how it is logged, on standard error"
    )

    # Security.
    api_keys: str = _setting(
        "API_KEYS",
        "",
        text(or_empty="everyone may connect"),
        "keys that devices need, with commas between them; name:key names the owner",
    )
    api_keys_file: str = _setting(
        "API_KEYS_FILE", "", text(or_empty="none"), "file with such keys, one a line"
    )
    allowed_origins: tuple[str, ...] = _setting(
        "ALLOWED_ORIGINS",
        (),
        words("origins like https://example.org, or *,", or_empty="pages of this server only"),
        "web pages that may connect",
    )
    jwt_secret: str = _setting(
        "JWT_SECRET", "", text(or_empty="no Ninja devices"), "signs their users' tokens (HS256)"
    )
    tls_cert_file: str = _setting(
        "TLS_CERT_FILE", "", text(or_empty="no TLS"), "certificate chain, PEM: https and wss"
    )
    tls_key_file: str = _setting(
        "TLS_KEY_FILE", "", text(or_empty="no TLS"), "its private key, PEM"
    )
    tracing_url: str = _setting(
        "TRACING_URL",
        "",
        url("http", "https", or_empty="no traces"),
        "OpenTelemetry collector, like http://localhost:4318/v1/traces",
    )

    # Speech recognition.
    asr_service_url: tuple[str, ...] = _setting(
        "ASR_SERVICE_URL",
        (),
        urls("ws", "wss", "http", "https", or_empty=_AUTOMATIC),
        "speech recognition services, the least loaded one is used; http: OpenAI's audio API",
    )
    asr_model: str = _setting(
        "ASR_MODEL", "whisper-1", text(), "the model of services with OpenAI's audio API"
    )
    asr_api_key: str = _setting("ASR_API_KEY", "", text(or_empty="none"), "their key")
    asr_engine: str = _setting(
        "ASR_ENGINE",
        "auto",
        choice("auto", "embedded", "sherpa", "funasr", "vosk", "faster-whisper", "azure"),
        "without a service; auto: vosk, faster-whisper or azure where its variables are set, else"
        " funasr with a GPU, sherpa without, where their models are",
    )
    asr_timeout: float = _setting(
        "ASR_TIMEOUT", 60.0, number(0.1, 3600), "seconds to wait for a service"
    )
    asr_max_utterance_seconds: float = _setting(
        "ASR_MAX_UTTERANCE_SECONDS",
        30.0,
        number(1, 60),
        "seconds of speech after which our ASR service cuts an utterance",
    )

    # Speech synthesis.
    tts_service_url: tuple[str, ...] = _setting(
        "TTS_SERVICE_URL",
        (),
        urls("ws", "wss", "http", "https", or_empty=_AUTOMATIC),
        "speech synthesis services, the least loaded one is used; http: OpenAI's audio API",
    )
    tts_model: str = _setting(
        "TTS_MODEL", "tts-1", text(), "the model of services with OpenAI's audio API"
    )
    tts_api_key: str = _setting("TTS_API_KEY", "", text(or_empty="none"), "their key")
    tts_model_voice: str = _setting("TTS_MODEL_VOICE", "alloy", text(), "their default voice")
    tts_model_rate: int = _setting(
        "TTS_MODEL_RATE", 24_000, whole(8000, 48_000), "samples a second of their audio"
    )
    tts_engine: str = _setting(
        "TTS_ENGINE",
        "auto",
        choice("auto", "embedded", "sherpa", "voxcpm", "pyttsx3", "azure"),
        "without a service; auto: azure where its variables are set, else voxcpm with a GPU,"
        " sherpa without, where their models are",
    )
    tts_timeout: float = _setting(
        "TTS_TIMEOUT", 300.0, number(0.1, 3600), "seconds between two pieces of audio of a service"
    )
    voice_id: str = _setting(
        "TTS_VOICE_ID", DEFAULT_VOICE_ID, text(), "voice of a new session; the default always works"
    )
    tts_mode: str = _setting(
        "TTS_MODE",
        "streaming",
        choice("streaming", "full"),
        "audio of services as it is made, or whole",
    )
    tts_cfg_value: float = _setting("TTS_CFG_VALUE", 2.0, number(0, 10), "guidance of VoxCPM")
    tts_inference_timesteps: int = _setting(
        "TTS_INFERENCE_TIMESTEPS", 30, whole(1, 1000), "steps of VoxCPM"
    )
    voices_dir: str = _setting(
        "TTS_VOICES_DIR", "", text(or_empty="one voice"), "folder of VoxCPM's voices: voices.json"
    )

    # The language model.
    llm_engine: str = _setting(
        "LLM_ENGINE",
        "auto",
        choice("auto", "openai", "azure", "groq", "embedded"),
        "auto: LLM_BASE_URL, else azure or groq where its variables are set, else an Ollama on"
        " this machine, else the embedded assistant",
    )
    llm_base_url: tuple[str, ...] = _setting(
        "LLM_BASE_URL",
        (),
        urls("http", "https", or_empty=_AUTOMATIC),
        "OpenAI-compatible servers, the next one where one fails",
    )
    ollama_url: str = _setting(
        "LLM_OLLAMA_URL",
        "http://127.0.0.1:11434",
        url("http", "https", or_empty="none is looked for"),
        "where an Ollama is looked for without LLM_BASE_URL",
    )
    llm_model: str = _setting("LLM_MODEL", DEFAULT_LLM_MODEL, text(), "their model")
    llm_api_key: str = _setting("LLM_API_KEY", "", text(or_empty="none"), "their key")
    llm_timeout: float = _setting(
        "LLM_TIMEOUT", 120.0, number(0.1, 3600), "seconds that a reply of theirs may take"
    )
    llm_token_timeout: float = _setting(
        "LLM_TOKEN_TIMEOUT", 30.0, number(0.1, 3600), "seconds between two tokens, at most"
    )
    temperature: float = _setting(
        "LLM_TEMPERATURE", 0.7, number(0, 2), "randomness of replies; the embedded one has none"
    )
    max_tokens: int = _setting(
        "LLM_MAX_TOKENS", 2048, whole(1, 10**6), "longest reply; words of the embedded engine"
    )
    llm_upstream_url: str = _setting(
        "LLM_UPSTREAM_URL",
        "",
        url("http", "https", or_empty="none"),
        "what our LLM service passes requests on to",
    )
    llm_upstream_api_key: str = _setting(
        "LLM_UPSTREAM_API_KEY",
        "",
        text(or_empty="none"),
        "its key",
    )

    models_dir: str = _setting(
        "MODELS_DIR", "", text(or_empty="the hubs' caches"), "folder of downloaded models"
    )

    # Tools.
    mcp_enabled: bool = _setting("MCP_ENABLED", True, switch(), "whether the assistant has tools")
    mcp_server_name: str = _setting(
        "MCP_SERVER_NAME", "arcs-mini-mcp-server", text(), "our name to MCP clients, at /mcp"
    )
    mcp_server_version: str = _setting(
        "MCP_SERVER_VERSION", "1.0.0", text(), "our version to MCP clients"
    )
    mcp_protocol_version: str = _setting(
        "MCP_PROTOCOL_VERSION",
        "2024-11-05",
        date(),
        "oldest version of MCP; a client and we agree on the newest both know",
        "every version from 2024-11-05 on is spoken",
    )
    mcp_instructions: str = _setting(
        "MCP_INSTRUCTIONS", "", text(or_empty="none"), "what MCP clients are told"
    )
    mcp_servers_file: str = _setting(
        "MCP_SERVERS_FILE",
        "",
        text(or_empty="none"),
        'JSON file with "mcpServers" that lend their tools',
    )
    tool_filler: float = _setting(
        "TOOL_FILLER_SECONDS",
        2.0,
        number(0, 60),
        "seconds of silence while tools run, before the user is asked for patience; 0: never",
    )
    music_dir: str = _setting(
        "MUSIC_DIR", "", text(or_empty="one tune of our own"), "folder of music files"
    )
    weather_geocoding_url: str = _setting(
        "WEATHER_GEOCODING_URL",
        "",
        url("http", "https", or_empty="Open-Meteo"),
        "where cities are found, in the way of Open-Meteo",
    )
    weather_forecast_url: str = _setting(
        "WEATHER_FORECAST_URL",
        "",
        url("http", "https", or_empty="Open-Meteo"),
        "where the weather comes from, in the way of Open-Meteo",
    )

    # Audio from devices.
    audio_sample_rate: int = _setting(
        "AUDIO_SAMPLE_RATE", 16_000, only(16_000, _ONE_FORMAT), "samples a second"
    )
    audio_channels: int = _setting("AUDIO_CHANNELS", 1, only(1, _ONE_FORMAT), "channels")
    audio_bits_per_sample: int = _setting(
        "AUDIO_BITS_PER_SAMPLE", 16, only(16, _ONE_FORMAT), "bits of a sample"
    )
    audio_frame_size: int = _setting(
        "AUDIO_FRAME_SIZE", 512, only(512, _ONE_FORMAT), "bytes that voice detection takes at once"
    )

    @classmethod
    def load(cls, environment: Mapping[str, str], **options: Any) -> Config:
        """What `load` makes of an environment and options, without a `.env` file."""
        return load(environment, options).config


@attrs.frozen
class Loaded:
    """The configuration, how it came about, and what was given without effect."""

    config: Config
    settings: tuple[EffectiveSetting, ...]
    warnings: tuple[str, ...]


def load(
    environment: Mapping[str, str],
    options: Mapping[str, Any] | None = None,
    env_file: Path | None = None,
) -> Loaded:
    """Reads all settings.

    options: by field of Config; None: not given.  They win over the environment, that wins
    over the file.  Raises ConfigurationError that names every problem.
    """
    given = {
        _TABLE[name].variable: str(value)
        for name, value in (options or {}).items()
        if value is not None
    }
    settings, warnings = read_settings(tuple(_TABLE.values()), given, environment, env_file)
    values = dict(zip(_TABLE, (row.value for row in settings), strict=True))
    return Loaded(Config(**values), settings, warnings)


def defaults() -> tuple[EffectiveSetting, ...]:
    """Every setting with its default."""
    return tuple(EffectiveSetting(setting, setting.default) for setting in _TABLE.values())


_FIELDS: tuple[attrs.Attribute[Any], ...] = attrs.fields(Config)
_LAST = {field.name for field in attrs.fields(EngineSettings)}  # few need them
_TABLE: Mapping[str, Setting] = {  # by field
    field.name: field.metadata["setting"]
    for field in sorted(_FIELDS, key=lambda field: field.name in _LAST)
}
