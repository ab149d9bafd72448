"""A sixth kind of device is one file and one row: a dialect unlike the five, over a conversation.

It is sketched here, in the manner of the small open ESP32 assistants: `hello`, `listen`, `abort`
and `tts` as JSON, Opus both ways behind a small header, and the device's tools in a tunnel of
JSON-RPC, asked for only after the greeting.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, get_args

import attrs
import pytest
import trio
from fakes import FakeChatModel, FakeDevice, FakeSynthesizer, Talking, call, script, speech

from listenai import events
from listenai.audio import Encoding
from listenai.device import Capabilities, DeviceProfile, Echo
from listenai.dialects.base import NEVER, Dialect
from listenai.dialects.json_text import check_size, encode, invalid, parse_object
from listenai.dialects.negotiate import DialectRow, Negotiator
from listenai.engines.base import ReplyText
from listenai.errors import ErrorCode, ProtocolError
from listenai.settings import Configuration
from listenai.wire import DeviceGone, Message

# --- the dialect: what would be its file -----------------------------------------------------

HEADER = struct.Struct(">BBH")  # version, kind, bytes that follow
VERSION, OPUS_KIND = 3, 0
RATE, FRAME_BYTES = 16_000, 1920  # 60 ms: what the device's decoder is made for
IDLE_SECONDS = 120.0  # after which a device that was not spoken to is let sleep

PROFILE = DeviceProfile(chunk_seconds=0.06, configuration=Configuration(output_sample_rate=RATE))
ABLE = Capabilities(flush=True)  # it drops its queue at `tts` `stop`

Fields = dict[str, Any]


@attrs.define
class SixthDialect:
    """One device's translator.

    new_id: makes a session's id.  encode_opus: a packet of 60 ms int16 mono PCM.
    """

    new_id: Callable[[], str]
    encode_opus: Callable[[bytes], bytes]
    profile: DeviceProfile = PROFILE
    _session_id: str | None = None
    _able: Capabilities = ABLE
    _begun: bool = False
    _asked: dict[int, str] = attrs.field(factory=dict)  # tool calls by their number
    _numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(2))
    _pcm: bytearray = attrs.field(factory=bytearray)  # less than a packet
    _sleeps_at: float = NEVER

    def receive(self, message: Message, now: float) -> Sequence[events.Request]:
        """The requests of one message; raises ProtocolError."""
        self._sleeps_at = now + IDLE_SECONDS
        if isinstance(message, bytes):
            return (*self._begin(), self._audio(message))
        fields = parse_object(message)
        kind = fields.get("type")
        if kind not in _UNDERSTOOD:
            raise ProtocolError(
                ErrorCode.UNKNOWN_MESSAGE_TYPE, f"known types: {', '.join(_UNDERSTOOD)}"
            )
        return [*_UNDERSTOOD[kind](self, fields)]

    def send(self, event: events.Notice, now: float) -> Sequence[Message]:
        """The messages that tell the device this, or none."""
        tell = _TOLD.get(type(event))
        return [*tell(self, event)] if tell else ()

    def next_deadline(self) -> float:
        """When the device may sleep."""
        return self._sleeps_at

    def expire(self, now: float) -> Sequence[events.Request]:
        """Good night."""
        self._sleeps_at = NEVER
        goodbye = encode({"type": "goodbye", "session_id": self._session_id})
        return events.Answer((goodbye,)), events.HangUp(1000, "asleep")

    def undelivered(self, messages: Sequence[Message], now: float) -> None:
        """It is a voice: what was not said in time is not said."""

    # --- from the device ---

    def _hello(self, fields: Fields) -> Iterator[events.Request]:
        self._session_id = self.new_id()
        params = {"format": "opus", "sample_rate": RATE, "channels": 1, "frame_duration": 60}
        hello = {"type": "hello", "transport": "websocket", "session_id": self._session_id}
        yield events.Answer((encode({**hello, "audio_params": params}),))
        features = fields.get("features")
        features = features if isinstance(features, dict) else {}
        if features.get("aec"):
            self._able = attrs.evolve(ABLE, echo=Echo.CANCELLED)
        if features.get("mcp"):
            yield events.Answer((self._tunnel({"id": 1, "method": "tools/list"}),))
        else:
            yield from self._begin()

    def _begin(self, tools: Sequence[events.ToolSchema] = ()) -> Sequence[events.Request]:
        """Once: with the device's tools, or without where it speaks before it has told them."""
        if self._begun:
            return ()
        self._begun = True
        return (events.SessionStart(self._session_id, self._able, tuple(tools)),)

    def _listen(self, fields: Fields) -> Iterator[events.Request]:
        yield from self._begin()
        match fields:
            case {"state": "start", "mode": "manual"}:
                yield Configuration(end_of_turn_ms=math.inf)
            case {"state": "start"}:
                yield Configuration(end_of_turn_ms=600)
            case {"state": "stop"}:
                yield events.SpeechFinished()
            case {"state": "detect", "text": str(text)}:
                yield events.TextTyped(text)
            case _:
                raise invalid("field 'state' must be one of start, stop, detect")

    def _abort(self, _fields: Fields) -> Iterator[events.Request]:
        yield events.InterruptPressed()

    def _answered(self, fields: Fields) -> Iterator[events.Request]:
        match fields.get("payload"):
            case {"id": 1, "result": {"tools": list(tools)}}:
                yield from self._begin(
                    [
                        events.ToolSchema(tool["name"], tool["description"], tool["inputSchema"])
                        for tool in tools
                    ]
                )
            case {"id": number, "result": result} if number in self._asked:
                yield events.DeviceToolReturned(self._asked.pop(number), True, result)
            case {"id": number, "error": {"message": str(words)}} if number in self._asked:
                yield events.DeviceToolReturned(self._asked.pop(number), False, words)
            case _:
                raise invalid("field 'payload' must answer a request of ours")

    def _audio(self, message: bytes) -> events.Request:
        check_size(len(message))
        if len(message) < HEADER.size:
            raise invalid(f"{len(message)} bytes; a header of {HEADER.size} comes first")
        version, kind, size = HEADER.unpack_from(message)
        packet = message[HEADER.size :]
        if (version, kind, size) != (VERSION, OPUS_KIND, len(packet)):
            raise invalid(f"the header must be {VERSION}, {OPUS_KIND} and the packet's bytes")
        return events.EncodedAudio(packet, Encoding.OPUS, RATE)

    # --- to the device ---

    def _tunnel(self, payload: Fields) -> str:
        return encode(
            {
                "type": "mcp",
                "session_id": self._session_id,
                "payload": {"jsonrpc": "2.0", **payload},
            }
        )

    def _tool_called(self, event: events.ToolCalled) -> Iterator[Message]:
        if event.target is events.Target.DEVICE:
            self._asked[number := next(self._numbers)] = event.call_id
            params = {"name": event.name, "arguments": event.arguments}
            yield self._tunnel({"id": number, "method": "tools/call", "params": params})

    def _transcript(self, event: events.UserTranscript) -> Iterator[Message]:
        if event.is_final:
            yield encode({"type": "stt", "text": event.text})

    def _tts_started(self, _event: events.StreamStarted) -> Iterator[Message]:
        self._pcm.clear()
        yield encode({"type": "tts", "state": "start"})

    def _sentence(self, event: events.SentenceStarted) -> Iterator[Message]:
        yield encode({"type": "tts", "state": "sentence_start", "text": event.text})

    def _chunk(self, event: events.AudioChunk) -> Iterator[Message]:
        self._pcm += event.pcm
        while len(self._pcm) >= FRAME_BYTES:
            yield self._packet(bytes(self._pcm[:FRAME_BYTES]))
            del self._pcm[:FRAME_BYTES]

    def _packet(self, pcm: bytes) -> bytes:
        packet = self.encode_opus(pcm)
        return HEADER.pack(VERSION, OPUS_KIND, len(packet)) + packet

    def _tts_ended(self, _event: events.StreamEnded) -> Iterator[Message]:
        if self._pcm:
            yield self._packet(bytes(self._pcm).ljust(FRAME_BYTES, b"\0"))
        yield from self._tts_stopped(_event)

    def _tts_stopped(self, _event: events.StreamEnded | events.StreamFlushed) -> Iterator[Message]:
        self._pcm.clear()
        yield encode({"type": "tts", "state": "stop"})

    def _error(self, event: events.ErrorReported) -> Iterator[Message]:
        yield encode({"type": "alert", "status": event.code, "message": event.message})


