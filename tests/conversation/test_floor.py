"""Who may speak: the transition table, holds and how they end, the end of a turn."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from listenai.conversation.actions import (
    Action,
    BeginTurn,
    CommitUtterance,
    HoldTurn,
    InterruptTurn,
    ReleaseTurn,
    Show,
    Tell,
    UserSaid,
    UserTyped,
)
from listenai.conversation.endpointing import CAP_SECONDS
from listenai.conversation.floor import HOLD_SECONDS, NEVER, Floor, Reply, User
from listenai.errors import ErrorCode
from listenai.events import (
    ErrorReported,
    InterruptPressed,
    NothingUnderstood,
    SpeechDiscarded,
    SpeechFinished,
    State,
    TextTyped,
    UserTranscript,
)
from listenai.speech import (
    FinalTranscript,
    PartialTranscript,
    SpeechEnded,
    SpeechStarted,
    SpeechSuspected,
    TranscriptionFailed,
)


@attrs.define
class Talk:
    """A floor, its time, and everything it decided; what is due happens while time goes by."""

    floor: Floor = attrs.field(factory=Floor)
    now: float = 100.0
    decided: list[Action] = attrs.field(factory=list)

    def hear(self, *events) -> list[Action]:
        new = [action for event in events for action in self.floor.handle(event, self.now)]
        self.decided += new
        return new

    def wait(self, seconds: float) -> list[Action]:
        new: list[Action] = []
        end = self.now + seconds
        while (deadline := self.floor.next_deadline()) <= end:
            self.now = max(self.now, deadline)
            new += self.floor.expire(self.now)
            assert self.floor.next_deadline() > self.now, "it would spin"
        self.now = end
        self.decided += new
        return new

    def leave(self, turn_id: int) -> list[Action]:
        new = self.floor.turn_left(turn_id, self.now)
        self.decided += new
        return new

    def end_segment(self, segment_id: int, *, follows: bool = True) -> list[Action]:
        return self.hear(SpeechEnded(segment_id, self.now, transcript_follows=follows))

    def utter(self, text: str, segment_id: int = 1, complete: bool | None = True) -> list[Action]:
        """A whole utterance, understood at once."""
        return [
            *self.hear(SpeechStarted(segment_id), SpeechSuspected(segment_id)),
            *self.end_segment(segment_id),
            *self.hear(FinalTranscript(segment_id, text, complete)),
        ]

    @property
    def causes(self) -> list[str]:
        return [action.cause.text for action in self.decided if isinstance(action, BeginTurn)]


def replying(**options) -> Talk:
    """Turn 1 is running."""
    talk = Talk(Floor(**options))
    talk.hear(TextTyped("typed"))
    return talk


def held(**options) -> Talk:
    """Turn 1 is held: segment 1 goes on."""
    talk = replying(**options)
    talk.hear(SpeechStarted(1), SpeechSuspected(1))
    return talk


def leaving(**options) -> Talk:
    """Turn 1 was interrupted by the button."""
    talk = replying(**options)
    talk.hear(InterruptPressed())
    return talk


def kinds(actions: list[Action]) -> list[str]:
    """Names of the actions, without what only informs."""
    return [type(action).__name__ for action in actions if not isinstance(action, (Tell, Show))]


def transcripts(actions: list[Action]) -> list[UserTranscript]:
    return [
        action.notice
        for action in actions
        if isinstance(action, Tell) and isinstance(action.notice, UserTranscript)
    ]


def errors(actions: list[Action]) -> list[ErrorReported]:
    return [
        action.notice
        for action in actions
        if isinstance(action, Tell) and isinstance(action.notice, ErrorReported)
    ]


# --- the transition table ----------------------------------------------------------------


def suspect(talk: Talk) -> list[Action]:
    return talk.hear(SpeechStarted(9), SpeechSuspected(9))


def begin(talk: Talk) -> list[Action]:
    return talk.hear(TextTyped("more"))


def confirm(talk: Talk) -> list[Action]:
    return talk.hear(InterruptPressed())


def false_alarm(talk: Talk) -> list[Action]:
    return talk.floor.set_interruptible(False)


def leave(talk: Talk) -> list[Action]:
    return talk.leave(1)


@pytest.mark.parametrize(
    ("start", "change", "becomes", "actions"),
    [
        (Talk, begin, Reply.RUNNING, ["BeginTurn"]),
        (Talk, suspect, Reply.NONE, []),
        (Talk, false_alarm, Reply.NONE, []),
        (Talk, confirm, Reply.NONE, []),
        (replying, begin, Reply.RUNNING, ["InterruptTurn", "BeginTurn"]),
        (replying, suspect, Reply.HELD, ["HoldTurn"]),
        (replying, false_alarm, Reply.RUNNING, []),
        (replying, confirm, Reply.LEAVING, ["InterruptTurn"]),
        (replying, leave, Reply.NONE, []),
        (held, begin, Reply.HELD, ["InterruptTurn", "BeginTurn", "HoldTurn"]),
        (held, suspect, Reply.HELD, []),
        (held, false_alarm, Reply.RUNNING, ["ReleaseTurn"]),
        (held, confirm, Reply.LEAVING, ["InterruptTurn"]),
        (held, leave, Reply.NONE, []),
        (leaving, begin, Reply.RUNNING, ["BeginTurn"]),
        (leaving, suspect, Reply.LEAVING, []),
        (leaving, false_alarm, Reply.LEAVING, []),
        (leaving, confirm, Reply.LEAVING, []),
        (leaving, leave, Reply.NONE, []),
    ],
)
def test_every_row_of_the_table(
    start: Callable[[], Talk],
    change: Callable[[Talk], list[Action]],
    becomes: Reply,
    actions: list[str],
):
    """Each state of a reply with each change; what is not in the table does nothing."""
    talk = start()
    assert kinds(change(talk)) == actions
    assert talk.floor.reply is becomes


# --- a hold ends in a release ------------------------------------------------------------


def test_too_short_speech_releases_the_reply():
    """A click or a cough: the recognizer says that no transcript follows."""
    talk = held()
    assert kinds(talk.end_segment(1, follows=False)) == ["ReleaseTurn", "CommitUtterance"]
    assert talk.floor.user is User.SILENT


@pytest.mark.parametrize("text", ["", "uh-huh", "Okay.", "..."])
def test_a_final_without_a_word_that_takes_the_floor_releases_the_reply(text: str):
    """Nothing at all, or a backchannel: dropped, and the reply goes on."""
    talk = held()
    talk.end_segment(1)
    assert kinds(talk.hear(FinalTranscript(1, text))) == ["ReleaseTurn", "CommitUtterance"]
    assert kinds(talk.wait(60)) == []
    assert talk.causes == ["typed"]


def test_a_failed_transcription_is_told_and_releases_the_reply():
    """The device learns why nothing came of its user's words."""
    talk = held()
    talk.end_segment(1)
    failed = talk.hear(TranscriptionFailed(1, ErrorCode.ASR_ERROR, "no model"))
    assert [(error.code, error.message) for error in errors(failed)] == [("ASR_ERROR", "no model")]
    assert kinds(failed) == ["ReleaseTurn", "CommitUtterance"]


