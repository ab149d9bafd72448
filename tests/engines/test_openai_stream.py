"""Answers of OpenAI-compatible servers, as they should be and as they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_server import DONE, NO_CHOICES, Answer, calling, chunk, event, saying, usage, whole

from listenai.engines.base import ChatMessage, ReplyPart, ReplyText, ReplyUsage, ToolCall
from listenai.engines.openai_request import ToolNames
from listenai.engines.openai_stream import (
    MAX_EVENT_BYTES,
    MAX_REPLY_BYTES,
    BrokenReply,
    CallIds,
    ReplyParser,
    WithheldReply,
)
from listenai.errors import ChatModelError
from listenai.events import ToolSchema

STOP = chunk(finish="stop")


def parser(history: Sequence[ChatMessage] = (), tools: Sequence[ToolSchema] = ()) -> ReplyParser:
    return ReplyParser(ToolNames(tools), CallIds(history))


def parse(*pieces: Any, history: Sequence[ChatMessage] = ()) -> list[ReplyPart]:
    """All parts of an answer that comes in these pieces and then ends."""
    reading = parser(history)
    return [part for piece in pieces for part in reading.receive(piece)] + reading.end()


def data(answer: Answer) -> bytes:
    """The whole body of an answer of the stand-in server."""
    return b"".join(step for step in answer.steps if isinstance(step, bytes))


def text(parts: Sequence[ReplyPart]) -> str:
    return "".join(part.text for part in parts if isinstance(part, ReplyText))


def fragments(*each: dict[str, Any]) -> bytes:
    """A chunk with fragments of tool calls."""
    return chunk({"tool_calls": list(each)})


def fragment(
    arguments: object = None,
    name: str | None = None,
    call_id: str | None = None,
    index: int | None = None,
) -> dict[str, Any]:
    """A fragment of a tool call with what is not None."""
    function = {"name": name, "arguments": arguments}
    given = {"index": index, "id": call_id, "function": function}
    return {key: value for key, value in given.items() if value is not None}


ANSWERS = {
    "tokens": data(saying("Hello, wörld of 北京 😀.")),
    "tools": data(calling(("get_weather", {"city": "北京"}), ("set_volume", {"level": 3}))),
    "document": data(whole("Hello\r\n there")),
    "CRLF": b": hello\r\n\r\n" + chunk({"content": "a"}).replace(b"\n", b"\r\n") + STOP + DONE,
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@given(cuts=st.lists(st.integers(min_value=0, max_value=2000), max_size=12))
def test_however_the_network_cuts_an_answer_it_says_the_same(
    answer: bytes, cuts: list[int]
) -> None:
    """Bytes of one character, of one line ending, and of one event may come apart."""
    bounds = [0, *sorted(cut % (len(answer) + 1) for cut in cuts), len(answer)]
    pieces = [answer[a:b] for a, b in pairwise(bounds)]
    assert parse(*pieces) == parse(answer)
    assert parse(answer)


def test_text_comes_as_it_is_read_and_usage_last() -> None:
    """Each token is a part at once; what it cost comes when the stream is over."""
    reading = parser()
    assert reading.receive(chunk({"role": "assistant", "content": None})) == []
    assert reading.receive(chunk({"content": "Hi"})) == [ReplyText("Hi")]
    assert not reading.is_finished
    assert reading.receive(STOP + usage(3, 1)) == []
    assert reading.is_finished
    assert not reading.is_over
    assert reading.receive(DONE) == [ReplyUsage(3, 1)]
    assert reading.is_over
    assert reading.end() == []


def test_a_document_instead_of_a_stream() -> None:
    """Some servers answer a streaming request with one JSON document, pretty-printed even."""
    document = json.loads(data(whole("Hi there")))
    pretty = json.dumps(document, indent=2).encode()
    assert parse(pretty) == [ReplyText("Hi there"), ReplyUsage(11, 7)]


@pytest.mark.parametrize(
    ("piece", "said"),
    [
        (b": keep-alive\n\nevent: x\nid: 1\nretry: 5\n\n", ""),
        (b"data: \n\n", ""),
        (b"data:" + chunk({"content": "tight"})[6:], "tight"),
        (b'data: {\ndata: "choices": [{"delta": {"content": "lines"}}]}\n\n', "lines"),
        (b"\xef\xbb\xbf" + chunk({"content": "mark"}), "mark"),
        (chunk({"reasoning_content": "hmm", "content": None}), ""),
        (chunk({"content": [{"type": "text", "text": "a"}, {"type": "image"}]}), "a"),
        (chunk({"refusal": "I cannot"}), "I cannot"),
        (event({"choices": None}), ""),
        (event({"choices": [{"index": 1, "delta": {"content": "second choice"}}]}), ""),
        (event({"choices": [{"index": 0, "delta": None}, 5]}), ""),
        (event({"choices": [], "usage": {"prompt_tokens": "many"}}), ""),
    ],
)
def test_what_may_stand_in_a_stream(piece: bytes, said: str) -> None:
    """Comments, other fields, and chunks of other kinds disturb nothing."""
    assert text(parse(piece, chunk({"content": "."}), STOP, DONE)) == f"{said}."


def test_halves_of_characters() -> None:
    """Two tokens may share an emoji; a lone half becomes a replacement character."""
    pieces = [chunk({"content": part}) for part in ("a\ud83d", "\ude00b", "\udc00", "c\ud83d")]
    parts = parse(*pieces, STOP, DONE)
    assert text(parts) == "a😀b\ufffdc\ufffd"
    assert text(parts).encode()


def test_after_done_nothing_is_read() -> None:
    """[DONE] is the end, whatever follows."""
    assert text(parse(chunk({"content": "a"}), STOP, DONE, chunk({"content": "b"}))) == "a"


@pytest.mark.parametrize("end", [STOP, DONE, STOP.rstrip(b"\n")])
def test_either_a_reason_or_done_is_an_end(end: bytes) -> None:
    """Servers leave out one or the other, or the last line's end."""
    assert text(parse(chunk({"content": "a"}), end)) == "a"


