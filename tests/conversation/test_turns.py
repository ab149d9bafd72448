"""A whole turn, and turns one after the other."""

from __future__ import annotations

import pytest
import trio
from fakes import ANSWER, FULL, RATE, FakeChatModel, FakeDevice, FakeSynthesizer, talking

from listenai.conversation.conversation import Deadlines
from listenai.device import Capabilities
from listenai.events import (
    AudioChunk,
    AudioReceived,
    Certainty,
    ErrorReported,
    InterruptPressed,
    PingReceived,
    PongSent,
    SessionEnd,
    SessionStart,
    SpeechFinished,
    State,
    StatisticsAsked,
    StatisticsSent,
    StatusChanged,
    StreamEnded,
    StreamFlushed,
    TextDelta,
    TextDone,
    TextTyped,
    TurnInterrupted,
    TurnMetrics,
    UserTranscript,
)
from listenai.settings import Configuration, EffectiveConfiguration
from listenai.speech import (
    FinalTranscript,
    PartialTranscript,
    SpeechEnded,
    SpeechStarted,
    SpeechSuspected,
)

pytestmark = pytest.mark.usefixtures("schedule", "nothing_left")


def states(device: FakeDevice) -> list[str]:
    return [event.state.value for event in device.events(StatusChanged)]


async def test_a_full_turn_in_order(autojump_clock):
    """Transcript, thinking, text and audio interleaved, end, metrics, listening."""
    async with talking() as talk:
        talk.ask("hello")
        await trio.sleep(5)
        assert talk.device.kinds(TextDelta, TextDone, StatusChanged) == [
            "UserTranscript",
            "StreamStarted",
            "SentenceStarted",
            "AudioChunk",
            "SentenceStarted",
            "AudioChunk",
            "StreamEnded",
            "TurnMetrics",
        ]
        assert states(talk.device) == [
            "ready", "hearing", "thinking", "speaking", "listening",
        ]  # fmt: skip
        kinds = talk.device.kinds(StatusChanged)
        assert kinds.index("UserTranscript") < kinds.index("TextDelta") < kinds.index("TextDone")
        [done] = talk.device.events(TextDone)
        assert done.text.split() == ANSWER.split()
        assert "".join(e.text for e in talk.device.events(TextDelta)) == done.text
        assert len(talk.device.events(AudioChunk)) == 100
        assert talk.device.events(StreamEnded)[0].samples == 2 * RATE
        assert talk.history == [("user", "hello"), ("assistant", ANSWER)]
        assert talk.recognizer.commits == 1


async def test_audio_is_never_further_ahead_than_the_lead(autojump_clock):
    """500 ms where the device can stop, and the whole reply is played without a gap."""
    async with talking() as talk:
        talk.ask()
        await trio.sleep(5)
        speaker = talk.device.loudspeaker
        speaker.advance()
        assert speaker.played == pytest.approx(2 * RATE, abs=1)
        assert 0.4 * RATE < speaker.most_queued <= 0.5 * RATE + 320 + 1
        audio = talk.device.times(AudioChunk)
        assert audio[-1] - audio[0] == pytest.approx(2.0 - 0.5, abs=0.03)


async def test_a_device_that_cannot_stop_gets_a_short_lead(autojump_clock):
    """160 ms: for such a device the lead is the tail after an interruption."""
    async with talking(device=FakeDevice(Capabilities())) as talk:
        talk.ask()
        await trio.sleep(5)
        assert talk.device.loudspeaker.most_queued <= 0.16 * RATE + 320 + 1
        assert talk.recognizers.suspicions == [(8, 10)]  # its echo is unknown


async def test_a_turn_lasts_until_it_was_played(autojump_clock):
    """The metrics come when the last sample was heard, not when it was sent."""
    async with talking() as talk:
        talk.ask()
        await trio.sleep(5)
        [ended], [metrics] = talk.device.times(StreamEnded), talk.device.times(TurnMetrics)
        assert metrics - ended == pytest.approx(0.5, abs=0.03)


async def test_metrics_count_from_the_last_speech_sample(autojump_clock):
    """Each mark in ms, in the order in which things happen."""
    async with talking(chat=FakeChatModel(delay=0.1)) as talk:
        spoken_at = trio.current_time()
        talk.device.utter(SpeechStarted(1), SpeechSuspected(1))
        talk.device.utter(SpeechEnded(1, spoken_at, transcript_follows=True))
        await trio.sleep(0.2)
        talk.device.utter(FinalTranscript(1, "hello"))
        await trio.sleep(6)
        [m] = talk.device.events(TurnMetrics)
        assert m.end_of_speech_ms == pytest.approx(0, abs=1)
        assert m.transcript_ms == m.turn_started_ms == pytest.approx(200, abs=1)
        assert m.first_token_ms == pytest.approx(300, abs=2)
        assert m.first_sentence_ms == pytest.approx(700, abs=3)
        assert m.first_sentence_ms < m.first_audio_ms < m.text_done_ms < m.audio_done_ms
        assert m.audio_done_ms < m.ended_ms


