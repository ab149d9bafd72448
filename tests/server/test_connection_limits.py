"""Limits of connections, in all and of one address, as devices meet them."""

from __future__ import annotations

from contextlib import AsyncExitStack, ExitStack

import pytest
import trio
import trio.testing
from loopback import CLOSE, GET, TEXT, UPGRADE, RawPeer, echo, serving, talk

from listenai.server.addresses import TrustedProxies
from listenai.server.admission import TRY_AGAIN_LATER, Admission
from listenai.server.front_door import Converse, Refuse
from listenai.server.head import Head, Refusal
from listenai.wire import Wire

pytestmark = pytest.mark.usefixtures("nothing_left")


def make(places: int, *, per_address: int = 0) -> Admission:
    return Admission(
        max_connections=places,
        budget_bytes=places,
        connection_bytes=1,
        max_per_address=per_address,
    )


def refuser(admission: Admission) -> Refuse:
    def refuse(head: Head) -> Refusal | None:
        return admission.refuse(head.peer[0])

    return refuse


def holding(admission: Admission) -> Converse:
    """An echo for those who have a place."""

    async def converse(wire: Wire, head: Head) -> None:
        with admission.connection(head.peer[0]) as refusal:
            if refusal:
                await wire.aclose(TRY_AGAIN_LATER, refusal.message)
            else:
                await echo(wire, head)

    return converse


async def knock(port: int, stack: AsyncExitStack, more: bytes = b"") -> tuple[RawPeer, bytes]:
    """A device that asks for a WebSocket and stays; the head of the answer."""
    stream = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
    peer = RawPeer(stream)
    request = UPGRADE.replace(b"Host: x", b"Host: x" + more)
    await stream.send_all(request)
    while b"\r\n\r\n" not in peer._read:
        await peer._more()
    head, _, peer._read = peer._read.partition(b"\r\n\r\n")
    return peer, head


async def is_served(peer: RawPeer) -> bool:
    """Whether what it says comes back; otherwise it was told to try again later."""
    await peer.send(TEXT, b"hello")
    opcode, payload = await peer.receive()
    if opcode == CLOSE:
        assert int.from_bytes(payload[:2], "big") == TRY_AGAIN_LATER
        assert b"try again" in payload
    return opcode == TEXT


async def until_free(admission: Admission) -> None:
    while admission.connections:
        await trio.testing.wait_all_tasks_blocked(0.001)


# --- in all -----------------------------------------------------------------------------------


async def test_of_a_hundred_and_one_devices_one_is_refused_politely() -> None:
    """All at once against a limit of a hundred; then there is room again."""
    admission = make(100)
    served = refused = 0
    everybody_asked = trio.Event()

    async def device(port: int) -> None:
        nonlocal served, refused
        async with AsyncExitStack() as stack:
            peer, head = await knock(port, stack)
            if head.startswith(b"HTTP/1.1 503 "):
                assert b"\r\nRetry-After: 5" in head
                told = await peer.receive_end()
                assert b"the server is full: 100 connections" in told
                assert b"(limited by CLOUD_MAX_CONNECTIONS); try again in 5 s" in told
                refused += 1
            elif await is_served(peer):
                served += 1
            else:
                refused += 1
            if served + refused == 101:
                everybody_asked.set()
            await everybody_asked.wait()

    async with serving(holding(admission), refuse=refuser(admission)) as server:
        async with trio.open_nursery() as nursery:
            for _ in range(101):
                nursery.start_soon(device, server.port)
        assert (served, refused) == (100, 1)
        assert (admission.most_connections, admission.refused) == (100, 1)
        await until_free(admission)
        async with AsyncExitStack() as stack:
            peer, _ = await knock(server.port, stack)
            assert await is_served(peer)


async def test_a_full_server_still_answers_http() -> None:
    """Its health is asked for most when it is full."""
    admission = make(1)
    async with (
        serving(holding(admission), refuse=refuser(admission)) as server,
        AsyncExitStack() as stack,
    ):
        peer, _ = await knock(server.port, stack)
        assert await is_served(peer)
        assert (await talk(server.port, UPGRADE)).startswith(b"HTTP/1.1 503 ")
        assert (await talk(server.port, GET)).startswith(b"HTTP/1.1 200 ")


# --- of one address ---------------------------------------------------------------------------


async def test_places_are_counted_by_subscriber() -> None:
    """Another one's are not touched; each comes back, and nothing of who left is kept."""
    admission = make(10, per_address=2)
    with ExitStack() as places:
        for host in ("203.0.113.7", "::ffff:203.0.113.7", "2001:db8::1", "2001:db8::2"):
            assert places.enter_context(admission.connection(host)) is None
        for host in ("203.0.113.7", "2001:db8::3"):
            refusal = admission.refuse(host)
            assert refusal
            assert refusal.status == 429
            with admission.connection(host) as again:
                assert again == refusal
        assert admission.refuse("203.0.113.8") is None
        assert admission.refuse("2001:db8:0:1::1") is None
    assert (admission.connections, admission.refused, admission.refused_addresses) == (0, 0, 4)
    assert not admission._of_address
    assert admission.refuse("203.0.113.7") is None


async def test_without_a_limit_one_address_may_have_all() -> None:
    """CLOUD_MAX_CONNECTIONS_PER_IP=0, the default."""
    admission = make(10)
    with ExitStack() as places:
        for _ in range(10):
            assert places.enter_context(admission.connection("203.0.113.7")) is None
        refusal = admission.refuse("203.0.113.8")
        assert refusal
        assert refusal.status == 503


async def test_an_address_with_enough_connections_is_refused_politely() -> None:
    """429 before the upgrade, when to come again, and why; another address gets in."""
    admission = make(10, per_address=2)
    proxies = TrustedProxies(["127.0.0.1"])  # so that there are several addresses

    def of(host: str) -> bytes:
        return f"\r\nX-Forwarded-For: {host}".encode()

    async with (
        serving(holding(admission), refuse=refuser(admission), proxies=proxies) as server,
        AsyncExitStack() as stack,
    ):
        mine = [await knock(server.port, stack, of("203.0.113.7")) for _ in range(2)]
        assert [await is_served(peer) for peer, _ in mine] == [True, True]
        peer, head = await knock(server.port, stack, of("203.0.113.7"))
        assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        assert b"\r\nRetry-After: 5" in head
        told = await peer.receive_end()
        assert b"your address has 2 connections already (limited by " in told
        assert b"CLOUD_MAX_CONNECTIONS_PER_IP); end one of them; try again in 5 s" in told
        peer, _ = await knock(server.port, stack, of("203.0.113.8"))
        assert await is_served(peer)
        await mine[0][0].stream.aclose()
        while admission.connections > 2:
            await trio.testing.wait_all_tasks_blocked(0.001)
        peer, _ = await knock(server.port, stack, of("203.0.113.7"))
        assert await is_served(peer)


async def test_who_shakes_hands_at_the_same_time_is_counted_too() -> None:
    """The last word is spoken after the handshake: 1013 instead of 429."""
    admission = make(10, per_address=1)
    async with (
        serving(holding(admission), refuse=lambda _head: None) as server,
        AsyncExitStack() as stack,
    ):
        peers = [(await knock(server.port, stack))[0] for _ in range(3)]
        assert [await is_served(peer) for peer in peers] == [True, False, False]
