"""SANS-IO: the answers of OpenAI's chat completions, as many servers send them.

They come as server-sent events, one JSON chunk each.  What servers do differently is read by
these rules: an answer may also be one JSON document; a chunk may lack choices; fragments of a
tool call belong together by index, but where that is missing, or used again for another call,
a new name opens a new call; what is not known is passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import attrs

from listenai.engines.base import ChatMessage, ReplyPart, ReplyText, ReplyUsage, ToolCall
from listenai.engines.openai_request import ToolNames, error_text, is_object, mended
from listenai.errors import ChatModelError

MAX_EVENT_BYTES = 1 << 20  # a chunk is a token or a tool's arguments; whole answers fit too
MAX_REPLY_BYTES = 8 << 20  # 20,000 tokens at 400 bytes of JSON each


class BrokenReply(ChatModelError):
    """The server did not send what it should; a predicate of which it is the subject."""


class WithheldReply(ChatModelError):
    """The answer is complete and says nothing; a predicate of which the server is the subject."""


class CallIds:
    """Ids of tool calls, unique in a conversation; what is made up follows from its history.

    A server's own id is kept if it is new and like the ids of our devices; another is replaced
    by one of nine letters and digits, which the pickiest servers take.  The history then has
    the new id with the call and with its result, so later requests agree with themselves.
    """

    def __init__(self, messages: Sequence[ChatMessage]) -> None:
        self._taken = {call.call_id for message in messages for call in message.tool_calls}
        self._count = len(self._taken)

    def settle(self, call_id: str) -> str:
        """The id by which this call goes."""
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", call_id):
            call_id = ""
        while not call_id or call_id in self._taken:
            self._count += 1
            call_id = f"call{self._count:05}"
        self._taken.add(call_id)
        return call_id


@attrs.define
class _Call:
    """A tool call as far as it has come."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""

    def add(self, call_id: str, name: str, arguments: object) -> None:
        self.id = self.id or call_id
        if name != self.name:  # some repeat it with every fragment
            self.name += name
        if isinstance(arguments, dict):
            self.arguments = json.dumps(arguments, ensure_ascii=False)
        elif isinstance(arguments, str):
            self.arguments += arguments