def test_our_own_voice_is_no_word():
    """What the echo policy recognizes neither interrupts nor becomes a turn."""
    talk = held(is_echo=lambda text: text == "one two three")
    assert kinds(talk.hear(PartialTranscript(1, "one two three"))) == []
    talk.end_segment(1)
    final = FinalTranscript(1, "one two three")
    assert kinds(talk.hear(final)) == ["ReleaseTurn", "CommitUtterance"]


def test_the_echo_of_a_reply_that_is_over_opens_no_turn():
    """The tail of our voice comes back after the reply has left."""
    talk = Talk(Floor(is_echo=lambda text: text == "goodbye"))
    assert kinds(talk.utter("goodbye")) == ["CommitUtterance"]
    assert kinds(talk.wait(10)) == []


def test_silence_after_the_hold_releases_the_reply():
    """A click behind a held word: at 1.5 s nobody speaks and no text is on its way."""
    talk = held()
    talk.end_segment(1)
    talk.hear(SpeechStarted(2))
    talk.hear(FinalTranscript(1, ""))  # the user seems to go on: nothing is decided yet
    assert talk.floor.reply is Reply.HELD
    assert kinds(talk.wait(HOLD_SECONDS)) == ["ReleaseTurn"]


def test_a_pending_transcript_is_waited_for():
    """However slow the recognizer: neither released nor interrupted before its text is there."""
    talk = held()
    talk.wait(0.5)
    talk.end_segment(1)
    assert kinds(talk.wait(20)) == []
    assert talk.floor.next_deadline() == NEVER
    talk.hear(FinalTranscript(1, "stop that", True))
    assert talk.floor.reply is not Reply.HELD


