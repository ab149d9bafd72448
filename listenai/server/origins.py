"""Which web pages may connect: a browser says from where the page came that asks.

Devices and programs send no `Origin` and are not concerned: this protects the users of
browsers, in which a page of anywhere can open a WebSocket to anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import urlsplit

from listenai.errors import ConfigurationError
from listenai.server.head import Head, Refusal

_DEFAULT_PORTS = {"http": 80, "https": 443}
_SHOWN_CHARACTERS = 100  # of an origin that is refused


class Origins:
    """The pages that may open a WebSocket: our own, and those of ALLOWED_ORIGINS."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        """allowed: "https://example.org" and the like, or "*" for all.

        Raises ConfigurationError for what is no origin.
        """
        self.allowed = tuple(_as_sent(origin.strip()) for origin in allowed)
        self._known = {place for origin in self.allowed if (place := _place(origin))}
        self.refused = 0  # since the start
        problems = [
            f"ALLOWED_ORIGINS: {origin!r} must be like https://example.org or "
            "http://localhost:3000, without a path, or * for all"
            for origin in self.allowed
            if origin not in ("*", "null") and not _place(origin)
        ]
        if problems:
            raise ConfigurationError(problems)

    def refuse(self, head: Head) -> Refusal | None:
        """Why a handshake that a page of elsewhere asks for is refused (403), or None."""
        origins = head.values("origin")
        if not origins or "*" in self.allowed:
            return None
        place = _place(origins[0]) if len(origins) == 1 else None
        if place and (place in self._known or place[1:] == _host(head, place[0])):
            return None
        if origins == ["null"] and "null" in self.allowed:
            return None
        self.refused += 1
        return Refusal(
            HTTPStatus.FORBIDDEN,
            f"pages from {origins[0][:_SHOWN_CHARACTERS]!r} may not connect; whoever runs this "
            "server can allow them in ALLOWED_ORIGINS",
        )


def _host(head: Head, scheme: str) -> tuple[str, int] | None:
    """Host and port by which this server was reached.

    Not the scheme: a proxy that ends TLS and does not say so must not shut out our own page.
    """
    place = _place(f"{scheme}://{head.header('host') or ''}")
    return place[1:] if place else None


def _as_sent(origin: str) -> str:
    """An origin as browsers write it: in lower case, without a port that goes without saying."""
    place = _place(origin.rstrip("/"))
    if place is None:
        return origin
    scheme, host, port = place
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" + ("" if port == _DEFAULT_PORTS[scheme] else f":{port}")


def _place(origin: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of an origin; None for anything else."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        return None
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        return None
    return parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme]
