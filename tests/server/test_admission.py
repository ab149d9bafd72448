"""So many connections and no more; a place comes back however its connection ends."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from fakes import (
    FakeChatModel,
    fake_engines,
)
from loopback import BINARY, CLOSE, TEXT, UPGRADE, RawPeer

from listenai.app import FIRST_MESSAGE_SECONDS, make_admission, serve
from listenai.config import Config
from listenai.errors import ConfigurationError
from listenai.server.admission import (
    MIB,
    TRY_AGAIN_LATER,
    Admission,
    available_memory,
    budget,
    connection_bounds,
)
from listenai.server.frames import MAX_MESSAGE_BYTES

PLACES = 3


def make(places: int = PLACES, **changed: int) -> Admission:
    given = {"max_connections": places, "budget_bytes": 1000, "connection_bytes": 10}
    return Admission(**(given | changed))


# --- counting --------------------------------------------------------------------------------


def test_the_connection_after_the_last_is_refused_politely() -> None:
    """503, when to come again, and why."""
    admission = make()
    with ExitStack() as places:
        for _ in range(PLACES):
            assert places.enter_context(admission.connection()) is None
        refusal = admission.refuse()
        assert refusal
        assert refusal.status == 503
        assert dict(refusal.headers)["Retry-After"].isdigit()
        assert "3 connections (limited by CLOUD_MAX_CONNECTIONS)" in refusal.message
    assert admission.connections == 0
    assert admission.refuse() is None
    assert (admission.most_connections, admission.refused) == (PLACES, 1)


def test_who_is_refused_gives_no_place_back() -> None:
    """Leaving a refused block changes nothing."""
    admission = make(1)
    with admission.connection():
        with admission.connection() as refusal:
            assert refusal
        assert admission.connections == 1
        assert admission.refuse()


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_place_comes_back_after_a_failure(failure: type[BaseException]) -> None:
    """Whatever is raised."""
    admission = make(1)
    with suppress(failure), admission.connection():
        raise failure
    assert admission.connections == 0


async def test_a_place_comes_back_after_a_cancellation() -> None:
    """As when the server is stopped."""
    admission = make(1)
    with trio.move_on_after(0), admission.connection():
        await trio.sleep_forever()
    assert admission.connections == 0


# --- memory ----------------------------------------------------------------------------------


def test_memory_limits_too() -> None:
    """As many as fit, whole; and the refusal says that it was memory."""
    admission = make(100, budget_bytes=59, connection_bytes=20)
    assert admission.places == 2
    with admission.connection(), admission.connection() as second:
        assert second is None
        refusal = admission.refuse()
        assert refusal
        assert "limited by memory" in refusal.message


def test_who_may_need_more_counts_for_more() -> None:
    """By what each may need, not by how many they are."""
    admission = make(100, budget_bytes=59, connection_bytes=20)
    with admission.connection(size=40) as large:
        assert large is None
        assert admission.refuse()
        assert not admission.refuse(size=19)
    with admission.connection(), admission.connection() as second:
        assert second is None


def test_a_budget_for_nobody_is_told() -> None:
    """With the variable and the least that is allowed."""
    with pytest.raises(ConfigurationError, match=r"CLOUD_MEMORY_BUDGET_MB: 9 MiB .* 11 MiB"):
        make(budget_bytes=9 * MIB, connection_bytes=10 * MIB + 1)


def test_half_of_what_is_available_is_the_default() -> None:
    """And a number of MiB is that."""
    assert budget(3) == 3 * MIB
    available = available_memory()
    assert available
    assert 0.4 < budget(0) / available < 0.6  # others use memory meanwhile


def test_a_control_group_allows_less_than_the_machine(tmp_path: Path) -> None:
    """What it allows, less what it uses and cannot give up."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable: 5000 kB\nHugePages_Total: 0\n")

    def available() -> int | None:
        return available_memory(meminfo=meminfo, control_group=tmp_path)

    assert available() == 5000 * 1024
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 600000\ninactive_file 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert available() == 5000 * 1024
    (tmp_path / "memory.max").write_text("1000000\n")
    assert available() == 200_000