def test_a_click_behind_words_on_their_way_does_not_lose_them():
    """Too short speech says nothing about the segment before it."""
    talk = held()
    talk.end_segment(1)
    talk.hear(SpeechStarted(2))
    assert kinds(talk.end_segment(2, follows=False)) == []
    assert kinds(talk.hear(FinalTranscript(1, "stop that", True))) == ["InterruptTurn"]
    talk.wait(1)
    assert talk.causes == ["typed", "stop that"]


def test_an_overdue_hold_is_decided_when_the_text_decides_nothing():
    """After 1.5 s an empty text comes while the user speaks again: that speech decides."""
    talk = held()
    talk.end_segment(1)
    talk.wait(HOLD_SECONDS + 0.1)
    talk.hear(SpeechStarted(2))
    talk.hear(FinalTranscript(1, ""))
    assert kinds(talk.wait(0)) == ["ReleaseTurn"]  # a mere click so far
    assert kinds(talk.hear(SpeechSuspected(2))) == ["HoldTurn"]
    assert kinds(talk.wait(HOLD_SECONDS)) == ["InterruptTurn"]


# --- a hold ends in an interruption ------------------------------------------------------


def test_a_partial_word_interrupts():
    """Not at the suspicion, not at a backchannel: at the first word."""
    talk = held()
    assert kinds(talk.hear(PartialTranscript(1, "mm"))) == []
    assert kinds(talk.hear(PartialTranscript(1, "mm stop"))) == ["InterruptTurn"]
    assert kinds(talk.hear(PartialTranscript(1, "mm stop it"))) == []


def test_a_final_word_interrupts():
    """Without partials, the text of the segment confirms."""
    talk = held()
    talk.end_segment(1)
    assert kinds(talk.hear(FinalTranscript(1, "stop", None))) == ["InterruptTurn"]


def test_speech_still_going_on_interrupts():
    """At 1.5 s, to the sample; without a word being understood."""
    talk = held()
    assert kinds(talk.wait(HOLD_SECONDS - 0.001)) == []
    assert kinds(talk.wait(0.001)) == ["InterruptTurn"]
    assert kinds(talk.wait(60)) == []


def test_speech_resumed_counts_as_going_on():
    """A second segment, suspected again, while the first one's text is still pending."""
    talk = held()
    talk.end_segment(1)
    talk.hear(SpeechStarted(2), SpeechSuspected(2))
    assert kinds(talk.wait(HOLD_SECONDS)) == ["InterruptTurn"]


def test_the_button_interrupts_once():
    """Pressed twice, it is one interruption; with no reply it is none."""
    talk = held()
    assert kinds(talk.hear(InterruptPressed(), InterruptPressed())) == ["InterruptTurn"]
    talk.leave(1)
    assert kinds(talk.hear(InterruptPressed())) == []


