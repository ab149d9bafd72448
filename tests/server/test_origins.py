"""Pages of which addresses may open a WebSocket."""

from __future__ import annotations

import pytest
from loopback import UPGRADE, serving, talk

from listenai.errors import ConfigurationError
from listenai.server.head import Refusal, parse_head
from listenai.server.origins import Origins


def asked(origins: Origins, *sent: str, host: str = "voice.test:9400") -> Refusal | None:
    """What a page of this origin is answered by a server reached at this host."""
    lines = "".join(f"\r\nOrigin: {origin}" for origin in sent)
    head = parse_head(UPGRADE.replace(b"Host: x", f"Host: {host}{lines}".encode()))
    assert head
    return origins.refuse(head)


OWN = ["http://voice.test:9400", "https://voice.test:9400", "http://Voice.Test:9400"]
FOREIGN = [
    *("http://voice.test", "http://voice.test:9401", "http://evil.test:9400"),
    *("http://voice.test.evil:9400", "http://evil.test/voice.test:9400", "ftp://voice.test:9400"),
    *("http://voice.test:9400@evil.test", "http://a@voice.test:9400", "null", "", "*", "http://["),
    "http://voice.test:9400 http://evil.test",
]


@pytest.mark.parametrize("allowed", [(), ("http://friend.test",)])
def test_devices_and_our_own_page_always_may(allowed: tuple[str, ...]) -> None:
    """No origin at all, and the one by which the server was reached."""
    origins = Origins(allowed)
    assert asked(origins) is None
    for origin in OWN:
        assert asked(origins, origin) is None
    assert asked(origins, "https://voice.test", host="voice.test") is None
    assert asked(origins, "http://[::1]:9400", host="[::1]:9400") is None
    assert origins.refused == 0


@pytest.mark.parametrize("origin", FOREIGN)
def test_other_pages_may_not_unless_they_are_listed(origin: str) -> None:
    """403, naming the variable; nothing that only looks like ours gets in."""
    origins = Origins(["http://friend.test"])
    refusal = asked(origins, origin)
    assert refusal
    assert refusal.status == 403
    assert "ALLOWED_ORIGINS" in refusal.message
    assert asked(origins, *OWN[:1], origin)  # two origins are none
    assert origins.refused == 2
    assert asked(Origins(["*"]), origin) is None


def test_an_unlikely_long_origin_is_not_repeated_whole() -> None:
    """The answer stays short."""
    refusal = asked(Origins(), "http://" + "a" * 9000)
    assert refusal
    assert len(refusal.message) < 300


def test_listed_pages_may() -> None:
    """However the list spells them; files on a disk are "null"."""
    origins = Origins(["https://Friend.test:443/", " http://[::1]:80", "http://a.test:81", "null"])
    assert origins.allowed == ("https://friend.test", "http://[::1]", "http://a.test:81", "null")
    for origin in origins.allowed:
        assert asked(origins, origin) is None
    for origin in ("http://friend.test", "https://a.test:81", "http://a.test"):
        assert asked(origins, origin)


def test_what_is_no_origin_is_told() -> None:
    """Each, with the variable and what it has to be like."""
    with pytest.raises(ConfigurationError) as error:
        Origins(["friend.test", "http://ok.test", "https://x/path", ""])
    assert len(error.value.problems) == 3
    for problem in error.value.problems:
        assert problem.startswith("ALLOWED_ORIGINS: ")
        assert "like https://example.org" in problem


async def test_a_handshake_of_a_foreign_page_is_refused_at_the_door() -> None:
    """With words, before anything is upgraded; our own page's is not."""
    async with serving(refuse=Origins().refuse) as server:
        host = f"127.0.0.1:{server.port}".encode()
        request = UPGRADE.replace(b"Host: x", b"Host: %s\r\nOrigin: http://%s" % (host, host))
        foreign = request.replace(b"Origin: http://127.0.0.1", b"Origin: http://evil.test")
        answer = await talk(server.port, foreign)
        assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert b"in ALLOWED_ORIGINS\n" in answer
        assert (await talk(server.port, request, half_close=True)).startswith(b"HTTP/1.1 101 ")
