"""Everything a confused or hostile client may send gets its answer, through a real socket."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
import trio
from end_to_end_server import RunningServer
from trio_websocket import ConnectionClosed, WebSocketConnection

from listenai.client.connection import open_socket

pytestmark = [pytest.mark.engines]

BAD = {
    "not JSON": ("{", "INVALID_MESSAGE", "JSON"),
    "not an object": ("[1]", "INVALID_MESSAGE", "object"),
    "wrong type of a field": ('{"type":"text","text":5}', "INVALID_MESSAGE", "text"),
    "missing field": ('{"type":"playback","stream_id":1}', "INVALID_MESSAGE", "played_samples"),
    "unknown field": ('{"type":"interrupt","now":true}', "INVALID_MESSAGE", "now"),
    "unknown type": ('{"type":"dance"}', "UNKNOWN_MESSAGE_TYPE", "dance"),
    "value out of range": (
        '{"type":"configure","vad_threshold":7}',
        "INVALID_MESSAGE",
        "vad_threshold",
    ),
    "unknown language": ('{"type":"configure","language":"xx"}', "INVALID_MESSAGE", "en"),
    "unknown voice": ('{"type":"configure","voice_id":"nobody"}', "INVALID_MESSAGE", "default"),
    "bad base64": ('{"type":"audio_data","audio":"%%"}', "INVALID_MESSAGE", "audio"),
    "unknown tool call": (
        '{"type":"tool_result","call_id":"x","result":1}',
        "INVALID_MESSAGE",
        "call_id",
    ),
    "second session": ('{"type":"start_session"}', "SESSION_ERROR", "already"),
    "2 MiB of text": (
        json.dumps({"type": "text", "text": "x" * 2**21}),
        "INVALID_MESSAGE",
        "1048576",
    ),
    "2 MiB of audio": (bytes(2**21), "INVALID_MESSAGE", "1048576"),
}


async def answer(socket: WebSocketConnection, kind: str) -> dict:
    """The next message of this type."""
    with trio.fail_after(5):
        while True:
            message = await socket.get_message()
            if isinstance(message, str) and (parsed := json.loads(message))["type"] == kind:
                return parsed


@pytest.mark.parametrize("name", BAD)
async def test_bad_input_is_answered_and_the_connection_goes_on(server: RunningServer, name: str):
    """The code, a message that names the trouble, and a ping still comes back."""
    message, code, named = BAD[name]
    async with open_socket(server.url, None, 5.0) as (socket, _):
        await socket.send_message('{"type":"start_session"}')
        await answer(socket, "status")
        await socket.send_message(message)
        error = await answer(socket, "error")
        assert error["code"] == code
        assert named in error["message"]
        await socket.send_message('{"type":"ping","id":7}')
        assert (await answer(socket, "pong"))["id"] == 7


async def test_odd_byte_counts_lose_nothing(server: RunningServer):
    """Audio in pieces of one, three and 511 bytes is audio."""
    async with open_socket(server.url, None, 5.0) as (socket, _):
        for size in (1, 3, 511, 0, 512):
            await socket.send_message(bytes(size))
        assert (await answer(socket, "status"))["state"] == "ready"
        await socket.send_message('{"type":"ping"}')
        await answer(socket, "pong")


async def test_over_4_mib_closes_1009(server: RunningServer):
    """The wire's own limit."""
    async with open_socket(server.url, None, 5.0) as (socket, _):
        with suppress(ConnectionClosed), trio.fail_after(5):
            await socket.send_message(bytes(5 * 2**20))
            while True:
                await socket.get_message()
        assert socket.closed.code == 1009