# --- tool calls --------------------------------------------------------------------------


def test_calls_whose_fragments_come_in_turn() -> None:
    """Fragments belong together by index, and the calls keep their order."""
    answer = calling(("a", {"x": 1}), ("b", {"y": [2]}), ("a", {}), ids=["one", "two", "three"])
    assert parse(data(answer)) == [
        ToolCall("one", "a", '{"x": 1}'),
        ToolCall("two", "b", '{"y": [2]}'),
        ToolCall("three", "a", "{}"),
    ]


@pytest.mark.parametrize(
    "pieces",
    [
        # no index at all, each call whole
        [fragments(fragment('{"x": 1}', "a", "i1"), fragment('{"y": 2}', "b", "i2"))],
        # no index, in fragments
        [
            fragments(fragment("", "a", "i1")),
            fragments(fragment('{"x"')),
            fragments(fragment(": 1}")),
            fragments(fragment('{"y": 2}', "b", "i2")),
        ],
        # every call has the index 0
        [
            fragments(fragment('{"x": 1}', "a", "i1", 0)),
            fragments(fragment('{"y": ', "b", "i2", 0)),
            fragments(fragment("2}", index=0)),
        ],
        # name and id repeated with every fragment
        [
            fragments(fragment('{"x"', "a", "i1", 0)),
            fragments(fragment(": 1}", "a", "i1", 0)),
            fragments(fragment('{"y": 2}', "b", "i2", 1)),
        ],
        # the second comes first; a name in two pieces; arguments as objects
        [
            fragments(fragment({"y": 2}, "b", "i2", 1)),
            fragments(fragment(None, "", "i1", 0)),
            fragments(fragment({"x": 1}, "a", index=0)),
        ],
    ],
)
def test_calls_as_servers_number_them(pieces: list[bytes]) -> None:
    """The same two calls come out, however they are numbered."""
    assert parse(*pieces, chunk(finish="tool_calls"), DONE) == [
        ToolCall("i1", "a", '{"x": 1}'),
        ToolCall("i2", "b", '{"y": 2}'),
    ]


def test_calls_with_neither_index_nor_id() -> None:
    """A name after complete arguments opens the next call."""
    pieces = [fragments(fragment('{"x": 1}', "a")), fragments(fragment('{"y": 2}', "a"))]
    assert parse(*pieces, chunk(finish="tool_calls"), DONE) == [
        ToolCall("call00001", "a", '{"x": 1}'),
        ToolCall("call00002", "a", '{"y": 2}'),
    ]


def test_a_function_call_of_the_older_api() -> None:
    """It is a tool call without an id."""
    pieces = [
        chunk({"function_call": {"name": "a", "arguments": ""}}),
        chunk({"function_call": {"arguments": '{"x": 1}'}}),
    ]
    parts = parse(*pieces, chunk(finish="function_call"), DONE)
    assert parts == [ToolCall("call00001", "a", '{"x": 1}')]


def test_arguments_that_are_no_json_are_the_tool_loops_to_tell() -> None:
    """The model is told by whoever runs the tools; half characters are mended."""
    answer = [fragments(fragment("{oops \ud83d", "a", "i"))]
    parts = parse(*answer, chunk(finish="tool_calls"), DONE)
    assert parts == [ToolCall("i", "a", "{oops \ufffd")]