def test_a_hold_ends_with_its_turn():
    """A held reply that fails leaves no deadline behind."""
    talk = held()
    assert talk.leave(1) == [Show(State.HEARING)]  # the user still speaks
    assert talk.floor.next_deadline() == NEVER
    talk.end_segment(1)
    assert talk.hear(FinalTranscript(1, ""))[-1] == Show(State.LISTENING)


# --- backchannels and the next turn ------------------------------------------------------


def test_a_backchannel_is_a_turn_when_nobody_is_replying():
    """ "Okay" may answer a question."""
    talk = Talk()
    talk.utter("okay")
    talk.wait(1)
    assert talk.causes == ["okay"]


def test_a_turn_carries_its_times():
    """When the last speech was, when the detector and the transcriber had said so."""
    talk = Talk()
    talk.hear(SpeechStarted(1), SpeechSuspected(1))
    talk.wait(1)
    talk.hear(SpeechEnded(1, 100.92, transcript_follows=True))
    talk.wait(0.1)
    talk.hear(FinalTranscript(1, "what time is it", True))
    talk.wait(1)
    [began] = [action for action in talk.decided if isinstance(action, BeginTurn)]
    assert began == BeginTurn(1, UserSaid("what time is it", 100.92, 101.0, 101.1))


def test_two_utterances_in_one_tick():
    """The second interrupts the first one's reply before it has begun to run."""
    talk = Talk()
    talk.floor.endpointer.fixed_seconds = 0.0
    one, two = talk.utter("one"), talk.utter("two", 2)
    assert kinds(one) == ["CommitUtterance", "BeginTurn"]
    assert kinds(two) == ["HoldTurn", "InterruptTurn", "CommitUtterance", "BeginTurn"]
    assert talk.leave(1) == []  # turn 2 has the floor
    assert talk.floor.reply is Reply.RUNNING


def test_what_was_said_so_far_stands_when_the_rest_was_nothing():
    """The user goes on within the delay: one turn; a click behind it changes no word."""
    talk = Talk()
    talk.utter("turn on", complete=None)
    talk.wait(0.3)
    talk.hear(SpeechStarted(2))
    assert kinds(talk.wait(5)) == []  # not over while somebody speaks
    assert kinds(talk.end_segment(2, follows=False)) == ["CommitUtterance", "BeginTurn"]
    assert talk.causes == ["turn on"]


def test_the_last_text_is_the_whole_utterance():
    """Two segments, both texts pending: the turn waits for the second, which covers both."""
    talk = Talk()
    for segment_id in (1, 2):
        talk.hear(SpeechStarted(segment_id), SpeechSuspected(segment_id))
        talk.wait(1)
        talk.end_segment(segment_id)
    talk.wait(1)
    assert kinds(talk.hear(FinalTranscript(1, "turn on.", True))) == []
    assert kinds(talk.wait(3)) == []
    talk.hear(FinalTranscript(2, "turn on. the light.", True))
    assert talk.causes == ["turn on. the light."]


def test_a_failed_rest_does_not_lose_what_was_understood():
    """The second segment has no text: the turn is the first one's."""
    talk = Talk()
    talk.utter("turn on the light", complete=None)
    talk.hear(SpeechStarted(2), SpeechSuspected(2))
    talk.end_segment(2)
    talk.hear(TranscriptionFailed(2, ErrorCode.ASR_ERROR, "overloaded"))
    talk.wait(3)
    assert talk.causes == ["turn on the light"]


def test_transcripts_name_the_turn_they_will_open():
    """Partials while and after speaking, then the final one, once."""
    talk = Talk(Floor(last_turn_id=7))
    talk.hear(SpeechStarted(3), SpeechSuspected(3), PartialTranscript(3, "what"))
    talk.end_segment(3)
    talk.hear(FinalTranscript(3, "what time", None))
    talk.wait(1)
    assert transcripts(talk.decided) == [
        UserTranscript("what", is_final=False, speeching=True, segment_id=3, turn_id=8),
        UserTranscript("what time", is_final=False, speeching=False, segment_id=3, turn_id=8),
        UserTranscript("what time", is_final=True, speeching=False, segment_id=3, turn_id=8),
    ]


