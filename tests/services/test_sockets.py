"""Both ends of a service's WebSocket."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from late_ping import ping_late
from trio.testing import memory_stream_pair
from trio_websocket import ConnectionClosed
from wsproto import ConnectionType

from listenai.services.sockets import CLOSE_SECONDS, accept_socket, open_socket

pytestmark = pytest.mark.usefixtures("nothing_left")


async def test_a_connection_that_is_cancelled_as_it_begins_ends_at_once(autojump_clock):
    """The library's reader is shielded from cancellation, but not from its own end."""
    stream, _ = memory_stream_pair()
    with trio.fail_after(5), trio.CancelScope() as scope:
        scope.cancel()
        async with accept_socket(stream, path="/", seconds=1, max_message_bytes=100):
            pytest.fail("nobody has shaken hands")
    assert scope.cancelled_caught


async def test_a_ping_that_crosses_a_clients_goodbye_is_no_failure():
    """The library answers it, which wsproto refuses: not what the block is told."""
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        serve = partial(ping_late, kind=ConnectionType.SERVER)
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        host, port = listener.socket.getsockname()
        url = f"ws://{host}:{port}/"
        async with open_socket(url, seconds=5, max_message_bytes=100) as socket:
            began = trio.current_time()
        assert trio.current_time() < began + CLOSE_SECONDS  # nobody could hear it answered
        with pytest.raises(ConnectionClosed):
            await socket.get_message()
        nursery.cancel_scope.cancel()


async def test_a_ping_that_crosses_a_servers_goodbye_is_no_failure(autojump_clock):
    stream, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ping_late, theirs, ConnectionType.CLIENT)
        async with accept_socket(stream, path="/", seconds=5, max_message_bytes=100):
            began = trio.current_time()
    assert trio.current_time() == began
