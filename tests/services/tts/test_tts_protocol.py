"""Messages of the TTS service: a golden table read both ways, and what is refused."""

from __future__ import annotations

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from listenai.engines.base import WordTiming
from listenai.services.tts.messages import (
    MAX_TEXT,
    Cancel,
    Cancelled,
    End,
    Failed,
    Mode,
    Ready,
    Reply,
    Request,
    Start,
    Synthesize,
    TtsErrorCode,
    Voices,
    VoicesListed,
    Word,
    Words,
    sendable,
)
from listenai.services.tts.protocol import (
    TtsProtocolError,
    WordFinder,
    decode_reply,
    decode_request,
    encode,
    words_of,
)

REQUESTS: list[tuple[str, Request]] = [
    (
        '{"type":"synthesize","request_id":"r.1","text":"你好 world","voice_id":"doubao-通用女声",'
        '"mode":"streaming","language":"zh"}',
        Synthesize("r.1", "你好 world", "doubao-通用女声", language="zh"),
    ),
    (
        '{"type":"synthesize","request_id":"r-2","text":"Hi\\nthere.","voice_id":"default",'
        '"mode":"full","language":"en","cfg_value":2.5,"inference_timesteps":30,"style":"calm"}',
        Synthesize("r-2", "Hi\nthere.", "default", Mode.FULL, "en", 2.5, 30, "calm"),
    ),
    ('{"type":"cancel","request_id":"r_1"}', Cancel("r_1")),
    ('{"type":"voices"}', Voices()),
]
REPLIES: list[tuple[str, Reply]] = [
    (
        '{"type":"ready","voices":{"default":"the only one"},"sample_rate":22050}',
        Ready({"default": "the only one"}, 22_050),
    ),
    (
        '{"type":"start","request_id":"1","sample_rate":16000,"channels":1,"format":"pcm_s16le"}',
        Start("1", 16_000),
    ),
    (
        '{"type":"words","request_id":"1","words":[{"text":"Hi","start_ms":0},'
        '{"text":"there","start_ms":312.5}]}',
        Words("1", (Word("Hi", 0), Word("there", 312.5))),
    ),
    ('{"type":"end","request_id":"1","duration_ms":1234.5}', End("1", 1234.5)),
    ('{"type":"cancelled","request_id":"1"}', Cancelled("1")),
    ('{"type":"voices","voices":{"a":"","b":"B"}}', VoicesListed({"a": "", "b": "B"})),
    (
        '{"type":"error","code":"BUSY","message":"later","request_id":"1"}',
        Failed(TtsErrorCode.BUSY, "later", "1"),
    ),
    ('{"type":"error","code":"TTS_ERROR","message":"no"}', Failed(TtsErrorCode.TTS_ERROR, "no")),
]


@pytest.mark.parametrize(("text", "message"), REQUESTS)
def test_requests_are_read_and_written(text: str, message: Request) -> None:
    """Each row, both ways."""
    assert decode_request(text) == message
    assert encode(message) == text


@pytest.mark.parametrize(("text", "message"), REPLIES)
def test_replies_are_read_and_written(text: str, message: Reply) -> None:
    """Each row, both ways."""
    assert decode_reply(text) == message
    assert encode(message) == text


def test_a_short_request_is_enough() -> None:
    """Mode, language and parameters may be left out, or null."""
    asked = {"type": "synthesize", "request_id": "1", "text": "Hi.", "voice_id": "v"}
    assert decode_request(json.dumps(asked)) == Synthesize("1", "Hi.", "v")
    assert decode_request(json.dumps(asked | {"style": None})) == Synthesize("1", "Hi.", "v")


def synthesize(**fields: object) -> str:
    asked = {"type": "synthesize", "request_id": "7", "text": "Hi.", "voice_id": "v"}
    return json.dumps({name: value for name, value in (asked | fields).items() if value != ...})


REFUSED = [
    ("", "not JSON"),
    ("[]", "must be a JSON object"),
    ("{}", "field 'type' must be one of synthesize, cancel, voices, not null"),
    ('{"type":"say"}', "must be one of synthesize, cancel, voices, not 'say'"),
    ('{"type":["synthesize"]}', "must be one of synthesize, cancel, voices, not a list"),
    ('{"type":"cancel"}', "field 'request_id' is missing"),
    ('{"type":"voices","all":1}', "unknown field 'all'; allowed: none but 'type'"),
    (synthesize(text=...), "field 'text' is missing"),
    (synthesize(text=5), "field 'text' must be text, not 5"),
    (synthesize(text=" \n"), "field 'text' must be text of at most 2000 characters, not blank"),
    (synthesize(text="x" * (MAX_TEXT + 1)), "at most 2000 characters, not blank, not text of 2001"),
    (synthesize(text="a\0b"), "field 'text' must be text without control characters"),
    (synthesize(text="a\x9bb"), "field 'text' must be text without control characters"),
    ('{"type":"cancel","request_id":"\\ud800"}', "half of a surrogate pair"),
    (synthesize(request_id="a b"), "field 'request_id' must be 1 to 64 letters"),
    (synthesize(voice_id=None), "field 'voice_id' must be text, not null"),
    (synthesize(mode="fast"), "field 'mode' must be one of streaming, full, not 'fast'"),
    (synthesize(cfg_value=True), "field 'cfg_value' must be a number, not true"),
    (synthesize(cfg_value=11), "field 'cfg_value' must be a number from 0 to 10, not 11"),
    (synthesize(cfg_value=10**400), "field 'cfg_value' must be a number, not a very long number"),
    (synthesize(inference_timesteps=2.5), "must be a whole number, not 2.5"),
    (synthesize(inference_timesteps=0), "must be a number from 1 to 1000, not 0"),
    (synthesize(style="x" * 201), "field 'style' must be text of at most 200 characters"),
    (synthesize(speed=2), "unknown field 'speed'; allowed: request_id, text, voice_id, mode"),
    ('{"type":"cancel","request_id":NaN}', "NaN is no JSON number"),
    ('{"type":' + "[" * 100_000, "nested too deeply"),
]


