"""The offline assistant answers every command, uses tools, and is honest about the rest."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listenai.audio import seconds
from listenai.commands import load_commands
from listenai.engines import embedded_phrases as phrases
from listenai.engines.base import ChatMessage, ChatSettings, ReplyPart, ReplyText, ToolCall
from listenai.engines.embedded_chat import EmbeddedChatModel
from listenai.engines.espeak import EspeakSynthesizer
from listenai.events import ToolSchema
from listenai.tools.music import MusicTool
from listenai.tools.volume import VolumeTool
from listenai.tools.weather import WeatherTool

NOW = datetime(2025, 3, 3, 15, 7, tzinfo=UTC)
TOOLS = (WeatherTool.schema, VolumeTool.schema, MusicTool.schema)
ABSOLUTE_VOLUME = ToolSchema(
    "set_volume", "", {"type": "object", "properties": {"level": {"type": "integer"}}}
)


def model() -> EmbeddedChatModel:
    return EmbeddedChatModel(now=lambda: NOW)


async def parts_of(
    messages: Sequence[ChatMessage],
    tools: Sequence[ToolSchema] = TOOLS,
    chat_settings: ChatSettings | None = None,
) -> list[ReplyPart]:
    async with model().open_reply(messages, tools, chat_settings or ChatSettings()) as parts:
        return [part async for part in parts]


async def reply(
    messages: Sequence[ChatMessage], tools: Sequence[ToolSchema] = TOOLS, language: str = "en"
) -> str:
    parts = await parts_of(messages, tools, ChatSettings(language=language))
    assert all(isinstance(part, ReplyText) for part in parts), parts
    return "".join(part.text for part in parts if isinstance(part, ReplyText))


async def call(
    messages: Sequence[ChatMessage], tools: Sequence[ToolSchema] = TOOLS
) -> tuple[str, Mapping[str, Any]]:
    [part] = await parts_of(messages, tools)
    assert isinstance(part, ToolCall), part
    return part.name, json.loads(part.arguments)


def user(text: str) -> ChatMessage:
    return ChatMessage("user", text)


def assistant(text: str) -> ChatMessage:
    return ChatMessage("assistant", text)


def used(
    name: str, arguments: Mapping[str, Any], result: Any, number: int = 1
) -> list[ChatMessage]:
    """A tool call and what came of it."""
    tool_call = ToolCall(f"call-{number}", name, json.dumps(arguments))
    return [
        ChatMessage("assistant", "", (tool_call,)),
        ChatMessage("tool", json.dumps(result), tool_call_id=tool_call.call_id),
    ]


# --- every sentence of the grammar -------------------------------------------------------


async def check_answered(sentence: str, tools: Sequence[ToolSchema]) -> None:
    parts = await parts_of([user(sentence)], tools)
    for part in parts:
        if isinstance(part, ToolCall):
            schema = next(tool for tool in tools if tool.name == part.name)
            arguments = json.loads(part.arguments)
            assert set(arguments) <= set(schema.parameters["properties"]), sentence
            assert set(schema.parameters.get("required", ())) <= set(arguments), sentence
    text = "".join(part.text for part in parts if isinstance(part, ReplyText))
    assert text.strip() or len(parts) == 1, sentence
    assert not text.startswith(phrases.FALLBACK[:40]), sentence


@pytest.mark.parametrize("tools", [TOOLS, ()], ids=["tools", "no tools"])
async def test_thousands_of_commands_are_answered(tools: Sequence[ToolSchema]) -> None:
    """None is empty, none gets the fallback, and every rule was among them."""
    grammar, chance, rules = load_commands(), random.Random(1), set()
    for _ in range(1500):
        sentence = grammar.draw(chance)
        await check_answered(sentence, tools)
        command = grammar.parse(sentence)
        assert command
        rules.add(command.rule)
    assert len(rules) == 12


@settings(max_examples=200, deadline=None)
@given(chance=st.randoms(use_true_random=False), with_tools=st.booleans())
async def test_any_command_is_answered(chance: random.Random, with_tools: bool) -> None:
    """The same, where a failure shrinks to its smallest sentence."""
    await check_answered(load_commands().draw(chance), TOOLS if with_tools else ())


@pytest.mark.parametrize(
    ("sentence", "answer"),
    [
        ("What time is it?", "It is 3:07 in the afternoon."),
        ("what day is it today", "Today is Monday, March 3, 2025."),
        ("what is the date", "Today is Monday, March 3, 2025."),
        ("what is seven times eight", "7 times 8 is 56."),
        ("how much is ten divided by three", "10 divided by 3 is about 3.333."),
        ("what is five divided by zero", "Nothing can be divided by zero."),
        ("what is three minus ten", "3 minus 10 is minus 7."),
        ("good morning", "Good morning! What can I do for you?"),
        ("thank you", "You are welcome."),
    ],
)
async def test_answers_are_right(sentence: str, answer: str) -> None:
    """Time and arithmetic to the letter."""
    assert await reply([user(sentence)]) == answer


@pytest.mark.parametrize(
    ("sentence", "begins"),
    [
        ("set a timer for five minutes", "Okay, 5 minutes from now it will be 3:12 in the aft"),
        ("set an alarm for one hour", "Okay, 1 hour from now it will be 4:07 in the afternoon."),
        (
            "set a timer for ten hours",
            "Okay, 10 hours from now it will be 1:07 in the morning on T",
        ),
        ("cancel the timer", "There is no timer"),
        ("turn on the kitchen light", "Okay, the kitchen light on. But nothing in the house is"),
        ("close the curtains", "Okay, close the curtains. But nothing in the house is connected"),
        ("set the brightness to fifty percent", "I would, but no lamp or screen is connected"),
    ],
)
async def test_what_it_cannot_do_is_said(sentence: str, begins: str) -> None:
    """An acknowledgement never pretends."""
    assert (await reply([user(sentence)])).startswith(begins)


# --- tools -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sentence", "name", "arguments"),
    [
        ("what is the weather in new york", "get_weather", {"city": "New York", "when": "today"}),
        ("will it rain in paris tomorrow", "get_weather", {"city": "Paris", "when": "tomorrow"}),
        (
            "what will the weather be like in london tomorrow",
            "get_weather",
            {"city": "London", "when": "tomorrow"},
        ),
        ("set the volume to forty five percent", "set_volume", {"level": 45}),
        ("set the volume to 0%", "set_volume", {"level": 0}),
        ("turn it up", "set_volume", {"change": 20}),
        ("turn down the volume", "set_volume", {"change": -20}),
        ("lower the volume by thirty percent", "set_volume", {"change": -30}),
        ("mute", "set_volume", {"level": 0}),
        ("play some jazz music", "play_music", {"action": "play", "query": "jazz"}),
        ("next song", "play_music", {"action": "next"}),
        ("pause the music", "play_music", {"action": "pause"}),
    ],
)
async def test_a_command_becomes_a_tool_call(
    sentence: str, name: str, arguments: Mapping[str, Any]
) -> None:
    """The tool's name and arguments follow from the sentence."""
    assert await call([user(sentence)]) == (name, arguments)


