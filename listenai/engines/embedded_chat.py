"""The offline assistant: a chat model that is a table.

It answers every sentence of the command grammar (`listenai/commands.jsgf`), each rule
by one function in `_ANSWERS`, from the messages and the clock alone: the same history
gets the same reply.  For anything else it says honestly what it is and what it can do.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import islice
from typing import Any

import attrs
import trio

from listenai.commands import Command, CommandGrammar, load_commands, number, spoken_words
from listenai.engines import embedded_phrases as phrases
from listenai.engines.base import ChatMessage, ChatSettings, ReplyPart, ReplyText, ToolCall
from listenai.events import ToolSchema

VOLUME_STEP = 20  # percent, of "turn it up"
USUAL_VOLUME = 70  # percent, when nobody knows what it was
_MAX_CITY_WORDS = 3  # of an answer to "for which city?"

_CHINESE = "[㐀-鿿]"
_INCREMENT = re.compile(rf"\s*(?:{_CHINESE}|(?:(?!{_CHINESE})\S)+)")


def _local_time() -> datetime:
    return datetime.now(UTC).astimezone()


class EmbeddedChatModel:
    """Answers commands; `now` tells the local time, `call_prefix` begins tool call ids."""

    def __init__(
        self, now: Callable[[], datetime] = _local_time, call_prefix: str = "call-"
    ) -> None:
        self._now = now
        self._call_prefix = call_prefix
        self._grammar = load_commands()

    @asynccontextmanager
    async def open_reply(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[ToolSchema],
        settings: ChatSettings,
    ) -> AsyncIterator[AsyncIterator[ReplyPart]]:
        """Streams one reply word by word, at most `settings.max_tokens` of them, or a tool call."""
        # No scope is around a `yield`: it needs no channel and no task.
        async with aclosing(self._parts(messages, tools, settings)) as parts:
            yield parts

    async def _parts(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[ToolSchema],
        settings: ChatSettings,
    ) -> AsyncGenerator[ReplyPart, None]:
        answer = self._answer(messages, tools, settings.language)
        if isinstance(answer, _Wish):
            arguments = json.dumps(answer.arguments, ensure_ascii=False)
            yield ToolCall(self._next_call_id(messages), answer.tool, arguments)
            return
        for word in islice(_INCREMENT.findall(answer), settings.max_tokens):
            await trio.lowlevel.checkpoint()
            yield ReplyText(word)

    def _answer(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSchema], language: str
    ) -> str | _Wish:
        spoken = [message for message in messages if message.role != "system"]
        if spoken and spoken[-1].role == "tool":
            return _tell_results(spoken)
        if not spoken or spoken[-1].role != "user":
            return phrases.OPENING
        situation = _Situation(
            spoken[:-1], {tool.name: tool for tool in tools}, self._now(), self._grammar
        )
        return _answer_user(spoken[-1].content, situation, language)

    def _next_call_id(self, messages: Sequence[ChatMessage]) -> str:
        """An id that no call in the history has, the same for the same history."""
        taken = {call.call_id for message in messages for call in message.tool_calls}
        count = 1
        while (call_id := f"{self._call_prefix}{count}") in taken:
            count += 1
        return call_id


@attrs.frozen
class _Wish:
    """A tool to be called instead of an answer."""

    tool: str
    arguments: Mapping[str, Any]


@attrs.frozen
class _Situation:
    """What an answer depends on, beside the sentence."""

    earlier: Sequence[ChatMessage]
    tools: Mapping[str, ToolSchema]
    now: datetime
    grammar: CommandGrammar

    @property
    def said(self) -> list[str]:
        """What the assistant has said, oldest first."""
        return [m.content for m in self.earlier if m.role == "assistant" and m.content.strip()]

    @property
    def last_said(self) -> str:
        """What the assistant said last, "" when it said nothing."""
        return self.said[-1] if self.said else ""

    @property
    def last_command(self) -> Command | None:
        """The command before this sentence."""
        asked = [m.content for m in self.earlier if m.role == "user"]
        return self.grammar.parse(asked[-1]) if asked else None

    @property
    def music_plays(self) -> bool:
        """Whether the music was started, and not stopped or paused since."""
        calls = (call for message in self.earlier for call in message.tool_calls)
        asked = [_read_json(call.arguments) for call in calls if call.name == "play_music"]
        last = asked[-1] if asked and isinstance(asked[-1], dict) else {"action": "stop"}
        return "play_music" in self.tools and last.get("action", "play") not in ("stop", "pause")

    @property
    def volumes(self) -> list[int]:
        """The levels that tools reported, oldest first."""
        results = [_read_json(m.content) for m in self.earlier if m.role == "tool"]
        levels = [result.get("level") for result in results if isinstance(result, dict)]
        return [level for level in levels if type(level) is int]


def _answer_user(text: str, situation: _Situation, language: str) -> str | _Wish:
    if command := situation.grammar.parse(text):
        return _ANSWERS[command.rule](command, situation)
    chinese = re.search(_CHINESE, text) or language.lower().startswith("zh")
    if sum_ := _SUM.search(text):
        tell = phrases.chinese_arithmetic if chinese else phrases.arithmetic
        operator = _OPERATORS[sum_["operator"].lower()]
        return tell(Fraction(sum_["left"]), operator, Fraction(sum_["right"]))
    if situation.last_said == phrases.WHICH_CITY and (city := _city_named(text)):
        return _weather_in(city, situation.last_command, situation)
    return _answer_chinese(text, situation) if chinese else phrases.FALLBACK


def _answer_chinese(text: str, situation: _Situation) -> str:
    if re.search("几点|时间", text):
        return phrases.chinese_clock(situation.now)
    if re.search("几号|日期|星期|礼拜", text):
        return phrases.chinese_date(situation.now)
    answers = phrases.CHINESE_ANSWERS
    return next((answers[key] for key in answers if key in text), phrases.CHINESE_FALLBACK)


# Typed sums, beyond the number words of the grammar: "What's 12.5 * 3?".
_NUMBER = r"-?\d{1,12}(?:\.\d{1,6})?"
_OPERATORS = {
    **dict.fromkeys(("+", "plus", "加"), "plus"),
    **dict.fromkeys(("-", "\N{MINUS SIGN}", "minus", "减"), "minus"),
    **dict.fromkeys(("*", "x", "×", "times", "乘以", "乘"), "times"),
    **dict.fromkeys(("/", "÷", "divided by", "除以"), "divided by"),
}
_SUM = re.compile(
    rf"(?<![\w.,/+*-])(?P<left>{_NUMBER})\s*"
    rf"(?P<operator>{'|'.join(map(re.escape, _OPERATORS))})\s*"
    rf"(?P<right>{_NUMBER})(?![A-Za-z\d]|[.,/+*×÷-]\s*\d)",
    re.IGNORECASE,
)


# --- tools -------------------------------------------------------------------------------


def _wish(
    situation: _Situation, tool: str, arguments: Mapping[str, Any], purpose: str
) -> str | _Wish:
    if tool in situation.tools:
        return _Wish(tool, arguments)
    return f"I cannot {purpose} here: the tool for that is not available."


def _weather_in(city: str, asked: Command | None, situation: _Situation) -> str | _Wish:
    when = "tomorrow" if asked and "tomorrow" in asked.text.split() else "today"
    arguments = {"city": city, "when": when}
    return _wish(situation, "get_weather", arguments, "look up the weather")


def _city_named(text: str) -> str:
    """The answer to "for which city?", "" when it does not look like one."""
    words = [word for word in spoken_words(text) if word not in {"in", "for", "please"}]
    return " ".join(words).title() if 0 < len(words) <= _MAX_CITY_WORDS else ""


def _tell_results(messages: Sequence[ChatMessage]) -> str:
    """Says what came of the tools that were called last."""
    calls = {call.call_id: call for message in messages for call in message.tool_calls}
    told: list[str] = []
    for message in reversed(messages):
        if message.role != "tool":
            break
        call = calls.get(message.tool_call_id or "")
        name, arguments = (call.name, _read_json(call.arguments)) if call else ("", {})
        told.insert(0, phrases.tool_result(name, arguments, _read_json(message.content)))
    return " ".join(told)


def _read_json(content: str) -> Any:
    """The value; text that is no JSON stands for itself."""
    try:
        return json.loads(content)
    except ValueError:
        return content


# --- one function for each rule of the grammar -------------------------------------------


def _set_volume(command: Command, situation: _Situation) -> str | _Wish:
    parts = command.parts
    if parts.get("setting") == "brightness":
        return phrases.NO_BRIGHTNESS
    amount = number(parts["number"]) if "number" in parts else None
    louder = parts.get("direction") == "up" or parts.get("change") in {"raise", "increase"}
    known = situation.volumes
    arguments: dict[str, int]
    if parts.get("mute") == "mute":
        arguments = {"level": 0}
    elif parts.get("mute"):
        arguments = {"level": next((level for level in reversed(known) if level), USUAL_VOLUME)}
    elif "direction" not in parts and "change" not in parts:
        arguments = {"level": amount or 0}
    else:
        step = VOLUME_STEP if amount is None else amount
        arguments = {"change": step if louder else -step}
    if "change" in arguments and not _takes(situation.tools.get("set_volume"), "change"):
        level = (known[-1] if known else USUAL_VOLUME) + arguments["change"]
        arguments = {"level": min(100, max(0, level))}
    return _wish(situation, "set_volume", arguments, "change the volume")


def _takes(tool: ToolSchema | None, argument: str) -> bool:
    return tool is not None and argument in tool.parameters.get("properties", {})


def _play_music(command: Command, situation: _Situation) -> str | _Wish:
    parts = command.parts
    arguments = {"action": parts.get("skip") or parts.get("player") or "play"}
    if genre := parts.get("genre"):
        arguments["query"] = genre
    return _wish(situation, "play_music", arguments, "play music")


def _look_up_weather(command: Command, situation: _Situation) -> str | _Wish:
    if city := command.parts.get("city"):
        return _weather_in(city.title(), command, situation)
    return phrases.WHICH_CITY


def _switch_light(command: Command, _: _Situation) -> str:
    parts = command.parts
    return _not_connected(f"{_thing(parts, 'appliance')} {parts['switch']}")


def _move_window(command: Command, _: _Situation) -> str:
    parts = command.parts
    return _not_connected(f"{parts['move']} {_thing(parts, 'opening')}")


def _thing(parts: Mapping[str, str], name: str) -> str:
    return " ".join(["the", *parts.get("room", "").split(), parts[name]])


def _not_connected(wanted: str) -> str:
    return f"Okay, {wanted}. But nothing in the house is connected to me yet, so I can only say so."


def _set_timer(command: Command, situation: _Situation) -> str:
    unit = (command.parts.get("unit") or command.parts.get("single_unit", "")).rstrip("s")
    if not unit:
        return phrases.NO_TIMER
    count = number(command.parts.get("number", "one"))
    length = timedelta(**{f"{unit}s": count})
    return phrases.timer(f"{count} {unit}{'' if count == 1 else 's'}", situation.now, length)


def _tell_clock(command: Command, situation: _Situation) -> str:
    is_time = "time" in command.text.split()
    return phrases.clock(situation.now) if is_time else phrases.date(situation.now)


def _calculate(command: Command, _: _Situation) -> str:
    parts = command.parts
    left, right = Fraction(number(parts["left"])), Fraction(number(parts["right"]))
    return phrases.arithmetic(left, parts["operator"], right)


def _chat(command: Command, situation: _Situation) -> str:
    match command.parts["topic"]:
        case "a joke":
            return phrases.fresh(phrases.JOKES, situation.said)
        case "a story":
            return phrases.fresh(phrases.STORIES, situation.said)
        case "something interesting":
            return phrases.fresh(phrases.FACTS, situation.said)
        case _:
            return f"{phrases.ABOUT} {phrases.ABILITIES}"


def _greet(command: Command, _: _Situation) -> str:
    text = command.text
    if "thank" in text:
        return "You are welcome."
    if "bye" in text or "later" in text:
        return "Goodbye, and have a nice day."
    if "night" in text:
        return "Good night. Sleep well."
    if "how are you" in text:
        return "I am fine, thank you. What can I do for you?"
    return f"{text.capitalize() if 'good' in text else 'Hello'}! What can I do for you?"


def _control(command: Command, situation: _Situation) -> str | _Wish:
    match command.text:
        case "continue" | "go on":
            texts = [*phrases.STORIES, *phrases.FACTS, *phrases.JOKES]
            told = [said for said in situation.said if said not in phrases.CONTROL.values()]
            rest = phrases.rest_of(texts, told[-1]) if told else ""
            return rest or phrases.NOTHING_TO_CONTINUE
        case "stop" | "be quiet" if situation.music_plays:
            return _Wish("play_music", {"action": "stop"})
        case "repeat that":
            return situation.last_said or phrases.NOTHING_TO_REPEAT
        case text:
            return phrases.CONTROL[text]


def _help(command: Command, _: _Situation) -> str:
    return phrases.HELP[command.text]


_ANSWERS: Mapping[str, Callable[[Command, _Situation], str | _Wish]] = {
    "volume": _set_volume,
    "light": _switch_light,
    "music": _play_music,
    "timer": _set_timer,
    "window": _move_window,
    "chat": _chat,
    "weather": _look_up_weather,
    "clock": _tell_clock,
    "arithmetic": _calculate,
    "greeting": _greet,
    "control": _control,
    "help": _help,
}
