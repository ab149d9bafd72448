"""Chat model and tool loop of one turn."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

from listenai.conversation.actions import Cause, ToolFinished
from listenai.conversation.items import project
from listenai.conversation.outbox import Outbox
from listenai.conversation.phrases import CANNOT_ANSWER, in_language
from listenai.conversation.reply_writer import ReplyWriter
from listenai.conversation.tool_calls import ToolCalls
from listenai.conversation.turn import Turn
from listenai.device import DeviceProfile
from listenai.engines.base import (
    ChatMessage,
    ChatModel,
    ChatSettings,
    ReplyText,
    ReplyUsage,
    ToolCall,
)
from listenai.errors import ChatModelError
from listenai.events import ErrorReported, JsonObject, TextDone
from listenai.observer import TurnOutcome
from listenai.sessions.base import Session

MAX_TOOL_ROUNDS = 8  # a model that keeps calling tools is stuck


@attrs.frozen
class Thinking:
    """One conversation's mind."""

    chat_model: ChatModel
    tool_calls: ToolCalls
    outbox: Outbox
    session: Session
    profile: DeviceProfile

    async def think(self, turn: Turn, sentences: trio.MemorySendChannel[str]) -> None:
        """Streams the reply, tools and all, into `sentences`; closes it.

        A model that fails is told of, and excused in a spoken line after what it said.
        """
        with sentences:
            writer = ReplyWriter(turn, self.outbox, sentences)
            called: list[JsonObject] = []
            try:
                await self._answer(turn, writer, called)
            except ChatModelError as error:
                turn.outcome = TurnOutcome.FAILED
                self.outbox.post(
                    ErrorReported(error.code, str(error), turn.id, timed_out=error.timed_out)
                )
                language = self.session.configuration.language
                await writer.say(in_language(CANNOT_ANSWER, language))
            turn.marks.reach("text_done")
            await self.outbox.send(turn, TextDone(turn.id, turn.text, tuple(called)))

    async def _answer(self, turn: Turn, writer: ReplyWriter, called: list[JsonObject]) -> None:
        """Asks the model until it calls no more tools."""
        messages = self._messages(turn.cause)
        for _ in range(MAX_TOOL_ROUNDS):
            text, calls = await self._stream_reply(turn, messages, writer)
            await writer.end_sentence()
            if not calls:
                return
            messages.append(ChatMessage("assistant", text, tuple(calls)))
            messages += await self.tool_calls.run(turn, calls, writer)
            called += [{"call_id": call.call_id, "name": call.name} for call in calls]
        raise ChatModelError(f"the model called tools {MAX_TOOL_ROUNDS} times in a row")

    def _messages(self, cause: Cause) -> list[ChatMessage]:
        history = project(self.session.items, self.profile.history_messages)
        prompt = self.session.configuration.system_prompt
        system = [ChatMessage("system", prompt)] if prompt else []
        if isinstance(cause, ToolFinished):
            result = ChatMessage("tool", cause.content, tool_call_id=cause.call.call_id)
            return [*system, *history, ChatMessage("assistant", "", (cause.call,)), result]
        return [*system, *history, ChatMessage("user", cause.text)]

    async def _stream_reply(
        self, turn: Turn, messages: Sequence[ChatMessage], writer: ReplyWriter
    ) -> tuple[str, list[ToolCall]]:
        """One answer of the model: its text (told and spoken as it comes) and its calls."""
        profile = self.profile
        settings = ChatSettings(
            profile.temperature,
            profile.max_tokens,
            self.session.configuration.language,
            profile.token_seconds,
            profile.reply_seconds,
        )
        text, calls = "", []
        offered = self.tool_calls.offered
        async with self.chat_model.open_reply(messages, offered, settings) as parts:
            async for part in parts:
                match part:
                    case ToolCall():
                        turn.marks.reach("first_token")
                        calls.append(part)
                    case ReplyText(text=delta):
                        turn.marks.reach("first_token")
                        text += delta
                        await writer.write(delta)
                    case ReplyUsage():
                        turn.count_tokens(part)
        return text, calls