async def test_volume_without_changes_counts_from_the_history() -> None:
    """A device's own set_volume that takes levels only."""
    history = [*used("set_volume", {"level": 30}, {"level": 30}), assistant("The volume is 30.")]
    tools = [ABSOLUTE_VOLUME]
    assert await call([*history, user("turn it up")], tools) == ("set_volume", {"level": 50})
    assert await call([user("turn it down")], tools) == ("set_volume", {"level": 50})
    assert (await call([user("increase the volume by sixty percent")], tools))[1] == {"level": 100}


async def test_unmute_goes_back_to_the_last_level() -> None:
    """Which is in the history, before the mute."""
    history = [
        *used("set_volume", {"level": 30}, {"level": 30}),
        *used("set_volume", {"level": 0}, {"level": 0}, 2),
    ]
    assert await call([*history, user("unmute")]) == ("set_volume", {"level": 30})
    assert await call([user("unmute")]) == ("set_volume", {"level": 70})


LONDON = {
    "city": "London",
    "country": "United Kingdom",
    "when": "tomorrow",
    "summary": "light rain",
    "low": -1,
    "high": 8,
    "rain_percent": 60,
}


@pytest.mark.parametrize(
    ("name", "arguments", "result", "answer"),
    [
        (
            "get_weather",
            {"city": "London"},
            LONDON,
            "The weather in London tomorrow: light rain, between minus 1 and 8 degrees, "
            "60 percent chance of rain.",
        ),
        (
            "get_weather",
            {"city": "Oslo"},
            {"city": "Oslo", "summary": "snow"},
            "The weather in Oslo today: snow.",
        ),
        ("set_volume", {"change": 20}, {"level": 90}, "The volume is now 90 percent."),
        ("play_music", {"query": "jazz"}, {"action": "play"}, "Playing jazz."),
        ("play_music", {"action": "play"}, {"title": "So What"}, "Playing So What."),
        ("play_music", {"action": "stop"}, {}, "The music has stopped."),
        ("lamp", {}, {"state": "on"}, "It says: state : on."),
        ("lamp", {}, "done", "It says: done."),
        ("lamp", {}, None, "It says: null."),
        (
            "get_weather",
            {"city": "London"},
            {"error": "the weather service cannot be reached from here"},
            "I am sorry, that did not work: the weather service cannot be reached from here.",
        ),
    ],
)
async def test_what_came_of_a_tool_is_said(
    name: str, arguments: Mapping[str, Any], result: Any, answer: str
) -> None:
    """In words; a failure as a failure; an unknown shape is read out."""
    messages = [user("whatever was asked"), *used(name, arguments, result)]
    assert await reply(messages) == answer