_UNDERSTOOD: Final[Mapping[Any, Callable[[SixthDialect, Fields], Iterator[events.Request]]]] = {
    "hello": SixthDialect._hello,
    "listen": SixthDialect._listen,
    "abort": SixthDialect._abort,
    "mcp": SixthDialect._answered,
}
_TOLD: Final[Mapping[type, Callable[[SixthDialect, Any], Iterator[Message]]]] = {
    events.ToolCalled: SixthDialect._tool_called,
    events.UserTranscript: SixthDialect._transcript,
    events.StreamStarted: SixthDialect._tts_started,
    events.SentenceStarted: SixthDialect._sentence,
    events.AudioChunk: SixthDialect._chunk,
    events.StreamEnded: SixthDialect._tts_ended,
    events.StreamFlushed: SixthDialect._tts_stopped,
    events.ErrorReported: SixthDialect._error,
}


# --- its row -----------------------------------------------------------------------------------


def opus(pcm: bytes) -> bytes:
    """A packet that says how long it plays."""
    return b"opus %d" % len(pcm)


def dialect() -> SixthDialect:
    return SixthDialect(lambda: "s-6", opus)


ROW = DialectRow("Sixth", ("/sixth", "/ws"), dialect, claims=lambda o: o.get("type") == "hello")
OTHER = DialectRow("ListenAI", ("/", "/ws"), dialect)