def test_without_partial_results_only_the_final_is_told():
    """Configured off."""
    talk = Talk(Floor(partial_results=False))
    talk.hear(SpeechStarted(1), SpeechSuspected(1), PartialTranscript(1, "what"))
    talk.end_segment(1)
    talk.hear(FinalTranscript(1, "what time", None))
    talk.wait(1)
    assert [transcript.is_final for transcript in transcripts(talk.decided)] == [True]


# --- a reply that is not interruptible ---------------------------------------------------


def test_speech_over_a_reply_that_is_not_interruptible_becomes_the_next_turn():
    """Kept, joined with what is said later, and begun when the reply has left."""
    talk = replying(interruptible=False)
    assert kinds(talk.utter("one", complete=True)) == []
    assert kinds(talk.wait(5)) == []
    assert kinds(talk.utter("one two", segment_id=2)) == []
    assert kinds(talk.wait(5)) == []
    assert kinds(talk.leave(1)) == ["CommitUtterance", "BeginTurn"]
    assert talk.causes == ["typed", "one two"]


def test_a_backchannel_over_a_reply_that_is_not_interruptible_is_dropped():
    """It was meant for the reply, not for the time after it."""
    talk = replying(interruptible=False)
    assert kinds(talk.utter("uh-huh")) == ["CommitUtterance"]
    talk.leave(1)
    talk.wait(5)
    assert talk.causes == ["typed"]


def test_the_button_stops_a_reply_that_is_not_interruptible():
    """What was said meanwhile is answered at once."""
    talk = replying(interruptible=False)
    talk.utter("next question")
    talk.wait(5)
    pressed = talk.hear(InterruptPressed())
    assert kinds(pressed) == ["InterruptTurn", "CommitUtterance", "BeginTurn"]


def test_typed_texts_wait_for_a_reply_that_is_not_interruptible():
    """One after the other; the button stops the one that is alive."""
    talk = replying(interruptible=False)
    assert kinds(talk.hear(TextTyped("two"), TextTyped("three"))) == []
    assert kinds(talk.hear(InterruptPressed())) == ["InterruptTurn", "BeginTurn"]
    assert kinds(talk.leave(1)) == []
    assert kinds(talk.leave(2)) == ["BeginTurn"]
    assert talk.causes == ["typed", "two", "three"]


def test_a_reply_becomes_uninterruptible_while_held():
    """`interruptible` is effective at once."""
    talk = held()
    assert kinds(talk.floor.set_interruptible(False)) == ["ReleaseTurn"]
    assert kinds(talk.wait(10)) == []
    talk.floor.set_interruptible(True)
    assert kinds(talk.hear(PartialTranscript(1, "stop"))) == ["InterruptTurn"]


def test_speech_that_may_not_interrupt_shows_no_hearing():
    """The light goes on saying what happens: the reply."""
    talk = replying(interruptible=False)
    assert talk.hear(SpeechStarted(1), SpeechSuspected(1)) == []


# --- typing, push-to-talk, draining, too many --------------------------------------------


def test_typed_text_is_a_turn_at_once():
    """It interrupts a reply and has no transcript."""
    talk = replying()
    assert talk.hear(TextTyped("more")) == [
        InterruptTurn(),
        BeginTurn(2, UserTyped("more", talk.now)),
    ]


def test_a_reply_to_typed_text_gives_way_to_what_was_said_before():
    """The user paused, typed, and the end-of-turn delay ran out."""
    talk = Talk()
    talk.utter("said", complete=None)
    talk.hear(TextTyped("typed"))
    assert kinds(talk.wait(2)) == ["InterruptTurn", "CommitUtterance", "BeginTurn"]
    assert talk.causes == ["typed", "said"]


