"""The scripted device's WebSocket."""

from __future__ import annotations

from functools import partial

import trio
from late_ping import ping_late
from wsproto import ConnectionType

from listenai.client.connection import open_socket


async def test_a_ping_that_crosses_our_goodbye_is_no_failure() -> None:
    """The library would answer it, which wsproto refuses."""
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        serve = partial(ping_late, kind=ConnectionType.SERVER)
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        host, port = listener.socket.getsockname()
        async with open_socket(f"ws://{host}:{port}/", None, 5):
            pass
        nursery.cancel_scope.cancel()
