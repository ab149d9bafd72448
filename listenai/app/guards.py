"""Who gets in, how many, and how much each may ask for."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from listenai.app.dialects import listenai_profile
from listenai.audio import SAMPLE_BYTES
from listenai.config import Config
from listenai.conversation.limits import RateLimits
from listenai.conversation.turn_places import TurnPlaces
from listenai.device import DeviceProfile
from listenai.engines.espeak import MAX_SENTENCE_SECONDS
from listenai.engines.espeak import SAMPLE_RATE as VOICE_SAMPLE_RATE
from listenai.server.addresses import TrustedProxies
from listenai.server.admission import Admission, budget, connection_bounds
from listenai.server.authentication import OPEN_PATHS, Authentication, read_keys
from listenai.server.origins import Origins
from listenai.server.tls import make_tls_context

_log = logging.getLogger(__name__)

DETECTOR_BYTES = 640 * 1024  # of a device: a TEN VAD takes 620 KiB, its pre-roll 10
SENTENCE_BYTES = int(MAX_SENTENCE_SECONDS * VOICE_SAMPLE_RATE) * SAMPLE_BYTES


@attrs.frozen
class Guards:
    """Everything that may refuse."""

    admission: Admission
    authentication: Authentication
    origins: Origins
    proxies: TrustedProxies
    rates: RateLimits
    places: TurnPlaces
    tls: ssl.SSLContext | None


def make_guards(config: Config, page_paths: Sequence[str] = ()) -> Guards:
    """page_paths: of the page's files, which stay open when there are API keys.

    Raises ConfigurationError for limits, keys, origins or certificates that cannot work.
    """
    return Guards(
        make_admission(config),
        Authentication(
            read_keys(config.api_keys, config.api_keys_file),
            open_paths=(*OPEN_PATHS, *page_paths),
        ),
        Origins(tuple(_origins(config.allowed_origins))),
        TrustedProxies(config.trusted_proxies),
        RateLimits(config.rate_limit_per_minute if config.rate_limit_enabled else None),
        TurnPlaces(config.max_concurrent),
        make_tls_context(config.tls_cert_file, config.tls_key_file),
    )


def _origins(listed: Iterable[str]) -> Iterator[str]:
    """Spec 004 writes "localhost:3000": both schemes."""
    for origin in listed:
        if "://" in origin or origin in ("*", "null"):
            yield origin
        else:
            yield from (f"http://{origin}", f"https://{origin}")


def bounds_of(profile: DeviceProfile) -> Mapping[str, int]:
    """Bytes that one connection of such a device may keep at most, by what keeps them."""
    return connection_bounds(
        utterance_seconds=profile.utterance_seconds,
        detector_bytes=DETECTOR_BYTES,
        sentence_bytes=SENTENCE_BYTES,
        collects_replies=not profile.paced,
    )


def make_admission(config: Config) -> Admission:
    """Who gets in: as many as CLOUD_MAX_CONNECTIONS and the memory budget allow."""
    admission = Admission(
        max_connections=config.max_connections,
        budget_bytes=budget(config.memory_budget_mb),
        connection_bytes=sum(bounds_of(listenai_profile(config)).values()),
        max_per_address=config.max_connections_per_ip,
    )
    if admission.limited_by_memory:
        _log.warning("few_connections: memory for %d connections only", admission.places)
    return admission
