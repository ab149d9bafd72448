"""What a dialect may ask of a conversation beyond what ListenAI's devices ask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs
import trio
from fakes import (
    FULL,
    Envelope,
    EventDialect,
    FakeDevice,
    PlainDecoder,
    Talking,
    UnsharedLease,
    speech,
)

from listenai.audio import Encoding
from listenai.device import Capabilities, DeviceProfile
from listenai.errors import ErrorCode, ProtocolError
from listenai.events import (
    Answer,
    AudioChunk,
    AudioReceived,
    EncodedAudio,
    ErrorReported,
    HangUp,
    HistoryForgotten,
    InterruptPressed,
    PingReceived,
    PongSent,
    SpeechDiscarded,
    SpeechFinished,
    State,
    StatusChanged,
    TextDone,
    TextTyped,
    TurnInterrupted,
    TurnMetrics,
    VoiceNoticed,
)
from listenai.sessions.base import Lease, Session
from listenai.settings import Configuration, EffectiveConfiguration
from listenai.wire import DeviceGone


@attrs.frozen
class Beat:
    """A message of the dialect's own."""

    number: int


class BeatingDialect(EventDialect):
    """Beats every 30 s, and hangs up after the third."""

    def __init__(self) -> None:
        super().__init__()
        self._beats = 0

    def next_deadline(self) -> float:
        return 30.0 * (self._beats + 1)

    def expire(self, now: float) -> Sequence[Any]:
        self._beats += 1
        answer = Answer((Envelope(Beat(self._beats)),))  # type: ignore[arg-type]
        return [answer, HangUp(1008, "too quiet")] if self._beats == 3 else [answer]


class DueAfterText(EventDialect):
    """Wants to be called a second after a text came."""

    due = math.inf

    def receive(self, message: Any, now: float) -> Sequence[Any]:
        self.due = now + 1
        return super().receive(message, now)

    def next_deadline(self) -> float:
        return self.due

    def expire(self, now: float) -> Sequence[Any]:
        self.due = math.inf
        return [InterruptPressed()]


async def run_briefly(talk: Talking, seconds: float = 5.0) -> None:
    with trio.move_on_after(seconds):
        await talk.run()


async def test_a_dialect_has_deadlines_of_its_own(autojump_clock):
    """It is called when it asked to be; what it says is sent, and it may close the connection."""
    talk = Talking(dialect=BeatingDialect())
    await talk.run()
    assert talk.device.times(Beat) == [30.0, 60.0, 90.0]
    assert talk.device.closed == (1008, "too quiet")


async def test_a_deadline_may_change_with_every_message(autojump_clock):
    """And what is due may be any request: here the reply is stopped after a second."""
    talk = Talking(dialect=DueAfterText())
    talk.device.say(TextTyped("tell me a story"))
    await run_briefly(talk)
    [interrupted] = talk.device.times(TurnInterrupted)
    assert 1.0 <= interrupted < 1.5


async def test_answers_keep_their_place(autojump_clock):
    """After what was told before, and a pong is told after it."""
    talk = Talking()
    talk.device.say(Answer((Envelope(Beat(1)), Envelope(Beat(2)))))  # type: ignore[arg-type]
    await run_briefly(talk)
    kinds = talk.device.kinds()
    assert kinds.index("StatusChanged") < kinds.index("Beat")
    assert [beat.number for beat in talk.device.events(Beat)] == [1, 2]


