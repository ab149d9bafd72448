"""A real server with the embedded engines, in this process, on a port the kernel chose."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs
import trio

from listenai.app import open_engines, serve
from listenai.audio import SAMPLE_RATE
from listenai.client.microphone import to_microphone
from listenai.commands import spoken_words
from listenai.config import Config
from listenai.engines.base import ChatMessage, ChatModel, ChatSettings
from listenai.events import ToolSchema
from listenai.wav import read_wav

DATA = Path(__file__).parent / "data"
# What is said in each spoken fixture, as a transcript has it.
TEXTS = {
    name: " ".join(spoken_words(entry["spoken"]))
    for name, entry in json.loads((DATA / "texts.json").read_text("utf-8")).items()
}


def recording(name: str) -> bytes:
    """A spoken fixture as a device's microphone hears it."""
    pcm = to_microphone(read_wav(DATA / name))
    assert len(pcm) > SAMPLE_RATE // 2
    return pcm


@attrs.define
class RecordingChatModel:
    """Passes everything on and keeps what it was asked: an upstream's view."""

    inner: ChatModel
    asked: list[list[ChatMessage]] = attrs.field(factory=list)

    def open_reply(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSchema], settings: ChatSettings
    ) -> AbstractAsyncContextManager:
        self.asked.append(list(messages))
        return self.inner.open_reply(messages, tools, settings)


@attrs.frozen
class RunningServer:
    """Where it listens, and what its chat model was asked."""

    url: str
    chat_model: RecordingChatModel


@asynccontextmanager
async def running_server() -> AsyncIterator[RunningServer]:
    async with open_engines() as embedded, trio.open_nursery() as nursery:
        chat_model = RecordingChatModel(embedded.chat_model)
        engines = attrs.evolve(embedded, chat_model=chat_model)
        config = Config(host="127.0.0.1", port=0)
        [address] = await nursery.start(serve, config, engines)
        yield RunningServer(address.url("ws") + "/", chat_model)
        nursery.cancel_scope.cancel()
