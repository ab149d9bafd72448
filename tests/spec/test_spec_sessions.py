"""Spec 000, "Session Management": the lines that no other test is about."""

from __future__ import annotations

import random

import pytest
import trio
from fakes import FakeChatModel, call, talking, tool

from listenai.app import make_sessions
from listenai.config import Config
from listenai.conversation.items import AssistantItem, ToolCallItem, ToolResultItem, UserItem
from listenai.effects import Effects
from listenai.engines.base import ReplyText


async def test_every_message_has_its_time(autojump_clock) -> None:
    """The user's when the turn began, a tool's when it was done, the reply's when it was over."""
    chat = FakeChatModel(
        lambda messages: (
            [call("clock")] if messages[-1].role == "user" else [ReplyText("It is ten.")]
        )
    )
    async with talking(chat=chat, tools=[tool("clock", delay=1.5)]) as talk:
        await trio.sleep(10)
        began = trio.current_time()
        talk.ask("what time is it")
        await trio.sleep(10)
        times = {type(item): item.at - began for item in talk.session.items}
    assert list(times) == [UserItem, ToolCallItem, ToolResultItem, AssistantItem]
    assert times[UserItem] == pytest.approx(0, abs=0.1)
    assert times[ToolResultItem] == pytest.approx(1.5, abs=0.1)
    assert times[AssistantItem] == pytest.approx(2.5, abs=0.1)


async def test_the_session_timeout_is_configured(autojump_clock) -> None:
    """CLOUD_SESSION_TIMEOUT: a session that nobody has is kept so long and no longer."""
    config = Config(session_timeout=5.0)
    sessions = make_sessions(config, Effects(random.Random(0), trio.current_time))
    for away, restored in ((0.0, False), (4.9, True), (5.1, False)):
        await trio.sleep(away)
        lease = await sessions.claim("den", "")
        assert lease.restored is restored
        await lease.save()
        await lease.release()