def test_push_to_talk_commits_when_the_text_comes():
    """No end-of-turn delay, however unfinished it sounds."""
    talk = Talk()
    talk.hear(SpeechStarted(1), SpeechSuspected(1))
    talk.end_segment(1)
    assert kinds(talk.hear(SpeechFinished())) == []
    final = talk.hear(FinalTranscript(1, "call my", None))
    assert kinds(final) == ["CommitUtterance", "BeginTurn"]
    assert [told.is_final for told in transcripts(final)] == [True]


def test_push_to_talk_ends_the_delay():
    """The text was known already."""
    talk = Talk()
    talk.utter("call my", complete=None)
    assert kinds(talk.hear(SpeechFinished())) == ["CommitUtterance", "BeginTurn"]


def test_push_to_talk_ends_one_utterance_only():
    """The next one has its delay again."""
    talk = Talk()
    talk.hear(SpeechStarted(1), SpeechSuspected(1))
    talk.end_segment(1)
    talk.hear(SpeechFinished(), FinalTranscript(1, "call my", None))
    talk.wait(2)
    talk.utter("and my", 2, complete=None)
    assert talk.causes == ["call my"]


def test_push_to_talk_without_speech_is_forgotten():
    """Nothing to commit now, and the next utterance has its delay."""
    talk = Talk()
    assert talk.hear(SpeechFinished()) == [Tell(NothingUnderstood())]
    assert kinds(talk.utter("call my", complete=None)) == []


def test_push_to_talk_without_words_is_told():
    """Whoever let go of the key waits for an answer."""
    talk = Talk()
    talk.hear(SpeechStarted(1), SpeechSuspected(1))
    talk.end_segment(1)
    talk.hear(SpeechFinished())
    told = talk.hear(FinalTranscript(1, "", None))
    assert Tell(NothingUnderstood()) in told
    assert talk.floor.quiet


def test_speech_may_be_discarded():
    """While its text is awaited, or known: no turn comes of it, and the next speech is new."""
    talk = Talk()
    talk.hear(SpeechStarted(1), SpeechSuspected(1))
    talk.end_segment(1)
    assert "CommitUtterance" in kinds(talk.hear(SpeechDiscarded()))
    assert talk.floor.quiet
    talk.utter("call my", 2, complete=None)
    talk.hear(SpeechDiscarded())
    assert talk.wait(5) == []
    assert talk.causes == []


def test_speech_that_is_discarded_gives_the_floor_back():
    """A reply that was held for it goes on."""
    talk = replying()
    talk.hear(SpeechStarted(1), SpeechSuspected(1))
    assert "ReleaseTurn" in kinds(talk.hear(SpeechDiscarded()))


def test_push_to_talk_waits_for_a_reply_that_is_not_interruptible():
    """And is not forgotten when the reply becomes interruptible."""
    talk = replying(interruptible=False)
    talk.utter("call my", complete=None)
    assert kinds(talk.hear(SpeechFinished())) == []
    talk.floor.set_interruptible(True)
    assert kinds(talk.wait(0)) == ["InterruptTurn", "CommitUtterance", "BeginTurn"]


def test_draining_begins_nothing():
    """The reply in progress goes on to its end; what comes now is not answered."""
    talk = replying()
    talk.floor.draining = True
    assert kinds(talk.hear(TextTyped("more"))) == []
    talk.leave(1)
    assert not talk.floor.busy
    talk.utter("hello?")
    talk.wait(5)
    assert talk.causes == ["typed"]


def test_typed_texts_that_wait_are_not_begun_while_draining():
    """They would be another reply."""
    talk = replying(interruptible=False)
    talk.hear(TextTyped("more"))
    talk.floor.draining = True
    assert kinds(talk.leave(1)) == []
    assert not talk.floor.busy


def test_at_most_four_turns_wait():
    """The fifth is refused, does not interrupt, and the next one after a leave is taken."""
    talk = Talk()
    talk.hear(*(TextTyped(str(number)) for number in range(4)))
    refused = talk.hear(TextTyped("five"))
    assert [error.code for error in errors(refused)] == [ErrorCode.RATE_LIMITED]
    assert kinds(refused) == []
    talk.leave(1)
    assert kinds(talk.hear(TextTyped("six"))) == ["InterruptTurn", "BeginTurn"]
    assert talk.causes == ["0", "1", "2", "3", "six"]


