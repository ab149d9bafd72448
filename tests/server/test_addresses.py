"""Who counts as one client, and which proxies may say who it is."""

from __future__ import annotations

import json

import attrs
import pytest
from loopback import GET, UPGRADE, serving, talk

from listenai.errors import ConfigurationError
from listenai.server.addresses import TrustedProxies, subscriber
from listenai.server.head import Head, parse_head
from listenai.wire import Wire


@pytest.mark.parametrize(
    ("host", "who"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::6", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("somewhere", "somewhere"),
    ],
)
def test_a_subscriber_is_an_address_or_a_network(host: str, who: str) -> None:
    """IPv4 whole, also where it comes in over IPv6; of IPv6 the first half."""
    assert subscriber(host) == who


def seen(proxies: TrustedProxies, peer: str, *headers: str) -> tuple[str, bool]:
    """The address and whether TLS was used, as told by a request of this peer."""
    lines = "".join(f"\r\n{header}" for header in headers)
    head = parse_head(f"GET / HTTP/1.1\r\nHost: x{lines}\r\n\r\n".encode())
    assert head
    head = proxies.original(attrs.evolve(head, peer=(peer, 4711)))
    return head.peer[0], head.secure


PROXIES = TrustedProxies(["10.0.0.0/8", " 192.0.2.1", "2001:db8::/32"])


@pytest.mark.parametrize(
    ("peer", "headers", "host", "secure"),
    [
        # Who is no proxy of ours may write what it likes.
        ("203.0.113.9", ["X-Forwarded-For: 1.1.1.1", "X-Forwarded-Proto: https"], None, False),
        ("10.1.2.3", ["X-Forwarded-For: 203.0.113.7"], "203.0.113.7", False),
        (
            "10.1.2.3",
            ["X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https"],
            "203.0.113.7",
            1,
        ),
        ("192.0.2.1", ["X-Forwarded-For: 203.0.113.7"], "203.0.113.7", False),
        ("2001:db8::5", ["X-Forwarded-For: 203.0.113.7"], "203.0.113.7", False),
        ("::ffff:10.1.2.3", ["X-Forwarded-For: 203.0.113.7"], "203.0.113.7", False),
        # What the client itself has written stands first, what the nearest proxy saw last.
        ("10.1.2.3", ["X-Forwarded-For: 1.1.1.1, 203.0.113.7"], "203.0.113.7", False),
        ("10.1.2.3", ["X-Forwarded-For: 1.1.1.1, 203.0.113.7, 10.9.9.9"], "203.0.113.7", False),
        (
            "10.1.2.3",
            ["X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 203.0.113.7"],
            "203.0.113.7",
            0,
        ),
        ("10.1.2.3", ["X-Forwarded-Proto: http, https"], None, True),
        ("10.1.2.3", ["X-Forwarded-Proto: https, http"], None, False),
        # Nobody else is told: the proxy itself asks.
        ("10.1.2.3", [], None, False),
        ("10.1.2.3", ["X-Forwarded-For: unknown"], None, False),
        ("10.1.2.3", ["X-Forwarded-For: 203.0.113.7, nonsense"], None, False),
        ("10.1.2.3", ["X-Forwarded-For: 10.7.7.7"], "10.7.7.7", False),
    ],
)
def test_a_trusted_proxy_tells_who_asks(
    peer: str, headers: list[str], host: str | None, secure: bool
) -> None:
    """The last address that is no proxy of ours."""
    assert seen(PROXIES, peer, *headers) == (host or peer, secure)


def test_nobody_is_trusted_unasked() -> None:
    """Not even this machine."""
    assert seen(TrustedProxies(), "127.0.0.1", "X-Forwarded-For: 1.1.1.1")[0] == "127.0.0.1"


def test_what_is_no_network_is_told() -> None:
    """Each, with the variable and an example."""
    with pytest.raises(ConfigurationError) as error:
        TrustedProxies(["10.0.0.1/8", "10.0.0.0/8", "proxy.example"])
    assert len(error.value.problems) == 2
    for problem in error.value.problems:
        assert problem.startswith("CLOUD_TRUSTED_PROXIES: ")
        assert "10.0.0.0/8, with commas" in problem


async def test_conversations_and_routes_see_the_client_behind_a_proxy() -> None:
    """Through the port, where this machine is the proxy."""
    heads: list[Head] = []

    async def converse(wire: Wire, head: Head) -> None:
        heads.append(head)

    forwarded = b"Host: x\r\nX-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https"
    async with serving(converse, proxies=TrustedProxies(["127.0.0.1"])) as server:
        answer = await talk(server.port, GET.replace(b"Host: x", forwarded))
        await talk(server.port, UPGRADE.replace(b"Host: x", forwarded))
    asked_by = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (asked_by["client"], asked_by["scheme"]) == (["203.0.113.7", 0], "https")
    assert [(head.peer[0], head.secure) for head in heads] == [("203.0.113.7", True)]
