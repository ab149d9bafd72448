"""SANS-IO: the answers to chat completions in OpenAI's format, from the side of a server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import attrs

from listenai.engines.base import ReplyPart, ReplyText, ReplyUsage, ToolCall
from listenai.services.llm.protocol import Question

_TOKEN = re.compile(r"[㐀-鿿]|[^\s㐀-鿿]+")  # what stands for a token where nobody counts

Fields = dict[str, Any]


@attrs.define
class Completion:
    """One answer as it grows: feed it the parts, it gives the chunks of a stream and the whole."""

    question: Question
    completion_id: str
    created: int  # seconds since the epoch
    _texts: list[str] = attrs.field(factory=list, init=False)
    _calls: list[ToolCall] = attrs.field(factory=list, init=False)
    _usage: ReplyUsage | None = attrs.field(default=None, init=False)

    def begin(self) -> Fields:
        """The first chunk."""
        return self._chunk({"role": "assistant", "content": ""})

    def add(self, part: ReplyPart) -> Iterator[Fields]:
        """The chunks that this part is."""
        if isinstance(part, ReplyUsage):
            self._usage = part
        elif isinstance(part, ReplyText):
            self._texts.append(part.text)
            yield self._chunk({"content": part.text})
        elif self.question.parallel_tool_calls or not self._calls:
            call = {"index": len(self._calls), **_call_fields(part)}
            self._calls.append(part)
            yield self._chunk({"tool_calls": [call]})

    def end(self) -> Iterator[Fields]:
        """The last chunks."""
        yield self._chunk({}, self._finish_reason())
        if self.question.include_usage:
            yield self._envelope("chat.completion.chunk", []) | {"usage": self.usage()}

    def whole(self) -> Fields:
        """The answer that is no stream."""
        message: Fields = {"role": "assistant", "content": "".join(self._texts) or None}
        message["refusal"] = None
        if self._calls:
            message["tool_calls"] = [_call_fields(call) for call in self._calls]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": self._finish_reason(),
        }
        return self._envelope("chat.completion", [choice]) | {"usage": self.usage()}

    def usage(self) -> Fields:
        """What it cost as the model counts; where it does not, words stand for tokens."""
        usage = self._usage or ReplyUsage(
            sum(_count(message.content) for message in self.question.messages), self._counted()
        )
        return {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }

    def _counted(self) -> int:
        return _count("".join(self._texts)) + sum(_count(call.arguments) for call in self._calls)

    def _finish_reason(self) -> str:
        if self._calls:
            return "tool_calls"
        used = self._usage.completion_tokens if self._usage else self._counted()
        return "length" if used >= self.question.settings.max_tokens else "stop"

    def _chunk(self, delta: Fields, finish_reason: str | None = None) -> Fields:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = self._envelope("chat.completion.chunk", [choice])
        return chunk | {"usage": None} if self.question.include_usage else chunk

    def _envelope(self, kind: str, choices: list[Fields]) -> Fields:
        return {
            "id": self.completion_id,
            "object": kind,
            "created": self.created,
            "model": self.question.model,
            "choices": choices,
        }


def _count(text: str) -> int:
    return len(_TOKEN.findall(text))


def _call_fields(call: ToolCall) -> Fields:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.call_id, "type": "function", "function": function}


def server_sent(data: Fields | str) -> bytes:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return f"data: {text}\n\n".encode()