async def test_a_hang_up_keeps_the_session(autojump_clock):
    """The goodbye still goes out."""
    talk = Talking()
    talk.device.say(TextTyped("hello"))

    async def hang_up() -> None:
        await trio.sleep(0.5)
        talk.device.say(HangUp(4000, "enough"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hang_up)
        await talk.run()
    assert talk.device.closed == (4000, "enough")
    assert talk.device.events(StatusChanged)[-1].state is State.CLOSING
    assert talk.history


async def test_encoded_audio_is_decoded(autojump_clock):
    """One decoder for a run of one encoding; what is no audio is told, and nothing else lost."""
    talk = Talking()
    for data in (b"one", b"?", b"two"):
        talk.device.say(EncodedAudio(data, Encoding.OPUS, 48_000))
    await run_briefly(talk)
    assert talk.recognizer.accepted == [b"one", b"two"]
    [error] = talk.device.events(ErrorReported)
    assert (error.code, error.message) == ("INVALID_MESSAGE", "audio: this is no opus at 48000 Hz")


async def test_the_history_can_be_forgotten(autojump_clock):
    """At once, or as soon as the turn that runs was written into it."""
    talk = Talking()
    talk.device.say(TextTyped("hello"))

    async def forget() -> None:
        await trio.sleep(0.5)  # in mid reply
        talk.device.say(HistoryForgotten(), InterruptPressed())
        await trio.sleep(1)
        assert talk.history == []
        assert talk.session.last_turn_id == 1
        talk.device.say(TextTyped("hello again"))
        await trio.sleep(10)
        assert len(talk.history) > 1
        talk.device.say(HistoryForgotten())
        await trio.sleep(0.1)
        assert talk.history == []
        talk.device.leave()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(forget)
        await talk.run()
    assert talk.history == []


async def test_a_voice_is_told_where_it_is_wanted(autojump_clock):
    """Its beginning and its end, by the detector."""
    talk = Talking(dialect=EventDialect(DeviceProfile(tell_voice=True)))
    talk.device.utter(*speech(text="hello"))
    await run_briefly(talk)
    assert [notice.speaking for notice in talk.device.events(VoiceNoticed)] == [True, False]


async def test_a_profile_configures_new_sessions(autojump_clock):
    """Whatever else a session begins with."""
    profile = DeviceProfile(configuration=Configuration(vad_threshold=0.3))
    talk = Talking(dialect=EventDialect(profile))
    await run_briefly(talk)
    assert talk.session.configuration.vad_threshold == 0.3
    assert talk.session.configuration.end_of_turn_ms == 0


async def test_an_unpaced_reply_goes_out_at_once(autojump_clock):
    """As fast as it is made; nothing can stop it after that, and the turn is over with it."""
    talk = Talking(dialect=EventDialect(DeviceProfile(paced=False)))
    talk.device.say(TextTyped("tell me a story"))
    await run_briefly(talk, 60)
    times = talk.device.times(AudioChunk)
    seconds = sum(len(chunk.pcm) for chunk in talk.device.events(AudioChunk)) / 32_000
    assert seconds > 1
    assert times[-1] - times[0] < seconds / 2
    [ended] = talk.device.times(TurnMetrics)
    assert ended - times[0] < seconds / 2
    assert talk.history[-1][0] == "assistant"


class DeafDevice(FakeDevice):
    """Leaves with the first message that it is sent after a text."""

    def has_room(self, message: Envelope) -> bool:
        return not isinstance(message.event, PongSent) and super().has_room(message)

    async def send(self, message: Envelope) -> None:
        if isinstance(message.event, PongSent):
            self.leave(write_side=False)
            await trio.sleep(1)
            raise DeviceGone
        await super().send(message)


async def test_what_cannot_be_sent_is_handed_back(autojump_clock):
    """The message in hand, and what waited behind it, in order."""
    dialect = EventDialect()
    talk = Talking(dialect=dialect, device=DeafDevice())
    talk.device.say(PingReceived(1), PingReceived(2))
    await talk.run()
    assert [event.id for event in dialect.kept if isinstance(event, PongSent)] == [1, 2]


async def test_a_reply_may_be_text_alone(autojump_clock):
    """It is over with its last word, and what was shown is in the history."""
    shows = attrs.evolve(FULL, display_text=True)
    dialect = EventDialect(DeviceProfile(speaks=False))
    talk = Talking(device=FakeDevice(shows), dialect=dialect)
    talk.device.say(TextTyped("tell me a story"))
    await run_briefly(talk)
    assert not talk.device.events(AudioChunk)
    [ended] = talk.device.times(TurnMetrics)
    assert ended < 1
    assert talk.history[-1] == ("assistant", talk.device.events(TextDone)[0].text.strip())


async def test_a_message_is_no_hour_of_silence(autojump_clock):
    """However well it was encoded: such a message is refused, and the next one is heard."""
    talk = Talking(engines={"make_decoder": lambda _encoding, _rate: Swelling()})
    talk.device.say(EncodedAudio(bytes(100_000), Encoding.WEBM_OPUS, 48_000))
    talk.device.say(EncodedAudio(b"well", Encoding.WEBM_OPUS, 48_000))
    await run_briefly(talk)
    [error] = talk.device.events(ErrorReported)
    assert "more than a minute" in error.message
    assert len(b"".join(talk.recognizer.accepted)) == 4 * 1000


class Swelling:
    """Makes a thousand bytes of each."""

    def push(self, data: bytes) -> bytes:
        return data * 1000


async def test_a_mark_ends_a_run_of_encoded_audio(autojump_clock):
    """Half a sample that nobody completed is not put before the next utterance."""
    made: list[int] = []

    def make(_encoding: Encoding, rate: int) -> PlainDecoder:
        made.append(rate)
        return PlainDecoder(Encoding.PCM, rate)

    talk = Talking(engines={"make_decoder": make})
    audio = EncodedAudio(b"odd", Encoding.PCM, 48_000)
    talk.device.say(audio, audio, SpeechFinished(), audio, SpeechDiscarded(), audio)
    await run_briefly(talk)
    assert made == [48_000] * 3


class StalledDevice(FakeDevice):
    """Takes nothing more after a pong was due."""

    def has_room(self, message: Envelope) -> bool:
        return not isinstance(message.event, PongSent) and super().has_room(message)

    async def send(self, message: Envelope) -> None:
        if isinstance(message.event, PongSent):
            await trio.sleep_forever()
        await super().send(message)


async def test_what_a_stalled_device_missed_is_handed_back(autojump_clock):
    """It may only have lost its network; that the connection is over is no news by then."""
    dialect = EventDialect()
    talk = Talking(dialect=dialect, device=StalledDevice())
    talk.device.say(PingReceived(1), PingReceived(2))
    await talk.run()
    assert talk.device.closed == (1008, "the device does not read")
    assert [event.id for event in dialect.kept if isinstance(event, PongSent)] == [1, 2]
    assert not [event for event in dialect.kept if isinstance(event, StatusChanged)]


class ForeignSessions:
    """Has one session, which is somebody else's; gives others."""

    async def claim(self, session_id: str | None, owner: str) -> Lease:
        if session_id == "foreign":
            raise ProtocolError(ErrorCode.SESSION_ERROR, "that one is somebody else's")
        return UnsharedLease(Session("own", 0.0, EffectiveConfiguration()))


async def test_a_refused_session_leaves_the_device_what_it_is(autojump_clock):
    """What comes next is talked about in another session, with the capabilities it told."""
    shows = Capabilities(display_text=True)
    talk = Talking(device=FakeDevice(shows), sessions=ForeignSessions(), session_id="foreign")
    talk.device.say(AudioReceived(b"hello"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_briefly, talk)
        await trio.testing.wait_all_tasks_blocked()
        assert talk.dialogue._capabilities == shows
    [error] = talk.device.events(ErrorReported)
    assert error.code == "SESSION_ERROR"
    assert talk.session.id == "own"
    assert talk.recognizer.accepted == [b"hello"]