async def test_results_of_several_tools_are_said_in_order() -> None:
    """As a client of the LLM service may send them."""
    calls = (ToolCall("a", "set_volume", "{}"), ToolCall("b", "play_music", '{"action":"pause"}'))
    messages = [
        user("both, please"),
        ChatMessage("assistant", "", calls),
        ChatMessage("tool", '{"level": 10}', tool_call_id="a"),
        ChatMessage("tool", "no JSON", tool_call_id="b"),
    ]
    assert await reply(messages) == "The volume is now 10 percent. The music is paused."


@pytest.mark.parametrize("sentence", ["turn it up", "play a song", "what is the weather in paris"])
async def test_a_tool_that_is_not_offered_is_not_called(sentence: str) -> None:
    """It says so instead."""
    assert (await reply([user(sentence)], ())).startswith("I cannot ")


async def test_a_city_is_asked_for_and_the_answer_understood() -> None:
    """ "Will it rain tomorrow?"  "For which city?"  "In Cape Town, please."""
    asked = [user("will it rain tomorrow")]
    question = await reply(asked)
    answer = [*asked, assistant(question), user("In Cape Town, please.")]
    assert await call(answer) == ("get_weather", {"city": "Cape Town", "when": "tomorrow"})
    changed_mind = [*asked, assistant(question), user("what time is it")]
    assert (await reply(changed_mind)).startswith("It is")


async def test_call_ids_repeat_for_the_same_history_and_never_within_it() -> None:
    """A result is told to its call by the id alone."""
    history = [*used("set_volume", {"level": 1}, {"level": 1}), user("mute")]
    for _ in range(2):
        [part] = await parts_of(history)
        assert isinstance(part, ToolCall)
        assert part.call_id == "call-2"
    prefixed = EmbeddedChatModel(call_prefix="call_")
    async with prefixed.open_reply([user("mute")], TOOLS, ChatSettings()) as parts:
        [part] = [part async for part in parts]
    assert part == ToolCall("call_1", "set_volume", '{"level": 0}')


# --- long texts --------------------------------------------------------------------------


@pytest.mark.engines
@pytest.mark.parametrize("story", phrases.STORIES)
async def test_a_story_lasts_twenty_seconds_at_least(story: str) -> None:
    """Spoken by the embedded synthesizer."""
    async with EspeakSynthesizer().open_speech(story, voice_id="default", language="en") as chunks:
        pcm = b"".join([chunk.pcm async for chunk in chunks])
    assert seconds(pcm, EspeakSynthesizer.sample_rate) > 20


async def test_a_second_story_is_another_one() -> None:
    """Also when the first was heard in part only; after the last it begins again."""
    asked = user("tell me a story")
    first = await reply([asked])
    assert first == phrases.STORIES[0]
    second = await reply([asked, assistant(first[:50]), asked])
    assert second == phrases.STORIES[1]
    assert await reply([asked, assistant(first), asked, assistant(second), asked]) == first


async def test_an_interrupted_story_goes_on_where_it_was_heard() -> None:
    """And once more, and past an "okay"; a finished one does not."""
    asked, story = user("tell me a story"), phrases.STORIES[0]
    words = story.split()
    heard, later = " ".join(words[:40]), " ".join(words[40:80])
    history = [asked, assistant(heard), user("stop"), assistant("Okay, I have stopped.")]
    assert heard + " " + await reply([*history, user("go on")]) == story
    history += [user("go on"), assistant(later)]
    assert await reply([*history, user("continue")]) == " ".join(words[80:])
    told = [asked, assistant(story), user("continue")]
    assert await reply(told) == phrases.NOTHING_TO_CONTINUE


