"""How a server goes: the last conversations end, and whoever asks is told."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from loopback import (
    CLOSE,
    GET,
    QUICK,
    TEXT,
    UPGRADE,
    Converse,
    echo,
    flood,
    raw_peer,
    serving,
    talk,
    until_gone,
)
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from listenai.server.http import make_http_app
from listenai.wire import Wire

pytestmark = pytest.mark.usefixtures("nothing_left")

READY = b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_conversations_end_by_themselves() -> None:
    """They go on until then; then the server returns, and nobody listens there any more."""
    draining = trio.Event()
    async with serving(draining=draining) as server:
        async with raw_peer(server) as one, raw_peer(server) as other:
            draining.set()
            for peer in (one, other):
                await peer.send(TEXT, b"still here")
                assert await peer.receive() == (TEXT, b"still here")
            await one.send(CLOSE)
            await one.receive_end()
            await other.send(TEXT, b"me too")
            assert await other.receive() == (TEXT, b"me too")
            assert not server.stopped.is_set()
        await server.stopped.wait()
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", server.port)


async def test_a_server_where_nobody_talks_is_gone_at_once() -> None:
    """There is nothing to wait for."""
    draining = trio.Event()
    async with serving(draining=draining) as server:
        draining.set()
        with trio.fail_after(1):
            await server.stopped.wait()


async def test_a_load_balancer_can_read_that_the_server_drains() -> None:
    """/health/ready is 503 from the first moment on, /health says why; both are answered."""
    draining = trio.Event()
    app = make_http_app(health=lambda: {"status": "draining" if draining.is_set() else "ok"})
    async with serving(app=app, draining=draining) as server, raw_peer(server):
        assert (await talk(server.port, READY)).startswith(b"HTTP/1.1 200 ")
        draining.set()
        for _ in range(3):
            answer = await talk(server.port, READY)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert answer.endswith(b'{"status":"draining"}')
        answer = await talk(server.port, READY.replace(b"/ready", b""))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b'{"status":"draining"}')


async def test_new_conversations_are_refused_politely() -> None:
    """503 before the upgrade, when to come again, and why; as soon as it drains."""
    draining = trio.Event()
    async with serving(draining=draining) as server, raw_peer(server):
        async with raw_peer(server, upgraded=False) as late:  # connected before, asks after
            draining.set()
            await late.stream.send_all(UPGRADE)
            answer = await late.receive_end()
        for told in (answer, await talk(server.port, UPGRADE)):
            assert told.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: 5\r\n" in told
            assert told.endswith(b"the server is going away; try again in 5 s\n")


async def endless(_request: Request) -> StreamingResponse:
    async def events() -> AsyncIterator[bytes]:
        while True:
            yield b"data: still here\n\n"
            await trio.sleep(0.01)

    return StreamingResponse(events())


async def test_an_endless_answer_does_not_hold_the_shutdown() -> None:
    """Once nobody talks it may take as long as a goodbye."""
    draining = trio.Event()
    app = make_http_app(health=dict, routes=[Route("/events", endless)])
    async with (
        serving(app=app, draining=draining) as server,
        raw_peer(server, upgraded=False) as reader,
    ):
        await reader.stream.send_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await reader.stream.receive_some(12) == b"HTTP/1.1 200"
        draining.set()
        began = trio.current_time()
        await reader.receive_end()
        await server.stopped.wait()
        assert trio.current_time() - began < 2 * QUICK.close + 0.5


async def test_a_short_answer_in_progress_is_finished() -> None:
    """A page that is being loaded is loaded."""
    draining, asked, finish = trio.Event(), trio.Event(), trio.Event()

    async def slow(_request: Request) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"first"
            asked.set()
            await finish.wait()
            yield b" and last"

        return StreamingResponse(parts())

    app = make_http_app(health=dict, routes=[Route("/slow", slow)])
    async with serving(app=app, draining=draining) as server:
        async with raw_peer(server, upgraded=False) as reader:
            await reader.stream.send_all(b"GET /slow HTTP/1.0\r\nHost: x\r\n\r\n")
            await asked.wait()
            draining.set()
            await trio.testing.wait_all_tasks_blocked(0.01)
            finish.set()
            assert (await reader.receive_end()).endswith(b"first and last")
        await server.stopped.wait()


@pytest.mark.parametrize("converse", [flood, echo], ids=["sends", "waits"])
async def test_a_device_that_reads_nothing_cannot_hold_the_shutdown(converse: Converse) -> None:
    """Whoever drains gives up some day, and cancels: then a goodbye's time is the longest."""
    draining = trio.Event()
    async with serving(converse, draining=draining) as server, raw_peer(server):
        draining.set()
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert not server.stopped.is_set()
        assert await server.stop() < QUICK.close + 0.5


async def test_a_connection_that_asks_nothing_does_not_hold_the_shutdown() -> None:
    """Browsers open some in advance."""
    draining = trio.Event()
    async with serving(draining=draining) as server, raw_peer(server, upgraded=False) as peer:
        await trio.testing.wait_all_tasks_blocked(0.01)
        draining.set()
        with trio.fail_after(QUICK.close + 0.5):
            await server.stopped.wait()
        assert await peer.receive_end() == b""


async def test_a_conversation_that_fails_is_over_too() -> None:
    """A drain waits for no one who is not there any more."""
    draining = trio.Event()

    async def fail(wire: Wire, head: object) -> None:
        await wire.receive()
        raise RuntimeError("a planted bug")

    async with serving(fail, draining=draining) as server, raw_peer(server) as peer:
        draining.set()
        await peer.send(TEXT, b"go")
        opcode, payload = await peer.receive()
        assert (opcode, payload) == (CLOSE, (1011).to_bytes(2, "big"))
        with trio.fail_after(1):
            await server.stopped.wait()


async def test_http_is_answered_while_somebody_talks() -> None:
    """Every route, not health alone."""
    draining = trio.Event()

    async def listen(wire: Wire, head: object) -> None:
        await until_gone(wire)

    async with serving(listen, draining=draining) as server, raw_peer(server):
        draining.set()
        assert (await talk(server.port, GET)).startswith(b"HTTP/1.1 200 ")
