"""Tools that the device runs itself: asked by `tool_call`, answered by `tool_result`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs
import trio

from listenai.errors import ErrorCode, ProtocolError, ToolError
from listenai.events import DeviceToolReturned, ToolSchema
from listenai.tools.base import ArgumentChecker


def check_device_tools(checker: ArgumentChecker, tools: Sequence[ToolSchema]) -> None:
    """Raises ProtocolError for a schema that arguments cannot be checked by."""
    for schema in tools:
        try:
            checker.check_schema(schema)
        except ValueError as error:
            message = f"start_session.device_tools: {schema.name!r}: {error}"
            raise ProtocolError(ErrorCode.INVALID_MESSAGE, message) from error


@attrs.define(eq=False)
class _Call:
    answered: trio.Event = attrs.field(factory=trio.Event)
    answer: DeviceToolReturned | None = None


class DeviceTools:
    """What the device declared, and the calls that wait for its answer."""

    def __init__(self, schemas: Sequence[ToolSchema]) -> None:
        self.schemas = tuple(schemas)
        self._names = frozenset(schema.name for schema in schemas)
        self._calls: dict[str, _Call] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._names

    async def run(self, call_id: str, announce: Callable[[], Awaitable[None]]) -> Any:
        """Announces the call to the device, waits for its answer; raises ToolError."""
        call = self._calls[call_id] = _Call()  # before it is announced: the answer may be quick
        try:
            await announce()
            await call.answered.wait()
        finally:
            del self._calls[call_id]
        assert call.answer  # set before the event
        if not call.answer.ok:
            raise ToolError(str(call.answer.result))
        return call.answer.result

    def answer(self, returned: DeviceToolReturned) -> None:
        """Takes the device's answer; raises ProtocolError when nothing waits for it."""
        call = self._calls.get(returned.call_id)
        if call is None or call.answer is not None:
            raise ProtocolError(
                ErrorCode.INVALID_MESSAGE,
                f"tool_result.call_id {returned.call_id!r}: no tool call waits for it"
                " (unknown, answered already, or too late)",
            )
        call.answer = returned
        call.answered.set()