def test_an_utterance_too_many_is_refused():
    """It has interrupted, as speech does; then the device is told that it was not taken."""
    talk = Talk()
    talk.hear(*(TextTyped(str(number)) for number in range(4)))
    talk.utter("five")
    refused = talk.wait(1)
    assert [error.code for error in errors(refused)] == [ErrorCode.RATE_LIMITED]
    assert talk.causes == ["0", "1", "2", "3"]
    assert talk.floor.next_deadline() == NEVER


# --- the end of a turn -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "complete", "seconds"),
    [
        ("what time is it", True, 0.35),
        ("What time is it?", None, 0.35),
        ("what time is it", None, 0.7),
        ("turn on the", None, 1.4),
        ("turn on the", False, 1.4),
    ],
)
def test_the_delay_is_counted_from_the_last_speech(text: str, complete: bool | None, seconds):
    """Not from the moment at which the text was known."""
    talk = Talk()
    talk.hear(SpeechStarted(1), SpeechSuspected(1))
    talk.end_segment(1)
    talk.wait(0.2)
    talk.hear(FinalTranscript(1, text, complete))
    assert talk.floor.next_deadline() == pytest.approx(100.0 + seconds)


def test_a_late_text_commits_at_once():
    """The delay was over before the recognizer was."""
    talk = Talk()
    talk.hear(SpeechStarted(1), SpeechSuspected(1))
    talk.end_segment(1)
    talk.wait(3)
    final = talk.hear(FinalTranscript(1, "turn on the", None))
    assert kinds(final) == ["CommitUtterance", "BeginTurn"]


def test_a_user_cut_short_makes_the_floor_patient():
    """Speech within a second of a commit; a click is none."""
    talk = Talk()
    talk.utter("turn on the light")
    talk.wait(0.4)
    talk.hear(SpeechStarted(2))
    talk.end_segment(2, follows=False)
    talk.utter("in the kitchen", segment_id=3, complete=True)
    assert talk.floor.next_deadline() == pytest.approx(talk.now + 0.35 * 1.5)


# --- anything at all ---------------------------------------------------------------------


