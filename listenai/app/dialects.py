"""The table of dialects: a new one is a row here and a module in `dialects`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from http import HTTPStatus

import attrs

from listenai.config import Config
from listenai.device import DeviceProfile
from listenai.dialects.configurator import PROFILES as CONFIGURATOR_PROFILES
from listenai.dialects.configurator import Channel, ConfiguratorDialect
from listenai.dialects.hotpin import PROFILE as HOTPIN_PROFILE
from listenai.dialects.hotpin import HotpinDialect
from listenai.dialects.hotpin import claims as claims_hotpin
from listenai.dialects.listenai import ListenAIDialect
from listenai.dialects.mailboxes import Mailboxes
from listenai.dialects.negotiate import DialectRow, Stranger
from listenai.dialects.ninja import PROFILE as NINJA_PROFILE
from listenai.dialects.ninja import NinjaDialect
from listenai.dialects.prompt_voice import PROFILE as PROMPT_VOICE_PROFILE
from listenai.dialects.prompt_voice import PromptVoiceDialect
from listenai.dialects.prompt_voice_messages import claims as claims_prompt_voice
from listenai.effects import Effects
from listenai.events import JsonObject
from listenai.server.authentication import Authentication
from listenai.server.call_tokens import CallTokens
from listenai.settings import Configuration
from listenai.telemetry.host import HostFigures


def dialect_rows(
    config: Config, authentication: Authentication, effects: Effects
) -> Sequence[DialectRow]:
    """Every dialect, where it is spoken and how its devices are treated."""
    calls = CallTokens(config.jwt_secret, effects.wall_clock)
    return [
        DialectRow(
            "ListenAI",
            ("/", "/listenai", "/ws"),
            partial(ListenAIDialect, listenai_profile(config)),
            profile=listenai_profile(config),
        ),
        DialectRow(
            "Prompt Voice",
            ("/ws", "/ws2"),
            partial(
                PromptVoiceDialect,
                effects.new_id,
                effects.wall_clock,
                prompt_voice_profile(config),
                config.prompt_voice_partial_interval_ms / 1000,
            ),
            claims=claims_prompt_voice,
            profile=prompt_voice_profile(config),
        ),
        DialectRow(
            "Hotpin",
            ("/ws", "/hotpin"),
            partial(HotpinDialect, config.hotpin_exact_wav),
            claims=claims_hotpin,
            identify=partial(identify_hotpin, authentication),
            profile=HOTPIN_PROFILE,
        ),
        DialectRow(
            "Ninja",
            ("/realtime/ws",),
            partial(
                NinjaDialect,
                ninja_profile(config),
                Mailboxes(),
                calls.refuse,
                effects.wall_clock,
                HostFigures().read,
            ),
            identify=calls.identify,
            profile=ninja_profile(config),
        ),
        *(
            DialectRow(
                "Configurator",
                (channel.value,),
                partial(ConfiguratorDialect, channel, configurator_profile(config, channel)),
                profile=configurator_profile(config, channel),
            )
            for channel in Channel
        ),
    ]


def listenai_profile(config: Config) -> DeviceProfile:
    """How ListenAI devices are treated."""
    return DeviceProfile(temperature=config.temperature, max_tokens=config.max_tokens)


def prompt_voice_profile(config: Config) -> DeviceProfile:
    """How Prompt Voice devices are treated (spec 001)."""
    return attrs.evolve(
        PROMPT_VOICE_PROFILE,
        temperature=config.prompt_voice_temperature,
        max_tokens=config.prompt_voice_max_tokens,
        reply_seconds=config.prompt_voice_llm_timeout,
        configuration=Configuration(end_of_turn_ms=config.prompt_voice_silence_ms),
    )


def identify_hotpin(
    authentication: Authentication, opening: JsonObject, owner: str | None, peer: str
) -> str | Stranger:
    """Whose key is in the first message (spec 002, 11.2), or else in the handshake."""
    if "api_key" not in opening and owner is not None:
        return owner
    key = opening.get("api_key")
    who = authentication.identify(key if isinstance(key, str) else None, peer)
    if isinstance(who, str):
        return who
    if who.status is HTTPStatus.TOO_MANY_REQUESTS:
        return Stranger(who.message)
    return Stranger('Invalid API key: send {"session_id":…,"api_key":…} with a key of this server')


def configurator_profile(config: Config, channel: Channel) -> DeviceProfile:
    """How Configurator devices are treated (spec 003)."""
    return attrs.evolve(
        CONFIGURATOR_PROFILES[channel],
        temperature=config.temperature,
        max_tokens=config.max_tokens,
    )


def ninja_profile(config: Config) -> DeviceProfile:
    """How Ninja devices are treated (spec 004)."""
    return attrs.evolve(
        NINJA_PROFILE,
        temperature=config.temperature,
        max_tokens=config.max_tokens,
        utterance_seconds=config.ninja_utterance_ms / 1000,
    )
