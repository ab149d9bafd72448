"""Tools from outside: lent to MCP clients, borrowed from MCP servers, installed, interrupted."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio
from end_to_end_assistant import (
    TESTS,
    Assistant,
    open_assistant,
    open_processes,
    start_assistant,
    start_model,
)
from end_to_end_server import recording
from fakes import FakeTool, tool
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from openai_server import calling, open_openai_server, saying

from listenai.client.device import Device
from listenai.client.turns import Reply
from listenai.conversation.dialogue import Engines
from listenai.tools.base import ToolRegistry, ToolTraits

STDIO_SERVER = TESTS / "devices" / "mcp_stdio_server.py"
EXAMPLE = TESTS / "tools" / "example_package"
BUILT_IN = ["get_weather", "set_volume", "play_music"]

# The official client forgets the generators of a stream that it has closed.
official_client = pytest.mark.filterwarnings(
    "ignore:Async generator 'http(x|core)2:ResourceWarning"
)


def spoken(reply: Reply) -> str:
    """What was said aloud, as the server tells it sentence by sentence."""
    told = [event.message for event in reply.events if event.type == "tts_audio"]
    return " ".join(m["text"].strip() for m in told if m.get("state") == "sentence")