class AnyConversation(RuleBasedStateMachine):
    """Any legal order of events, against a model of what a floor may decide."""

    def __init__(self) -> None:
        super().__init__()
        self.floor = Floor()
        self.now = 0.0
        self.open_segment: int | None = None
        self.suspected = False
        self.pending: list[int] = []  # segments whose text follows
        self.segments = 0
        self.live: list[int] = []  # turns begun and not left
        self.interrupted: set[int] = set()
        self.held_since: float | None = None
        self.last_turn = 0
        self.typed = self.refused = self.typed_begun = 0

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case BeginTurn(turn_id=turn_id, cause=cause):
                    assert turn_id == self.last_turn + 1
                    assert set(self.live) <= self.interrupted, "two turns are alive"
                    assert cause.text
                    self.last_turn = turn_id
                    self.live.append(turn_id)
                    self.held_since = None
                    self.typed_begun += isinstance(cause, UserTyped)
                case HoldTurn():
                    assert self.held_since is None
                    assert self.latest_is_alive()
                    self.held_since = self.now
                case ReleaseTurn():
                    assert self.held_since is not None
                    assert self.latest_is_alive()
                    self.held_since = None
                case InterruptTurn():
                    assert self.latest_is_alive()
                    self.interrupted.add(self.last_turn)
                    self.held_since = None
                case CommitUtterance():
                    self.pending.clear()
                case Tell(notice=ErrorReported(code=ErrorCode.RATE_LIMITED)):
                    self.refused += 1

    def latest_is_alive(self) -> bool:
        return self.last_turn in self.live and self.last_turn not in self.interrupted

    def handle(self, *events) -> None:
        for event in events:
            self.do(self.floor.handle(event, self.now))
        self.expire_until(self.now)

    def expire_until(self, end: float) -> None:
        while (deadline := self.floor.next_deadline()) <= end:
            self.now = max(self.now, deadline)
            self.do(self.floor.expire(self.now))
            assert self.floor.next_deadline() > self.now, "it would spin"
        self.now = end

    @rule(seconds=st.sampled_from([0.016, 0.2, 0.8, 1.5, 4.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.expire_until(self.now + seconds)

    @precondition(lambda self: self.open_segment is None)
    @rule(suspected=st.booleans())
    def start(self, suspected: bool) -> None:
        self.segments += 1
        self.open_segment, self.suspected = self.segments, suspected
        self.handle(SpeechStarted(self.segments))
        if suspected:
            self.handle(SpeechSuspected(self.segments))

    @precondition(lambda self: self.open_segment is not None)
    @rule(follows=st.booleans())
    def end(self, follows: bool) -> None:
        ended, self.open_segment = self.open_segment, None
        assert ended is not None
        if follows:
            self.pending.append(ended)
        self.handle(SpeechEnded(ended, self.now, follows))

    @precondition(lambda self: self.open_segment is not None and self.suspected)
    @rule(text=st.sampled_from(["uh-huh", "stop it"]))
    def partial(self, text: str) -> None:
        assert self.open_segment is not None
        self.handle(PartialTranscript(self.open_segment, text))

    @precondition(lambda self: self.pending)
    @rule(
        text=st.sampled_from(["", "mm", "go on", "and the"]),
        complete=st.sampled_from([True, None]),
        failed=st.booleans(),
    )
    def text(self, text: str, complete: bool | None, failed: bool) -> None:
        segment_id = self.pending.pop(0)
        if failed:
            self.handle(TranscriptionFailed(segment_id, ErrorCode.ASR_ERROR, "no"))
        else:
            self.handle(FinalTranscript(segment_id, text, complete))

    @rule()
    def type(self) -> None:
        self.typed += 1
        self.handle(TextTyped("typed"))

    @rule(event=st.sampled_from([InterruptPressed(), SpeechFinished()]))
    def press(self, event) -> None:
        self.handle(event)

    @rule(value=st.booleans())
    def interruptible(self, value: bool) -> None:
        self.do(self.floor.set_interruptible(value))
        self.expire_until(self.now)

    @precondition(lambda self: self.live)
    @rule()
    def leave(self) -> None:
        turn_id = self.live.pop(0)
        if turn_id == self.last_turn:
            self.held_since = None
        self.do(self.floor.turn_left(turn_id, self.now))
        self.expire_until(self.now)

    @invariant()
    def no_hold_lasts(self) -> None:
        """Longer than 1.5 s only for a transcript, and not where speech may not interrupt."""
        if self.held_since is not None:
            assert self.pending or self.now < self.held_since + HOLD_SECONDS
            assert self.floor.interruptible

    @invariant()
    def agrees(self) -> None:
        assert self.floor.busy == bool(self.live)
        assert len(self.live) <= self.floor.max_waiting_turns
        assert (self.floor.reply is Reply.HELD) == (self.held_since is not None)
        assert (self.floor.user is User.SPEAKING) == (self.open_segment is not None)
        assert (self.floor.user is User.AWAITED) == bool(not self.open_segment and self.pending)

    def teardown(self) -> None:
        """Everything comes to an end: nothing waits for ever, no typed text was lost."""
        if self.open_segment is not None:
            self.end(follows=True)
        while self.pending:
            self.text("", None, False)
        self.expire_until(self.now + CAP_SECONDS)
        while self.live:
            self.leave()
            self.expire_until(self.now + CAP_SECONDS)
        assert (self.floor.reply, self.floor.user) == (Reply.NONE, User.SILENT)
        assert self.floor.next_deadline() == NEVER
        assert self.typed_begun + self.refused >= self.typed


AnyConversation.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAnyConversation = AnyConversation.TestCase
