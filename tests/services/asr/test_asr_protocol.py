"""The ASR service's protocol: a golden table both ways, and what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listenai.services.asr.protocol import (
    COMMANDS,
    MESSAGES,
    Configure,
    Configured,
    Error,
    Finish,
    Finished,
    InvalidMessage,
    Ping,
    Pong,
    Ready,
    Reset,
    Result,
    ServiceErrorCode,
    Vad,
    WasReset,
    read_command,
    read_message,
    write,
)

GOLDEN_COMMANDS = [
    (Ping(), {"command": "ping"}),
    (Reset(), {"command": "reset"}),
    (Finish(), {"command": "finish"}),
    (Configure(), {"command": "configure"}),
    (
        Configure("zh", ("北京", "ListenAI"), 0.25, 8, 256),
        {
            "command": "configure",
            "language": "zh",
            "hotwords": ["北京", "ListenAI"],
            "threshold": 0.25,
            "silence_frames": 8,
            "hop_size": 256,
        },
    ),
]

GOLDEN_MESSAGES = [
    (
        Ready(16_000, ("zh", "en"), True),
        {"type": "ready", "sample_rate": 16_000, "languages": ["zh", "en"], "partials": True},
    ),
    (Vad(True, 7, 0.83), {"type": "vad", "speeching": True, "frame": 7, "probability": 0.83}),
    (
        Result("turn it", False, True, 1, 96.0, 800.0),
        {
            "type": "result",
            "text": "turn it",
            "is_final": False,
            "speeching": True,
            "segment_id": 1,
            "start_ms": 96.0,
            "end_ms": 800.0,
        },
    ),
    (
        Result("turn it off", True, False, 2, 96.0, 1600.0, True),
        {
            "type": "result",
            "text": "turn it off",
            "is_final": True,
            "speeching": False,
            "segment_id": 2,
            "start_ms": 96.0,
            "end_ms": 1600.0,
            "complete": True,
        },
    ),
    (
        Error(ServiceErrorCode.MODEL_NOT_READY, "later"),
        {"type": "error", "code": "MODEL_NOT_READY", "message": "later"},
    ),
    (Pong(), {"type": "pong"}),
    (WasReset(), {"type": "reset"}),
    (Finished(), {"type": "finished"}),
    (
        Configured(),
        {
            "type": "configured",
            "language": "en",
            "hotwords": [],
            "threshold": 0.5,
            "silence_frames": 5,
            "hop_size": 256,
        },
    ),
]


@pytest.mark.parametrize(("command", "fields"), GOLDEN_COMMANDS)
def test_commands_both_ways(command, fields) -> None:
    """Each command is this JSON, and this JSON is that command."""
    assert json.loads(write(command)) == fields
    assert read_command(json.dumps(fields)) == command


@pytest.mark.parametrize(("message", "fields"), GOLDEN_MESSAGES)
def test_messages_both_ways(message, fields) -> None:
    """Each message is this JSON, and this JSON is that message."""
    assert json.loads(write(message)) == fields
    read = read_message(json.dumps(fields))
    assert read == message
    assert type(getattr(read, "code", None)) is type(getattr(message, "code", None))


def test_the_golden_tables_are_whole() -> None:
    """Every kind of message is in them."""
    assert {type(command) for command, _ in GOLDEN_COMMANDS} == set(COMMANDS.values())
    assert {type(message) for message, _ in GOLDEN_MESSAGES} == set(MESSAGES.values())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "must be JSON"),
        ("[1]", "must be a JSON object, not [1]"),
        ("{}", "field 'command' must be one of ping, reset, finish, configure, not None"),
        ('{"command":["ping"]}', "not ['ping']"),
        ('{"command":"stop"}', "not 'stop'"),
        ('{"command":"ping","id":1}', "ping: unknown field 'id'; allowed: none"),
        ('{"command":"configure","threshold":1.5}', "'threshold' must be from 0 to 1, not 1.5"),
        ('{"command":"configure","threshold":"0.5"}', "'threshold' must be a number, not '0.5'"),
        ('{"command":"configure","threshold":NaN}', "NaN is no JSON number"),
        ('{"command":"configure","threshold":true}', "'threshold' must be a number, not True"),
        ('{"command":"configure","silence_frames":0}', "must be from 1 to 100, not 0"),
        ('{"command":"configure","silence_frames":2.5}', "must be a whole number, not 2.5"),
        ('{"command":"configure","hop_size":512}', "must be 256, the only hop size, not 512"),
        ('{"command":"configure","language":" "}', "'language' must be 1 to 64 characters"),
        ('{"command":"configure","language":"\\ud800"}', "half of a surrogate pair"),
        ('{"command":"configure","hotwords":"word"}', "must be a list of texts, not 'word'"),
        ('{"command":"configure","hotwords":[""]}', "at most 100 words of at most 64"),
        ('{"command":"configure","x":1,"y":2}', "unknown field 'x', 'y'; allowed: language, hot"),
        ('{"command":"ping"}' + " " * 300_000, "at most 262144 are allowed"),
        ("[" * 100_000, "must be JSON"),
    ],
)
def test_a_bad_command_is_refused(text: str, complaint: str) -> None:
    """The error names the field and what is allowed."""
    with pytest.raises(InvalidMessage) as refused:
        read_command(text)
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"type":"vad","speeching":1,"frame":1,"probability":1}', "must be true or false, not 1"),
        ('{"type":"vad","speeching":true,"frame":1}', "field 'probability' is missing"),
        ('{"type":"error","code":"OOPS","message":""}', "must be one of INVALID_MESSAGE, ASR_ERR"),
        ('{"command":"ping"}', "field 'type' must be one of ready, vad"),
    ],
)
def test_a_bad_message_is_refused(text: str, complaint: str) -> None:
    """A service that speaks otherwise is no ASR service."""
    with pytest.raises(InvalidMessage) as refused:
        read_message(text)
    assert complaint in str(refused.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["language", "hotwords", "threshold", "silence_frames", "hop_size", "text", "code", "message"]
)
tags = st.sampled_from([*COMMANDS, *MESSAGES]) | json_values


@given(
    st.text()
    | st.dictionaries(names, json_values).map(json.dumps)
    | st.builds(
        lambda tag, fields: json.dumps({"type": tag, "command": tag} | fields),
        tags,
        st.dictionaries(names, json_values),
    )
    | st.builds(
        lambda tag, fields: json.dumps({"command": tag} | fields),
        tags,
        st.dictionaries(names, json_values),
    )
)
def test_whatever_comes_only_its_own_error_rises(text: str) -> None:
    """Any text is a message or InvalidMessage; what is read can be written and read again."""
    for read in (read_command, read_message):
        try:
            message = read(text)
        except InvalidMessage as refused:
            str(refused).encode()
        else:
            assert read(write(message)) == message


@given(
    st.builds(
        Configure,
        st.none() | st.text("abcäö中", min_size=1, max_size=64),
        st.none() | st.lists(st.text("ab中", min_size=1, max_size=64), max_size=100).map(tuple),
        st.none() | st.floats(0, 1),
        st.none() | st.integers(1, 100),
        st.none() | st.just(256),
    )
)
def test_settings_come_through(wanted: Configure) -> None:
    """What is written is what is read, and what is left out stays as it was."""
    assert read_command(write(wanted)) == wanted
    changed = Configured(language="ja").changed(wanted)
    assert changed.language == (wanted.language or "ja")
    assert read_message(write(changed)) == changed