async def test_the_next_request_holds_what_was_said(autojump_clock):
    """History in order, after the system prompt."""
    configuration = EffectiveConfiguration(end_of_turn_ms=0, system_prompt="Be brief.")
    async with talking(configuration=configuration) as talk:
        talk.ask("one")
        await trio.sleep(5)
        talk.ask("two", segment_id=2)
        await trio.sleep(5)
        _, messages = talk.chat.asked[1]
        assert [(m.role, m.content) for m in messages] == [
            ("system", "Be brief."),
            ("user", "one"),
            ("assistant", ANSWER),
            ("user", "two"),
        ]


async def test_partial_transcripts_name_the_turn_they_will_open(autojump_clock):
    """And are left out when the device does not want them."""
    async with talking() as talk:
        talk.device.utter(SpeechStarted(1), PartialTranscript(1, "set"))
        await trio.sleep(0.1)
        [partial] = talk.device.events(UserTranscript)
        assert partial == UserTranscript("set", False, True, 1, 1)
        talk.device.say(Configuration(partial_results=False))
        await trio.sleep(0.1)
        talk.device.utter(PartialTranscript(1, "set the"))
        await trio.sleep(0.1)
        assert len(talk.device.events(UserTranscript)) == 1


async def test_a_pause_in_speech_is_one_turn(autojump_clock):
    """The text of the joined utterance comes when the end-of-turn delay has passed."""
    async with talking(configuration=EffectiveConfiguration()) as talk:
        now = trio.current_time
        talk.device.utter(SpeechStarted(1), SpeechSuspected(1))
        await trio.sleep(1)
        talk.device.utter(SpeechEnded(1, now(), True), FinalTranscript(1, "set the volume to"))
        await trio.sleep(0.6)  # a trailing "to": the server is patient
        talk.device.utter(SpeechStarted(2), SpeechSuspected(2))
        await trio.sleep(0.4)
        said_at = now()
        talk.device.utter(
            SpeechEnded(2, said_at, True), FinalTranscript(2, "set the volume to ten", True)
        )
        await trio.sleep(5)
        assert talk.chat.questions == ["set the volume to ten"]
        final = [e for e in talk.device.events(UserTranscript) if e.is_final]
        assert [e.text for e in final] == ["set the volume to ten"]
        assert talk.chat.asked[0][0] == pytest.approx(said_at + 0.35, abs=0.01)
        assert talk.recognizer.commits == 1


async def test_typed_text_is_a_turn_without_a_transcript(autojump_clock):
    """And typing over a reply interrupts it."""
    async with talking() as talk:
        talk.device.say(TextTyped("one"))
        await trio.sleep(0.7)
        talk.device.say(TextTyped("two"))
        await trio.sleep(5)
        assert talk.chat.questions == ["one", "two"]
        assert not talk.device.events(UserTranscript)
        assert len(talk.device.events(StreamFlushed)) == 1
        assert [m.transcript_ms for m in talk.device.events(TurnMetrics)] == [None, None]


async def test_push_to_talk_ends_the_utterance_at_once(autojump_clock):
    """No end-of-turn delay when the key was let go, and audio before it is heard before it."""
    async with talking(configuration=EffectiveConfiguration(end_of_turn_ms=2000)) as talk:
        talk.device.utter(SpeechStarted(1), SpeechSuspected(1))
        await trio.sleep(0.5)
        talk.device.utter(SpeechEnded(1, trio.current_time(), True))
        talk.device.say(SpeechFinished())
        await trio.sleep(0.1)
        talk.device.utter(FinalTranscript(1, "what time is it"))
        await trio.sleep(0.05)
        assert talk.chat.questions == ["what time is it"]
        assert talk.recognizer.ends == 1


async def test_configure_is_whole_or_nothing(autojump_clock):
    """An unknown voice changes nothing and is told with what there is."""
    async with talking() as talk:
        talk.device.say(Configuration(language="zh", voice_id="nobody"))
        await trio.sleep(0.1)
        [error] = talk.device.events(ErrorReported)
        assert error.code == "INVALID_MESSAGE"
        assert "voice_id" in error.message
        assert "default" in error.message
        assert talk.session.configuration.language == "en"
        talk.device.say(Configuration(language="zh", vad_threshold=0.3))
        await trio.sleep(0.1)
        assert talk.device.events(StatusChanged)[-1].configuration.language == "zh"
        assert talk.recognizer.settings[-1] == {
            "language": "zh",
            "threshold": 0.3,
            "silence_frames": 5,
        }


async def test_a_second_session_start_is_an_error(autojump_clock):
    """SESSION_ERROR; the conversation goes on."""
    async with talking() as talk:
        talk.device.say(SessionStart("other"), PingReceived("x"))
        await trio.sleep(0.1)
        assert [e.code for e in talk.device.events(ErrorReported)] == ["SESSION_ERROR"]
        assert talk.device.events(PongSent) == [PongSent("x")]