class ReplyParser:
    """The bytes of one answer in, the parts of the reply out.

    Raises BrokenReply for what cannot be read, and WithheldReply.
    """

    def __init__(self, names: ToolNames, ids: CallIds) -> None:
        self._names = names
        self._ids = ids
        self._line = b""
        self._event = ""  # JSON of several lines, as far as it has come
        self._size = 0
        self._held = ""  # half a character
        self._calls: list[_Call] = []
        self._usage: ReplyUsage | None = None
        self._parts: list[ReplyPart] = []
        self._said = False  # any text
        self._chosen = False  # any choice
        self._reason = ""  # why the model stopped
        self.chunks_read = 0  # what tells a slow server from a silent one
        self.is_over = False  # all parts were given

    @property
    def is_finished(self) -> bool:
        """Whether the model has stopped; at most its usage is still to come."""
        return bool(self._reason)

    def receive(self, data: bytes) -> list[ReplyPart]:
        """The parts that came with the next bytes."""
        self._size += len(data)
        if self._size > MAX_REPLY_BYTES:
            raise BrokenReply(f"sent a reply of more than {MAX_REPLY_BYTES >> 20} MiB")
        *lines, self._line = re.split(rb"\r\n|\r|\n", self._line + data)
        if len(self._line) + len(self._event) > MAX_EVENT_BYTES:
            raise BrokenReply(f"sent a chunk of more than {MAX_EVENT_BYTES >> 20} MiB")
        for line in lines:
            self._take_line(line.decode("utf-8", "replace"))
        return self._taken()

    def end(self) -> list[ReplyPart]:
        """The last parts: the server has closed its answer."""
        self._take_line(self._line.decode("utf-8", "replace"))
        self._take_line("")
        if self._chosen and not self.is_finished and not self.is_over:
            raise BrokenReply("broke its reply off in the middle")
        self._conclude()
        return self._taken()

    def _taken(self) -> list[ReplyPart]:
        taken, self._parts = self._parts, []
        return taken

    # --- events ----------------------------------------------------------------------------

    def _take_line(self, line: str) -> None:
        """One line: data, the end of an event, or what does not matter, such as a comment."""
        line = line.lstrip("\ufeff")
        if self.is_over:
            return
        if not line and self._event:
            event, self._event = self._event, ""
            self._take_json(event)
        field, _, value = line.partition(":")
        value = value.strip()
        if field != "data":
            if line.startswith("{") or self._event:  # no stream at all: one document
                self._event += line
        elif value == "[DONE]":
            self._conclude()
        elif self._event or value == "{":  # JSON over several lines
            self._event += value
        elif value:
            self._take_json(value)

    def _take_json(self, text: str) -> None:
        try:
            chunk = json.loads(text)
        except (ValueError, RecursionError):
            raise BrokenReply("sent a chunk that is not JSON") from None
        if not isinstance(chunk, dict):
            raise BrokenReply("sent a chunk that is not a JSON object")
        if chunk.get("error") or chunk.get("object") == "error":
            raise BrokenReply(f"reported an error: {error_text(chunk)}")
        self.chunks_read += 1
        self._usage = _read_usage(chunk.get("usage")) or self._usage
        for choice in _dicts(chunk.get("choices")):
            if not choice.get("index"):  # one was asked for
                self._take_choice(choice)

    def _take_choice(self, choice: dict[str, Any]) -> None:
        self._chosen = True
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict):
            self._say(_read_text(delta.get("content")) or _read_text(delta.get("refusal")))
            for fragment in _dicts(delta.get("tool_calls")):
                self._take_fragment(fragment)
            if isinstance(delta.get("function_call"), dict):  # the API before it had tools
                self._take_fragment({"index": 0, "function": delta["function_call"]})
        if choice.get("finish_reason") or "message" in choice:  # a whole message is the end
            self._reason = str(choice.get("finish_reason") or "stop")

    def _say(self, text: str) -> None:
        text = self._held + text
        self._held = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        if text := mended(text.removesuffix(self._held) if self._held else text):
            self._said = True
            self._parts.append(ReplyText(text))

    # --- tool calls ------------------------------------------------------------------------

    def _take_fragment(self, fragment: dict[str, Any]) -> None:
        function = fragment.get("function")
        function = function if isinstance(function, dict) else {}
        call_id, name = (_read_text(fragment.get("id")), _read_text(function.get("name")))
        call = self._open_call(fragment.get("index"), call_id, name)
        call.add(call_id, name, function.get("arguments"))

    def _open_call(self, index: object, call_id: str, name: str) -> _Call:
        """The call that a fragment belongs to: a living one, or a new one."""
        known = type(index) is int
        living = [call for call in self._calls if not known or call.index == index]
        if living and not _begins_another(living[-1], call_id, name):
            return living[-1]
        above = max((call.index for call in self._calls), default=-1)
        call = _Call(index if type(index) is int else above + 1)
        self._calls.append(call)
        return call

    # --- the end ---------------------------------------------------------------------------

    def _conclude(self) -> None:
        """Everything has come: tool calls in order, then what it cost."""
        if self.is_over:
            return
        if not self._chosen:
            raise BrokenReply("sent no reply; its URL must be that of an OpenAI-compatible API")
        self.is_over = True
        if self._held:
            self._held = ""
            self._parts.append(ReplyText("\ufffd"))
        self._check_reason()
        for call in sorted(self._calls, key=lambda call: call.index):
            name, arguments = self._names.own(mended(call.name)), mended(call.arguments)
            if not name:
                raise BrokenReply("asked for a tool without naming it")
            self._parts.append(ToolCall(self._ids.settle(call.id), name, arguments or "{}"))
        if self._usage:
            self._parts.append(self._usage)

    def _check_reason(self) -> None:
        """A reply that was cut short is still said; one of which nothing is left is an error."""
        unfinished = [c for c in self._calls if c.arguments and not is_object(c.arguments)]
        empty = not self._said and not self._calls
        if self._reason == "length" and (empty or unfinished):
            raise WithheldReply(
                "used up its tokens before it had answered: raise the limit (LLM_MAX_TOKENS)"
            )
        if self._reason == "content_filter" and (empty or unfinished):
            raise WithheldReply("withheld the reply: its content filter stopped it")


def _begins_another(call: _Call, call_id: str, name: str) -> bool:
    """Whether a fragment with the index of this call (or none) opens the next one."""
    if call_id and call.id:
        return call_id != call.id
    return bool(name) and is_object(call.arguments)


def _dicts(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _read_text(value: object) -> str:
    """Text, or the text among several parts of a content."""
    if isinstance(value, str):
        return value
    return "".join(_read_text(part.get("text")) for part in _dicts(value))


def _read_usage(value: object) -> ReplyUsage | None:
    if not isinstance(value, dict):
        return None
    counts = [value.get("prompt_tokens"), value.get("completion_tokens")]
    numbers = [count for count in counts if type(count) is int and count >= 0]
    return ReplyUsage(*numbers) if len(numbers) == 2 else None
