"""The one owner of turns: the next begins after the last one's scope was left.

A turn ends in one of four ways: played to its end, interrupted, failed (the
device is told), or cut off with its connection.  In each its
history is committed by plain code in a `finally`, where nothing can cancel it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import attrs
import trio

from listenai.conversation.actions import BeginTurn, ToolFinished, UserSaid
from listenai.conversation.background_tools import items_of
from listenai.conversation.heard import Heard
from listenai.conversation.items import AssistantItem, Item, ToolCallItem, UserItem
from listenai.conversation.limits import Kind, RateLimit
from listenai.conversation.outbox import Gate, Outbox
from listenai.conversation.speaking import Speaking
from listenai.conversation.thinking import Thinking
from listenai.conversation.turn import Turn
from listenai.conversation.turn_places import TurnPlaces, TurnsFull
from listenai.device import Capabilities
from listenai.effects import Effects
from listenai.errors import DeviceStalled, ErrorCode
from listenai.events import (
    Certainty,
    ErrorReported,
    Notice,
    PlaybackReported,
    State,
    StreamFlushed,
    StreamPaused,
    StreamResumed,
    TurnInterrupted,
)
from listenai.observer import Fact, TurnLeft, TurnOutcome, TurnWaited
from listenai.sessions.base import Interaction, Session

MAX_WAITING_TURNS = 4  # utterances finished while an old turn is still being left
REPORT_SECONDS = 0.25  # wait for the device's `playback` after a flush


@attrs.frozen
class Limits:
    """How much one connection may ask for."""

    rate: RateLimit
    places: TurnPlaces


@attrs.define(eq=False)
class Replying:
    """One conversation's turns."""

    thinking: Thinking
    speaking: Speaking
    outbox: Outbox
    session: Session
    capabilities: Capabilities
    effects: Effects
    turn_seconds: float  # the longest a turn may take
    limits: Limits
    show: Callable[[State], None]
    left: Callable[[Turn], None]
    observe: Callable[[Fact, float], None]
    latest: Turn | None = None  # whom the floor's decisions mean
    _running: Turn | None = None  # often the same, but it may be left while the next one waits
    _turns_in: trio.MemorySendChannel[Turn] = attrs.field(init=False)
    _turns: trio.MemoryReceiveChannel[Turn] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._turns_in, self._turns = trio.open_memory_channel[Turn](MAX_WAITING_TURNS)

    # --- what the floor decided: plain code, never waits -------------------------------------

    def begin(self, action: BeginTurn) -> None:
        """Queues a turn."""
        self.latest = Turn(action.turn_id, action.cause, self.effects.wall_clock())
        self.session.last_turn_id = action.turn_id
        self._turns_in.send_nowait(self.latest)
        self.show(State.THINKING)

    def hold(self) -> None:
        """Sends nothing more of the latest turn, for now; pauses a device that can."""
        turn = self.latest
        assert turn  # the floor holds what it began
        turn.set_gate(Gate.HELD)
        if (stream := turn.stream) and stream.opened and self.capabilities.pause:
            stream.playout.pause(trio.current_time())
            self.outbox.post(StreamPaused(stream.id))

    def release(self) -> None:
        """The latest turn goes on where it was held."""
        turn = self.latest
        assert turn
        if (stream := turn.stream) and stream.playout.paused:
            stream.playout.resume(trio.current_time())
            self.outbox.post(StreamResumed(stream.id))
        turn.set_gate(Gate.OPEN)
        self.show(turn.state)
        self.outbox.gate_changed()

    def interrupt(self) -> None:
        """The latest turn is over.  Its gate stays shut while the cancel is on its way."""
        turn = self.latest
        assert turn
        turn.set_gate(Gate.SHUT)
        if (stream := turn.stream) and stream.opened:
            now = trio.current_time()
            stream.cut(now, device_forgets=self.capabilities.flush)
            self.speaking.music.give_back(stream.playout.sent - stream.played(now))
            self.outbox.post(StreamFlushed(stream.id))
        turn.scope.cancel()

    def report(self, report: PlaybackReported) -> None:
        """The device says what it has played of the turn that runs; of others, nobody asks."""
        turn = self._running
        if turn and turn.stream and turn.stream.id == report.stream_id:
            turn.stream.report(report.played_samples, report.output_latency_ms / 1000)
            turn.changed()

    # --- the task --------------------------------------------------------------------------

    async def run(self) -> None:
        """Runs turns, one after the other, until cancelled."""
        async for turn in self._turns:
            self._running = turn
            try:
                if turn.gate is not Gate.SHUT:  # else it lost the floor while it waited
                    await self._run_turn(turn)
                if turn.gate is Gate.SHUT:
                    await self._wait_for_report(turn)
            finally:
                self._commit(turn)

    def commit_waiting(self) -> None:
        """The connection is over: what was said but never answered belongs to history."""
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            turn = self._turns.receive_nowait()
            try:
                self._commit(turn)
            finally:  # a bug in what one of them tells does not cost the others
                self.commit_waiting()

    async def _run_turn(self, turn: Turn) -> None:
        turn.marks.reach("started")
        with turn.scope:
            try:
                with trio.fail_after(self.turn_seconds):
                    await self._reply_in_turn(turn)
            except* TurnsFull as group:
                [full] = group.exceptions
                assert isinstance(full, TurnsFull)
                retry_after_ms = round(full.retry_after_seconds * 1000)
                self._fail(turn, ErrorCode.RATE_LIMITED, str(full), retry_after_ms)
            except* trio.TooSlowError:
                message = f"the reply was not over after {self.turn_seconds:g} seconds"
                self._fail(turn, ErrorCode.TIMEOUT, message)
            await self.speaking.finish(turn)  # what a failed reply has already said is played
            if turn.outcome is not TurnOutcome.FAILED:
                turn.outcome = TurnOutcome.PLAYED

    async def _reply_in_turn(self, turn: Turn) -> None:
        """Replies as soon as the limits let it; raises TurnsFull."""
        began = trio.current_time()
        # What was typed is counted when it comes in; what a tool says is no request.
        if isinstance(turn.cause, UserSaid):
            seconds = self.limits.rate.take(Kind.REQUEST, began)
            if seconds is not None:
                error = self.limits.rate.error(Kind.REQUEST, seconds)
                self._fail(turn, error.code, error.message, error.retry_after_ms)
                return
        async with self.limits.places.turn(self, partial(self.show, State.QUEUED)):
            now = trio.current_time()
            self.observe(TurnWaited(turn.id, now - began), now)
            self.show(State.THINKING)
            await self._reply(turn)

    def _fail(
        self, turn: Turn, code: ErrorCode, message: str, retry_after_ms: int | None = None
    ) -> None:
        turn.outcome = TurnOutcome.FAILED
        self.outbox.post(ErrorReported(code, message, turn.id, retry_after_ms))

    async def _reply(self, turn: Turn) -> None:
        # The LLM is at most one sentence ahead of speech.
        sentences_in, sentences = trio.open_memory_channel[str](1)
        # The consumer's end is closed here, after the nursery: a failed speaker must
        # not look like a broken channel to the thinker.
        with sentences:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.thinking.think, turn, sentences_in)
                nursery.start_soon(self.speaking.speak, turn, sentences)

    async def _wait_for_report(self, turn: Turn) -> None:
        stream = turn.stream
        if stream and stream.opened and self.capabilities.playback_reports:
            with trio.move_on_after(REPORT_SECONDS):
                while not stream.last_word_known:
                    await turn.wait_changed()

    # --- the end of a turn: plain code -------------------------------------------------------

    def _commit(self, turn: Turn) -> None:
        """Writes the turn into the session, tells the device how it ended, leaves it."""
        turn.marks.reach("ended")
        now = trio.current_time()
        stream = turn.stream
        heard = stream.heard(now) if stream else Heard("", "", Certainty.ESTIMATED)
        # The text that was not yet a begun sentence was not heard either.
        unheard = turn.text[len(heard.text) :].strip() if stream else turn.text.strip()
        items = self._items(turn, heard, interrupted=bool(unheard))
        for item in items:
            self.session.add(item)
        metrics = turn.metrics(heard.certainty)
        self.session.record(
            Interaction(
                turn.id,
                turn.began_at,
                (metrics.ended_ms or 0.0) / 1000,
                tuple(item.id for item in items),
                tuple(item.call.name for item in items if isinstance(item, ToolCallItem)),
            )
        )
        self._observe_left(turn, now)
        if turn.gate is Gate.SHUT:
            played = stream.played(now) / stream.sample_rate if stream else 0.0
            self._tell(
                TurnInterrupted(
                    turn.id, heard.text.strip(), unheard, round(played * 1000, 1), heard.certainty
                )
            )
        self._tell(metrics)
        self.left(turn)

    def _observe_left(self, turn: Turn, now: float) -> None:
        """Before the device is told, whose metrics are the last that is told of a turn."""
        outcome = TurnOutcome.INTERRUPTED if turn.gate is Gate.SHUT else turn.outcome
        prompt = turn.usage.prompt_tokens if turn.usage else None
        completion = turn.usage.completion_tokens if turn.usage else None
        self.observe(TurnLeft(turn.id, outcome, prompt, completion), now)

    def _items(self, turn: Turn, heard: Heard, *, interrupted: bool) -> list[Item]:
        """User, then the reply's heard text with its tool rounds where they happened."""
        new_id, now = self.effects.new_id, self.effects.wall_clock()
        said: list[Item]
        if isinstance(turn.cause, ToolFinished):
            said = [*items_of(turn.cause, self.effects)]
        else:
            said = [UserItem(new_id(), turn.began_at, turn.cause.text)]
        text, certainty = heard.text, heard.certainty
        if self.capabilities.display_text:  # shown is seen
            text, certainty = turn.shown_text, Certainty.REPORTED
            interrupted = len(text) < len(turn.text)
        start = 0
        for length, items in [*((r.text_length, r.items) for r in turn.rounds), (len(text), [])]:
            if part := text[start:length].strip():
                said.append(AssistantItem(new_id(), now, part, certainty, interrupted))
            start = length
            said += items
        return said

    def _tell(self, event: Notice) -> None:
        # On the way out of a stalled connection there is nobody left to tell.
        with suppress(DeviceStalled):
            self.outbox.post(event)