async def test_ending_the_session_says_goodbye(autojump_clock):
    """`status closing` with statistics is the last message; close code 1000."""
    async with talking(stops=True) as talk:
        talk.ask()
        await trio.sleep(0.7)
        talk.device.say(StatisticsAsked(), SessionEnd())
    assert len(talk.device.events(StatisticsSent)) == 1
    last = talk.device.got[-1][1]
    assert last.state is State.CLOSING
    assert last.statistics.interaction_count == 1
    assert talk.device.closed == (1000, "session ended")


async def test_drain_finishes_the_reply_and_begins_no_other(autojump_clock):
    """What is being said is said to its end; then goodbye with 1001."""
    async with talking(stops=True) as talk:
        talk.ask()
        await trio.sleep(0.5)
        talk.draining.set()
        await trio.sleep(0.1)
        talk.device.say(TextTyped("more"))
    assert talk.chat.questions == ["hello"]
    assert talk.history[-1] == ("assistant", ANSWER)
    assert talk.device.got[-1][1].state is State.CLOSING
    assert talk.device.closed == (1001, "the server is going away")


async def test_a_drain_without_a_reply_ends_at_once(autojump_clock):
    """Nothing to finish: no waiting."""
    async with talking(stops=True) as talk:
        began = trio.current_time()
        talk.draining.set()
    assert trio.current_time() - began < 0.01


async def test_one_byte_at_a_time(autojump_clock):
    """A device may cut its audio as it likes; nothing is lost or reordered."""
    async with talking() as talk:
        audio = bytes(range(200))
        for value in audio:
            talk.device.say(AudioReceived(bytes([value])))
        await trio.sleep(0.1)
        assert b"".join(talk.recognizer.accepted) == audio


async def test_a_large_message_is_cut_into_pieces(autojump_clock):
    """So that its detection never holds the loop for long."""
    async with talking() as talk:
        talk.device.say(AudioReceived(bytes(1 << 20)))
        await trio.sleep(0.1)
        assert sum(map(len, talk.recognizer.accepted)) == 1 << 20
        assert max(map(len, talk.recognizer.accepted)) == 8192


async def test_a_turn_has_a_longest_time(autojump_clock):
    """TIMEOUT, and the next turn works."""
    async with talking(
        chat=FakeChatModel(delay=30), deadlines=Deadlines(turn=20, ping_interval=1e6)
    ) as talk:
        talk.ask()
        await trio.sleep(25)
        [error] = talk.device.events(ErrorReported)
        assert (error.code, error.turn_id) == ("TIMEOUT", 1)
        talk.chat.delay = 0.01
        talk.ask("again", segment_id=2)
        await trio.sleep(5)
        assert talk.history[-1] == ("assistant", ANSWER)


async def test_at_most_four_turns_wait(autojump_clock):
    """The fifth is refused with RATE_LIMITED; no text is lost silently."""
    configuration = EffectiveConfiguration(end_of_turn_ms=0, interruptible=False)
    async with talking(configuration=configuration) as talk:
        for number in range(6):
            talk.device.say(TextTyped(str(number)))
        await trio.sleep(30)
        assert talk.chat.questions == ["0", "1", "2", "3"]
        assert [e.code for e in talk.device.events(ErrorReported)] == ["RATE_LIMITED"] * 2


async def test_estimated_words_without_timings(autojump_clock):
    """A synthesizer without word timings: the heard text is labelled as estimated."""
    async with talking(voice=FakeSynthesizer(timed=False), device=FakeDevice(FULL)) as talk:
        talk.ask()
        await trio.sleep(0.75)
        talk.device.say(InterruptPressed())
        await trio.sleep(1)
        [interrupted] = talk.device.events(TurnInterrupted)
        assert interrupted.certainty is Certainty.ESTIMATED
        assert ANSWER.startswith(interrupted.heard_text)


async def test_what_waits_keeps_its_order(autojump_clock):
    """Behind an uninterruptible reply: spoken first, then typed, is answered in that order."""
    configuration = EffectiveConfiguration(end_of_turn_ms=0, interruptible=False)
    async with talking(configuration=configuration) as talk:
        talk.ask("one")
        await trio.sleep(0.2)
        talk.ask("two", 2)
        await trio.sleep(0.1)
        talk.device.say(TextTyped("three"))
        await trio.sleep(10)
        assert talk.chat.questions == ["one", "two", "three"]


async def test_typed_text_is_refused_in_a_drain(autojump_clock):
    """Whether it waits already or comes now: nothing is dropped silently."""
    configuration = EffectiveConfiguration(end_of_turn_ms=0, interruptible=False)
    async with talking(configuration=configuration, stops=True) as talk:
        talk.ask("one")
        await trio.sleep(0.2)
        talk.device.say(TextTyped("waits"))
        await trio.sleep(0.1)
        talk.draining.set()
        await trio.sleep(0.1)
        talk.device.say(TextTyped("late"))
    assert talk.chat.questions == ["one"]
    assert [e.code for e in talk.device.events(ErrorReported)] == ["SESSION_ERROR"] * 2
