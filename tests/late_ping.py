"""The other side of a WebSocket, whose ping is on its way when it hears our goodbye."""

from __future__ import annotations

from typing import TypeVar

import attrs
import trio
from wsproto import ConnectionType, WSConnection, events

E = TypeVar("E", bound=events.Event)


async def ping_late(stream: trio.abc.Stream, kind: ConnectionType) -> None:
    """Shakes hands as a client or a server, and stays until the goodbye."""
    peer = _Peer(stream, WSConnection(kind))
    await peer.shake_hands()
    await peer.answer_the_goodbye_with_a_ping()


@attrs.frozen
class _Peer:
    stream: trio.abc.Stream
    library: WSConnection

    async def shake_hands(self) -> None:
        if self.library.client:
            await self.send(events.Request("x", "/"))
            await self.receive(events.AcceptConnection)
        else:
            await self.receive(events.Request)
            await self.send(events.AcceptConnection())

    async def answer_the_goodbye_with_a_ping(self) -> None:
        """As if the ping had been on its way."""
        ping = self.library.send(events.Ping(b"late"))
        goodbye = await self.receive(events.CloseConnection)
        await self.stream.send_all(ping + self.library.send(goodbye.response()))

    async def send(self, event: events.Event) -> None:
        await self.stream.send_all(self.library.send(event))

    async def receive(self, kind: type[E]) -> E:
        while (event := next(self.library.events(), None)) is None:
            data = await self.stream.receive_some()
            assert data, "it hung up without a goodbye"
            self.library.receive_data(data)
        assert isinstance(event, kind)
        return event
