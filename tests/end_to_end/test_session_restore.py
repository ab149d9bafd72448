"""Sessions through a real socket, told by a device that knows the protocol and no more."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from end_to_end_server import RunningServer

CLIENT = Path(__file__).parents[1] / "devices" / "plain_client.py"


async def told(server: RunningServer, scenario: str) -> dict[str, Any]:
    """Runs the device; what it was told."""
    with trio.fail_after(60):
        done = await trio.run_process(
            [sys.executable, str(CLIENT), server.url, scenario],
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
    assert done.returncode == 0, done.stdout.decode()
    return json.loads(done.stdout)


def test_the_device_knows_nothing_of_the_code():
    """Its imports are the standard library's and a WebSocket client's."""
    source = CLIENT.read_text("utf-8")
    imported = set(re.findall(r"^\s*(?:from|import) (\w+)", source, re.MULTILINE))
    assert imported == {"json", "socket", "sys", "websockets"}


@pytest.mark.engines
async def test_a_session_survives_its_connection(server: RunningServer):
    """Gone in mid story without a goodbye, back by its id: it repeats what was heard of it."""
    messages = await told(server, "restore")
    first, second = messages["first"], messages["second"]
    assert (first["restored"], second["restored"]) == (False, True)
    assert first["session_id"] == second["session_id"]
    assert messages["stats"]["message_count"] == 2
    assert messages["stats"]["interaction_count"] == 1
    assert messages["stats"]["average_interaction_seconds"] > 0
    [story, repeated] = server.chat_model.asked
    heard = repeated[-2].content
    assert [(m.role, m.content) for m in repeated[1:]] == [
        ("user", story[-1].content),
        ("assistant", heard),
        ("user", "repeat that"),
    ]
    assert 0 < len(heard) < 500  # the story is longer
    assert messages["answer"]["text"].strip() == heard


@pytest.mark.engines
async def test_two_connections_on_one_session(server: RunningServer):
    """The older is told and closed with 4001, the newer has the session."""
    messages = await told(server, "takeover")
    assert messages["error"]["code"] == "SESSION_ERROR"
    assert messages["first"]["session_id"] in messages["error"]["message"]
    assert messages["close_code"] == 4001
    assert messages["second"]["restored"] is True
    assert messages["second"]["session_id"] == messages["first"]["session_id"]
    assert messages["pong"]["id"] == 5