@pytest.mark.parametrize("given", [None, "", "taken", "with space", "x" * 65, "ä"])
def test_ids_that_cannot_stay(given: str | None) -> None:
    """Missing, taken and odd ids become fresh ones, which follow from the history alone."""
    history = [
        ChatMessage("assistant", "", (ToolCall("taken", "a", "{}"), ToolCall("call00003", "a", "")))
    ]
    answer = [fragments(fragment("{}", "a", given, 0), fragment("{}", "b", "call00004", 1))]
    calls = parse(*answer, chunk(finish="tool_calls"), DONE, history=history)
    assert calls == parse(*answer, chunk(finish="tool_calls"), DONE, history=history)
    assert [call.call_id for call in calls if isinstance(call, ToolCall)] == [
        "call00004",
        "call00005",
    ]


def test_an_id_given_twice() -> None:
    """Two calls of one answer have two ids."""
    pieces = [fragments(fragment("{}", "a", "i", 0), fragment("{}", "b", "i", 1)), STOP, DONE]
    assert parse(*pieces) == [ToolCall("i", "a", "{}"), ToolCall("call00001", "b", "{}")]


def test_tools_have_their_own_names_again() -> None:
    """What the request had to rename is renamed back; what nobody offered is passed on."""
    tools = [ToolSchema("lamp.on", "", {}), ToolSchema("lamp_on", "", {})]
    reading = parser(tools=tools)
    names = [fragment("{}", name, f"i{n}", n) for n, name in enumerate(["lamp_on", "lamp_on_2"])]
    parts = reading.receive(fragments(*names, fragment("{}", "fly", "i9", 9)) + STOP + DONE)
    assert [part.name for part in parts if isinstance(part, ToolCall)] == [
        "lamp.on",
        "lamp_on",
        "fly",
    ]


# --- what is wrong -----------------------------------------------------------------------

SAID = chunk({"content": "Well"})
HALF = fragments(fragment('{"x": ', "a", "i", 0))

BROKEN = [
    ([SAID], "in the middle"),
    ([HALF], "in the middle"),
    ([SAID, b"data: {oops\n\n"], "not JSON"),
    ([SAID, b"data: {\ndata: oops\n\n"], "not JSON"),
    ([SAID, b"data: " + b"[" * 100_000 + b"\n\n"], "not JSON"),
    ([b"data: 5\n\n"], "not a JSON object"),
    ([b""], "no reply"),
    ([b"<html>\n<body>Log in here</body></html>"], "no reply"),
    ([data(NO_CHOICES)], "no reply"),
    ([DONE], "no reply"),
    ([SAID, event({"error": {"message": "out of\nmemory " + "x" * 300}})], "an error: out of mem"),
    ([event({"error": "busy"})], "an error: busy"),
    ([event({"object": "error", "message": "too long"})], "an error: too long"),
    ([b'{"error": {"message": "in a document"}}'], "an error: in a document"),
    ([b'{"choices": '], "not JSON"),
    ([fragments(fragment("{}", None, "i", 0)), STOP, DONE], "without naming it"),
    ([b"data: " + b"x" * MAX_EVENT_BYTES], "more than 1 MiB"),
    ([chunk({"content": "x" * 1000}) * 1000] * (MAX_REPLY_BYTES // 1_000_000), "more than 8 MiB"),
]


@pytest.mark.parametrize(("pieces", "problem"), BROKEN, ids=[problem for _, problem in BROKEN])
def test_what_cannot_be_read_is_told(pieces: list[bytes], problem: str) -> None:
    """A server that breaks off, errs or babbles is an error, never a short reply."""
    with pytest.raises(BrokenReply, match=problem) as caught:
        parse(*pieces)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("pieces", "reason", "problem"),
    [
        ([], "length", "raise the limit"),
        ([chunk({"reasoning_content": "hmm"})], "length", "raise the limit"),
        ([SAID, HALF], "length", "raise the limit"),
        ([], "content_filter", "content filter"),
    ],
)
def test_a_reply_of_which_nothing_is_left(pieces: list[bytes], reason: str, problem: str) -> None:
    """Limits and filters that leave nothing to say are errors that say what to do."""
    with pytest.raises(WithheldReply, match=problem) as caught:
        parse(*pieces, chunk(finish=reason), DONE)
    assert isinstance(caught.value, ChatModelError)


@pytest.mark.parametrize("reason", ["length", "content_filter", "stop", "eos", "tool_calls"])
def test_what_was_said_before_the_end_is_kept(reason: str) -> None:
    """A reply cut by a limit has been heard: it ends there."""
    assert text(parse(SAID, chunk(finish=reason), DONE)) == "Well"


def test_comments_are_no_progress() -> None:
    """A server that only keeps the connection alive is told from one that thinks."""
    reading = parser()
    reading.receive(b": alive\n\n" * 3)
    assert reading.chunks_read == 0
    reading.receive(chunk({"reasoning_content": "hmm"}))
    assert reading.chunks_read == 1