def test_a_row_is_all_that_a_server_needs() -> None:
    """It is chosen by its path, and by its greeting where the path is shared."""
    negotiator = Negotiator([OTHER, ROW])
    sixth: Dialect = negotiator.row_for("/sixth", b"anything").make()
    assert isinstance(sixth, SixthDialect)
    assert negotiator.row_for("/ws", HELLO) is ROW
    assert negotiator.row_for("/ws", '{"type":"start_session"}') is OTHER


# --- a golden table, both ways -------------------------------------------------------------------

HELLO = '{"type":"hello","version":3,"transport":"websocket","features":{"mcp":true}}'
CANCELLING_HELLO = '{"type":"hello","version":3,"features":{"aec":true}}'
PLAIN_HELLO = '{"type":"hello","version":3,"transport":"websocket"}'
GREETING = (
    '{"type":"hello","transport":"websocket","session_id":"s-6","audio_params":{"format":"opus",'
    '"sample_rate":16000,"channels":1,"frame_duration":60}}'
)
LIST = '{"type":"mcp","session_id":"s-6","payload":{"jsonrpc":"2.0","id":1,"method":"tools/list"}}'
TOOLS = (
    '{"type":"mcp","payload":{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"set_lamp",'
    '"description":"Switch the lamp","inputSchema":{"type":"object"}}]}}}'
)
LAMP = events.ToolSchema("set_lamp", "Switch the lamp", {"type": "object"})
START = '{"type":"listen","state":"start","mode":"auto"}'
PACKET = HEADER.pack(VERSION, OPUS_KIND, 3) + b"abc"

RECEIVED: dict[str, list[tuple[Message, list[events.Request]]]] = {
    "with tools": [
        (HELLO, [events.Answer((GREETING,)), events.Answer((LIST,))]),
        (TOOLS, [events.SessionStart("s-6", ABLE, (LAMP,))]),
        (START, [Configuration(end_of_turn_ms=600)]),
        (PACKET, [events.EncodedAudio(b"abc", Encoding.OPUS, RATE)]),
        ('{"type":"listen","state":"stop"}', [events.SpeechFinished()]),
        ('{"type":"abort","reason":"wake_word_detected"}', [events.InterruptPressed()]),
    ],
    "without": [
        (PLAIN_HELLO, [events.Answer((GREETING,)), events.SessionStart("s-6", ABLE)]),
        (
            '{"type":"listen","state":"start","mode":"manual"}',
            [Configuration(end_of_turn_ms=math.inf)],
        ),
        ('{"type":"listen","state":"detect","text":"hi"}', [events.TextTyped("hi")]),
    ],
    "without its own voice in its microphone": [
        (
            CANCELLING_HELLO,
            [
                events.Answer((GREETING,)),
                events.SessionStart("s-6", Capabilities(flush=True, echo=Echo.CANCELLED)),
            ],
        ),
    ],
    "spoken to before it told its tools": [
        (HELLO, [events.Answer((GREETING,)), events.Answer((LIST,))]),
        (START, [events.SessionStart("s-6", ABLE), Configuration(end_of_turn_ms=600)]),
        (TOOLS, []),
    ],
}


