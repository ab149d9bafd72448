"""Both ends of a service's WebSocket."""

from __future__ import annotations

import pytest
import trio
from trio.testing import memory_stream_pair

from listenai.services.sockets import accept_socket

pytestmark = pytest.mark.usefixtures("nothing_left")


async def test_a_connection_that_is_cancelled_as_it_begins_ends_at_once(autojump_clock):
    """The library's reader is shielded from cancellation, but not from its own end."""
    stream, _ = memory_stream_pair()
    with trio.fail_after(5), trio.CancelScope() as scope:
        scope.cancel()
        async with accept_socket(stream, path="/", seconds=1, max_message_bytes=100):
            pytest.fail("nobody has shaken hands")
    assert scope.cancelled_caught
