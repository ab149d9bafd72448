"""The limits of a server, each met through a real socket."""

from __future__ import annotations

import re

import httpx
import pytest
import trio
from fakes import FakeChatModel, FakeSynthesizer
from served import SECONDS, Peer, Served, begun, connected, served
from trio.testing import wait_all_tasks_blocked
from trio_websocket import ConnectionClosed, open_websocket_url

from listenai.app import bounds_of
from listenai.client.connection import ServerUnreachable, why_closed
from listenai.device import DeviceProfile
from listenai.server.admission import MIB

pytestmark = [pytest.mark.engines, pytest.mark.usefixtures("nothing_left")]


async def refusal(server: Served, **headers: str) -> httpx.Response:
    """What a handshake is answered that is not accepted."""
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    return await server.ask("/", headers={**handshake, **headers})


# --- connections -----------------------------------------------------------------------------


async def test_a_hundred_devices_are_served_and_one_is_refused_politely():
    """CLOUD_MAX_CONNECTIONS: all 101 at once; by 503, or by 1013 after the handshake."""
    everybody_asked = trio.Event()
    told: list[str] = []

    def tell(what: str) -> None:
        told.append(what)
        if len(told) == 101:
            everybody_asked.set()

    async def device(server: Served) -> None:
        try:
            async with begun(server.ws) as peer:
                assert await peer.answers()
                tell("served")
                await everybody_asked.wait()
        except ServerUnreachable as refused:
            tell(str(refused))
        except ConnectionClosed as closed:  # it shook hands at the same time as the last one
            tell(why_closed(closed))

    async with served(max_connections=100) as server:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(101):
                    nursery.start_soon(device, server)
        [refused] = [one for one in told if one != "served"]
        why = r"the server is full: 100 connections \(limited by CLOUD_MAX_CONNECTIONS\)"
        assert re.search(rf"(503|1013:) {why}; try again in 5 s", refused), refused
        while (counted := await server.metrics())['listenai_connections{dialect="ListenAI"}']:
            await wait_all_tasks_blocked(0.01)
        assert counted['listenai_connections_opened_total{dialect="ListenAI"}'] == 100
        assert counted['listenai_connections_refused_total{reason="full"}'] == 1
        assert counted["listenai_connection_places"] == 100
        async with begun(server.ws) as peer:
            assert await peer.answers()