@pytest.mark.parametrize("name", RECEIVED)
def test_messages_are_understood(name: str) -> None:
    device = dialect()
    for message, requests in RECEIVED[name]:
        assert list(device.receive(message, 0.0)) == requests


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("hello", "not JSON"),
        ('{"type":"ping"}', "known types: hello, listen, abort, mcp"),
        ('{"type":"listen"}', "'state'"),
        ('{"type":"mcp","payload":{"id":7,"result":1}}', "'payload'"),
        (b"abc", "header of 4"),
        (PACKET[:-1], "the packet's bytes"),
    ],
)
def test_what_cannot_be_is_refused(message: Message, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        dialect().receive(message, 0.0)


HALF = bytes(FRAME_BYTES // 2)
SENT: list[tuple[events.Notice, list[Message]]] = [
    (
        events.ToolCalled(1, "c1", "set_lamp", {"on": True}, events.Target.DEVICE),
        [
            '{"type":"mcp","session_id":null,"payload":{"jsonrpc":"2.0","id":2,'
            '"method":"tools/call","params":{"name":"set_lamp","arguments":{"on":true}}}}'
        ],
    ),
    (events.ToolCalled(1, "c2", "get_time", {}, events.Target.SERVER), []),
    (events.UserTranscript("he", False, True, 1, 1), []),
    (events.UserTranscript("hello", True, False, 1, 1), ['{"type":"stt","text":"hello"}']),
    (events.StreamStarted(1, 1, RATE), ['{"type":"tts","state":"start"}']),
    (
        events.SentenceStarted(1, "One.", 0),
        ['{"type":"tts","state":"sentence_start","text":"One."}'],
    ),
    (events.AudioChunk(1, HALF), []),
    (events.AudioChunk(1, HALF + b"\1\2"), [b"\x03\x00\x00\x09opus 1920"]),
    (
        events.StreamEnded(1, 962),
        [b"\x03\x00\x00\x09opus 1920", '{"type":"tts","state":"stop"}'],
    ),
    (events.AudioChunk(1, HALF), []),
    (events.StreamFlushed(1), ['{"type":"tts","state":"stop"}']),
    (
        events.ErrorReported(ErrorCode.LLM_ERROR, "gone"),
        ['{"type":"alert","status":"LLM_ERROR","message":"gone"}'],
    ),
]


def test_notices_are_told() -> None:
    """One after the other, byte for byte; what is not in the table says nothing."""
    device = dialect()
    for notice, wire in SENT:
        assert list(device.send(notice, 0.0)) == wire, notice
    assert set(_TOLD) == {type(notice) for notice, _ in SENT} < set(get_args(events.Notice))


# --- over a conversation -------------------------------------------------------------------------


class SixthDevice(FakeDevice):
    """Its wire carries what a real one would; it answers the tunnel as it is told."""

    def __init__(self, **results: Any) -> None:
        super().__init__()
        self.results = results
        self.called: list[tuple[str, Mapping[str, Any]]] = []

    async def receive(self) -> Message:
        try:
            return await self._from_device.receive()
        except trio.EndOfChannel:
            raise DeviceGone from None

    def _deliver(self, message: Message) -> None:  # type: ignore[override]
        self.got.append((trio.current_time(), message))
        if isinstance(message, str) and '"mcp"' in message:
            self._answer(parse_object(message)["payload"])

    def _answer(self, payload: dict[str, Any]) -> None:
        if payload["method"] == "tools/list":
            self.say(TOOLS)
            return
        name, arguments = payload["params"]["name"], payload["params"]["arguments"]
        self.called.append((name, arguments))
        result = {"jsonrpc": "2.0", "id": payload["id"], "result": self.results[name]}
        self.say(encode({"type": "mcp", "payload": result}))

    @property
    def told(self) -> list[str]:
        """Text messages as they came; runs of packets as one "audio"."""
        names = ["audio" if isinstance(m, bytes) else m for _, m in self.got]
        return [name for name, _ in itertools.groupby(names)]

    def packets(self) -> int:
        return sum(isinstance(message, bytes) for _, message in self.got)


async def converse(device: SixthDevice, *steps: tuple[float, Any], **options: Any) -> Talking:
    """At these times the device says these messages; it leaves at the last."""
    talk = Talking(device=device, dialect=dialect(), starts=False, **options)

    async def say() -> None:
        for at, message in steps:
            await trio.sleep_until(at)
            device.say(message) if message else device.leave()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(say)
        await talk.run()
    return talk


def utter(text: str, segment_id: int = 1) -> Message:
    """The scripted recognizer hears this in a packet."""
    packet = script(*speech(segment_id, text))
    return HEADER.pack(VERSION, OPUS_KIND, len(packet)) + packet


SPOKEN = [GREETING, LIST, '{"type":"stt","text":"hello"}', '{"type":"tts","state":"start"}']


async def test_a_question_is_answered(autojump_clock):
    """Greeting, tools, words, and a sentence of packets; the tail is filled up."""
    device = SixthDevice()
    chat = FakeChatModel("One two three.")
    voice = FakeSynthesizer(1.0)
    await converse(
        device, (0, HELLO), (0.5, START), (1, utter("hello")), (5, None), chat=chat, voice=voice
    )
    assert device.told == [
        *SPOKEN,
        '{"type":"tts","state":"sentence_start","text":"One two three."}',
        "audio",
        '{"type":"tts","state":"stop"}',
    ]
    assert device.packets() == math.ceil(1.0 / 0.06)
    assert {m for _, m in device.got if isinstance(m, bytes)} == {b"\x03\x00\x00\x09opus 1920"}


async def test_its_own_tools_are_used_through_its_tunnel(autojump_clock):
    """The chat model knows them by name; what the device gave is in the answer."""
    device = SixthDevice(set_lamp={"content": [{"type": "text", "text": "true"}]})
    chat = FakeChatModel(
        lambda messages: (
            [call("set_lamp", '{"on": true}')]
            if messages[-1].role == "user"
            else [ReplyText("It is on.")]
        )
    )
    talk = await converse(device, (0, HELLO), (1, utter("light please")), (5, None), chat=chat)
    assert [tool.name for tool in chat.tools[0]] == ["set_lamp"]
    assert device.called == [("set_lamp", {"on": True})]
    assert [kind for kind, _ in talk.history] == ["user", "toolcall", "toolresult", "assistant"]
    assert "true" in chat.asked[1][1][-1].content


async def test_its_abort_stops_the_reply(autojump_clock):
    """`stop`, no packet after it, and only what was heard is remembered."""
    device = SixthDevice()
    abort = '{"type":"abort"}'
    talk = await converse(device, (0, PLAIN_HELLO), (1, utter("hello")), (2, abort), (5, None))
    assert device.told[-2:] == ["audio", '{"type":"tts","state":"stop"}']
    assert device.packets() < 2.5 / 0.06
    [*_, (_, heard)] = talk.history
    assert heard.startswith("One")
    assert "ten" not in heard


async def test_speech_stops_the_reply_and_is_answered(autojump_clock):
    """Over the voice of the first; the packets in between were stopped."""
    device = SixthDevice()
    interrupted = utter("no, wait, tell me something else please", 2)
    chat = FakeChatModel()
    await converse(
        device, (0, CANCELLING_HELLO), (1, utter("hello")), (2, interrupted), (9, None), chat=chat
    )
    stops = [m for m in device.told if m == '{"type":"tts","state":"stop"}']
    assert len(stops) == len(chat.asked) == 2


async def test_what_is_wrong_is_told_and_it_talks_on(autojump_clock):
    device = SixthDevice()
    await converse(
        device, (0, PLAIN_HELLO), (1, '{"type":"dance"}'), (2, utter("hello")), (5, None)
    )
    [alert] = [m for m in device.told if "alert" in m]
    assert "UNKNOWN_MESSAGE_TYPE" in alert
    assert "audio" in device.told


async def test_it_is_let_sleep(autojump_clock):
    """By the dialect's own deadline, which every message moves on; the session stays."""
    device = SixthDevice()
    talk = Talking(device=device, dialect=dialect(), starts=False)
    device.say(PLAIN_HELLO, utter("hello"))
    await talk.run()
    assert trio.current_time() == pytest.approx(IDLE_SECONDS)
    assert device.closed == (1000, "asleep")
    assert device.told[-1] == '{"type":"goodbye","session_id":"s-6"}'
    assert talk.history


def test_less_than_a_packet_is_kept() -> None:
    """Between chunks, whatever their sizes."""
    device = dialect()
    sizes = (2, 1918, 4000, 1, 1919)
    packets = 0
    for size in sizes:
        packets += len(device.send(events.AudioChunk(1, bytes(size)), 0.0))
        assert len(device._pcm) < FRAME_BYTES
    assert packets == sum(sizes) // FRAME_BYTES
