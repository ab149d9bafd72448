"""Spec 002: its own examples and numbers, read from its text."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

from listenai import events
from listenai.audio import SAMPLE_RATE
from listenai.dialects import hotpin_messages as told
from listenai.dialects.hotpin import MAX_REPLY_SECONDS, PROFILE, HotpinDialect
from listenai.dialects.hotpin_reply import CHUNK_BYTES, MAX_WAV_BYTES
from listenai.wav import HEADER_BYTES, wav_header
from listenai.wire import Message

SPEC = (Path(__file__).parents[1] / "spec" / "spec_002.txt").read_text("utf-8")


def section(number: str) -> str:
    """The text under a heading, up to the next one of its rank or a higher one."""
    found = re.search(rf"^(#+) {re.escape(number)} .*?(?=^#{{1,3}} |\Z)", SPEC, re.M | re.S)
    if found and found[1] == "####":
        found = re.search(rf"^#### {re.escape(number)} .*?(?=^#{{1,4}} |\Z)", SPEC, re.M | re.S)
    assert found, number
    return found[0]


def examples(number: str) -> list[str]:
    """The JSON that stands there."""
    blocks = re.findall(r"```json\n(?://[^\n]*\n)?(.*?)```", section(number), re.S)
    assert blocks, number
    return blocks


def connected() -> HotpinDialect:
    dialect = HotpinDialect()
    dialect.receive(examples("3.3.1")[0], 0.0)
    return dialect


def recorded() -> HotpinDialect:
    dialect = connected()
    dialect.receive(bytes(1024), 0.0)
    return dialect


def test_what_a_device_says_is_understood() -> None:
    """3.1, 3.3 and 11.2: each of its examples."""
    handshakes = [examples("3.1")[0], *examples("3.3.1"), *examples("11.2")]
    ids = [json.loads(text)["session_id"] for text in handshakes]
    assert ids == ["unique-device-id", "esp32-hotpin-001", "esp32-001"]
    for text, session_id in zip(handshakes, ids, strict=True):
        [start] = HotpinDialect().receive(text, 0.0)
        assert isinstance(start, events.SessionStart)
        assert start.session_id == session_id
    [eos], [reset] = examples("3.3.3"), examples("3.3.4")
    assert events.SpeechFinished() in recorded().receive(eos, 0.0)
    assert events.HistoryForgotten() in recorded().receive(reset, 0.0)
    [sent_by_client] = re.findall(r'sendTXT\("(.*)"\)', SPEC)
    assert json.loads(sent_by_client.replace('\\"', '"')) == json.loads(eos)


def test_a_device_is_told_what_it_expects() -> None:
    """3.1 and 3.4: each of its examples, field by field."""
    expected = [
        json.loads(text) for number in ("3.4.1", "3.4.2", "3.4.4") for text in examples(number)
    ]
    dialect, messages = connected(), list[Message]()
    ready = events.StatusChanged(events.State.READY, "esp32-hotpin-001")
    messages += dialect.send(ready, 0.0)
    dialect.receive(bytes(1024), 0.0)
    [answer, _] = dialect.receive('{"signal":"EOS"}', 0.0)
    assert isinstance(answer, events.Answer)
    messages += answer.messages
    dialect.send(answer, 0.0)
    response = expected[3]["response"]
    for notice in (
        events.UserTranscript(expected[2]["transcript"], True, False, 1, 1),
        events.TextDone(1, response),
        events.StreamStarted(1, 1, SAMPLE_RATE),
        events.AudioChunk(1, bytes(2000)),
        events.StreamEnded(1, 1000),
    ):
        messages += dialect.send(notice, 0.0)
    texts = [json.loads(message) for message in messages if isinstance(message, str)]
    assert texts == expected
    [handshake, acknowledgement] = (json.loads(text) for text in examples("3.1"))
    dialect = HotpinDialect()
    dialect.receive(json.dumps(handshake), 0.0)
    [message] = dialect.send(events.StatusChanged(events.State.READY, "unique-device-id"), 0.0)
    assert json.loads(message) == acknowledgement


def test_the_errors_are_the_specifications() -> None:
    """7.1: the texts in its table; 3.4.5: the form, and the kinds that there are."""
    [example] = examples("3.4.5")
    assert json.loads(str(told.error("Could not understand audio. Please try again."))) == (
        json.loads(example)
    )
    quoted = re.findall(r'"message":"([^"]+)"|`"([^"]+)"`', section("7.1"))
    texts = [one or other for one, other in quoted]
    assert texts == [told.EMPTY_AUDIO, told.NOT_UNDERSTOOD, told.UNAVAILABLE]
    assert f"- {told.NO_SPEECH}" in section("3.4.5")
    assert f"- {told.EMPTY_AUDIO}" in section("3.4.5")


def test_the_header_is_the_structure_of_the_client() -> None:
    """4.2: WAVHeader, as a compiler would lay it out."""
    declared = re.search(r"struct WAVHeader \{(.*?)\};", section("4.2"), re.S)
    assert declared
    members = re.findall(r"(char|uint16_t|uint32_t) (\w+)", declared[1])
    layout = struct.Struct(
        "<"
        + "".join(
            {"c": "4s", "1": "H", "3": "I"}[kind[0] if kind == "char" else kind[4]]
            for kind, _ in members
        )
    )
    assert layout.size == HEADER_BYTES == 44
    header = dict(
        zip((name for _, name in members), layout.unpack(wav_header(22_050, 1000)), strict=True)
    )
    assert header == {
        "riff": b"RIFF", "file_size": 1036, "wave": b"WAVE", "fmt": b"fmt ", "fmt_size": 16,
        "audio_format": 1, "channels": 1, "sample_rate": 22_050, "byte_rate": 44_100,
        "block_align": 2, "bits": 16, "data": b"data", "data_size": 1000,
    }  # fmt: skip


def number(pattern: str, where: str) -> float:
    found = re.search(pattern, section(where))
    assert found, pattern
    return float(found[1])


def test_the_numbers_are_the_specifications() -> None:
    """Of the language model, of history, of chunks; and of the device's buffers and patience."""
    assert number(r"TEMPERATURE = ([\d.]+)", "2.3.1") == PROFILE.temperature
    assert number(r"MAX_TOKENS = (\d+)", "2.3.1") == PROFILE.max_tokens
    assert number(r"Max turns: 10 \(= (\d+) messages", "2.3.2") == PROFILE.history_messages
    assert number(r"Chunk size: (\d+) bytes", "3.4.3") == CHUNK_BYTES
    assert number(r"MAX_WAV_SIZE (\d+)", "6.3.4") > MAX_WAV_BYTES
    assert number(r"StaticJsonDocument<(\d+)>", "6.3.4") > told.MAX_JSON_BYTES
    assert number(r"timeout_start > (\d+)", "7.2") / 1000 > MAX_REPLY_SECONDS
    assert number(r"\*\*Sample Rate\*\* \| (\d+) Hz", "4.1") == SAMPLE_RATE