async def test_repeat_that_repeats() -> None:
    """What was said last."""
    assert await reply([assistant("Hear, hear."), user("repeat that")]) == "Hear, hear."
    assert await reply([user("repeat that")]) == phrases.NOTHING_TO_REPEAT


# --- anything else -----------------------------------------------------------------------


@pytest.mark.parametrize("text", ["write me a poem about rust", "", "...", "call 555 for me"])
async def test_anything_else_gets_an_honest_answer(text: str) -> None:
    """What it is, and what it can do."""
    assert await reply([user(text)]) == phrases.FALLBACK


async def test_a_system_prompt_changes_nothing() -> None:
    """And a history without a question is greeted."""
    prompt = ChatMessage("system", "You are a pirate.")
    assert await reply([prompt, user("thanks")]) == "You are welcome."
    assert await reply([prompt]) == phrases.OPENING
    assert await reply([]) == phrases.OPENING


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("What's 12.5 * 3?", "12.5 times 3 is 37.5."),
        ("-3 minus 4", "minus 3 minus 4 is minus 7."),
        (
            "123456789012 * 123456789012",
            "123456789012 times 123456789012 is 15241578753153483936144.",
        ),
        ("3加5等于几", "3加5等于8。"),
        ("7除以0", "不能除以零。"),
    ],
)
async def test_typed_sums(text: str, answer: str) -> None:
    """In digits, of any size, exact."""
    assert (await reply([user(text)])).startswith(answer)


@pytest.mark.parametrize("text", ["2025-03-03", "1+2+3", "version 1.2.3-4", "3.5.1 + 2"])
async def test_what_only_looks_like_a_sum_is_none(text: str) -> None:
    """Half of it must not be answered as the whole."""
    assert await reply([user(text)]) == phrases.FALLBACK


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("你好", phrases.CHINESE_ANSWERS["你好"]),
        ("现在几点了？", "现在是15点7分。"),
        ("今天星期几", "今天是2025年3月3日，星期一。"),
        ("写一首诗", phrases.CHINESE_FALLBACK),
    ],
)
async def test_chinese_is_answered_in_chinese(text: str, answer: str) -> None:
    """Whatever the configured language; an English command stays English."""
    assert await reply([user(text)], language="en") == answer
    assert await reply([user("a poem")], language="zh") == phrases.CHINESE_FALLBACK
    assert await reply([user("thanks")], language="zh-CN") == "You are welcome."


# --- streaming ---------------------------------------------------------------------------


async def test_text_comes_in_words() -> None:
    """Joined, they are the text."""
    parts = await parts_of([user("thanks")])
    assert parts == [ReplyText("You"), ReplyText(" are"), ReplyText(" welcome.")]


async def test_a_reply_has_at_most_the_tokens_allowed() -> None:
    """A word counts as one."""
    limited = attrs.evolve(ChatSettings(), max_tokens=7)
    assert len(await parts_of([user("tell me a story")], TOOLS, limited)) == 7


async def test_a_reply_can_be_left_at_any_word() -> None:
    """Leaving stops the model, without a warning of what was left over."""
    async with model().open_reply([user("tell me a story")], (), ChatSettings()) as parts:
        assert await anext(aiter(parts)) == ReplyText("There")


@pytest.mark.parametrize("words", ["stop", "be quiet"])
async def test_stop_means_the_music_while_it_plays(words: str) -> None:
    """Not once it was stopped or paused, nor before it was started."""

    def after(*actions: str) -> list[ChatMessage]:
        rounds = [
            used("play_music", {"action": action}, {"state": "…"}, number)
            for number, action in enumerate(actions, 1)
        ]
        return [*(message for each in rounds for message in each), user(words)]

    assert await call(after("play")) == ("play_music", {"action": "stop"})
    assert await call(after("pause", "next")) == ("play_music", {"action": "stop"})
    for silent in ((), ("play", "stop"), ("play", "pause")):
        assert await reply(after(*silent)) == phrases.CONTROL[words]
    assert await reply(after("play"), tools=()) == phrases.CONTROL[words]