@pytest.mark.parametrize(("text", "problem"), REFUSED, ids=[problem for _, problem in REFUSED])
def test_what_is_no_request_is_told(text: str, problem: str) -> None:
    """The error says what was wrong and what is allowed."""
    with pytest.raises(TtsProtocolError) as raised:
        decode_request(text)
    assert problem in str(raised.value)


def test_an_error_knows_its_request() -> None:
    """A request that tells its id is refused by it; an id that is none is not repeated."""
    with pytest.raises(TtsProtocolError) as raised:
        decode_request(synthesize(text=5))
    assert raised.value.request_id == "7"
    with pytest.raises(TtsProtocolError) as raised:
        decode_request(synthesize(request_id="x" * 1000))
    assert raised.value.request_id is None


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"ready","voices":["a"],"sample_rate":16000}',
        '{"type":"ready","voices":{"a":1},"sample_rate":16000}',
        '{"type":"ready","voices":{},"sample_rate":1}',
        '{"type":"start","request_id":"1","sample_rate":16000,"channels":2,"format":"pcm_s16le"}',
        '{"type":"words","request_id":"1","words":{"text":"a","start_ms":0}}',
        '{"type":"words","request_id":"1","words":[{"text":"a"}]}',
        '{"type":"words","request_id":"1","words":["a"]}',
        '{"type":"end","request_id":"1","duration_ms":"3"}',
        '{"type":"error","code":"OTHER","message":"x"}',
    ],
)
def test_what_is_no_reply_is_refused(text: str) -> None:
    """A client does not guess what a service may have meant."""
    with pytest.raises(TtsProtocolError):
        decode_reply(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
FIELDS = sorted(
    {field.name for _, message in [*REQUESTS, *REPLIES] for field in attrs.fields(type(message))}
)
KINDS = sorted({json.loads(text)["type"] for text, _ in [*REQUESTS, *REPLIES]})


@given(
    st.text()
    | JSON.map(json.dumps)
    | st.builds(
        lambda kind, fields: json.dumps({"type": kind, **fields}),
        st.sampled_from(KINDS),
        st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6),
    )
)
def test_only_protocol_errors_are_raised(text: str) -> None:
    """Whatever comes is a message, or a TtsProtocolError that can be told in JSON."""
    for decode in (decode_request, decode_reply):
        try:
            message = decode(text)
        except TtsProtocolError as error:
            failed = Failed(TtsErrorCode.INVALID_MESSAGE, str(error), error.request_id)
            assert decode_reply(encode(failed)) == failed
        else:
            assert decode(encode(message)) == message


@given(st.text(alphabet=st.characters(), max_size=MAX_TEXT))
def test_any_text_can_be_made_sendable(text: str) -> None:
    """Nothing but what no request may hold changes, and every character keeps its place."""
    made = sendable(text)
    assert len(made) == len(text)
    assert all(old in {new, "\0"} or new == " " for old, new in zip(text, made, strict=True))
    if made.strip():
        request = Synthesize("1", made, "v")
        assert decode_request(encode(request)) == request


def test_sendable_leaves_ordinary_text_alone() -> None:
    """Line ends, emoji and three languages stay."""
    assert sendable("Hi 🎤\n\tnaïve 你好、こんにちは") == "Hi 🎤\n\tnaïve 你好、こんにちは"
    assert sendable("a\0b\x1bc\ud800d") == "a b c d"


@st.composite
def spoken(draw: st.DrawFn) -> tuple[str, tuple[WordTiming, ...]]:
    """A text and the timings of all of its words, as an engine tells them."""
    words = draw(st.lists(st.text("abc你", min_size=1, max_size=3), max_size=12))
    text, timings, sample = "", [], 0
    for word in words:
        text += draw(st.sampled_from([" ", "  ", ", ", "\n"]))
        timings.append(WordTiming(len(text), len(text) + len(word), sample))
        text += word
        sample += draw(st.integers(1, 30_000))
    return text, tuple(timings)


@given(
    spoken(), st.sampled_from([8_000, 16_000, 22_050, 24_000, 44_100, 48_000]), st.integers(1, 5)
)
def test_word_timings_survive_the_way(
    told: tuple[str, tuple[WordTiming, ...]], rate: int, at_a_time: int
) -> None:
    """Places and samples are the same again, also of words that come several times."""
    text, timings = told
    finder = WordFinder(text)
    found: list[WordTiming] = []
    for start in range(0, len(timings), at_a_time):
        words = words_of(text, timings[start : start + at_a_time], rate)
        found += finder.find(words, rate)
    assert tuple(found) == timings


def test_a_word_that_was_spelt_otherwise_is_passed_over() -> None:
    """A service may say "five" for 5; the words after it are found all the same."""
    finder = WordFinder("I have 5 cats.")
    found = finder.find([Word("have", 10), Word("five", 20), Word("cats", 30)], 1000)
    assert found == (WordTiming(2, 6, 10), WordTiming(9, 13, 30))