async def test_memory_limits_connections_too():
    """CLOUD_MEMORY_BUDGET_MB: as many as fit with the most they may need; HTTP is answered on."""
    each = sum(bounds_of(DeviceProfile()).values())
    async with (
        served(memory_budget_mb=2 * each // MIB + 1) as server,
        begun(server.ws),
        begun(server.ws),
    ):
        refused = await refusal(server)
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "5"
        assert "the server is full: 2 connections (limited by memory)" in refused.text
        assert (await server.ask("/health")).json()["status"] == "ok"


async def test_an_address_has_so_many_connections():
    """CLOUD_MAX_CONNECTIONS_PER_IP: 429 before the upgrade; one that leaves makes room."""
    async with served(max_connections_per_ip=2) as server, begun(server.ws) as first:
        async with begun(server.ws):
            refused = await refusal(server)
            assert refused.status_code == 429
            assert refused.headers["Retry-After"] == "5"
            assert "limited by CLOUD_MAX_CONNECTIONS_PER_IP" in refused.text
            assert await first.answers()
        while (await refusal(server)).status_code == 429:
            await wait_all_tasks_blocked(0.01)  # until the server knows that it has left
        assert (await refusal(server)).status_code == 101


async def test_clients_of_a_trusted_proxy_are_told_apart():
    """CLOUD_TRUSTED_PROXIES: the address counts that the proxy names; without it the proxy's."""
    one, other = "203.0.113.7", "203.0.113.8"
    for proxies, expected in (("127.0.0.1",), [429, 101]), ((), [429, 429]):
        async with served(max_connections_per_ip=1, trusted_proxies=proxies) as server:
            headers = [(b"X-Forwarded-For", one.encode())]
            async with open_websocket_url(server.ws, extra_headers=headers) as socket:
                assert await Peer(socket).answers()
                asked = [await refusal(server, **{"X-Forwarded-For": c}) for c in (one, other)]
                assert [answer.status_code for answer in asked] == expected


# --- replies at a time -----------------------------------------------------------------------


async def test_replies_wait_for_their_place_in_order():
    """CLOUD_MAX_CONCURRENT=1: the second device is `queued`, the third too; all are answered."""
    voice = FakeSynthesizer(0.6)
    async with (
        served(engines={"synthesizer": voice}, max_concurrent=1) as server,
        begun(server.ws) as first,
        begun(server.ws) as second,
        begun(server.ws) as third,
    ):
        await first.send("text", text="hello")
        await first.until("tts_audio", state="start")
        for peer in (second, third):
            await peer.send("text", text="hello")
            await peer.until("status", state="queued")
        waiting = await server.metrics()
        assert waiting['listenai_queue_depth{queue="turns"}'] == 2
        assert waiting['listenai_pool_in_use{pool="turns"}'] == 1
        over: list[int] = []

        async def finish(number: int, peer: Peer) -> None:
            await peer.until("turn_metrics", turn_id=1)
            over.append(number)

        async with trio.open_nursery() as nursery:
            for number, peer in enumerate((first, second, third)):
                nursery.start_soon(finish, number, peer)
        assert over == [0, 1, 2]
        for peer in (first, second, third):
            assert len(peer.pcm) == 0.6 * 32_000
            assert not peer.all("error")
        assert second.states[1:] == ["thinking", "queued", "thinking", "speaking"]
        done = await server.metrics()
        assert done['listenai_pool_in_use{pool="turns"}'] == 0
        assert done['listenai_queue_dropped_total{queue="turns"}'] == 0


# --- requests --------------------------------------------------------------------------------


async def test_a_minute_has_so_many_requests():
    """CLOUD_RATE_LIMIT_PER_MINUTE: RATE_LIMITED and when to come again; stop and ping work on."""
    chat = FakeChatModel("One two three.", delay=0.3)
    async with (
        served(engines={"chat_model": chat}, rate_limit_per_minute=3) as server,
        begun(server.ws) as peer,
    ):
        await peer.turn("one")
        await peer.send("text", text="two")
        await peer.until("status", state="thinking")
        await peer.send("text", text="three")
        error = await peer.until("error")
        assert error["code"] == "RATE_LIMITED"
        assert 50_000 < error["retry_after_ms"] <= 60_000
        assert "3 requests a minute (CLOUD_RATE_LIMIT_PER_MINUTE)" in error["message"]
        assert re.search(r"try again in \d\d\.\d s$", error["message"])
        await peer.send("interrupt")
        assert (await peer.until("interrupted"))["turn_id"] == 2
        await peer.speak("no.wav")
        spoken = await peer.until("error")
        assert (spoken["code"], spoken["turn_id"]) == ("RATE_LIMITED", 3)
        assert 0 < spoken["retry_after_ms"] <= 60_000
        assert await peer.answers()
        async with begun(server.ws) as other:  # without keys everyone has a minute of his own
            await other.turn("one")
            assert not other.all("error")


async def test_a_key_has_one_minute_for_all_its_connections():
    """Neither a second connection nor a new one begins afresh; another key does."""
    async with served(api_keys="ann:a-key,bob:b-key", rate_limit_per_minute=2) as server:
        async with begun(server.ws, "a-key") as peer:
            await peer.turn("one")
        async with connected(server.ws, "a-key") as peer:
            await peer.send("start_session")
            assert (await peer.until("error"))["code"] == "RATE_LIMITED"
        async with begun(server.ws, "b-key") as peer:
            await peer.turn("one")


async def test_requests_may_be_unlimited():
    """CLOUD_RATE_LIMIT_ENABLED=false: however few a minute would have."""
    unlimited = served(rate_limit_enabled=False, rate_limit_per_minute=1)
    async with unlimited as server, begun(server.ws) as peer:
        for number in range(5):
            await peer.send("session_stats")
            assert (await peer.until("session_stats"))["message_count"] == 2 * number
            await peer.turn(turn_id=number + 1)
        assert not peer.all("error")


# --- sessions and silence --------------------------------------------------------------------


async def test_an_unused_session_is_forgotten():
    """CLOUD_SESSION_TIMEOUT: in time it is there again, later it is a new one."""
    async with served(session_timeout=0.3) as server:
        for restored in (False, True):
            async with begun(server.ws, session_id="den") as peer:
                assert peer.got[0]["restored"] is restored
        with trio.fail_after(SECONDS):
            while (await server.metrics())["listenai_sessions"]:
                await wait_all_tasks_blocked(0.01)
        async with begun(server.ws, session_id="den") as peer:
            assert peer.got[0]["restored"] is False
        assert (await server.metrics())["listenai_sessions_expired_total"] == 1


async def test_so_many_sessions_are_kept():
    """CLOUD_MAX_SESSIONS: the longest unused one makes room."""
    async with served(max_sessions=2) as server:
        for name, restored in (("a", False), ("b", False), ("a", True), ("c", False), ("b", False)):
            async with begun(server.ws, session_id=name) as peer:
                assert peer.got[0]["restored"] is restored, name
        counted = await server.metrics()
        assert counted["listenai_sessions"] == 2
        assert counted["listenai_sessions_evicted_total"] == 2


async def test_who_answers_no_ping_is_let_go():
    """CLOUD_PING_INTERVAL and CLOUD_PING_TIMEOUT; who answers stays."""
    async with served(ping_interval=0.1, ping_timeout=0.3) as server, begun(server.ws) as alive:
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as deaf:
            await deaf.send_all(
                b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                b"\x81\x8f\0\0\0\0" + b'{"type":"ping"}'
            )
            read = b""
            with trio.fail_after(SECONDS):
                while data := await deaf.receive_some():
                    read += data
            assert b'{"type":"pong"}' in read
            assert (1008).to_bytes(2, "big") + b"the device does not read" in read
        assert await alive.answers()
