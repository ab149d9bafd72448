"""What both of Azure's speech services share: whose they are, and what Azure calls languages.

A key is of one resource, whose region (or, behind a private endpoint, whose own host) has both.
"""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import attrs
import httpx

from listenai.engines.openai_audio import AudioServers, Service
from listenai.engines.upstreams import Upstream
from listenai.errors import ConfigurationError

MAX_CONNECTIONS = 100  # of each service; more turns than that wait
# Language → its locale in recognition, and a voice that every region has.
LOCALES: Mapping[str, tuple[str, str]] = {
    "en": ("en-US", "JennyNeural"),
    "zh": ("zh-CN", "XiaoxiaoNeural"),
    "yue": ("zh-HK", "HiuMaanNeural"),
    "ja": ("ja-JP", "NanamiNeural"),
    "ko": ("ko-KR", "SunHiNeural"),
    "de": ("de-DE", "KatjaNeural"),
    "fr": ("fr-FR", "DeniseNeural"),
    "es": ("es-ES", "ElviraNeural"),
    "it": ("it-IT", "ElsaNeural"),
    "pt": ("pt-BR", "FranciscaNeural"),
    "nl": ("nl-NL", "FennaNeural"),
    "ru": ("ru-RU", "SvetlanaNeural"),
    "pl": ("pl-PL", "ZofiaNeural"),
    "uk": ("uk-UA", "PolinaNeural"),
    "tr": ("tr-TR", "EmelNeural"),
    "ar": ("ar-EG", "SalmaNeural"),
    "hi": ("hi-IN", "SwaraNeural"),
    "vi": ("vi-VN", "HoaiMyNeural"),
    "th": ("th-TH", "PremwadeeNeural"),
    "id": ("id-ID", "GadisNeural"),
}
_WITH_REGION = re.compile(r"[a-z]{2,3}-[A-Z]{2}")


def _check_key(_instance: object, _field: object, key: str) -> None:
    if not re.fullmatch(r"[!-~]+", key):
        raise ConfigurationError(
            ["AZURE_SPEECH_KEY: must be the key of an Azure Speech resource, visible ASCII"]
        )


def _check_region(resource: AzureResource, _field: object, region: str) -> None:
    if not resource.endpoint and not re.fullmatch(r"[a-z0-9]{1,40}", region):
        raise ConfigurationError(
            [
                f"AZURE_SPEECH_REGION={region!r}: must be the resource's region as Azure writes it"
                " in addresses, like eastus2"
            ]
        )


@attrs.frozen
class AzureResource:
    """Whose services are asked; raises ConfigurationError for what cannot be one."""

    key: str = attrs.field(repr=False, validator=_check_key)
    endpoint: str = ""  # of a private endpoint, https://NAME.cognitiveservices.azure.com
    region: str = attrs.field(default="", validator=_check_region)

    def url(self, kind: str, service: Service) -> str:
        """Where a service is; kind: "stt" or "tts"."""
        if self.endpoint:
            return f"{self.endpoint.rstrip('/')}/{kind}/{service.path}"
        return f"https://{self.region}.{kind}.speech.microsoft.com/{service.path}"

    @property
    def shown(self) -> str:
        """What tells it from others, without secrets."""
        return urlsplit(self.endpoint).hostname or self.region

    @asynccontextmanager
    async def open(
        self,
        kind: str,
        service: Service,
        headers: Mapping[str, str],
        random: random.Random,
        timeout_seconds: float,
    ) -> AsyncIterator[AudioServers]:
        """A service of the resource, with connections of its own.

        The key is in their headers, and nowhere else: the service's other callers have none.
        """
        async with httpx.AsyncClient(
            headers={"Ocp-Apim-Subscription-Key": self.key, "User-Agent": "ListenAI", **headers},
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS),
        ) as client:
            yield AudioServers(
                service,
                client,
                [Upstream(self.url(kind, service))],
                api_key="",
                random=random,
                timeout_seconds=timeout_seconds,
            )


def locale_of(language: str) -> str | None:
    """Azure's name of a language, None where it is not known: "en" is en-US, en-GB is itself."""
    primary, *rest = language.replace("_", "-").split("-")
    given = "-".join([primary.lower(), *(part.upper() for part in rest)])
    if _WITH_REGION.fullmatch(given):
        return given
    return LOCALES[primary.lower()][0] if primary.lower() in LOCALES else None