def test_the_bound_grows_with_what_may_be_kept() -> None:
    """Every part counts; the largest message and two takes of an utterance among them."""
    bounds = partial(connection_bounds, collects_replies=True)
    short = bounds(utterance_seconds=10, detector_bytes=7, sentence_bytes=5)
    long = bounds(utterance_seconds=20, detector_bytes=8, sentence_bytes=6)
    assert all(size > 0 for size in short.values())
    assert sum(long.values()) - sum(short.values()) >= 2 * 10 * 32_000 + 2
    assert short["messages"] >= 2 * MAX_MESSAGE_BYTES


def test_the_settings_decide() -> None:
    """CLOUD_MAX_CONNECTIONS (default 100) and CLOUD_MEMORY_BUDGET_MB."""
    plenty = {"CLOUD_MEMORY_BUDGET_MB": "100000"}
    assert make_admission(Config.load(plenty)).places == 100
    assert make_admission(Config.load(plenty | {"CLOUD_MAX_CONNECTIONS": "7"})).places == 7
    few = make_admission(Config.load({"CLOUD_MEMORY_BUDGET_MB": "200"}))
    assert few.limited_by_memory
    assert 1 <= few.places < 100


# --- a served port ---------------------------------------------------------------------------


@asynccontextmanager
async def serving(**engines: object) -> AsyncIterator[int]:
    """The whole server with PLACES places and fake engines, on a port of the kernel's choice."""
    config = Config(host="127.0.0.1", port=0, max_connections=PLACES, memory_budget_mb=10**5)
    with trio.fail_after(FIRST_MESSAGE_SECONDS + 20):
        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(serve, config, fake_engines(**engines))
            yield address.port
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def knocking(port: int) -> AsyncIterator[tuple[RawPeer, bytes]]:
    """A peer that has asked for a WebSocket, and the head of the answer."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        peer = RawPeer(stream)
        yield peer, await peer.upgrade()


async def begin(peer: RawPeer) -> None:
    """Opens a session."""
    await peer.send(TEXT, b'{"type":"start_session"}')
    assert (await message(peer, "status"))["state"] == "ready"


async def message(peer: RawPeer, kind: str) -> dict:
    """The next message of this type."""
    while True:
        opcode, payload = await peer.receive()
        assert opcode != CLOSE, payload
        if opcode == TEXT and (fields := json.loads(payload))["type"] == kind:
            return fields


async def close_code(peer: RawPeer) -> int:
    """With which code the server closes, whatever it says before."""
    while True:
        opcode, payload = await peer.receive()
        if opcode == CLOSE:
            return int.from_bytes(payload[:2], "big")


def reset(peer: RawPeer) -> None:
    """Breaks the connection off as a crash does."""
    linger = struct.pack("ii", 1, 0)
    peer.stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)
    peer.stream.socket.close()


async def ends_the_session(peer: RawPeer) -> None:
    await begin(peer)
    await peer.send(TEXT, b'{"type":"end_session"}')
    assert await close_code(peer) == 1000


async def says_goodbye(peer: RawPeer) -> None:
    await begin(peer)
    await peer.send(CLOSE, struct.pack("!H", 1000))
    assert await close_code(peer) == 1000


async def leaves_before_a_word(peer: RawPeer) -> None:
    await peer.stream.aclose()


async def leaves_without_goodbye(peer: RawPeer) -> None:
    await begin(peer)
    await peer.stream.aclose()


async def crashes(peer: RawPeer) -> None:
    await begin(peer)
    reset(peer)


async def crashes_in_mid_reply(peer: RawPeer) -> None:
    await begin(peer)
    await peer.send(TEXT, b'{"type":"text","text":"hello"}')
    await message(peer, "tts_audio")
    reset(peer)


async def breaks_the_websocket(peer: RawPeer) -> None:
    await begin(peer)
    await peer.stream.send_all(b"\xff\xff")  # reserved bits
    assert await close_code(peer) == 1002


async def says_too_much(peer: RawPeer) -> None:
    await begin(peer)
    await peer.send(BINARY, bytes(MAX_MESSAGE_BYTES + 1))
    assert await close_code(peer) == 1009


async def meets_a_bug(peer: RawPeer) -> None:
    await begin(peer)
    await peer.send(TEXT, b'{"type":"text","text":"hello"}')
    assert (await message(peer, "error"))["code"] == "INTERNAL_ERROR"
    assert await close_code(peer) == 1011


WAYS_TO_END = [
    ends_the_session,
    says_goodbye,
    leaves_before_a_word,
    leaves_without_goodbye,
    crashes,
    crashes_in_mid_reply,
    breaks_the_websocket,
    says_too_much,
    meets_a_bug,
]


async def check_full(port: int) -> None:
    """One more is refused in its handshake, politely."""
    async with knocking(port) as (peer, head):
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: " in head
        assert b"the server is full: 3 connections" in await peer.receive_end()


async def fill(port: int, filled: AsyncExitStack) -> RawPeer:
    """Takes a place as soon as one is free."""
    while True:
        peer, head = await filled.enter_async_context(knocking(port))
        if head.startswith(b"HTTP/1.1 101 "):
            await begin(peer)
            return peer
        assert head.startswith(b"HTTP/1.1 503 ")
        await trio.testing.wait_all_tasks_blocked(0.002)  # the server may have seen the end


@pytest.mark.parametrize("end", WAYS_TO_END, ids=lambda end: end.__name__)
async def test_a_place_comes_back(end: Callable[[RawPeer], Awaitable[None]]) -> None:
    """One, for one connection, however it ended; twice, so that nothing is left over either."""
    broken = end is meets_a_bug
    chat_model = FakeChatModel(fail=RuntimeError("a planted bug") if broken else None)
    async with serving(chat_model=chat_model) as port, AsyncExitStack() as filled:
        for _ in range(PLACES - 1):
            await fill(port, filled)
        for _ in range(2):
            async with AsyncExitStack() as last:
                while True:  # a place may be on its way back
                    peer, head = await last.enter_async_context(knocking(port))
                    if head.startswith(b"HTTP/1.1 101 "):
                        break
                    await trio.testing.wait_all_tasks_blocked(0.002)
                await end(peer)
        await fill(port, filled)
        await check_full(port)


async def test_a_place_comes_back_from_who_says_nothing(autojump_clock) -> None:
    """The first message has its deadline."""
    autojump_clock.autojump_threshold = 0.1  # real sockets take part
    async with serving() as port, AsyncExitStack() as filled:
        for _ in range(PLACES - 1):
            await fill(port, filled)
        async with knocking(port) as (peer, _):
            await check_full(port)
            assert await close_code(peer) == 1008
        await fill(port, filled)
        await check_full(port)


async def test_many_at_once_get_the_places_and_no_more() -> None:
    """Who shakes hands at the same time is refused by 503, or told 1013 after it."""
    outcomes: list[int] = []
    everybody_tried = trio.Event()

    async def knock(port: int) -> None:
        async with knocking(port) as (peer, head):
            outcome = int(head.split()[1])
            if outcome == 101:
                await peer.send(TEXT, b'{"type":"start_session"}')
                opcode, payload = await peer.receive()
                outcome = outcome if opcode == TEXT else int.from_bytes(payload[:2], "big")
            outcomes.append(outcome)
            if len(outcomes) == 4 * PLACES:
                everybody_tried.set()
            await everybody_tried.wait()

    async with serving() as port:
        async with trio.open_nursery() as nursery:
            for _ in range(4 * PLACES):
                nursery.start_soon(knock, port)
        assert outcomes.count(101) == PLACES
        assert set(outcomes) <= {101, 503, TRY_AGAIN_LATER}


async def test_an_unknown_path_is_told_also_when_full() -> None:
    """404 is of more use than 503: waiting will not help."""
    async with serving() as port, AsyncExitStack() as filled:
        for _ in range(PLACES):
            await fill(port, filled)
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(UPGRADE.replace(b"/ws?", b"/nowhere?"))
            assert (await RawPeer(stream).receive_end()).startswith(b"HTTP/1.1 404 ")
