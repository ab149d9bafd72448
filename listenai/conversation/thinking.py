"""Chat model and tool loop of one turn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import trio

from listenai.conversation.actions import Cause
from listenai.conversation.device_tools import DeviceTools
from listenai.conversation.items import ToolCallItem, ToolResultItem, project
from listenai.conversation.outbox import Outbox
from listenai.conversation.sentences import SentenceSplitter
from listenai.conversation.turn import ToolRound, Turn
from listenai.device import DeviceProfile
from listenai.effects import Effects
from listenai.engines.base import ChatMessage, ChatModel, ChatSettings, ReplyText, ToolCall
from listenai.errors import ChatModelError, ToolError
from listenai.events import (
    JsonObject,
    Target,
    TextDelta,
    TextDone,
    ToolCalled,
    ToolReturned,
    ToolSchema,
)
from listenai.sessions.base import Session
from listenai.tools.base import ToolRegistry

MAX_TOOL_ROUNDS = 8  # a model that keeps calling tools is stuck
TOOL_SECONDS = 30.0


@attrs.frozen
class Thinking:
    """One conversation's mind."""

    chat_model: ChatModel
    tools: ToolRegistry
    device_tools: DeviceTools
    outbox: Outbox
    session: Session
    profile: DeviceProfile
    effects: Effects

    async def think(self, turn: Turn, sentences: trio.MemorySendChannel[str]) -> None:
        """Streams the reply, tools and all, into `sentences`; closes it."""
        with sentences:
            messages = self._messages(turn.cause)
            splitter = SentenceSplitter()
            called: list[JsonObject] = []
            for _ in range(MAX_TOOL_ROUNDS):
                text, calls = await self._stream_reply(turn, messages, splitter, sentences)
                for sentence in splitter.flush():
                    await sentences.send(sentence)
                if not calls:
                    break
                messages.append(ChatMessage("assistant", text, tuple(calls)))
                messages += await self._run_tools(turn, calls)
                called += [{"call_id": call.call_id, "name": call.name} for call in calls]
            else:
                raise ChatModelError(f"the model called tools {MAX_TOOL_ROUNDS} times in a row")
            turn.marks.reach("text_done")
            await self.outbox.send(turn, TextDone(turn.id, turn.text, tuple(called)))

    def _messages(self, cause: Cause) -> list[ChatMessage]:
        history = project(self.session.items, self.profile.history_messages)
        prompt = self.session.configuration.system_prompt
        system = [ChatMessage("system", prompt)] if prompt else []
        return [*system, *history, ChatMessage("user", cause.text)]

    async def _stream_reply(
        self,
        turn: Turn,
        messages: Sequence[ChatMessage],
        splitter: SentenceSplitter,
        sentences: trio.MemorySendChannel[str],
    ) -> tuple[str, list[ToolCall]]:
        """One answer of the model: its text (told and spoken as it comes) and its calls."""
        settings = ChatSettings(
            self.profile.temperature, self.profile.max_tokens, self.session.configuration.language
        )
        text, calls = "", []
        async with self.chat_model.open_reply(messages, self._offered(), settings) as parts:
            async for part in parts:
                turn.marks.reach("first_token")
                match part:
                    case ToolCall():
                        calls.append(part)
                    case ReplyText(text=delta):
                        text += delta
                        turn.text += delta
                        await self.outbox.send(turn, TextDelta(turn.id, delta))
                        for sentence in splitter.push(delta):
                            await sentences.send(sentence)
        return text, calls

    def _offered(self) -> list[ToolSchema]:
        """The tools of device and server; the device's own come first and hide namesakes."""
        if not self.session.configuration.tools:
            return []
        own = {schema.name: schema for schema in self.device_tools.schemas}
        for tool in self.tools:
            own.setdefault(tool.schema.name, tool.schema)
        return list(own.values())

    # --- tools -----------------------------------------------------------------------------

    async def _run_tools(self, turn: Turn, calls: Sequence[ToolCall]) -> list[ChatMessage]:
        """Runs the calls side by side; the results stand in the calls' order."""
        results: list[str] = [""] * len(calls)

        async def run(index: int) -> None:
            results[index] = await self._run_tool(turn, calls[index])

        turn.rounds.append(ToolRound(len(turn.text), []))
        async with trio.open_nursery() as nursery:
            for index in range(len(calls)):
                nursery.start_soon(run, index)
        return [
            ChatMessage("tool", content, tool_call_id=call.call_id)
            for call, content in zip(calls, results, strict=True)
        ]

    async def _run_tool(self, turn: Turn, call: ToolCall) -> str:
        """Runs one call, tells the device of it; returns the result as JSON."""
        began = trio.current_time()
        try:
            with trio.fail_after(TOOL_SECONDS):
                ok, result = True, await self._call_tool(turn, call, _parse_arguments(call))
        except ToolError as error:
            ok, result = False, str(error)
        except trio.TooSlowError:
            ok, result = False, f"{call.name} took longer than {TOOL_SECONDS:g} seconds"
        except trio.Cancelled:  # it may have had effects: the history must not hide it
            self._record(turn, call, ok=False, content=_as_json(ok=False, result="interrupted"))
            raise
        content = _as_json(ok=ok, result=result)
        self._record(turn, call, ok=ok, content=content)
        duration_ms = round((trio.current_time() - began) * 1000, 1)
        await self.outbox.send(
            turn, ToolReturned(turn.id, call.call_id, call.name, ok, result, duration_ms)
        )
        return content

    async def _call_tool(self, turn: Turn, call: ToolCall, arguments: JsonObject) -> Any:
        """Tells the device, and has the device or the server do it."""
        tool = self.tools.get(call.name)
        on_device = call.name in self.device_tools
        if not on_device and tool is None:
            known = ", ".join(schema.name for schema in self._offered()) or "none"
            raise ToolError(f"there is no tool {call.name!r}; there are: {known}")
        target = Target.DEVICE if on_device else Target.SERVER

        async def announce() -> None:
            await self.outbox.send(
                turn, ToolCalled(turn.id, call.call_id, call.name, arguments, target)
            )

        if on_device:
            return await self.device_tools.run(call.call_id, announce)
        assert tool  # or we would have raised
        await announce()
        return await tool.run(arguments)

    def _record(self, turn: Turn, call: ToolCall, *, ok: bool, content: str) -> None:
        """It ran: it stays in the history whatever becomes of the turn."""
        at = self.effects.wall_clock()
        turn.rounds[-1].items.append(ToolCallItem(self.effects.new_id(), at, call))
        turn.rounds[-1].items.append(
            ToolResultItem(self.effects.new_id(), at, call.call_id, ok, content)
        )


def _as_json(*, ok: bool, result: Any) -> str:
    return json.dumps(result if ok else {"error": result}, ensure_ascii=False)


def _parse_arguments(call: ToolCall) -> Mapping[str, Any]:
    try:
        arguments = json.loads(call.arguments or "{}")
    except ValueError as error:
        raise ToolError(f"the arguments of {call.name} are not JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise ToolError(f"the arguments of {call.name} must be a JSON object")
    return arguments
