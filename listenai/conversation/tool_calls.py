"""The tool calls of one reply: side by side, in the turn's nursery or, some, beyond it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import trio

from listenai.conversation.background_tools import BackgroundTools
from listenai.conversation.device_tools import DeviceTools
from listenai.conversation.items import ToolCallItem, ToolResultItem
from listenai.conversation.outbox import Outbox
from listenai.conversation.phrases import ONE_MOMENT, in_language
from listenai.conversation.reply_writer import ReplyWriter
from listenai.conversation.tool_outcomes import INTERRUPTED, STILL_RUNNING, Outcome, attempt
from listenai.conversation.turn import ToolRound, Turn
from listenai.effects import Effects
from listenai.engines.base import ChatMessage, ToolCall
from listenai.errors import ToolError
from listenai.events import JsonObject, Target, ToolCalled, ToolReturned, ToolSchema
from listenai.sessions.base import Session
from listenai.tools.base import ArgumentChecker, Tool, ToolRegistry, ToolTraits

DEVICE_TOOL = ToolTraits()  # how a tool of the device is run


@attrs.frozen
class ToolCalls:
    """Runs what a chat model calls, for one conversation."""

    tools: ToolRegistry
    device_tools: DeviceTools
    checker: ArgumentChecker
    background: BackgroundTools
    outbox: Outbox
    session: Session
    effects: Effects
    filler_seconds: float  # of silence, while tools run, before the user is asked for patience

    @property
    def offered(self) -> list[ToolSchema]:
        """The tools of device and server; the device's own come first and hide namesakes."""
        if not self.session.configuration.tools:
            return []
        own = {schema.name: schema for schema in self.device_tools.schemas}
        for tool in self.tools:
            own.setdefault(tool.schema.name, tool.schema)
        return list(own.values())

    async def run(
        self, turn: Turn, calls: Sequence[ToolCall], writer: ReplyWriter
    ) -> list[ChatMessage]:
        """Runs the calls side by side; the results stand in the calls' order."""
        results = [""] * len(calls)

        async def run(index: int) -> None:
            results[index] = await self._run_call(turn, calls[index])

        turn.rounds.append(ToolRound(len(turn.text), []))
        async with trio.open_nursery() as filling:
            waiting = trio.CancelScope()
            filling.start_soon(self._fill_silence, turn, writer, waiting)
            async with trio.open_nursery() as nursery:
                for index in range(len(calls)):
                    nursery.start_soon(run, index)
            waiting.cancel()
        return [
            ChatMessage("tool", content, tool_call_id=call.call_id)
            for call, content in zip(calls, results, strict=True)
        ]

    async def _fill_silence(
        self, turn: Turn, writer: ReplyWriter, waiting: trio.CancelScope
    ) -> None:
        """Asks the user for patience, once a turn, unless `waiting` is cancelled before."""
        if turn.asked_for_patience or not self.filler_seconds:
            return
        silent_since = trio.current_time()
        with waiting:
            while True:
                if turn.stream:
                    silent_since = max(silent_since, turn.stream.playout.ends_at())
                if trio.current_time() >= silent_since + self.filler_seconds:
                    break
                await trio.sleep_until(silent_since + self.filler_seconds)
        if not waiting.cancelled_caught:
            turn.asked_for_patience = True
            await writer.say(in_language(ONE_MOMENT, self.session.configuration.language))

    async def _run_call(self, turn: Turn, call: ToolCall) -> str:
        """Runs one call, tells the device of it; returns the result as JSON."""
        began = trio.current_time()
        try:
            arguments = _parse_arguments(call)
            tool = self._find(call, arguments)
        except ToolError as error:
            outcome = Outcome(False, str(error))
        else:
            if tool and tool.traits.background:
                outcome = await self._run_in_background(turn, call, tool, arguments)
            else:
                outcome = await self._run_in_turn(turn, call, tool, arguments)
        self._record(turn, call, outcome)
        duration_ms = round((trio.current_time() - began) * 1000, 1)
        await self.outbox.send(
            turn,
            ToolReturned(turn.id, call.call_id, call.name, outcome.ok, outcome.result, duration_ms),
        )
        return outcome.content

    def _find(self, call: ToolCall, arguments: JsonObject) -> Tool | None:
        """The server's tool, None for the device's; raises ToolError, also for its arguments."""
        offered = {schema.name: schema for schema in self.offered}
        if call.name not in offered:
            known = ", ".join(offered) or "none"
            raise ToolError(f"there is no tool {call.name!r}; there are: {known}")
        self.checker.check_arguments(offered[call.name], arguments)
        return None if call.name in self.device_tools else self.tools.get(call.name)

    async def _run_in_turn(
        self, turn: Turn, call: ToolCall, tool: Tool | None, arguments: JsonObject
    ) -> Outcome:
        """Has the server's tool, or the device, do it; cancelled with the turn."""

        async def call_tool() -> Any:
            if tool:
                await self._announce(turn, call, arguments, Target.SERVER)
                return await tool.run(arguments)
            return await self.device_tools.run(
                call.call_id, lambda: self._announce(turn, call, arguments, Target.DEVICE)
            )

        traits = tool.traits if tool else DEVICE_TOOL
        try:
            return await attempt(call.name, traits.timeout_seconds, call_tool)
        except trio.Cancelled:  # it may have had effects: the history must not hide it
            self._record(turn, call, INTERRUPTED)
            raise

    async def _run_in_background(
        self, turn: Turn, call: ToolCall, tool: Tool, arguments: JsonObject
    ) -> Outcome:
        """Begins it; waits for it as long as turn and patience last."""
        await self._announce(turn, call, arguments, Target.SERVER)
        # Told just before the connection ended: its background has ended with it.
        await trio.lowlevel.checkpoint_if_cancelled()
        begun = self.background.start(turn.id, call, tool.traits, lambda: tool.run(arguments))
        try:
            return await begun.wait() or STILL_RUNNING
        except trio.Cancelled:
            if begun.outcome:  # it was over in the same instant
                self._record(turn, call, begun.outcome)
            raise

    async def _announce(
        self, turn: Turn, call: ToolCall, arguments: JsonObject, target: Target
    ) -> None:
        await self.outbox.send(
            turn, ToolCalled(turn.id, call.call_id, call.name, arguments, target)
        )

    def _record(self, turn: Turn, call: ToolCall, outcome: Outcome) -> None:
        """It ran: it stays in the history whatever becomes of the turn."""
        new_id, at = self.effects.new_id, self.effects.wall_clock()
        turn.rounds[-1].items.extend(
            [
                ToolCallItem(new_id(), at, call),
                ToolResultItem(new_id(), at, call.call_id, outcome.ok, outcome.content),
            ]
        )


def _parse_arguments(call: ToolCall) -> Mapping[str, Any]:
    try:
        arguments = json.loads(call.arguments or "{}")
    except ValueError as error:
        raise ToolError(f"the arguments of {call.name} are not JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise ToolError(f"the arguments of {call.name} must be a JSON object")
    return arguments
