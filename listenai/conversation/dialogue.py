"""A begun session's talk: the floor, wired to listening and to replying.

The floor's actions are carried out at once by plain code, in the order given,
whichever task asked; nothing can come between a decision and its effects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

import attrs
import trio

from listenai.conversation.actions import (
    Action,
    BeginTurn,
    CommitUtterance,
    HoldTurn,
    InterruptTurn,
    ReleaseTurn,
    Show,
    Tell,
)
from listenai.conversation.device_tools import DeviceTools
from listenai.conversation.floor import Floor
from listenai.conversation.listening import Listening
from listenai.conversation.outbox import Outbox
from listenai.conversation.replying import MAX_WAITING_TURNS, Replying
from listenai.conversation.speaking import MakeResampler, Speaking
from listenai.conversation.thinking import Thinking
from listenai.conversation.turn import Turn
from listenai.device import Capabilities, DeviceProfile, Echo
from listenai.effects import Effects
from listenai.engines.base import ChatModel, RecognizerFactory, Synthesizer
from listenai.errors import DeviceStalled, ErrorCode, ProtocolError
from listenai.events import (
    AudioReceived,
    DeviceToolReturned,
    InterruptPressed,
    PlaybackReported,
    SpeechEvent,
    SpeechFinished,
    State,
    StatisticsAsked,
    StatisticsSent,
    StatusChanged,
    TextTyped,
)
from listenai.sessions.base import Session
from listenai.settings import Configuration, EffectiveConfiguration, Offer
from listenai.tools.base import ToolRegistry

# Speech frames before a reply is held, of the last so many: few where the device
# cancels its echo, many where our own voice may come back.
SUSPICION = (3, 4)
SUSPICION_WITH_ECHO = (8, 10)

DialogueRequest = (
    AudioReceived
    | Configuration
    | TextTyped
    | SpeechFinished
    | InterruptPressed
    | PlaybackReported
    | DeviceToolReturned
    | StatisticsAsked
)


@attrs.frozen
class Engines:
    """Everything shared that hears, thinks and speaks."""

    recognizers: RecognizerFactory
    chat_model: ChatModel
    synthesizer: Synthesizer
    make_resampler: MakeResampler
    make_tools: Callable[[Session], ToolRegistry]


class Dialogue:
    """One session, spoken over one connection."""

    def __init__(
        self,
        engines: Engines,
        profile: DeviceProfile,
        session: Session,
        capabilities: Capabilities,
        device_tools: DeviceTools,
        outbox: Outbox,
        effects: Effects,
        *,
        turn_seconds: float,
        changed: Callable[[], None],
    ) -> None:
        self.session, self._changed = session, changed
        self._segments_before = session.last_segment_id
        self._engines, self._profile, self._effects = engines, profile, effects
        self._capabilities, self._device_tools, self._outbox = capabilities, device_tools, outbox
        self._tools = engines.make_tools(session)
        self._listening = Listening(engines.recognizers, self._hear, self._key_released)
        self._replying = Replying(
            Thinking(
                engines.chat_model,
                self._tools,
                device_tools,
                outbox,
                session,
                profile,
                effects,
            ),
            Speaking(
                engines.synthesizer,
                engines.make_resampler,
                outbox,
                session,
                profile.lead(capabilities),
                profile.chunk_seconds,
                self._show,
            ),
            outbox,
            session,
            capabilities,
            effects,
            turn_seconds,
            self._show,
            self._turn_left,
        )
        self.floor = Floor(
            last_turn_id=session.last_turn_id,
            max_waiting_turns=MAX_WAITING_TURNS,
        )
        self._floor_changed = trio.Event()
        self._shown: State | None = None
        self._use_configuration(session.configuration)

    async def run(self) -> None:
        """Talks until cancelled."""
        cancelled = self._capabilities.echo is Echo.CANCELLED
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._expire_floor)
            nursery.start_soon(self._replying.run)
            await self._listening.run(
                suspicion=SUSPICION if cancelled else SUSPICION_WITH_ECHO,
                cap_seconds=self._profile.utterance_seconds,
            )

    async def drain(self) -> None:
        """Finishes the reply in progress, begins no other; the caller bounds it."""
        self.floor.draining = True
        while self.floor.busy:
            await self._floor_changed.wait()

    def close(self) -> None:
        """After `run`: what was heard but never answered goes into the history."""
        self._replying.commit_waiting()

    # --- requests --------------------------------------------------------------------------

    async def handle(self, request: DialogueRequest) -> None:
        """Does what the device asks; only audio may have to wait.  Raises ProtocolError."""
        match request:
            case AudioReceived(pcm=pcm):
                await self._listening.put(pcm)
            case SpeechFinished():
                await self._listening.put_key_release()
            case TextTyped() | InterruptPressed():
                self._apply(self.floor.handle(request, trio.current_time()))
            case PlaybackReported():
                self._replying.report(request)
            case Configuration():
                self._configure(request)
            case DeviceToolReturned():
                self._device_tools.answer(request)
            case StatisticsAsked():
                statistics = self.session.statistics(self._effects.wall_clock())
                self._outbox.post(StatisticsSent(self.session.id, statistics))

    @property
    def offer(self) -> Offer:
        """What a device may choose from."""
        tools = [schema.name for schema in self._device_tools.schemas]
        tools += [tool.schema.name for tool in self._tools]
        return Offer(
            tuple(self._engines.recognizers.languages),
            tuple(self._engines.synthesizer.voices),
            tuple(dict.fromkeys(tools)),
        )

    def _configure(self, wanted: Configuration) -> None:
        """Applies the whole of it or, raising ProtocolError, nothing."""
        offer = self.offer
        _check("language", wanted.language, offer.languages)
        _check("voice_id", wanted.voice_id, offer.voices)
        self.session.configuration = self.session.configuration.merged(wanted)
        self._use_configuration(self.session.configuration)
        self._changed()
        self._outbox.post(
            StatusChanged(
                self._shown or State.LISTENING,
                self.session.id,
                configuration=self.session.configuration,
            )
        )

    def _use_configuration(self, configuration: EffectiveConfiguration) -> None:
        fixed = configuration.end_of_turn_ms
        self.floor.language = configuration.language
        self.floor.partial_results = configuration.partial_results
        self.floor.endpointer.language = configuration.language
        self.floor.endpointer.fixed_seconds = None if fixed is None else fixed / 1000
        self._apply(self.floor.set_interruptible(configuration.interruptible))
        self._listening.configure(configuration)

    # --- the floor -------------------------------------------------------------------------

    def _hear(self, event: SpeechEvent) -> None:
        # An ear counts its segments from 1, a session goes on.
        numbered = attrs.evolve(event, segment_id=self._segments_before + event.segment_id)
        self.session.last_segment_id = numbered.segment_id
        self._apply(self.floor.handle(numbered, trio.current_time()))

    def _key_released(self) -> None:
        self._apply(self.floor.handle(SpeechFinished(), trio.current_time()))

    def _turn_left(self, turn: Turn) -> None:
        self._changed()
        with suppress(DeviceStalled):  # it may be the very end of a stalled connection
            self._apply(self.floor.turn_left(turn.id, trio.current_time()))

    async def _expire_floor(self) -> None:
        while True:
            with trio.move_on_at(self.floor.next_deadline()) as timer:
                await self._floor_changed.wait()
            if timer.cancelled_caught:
                self._apply(self.floor.expire(trio.current_time()))

    def _apply(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Tell(notice=notice):
                    self._outbox.post(notice)
                case Show(state=state):
                    self._show(state)
                case BeginTurn():
                    self._replying.begin(action)
                case HoldTurn():
                    self._replying.hold()
                case ReleaseTurn():
                    self._replying.release()
                case InterruptTurn():
                    self._replying.interrupt()
                case CommitUtterance():
                    self._listening.commit()
        self._floor_changed.set()
        self._floor_changed = trio.Event()

    def _show(self, state: State) -> None:
        """Tells the device the state, when it is another one."""
        if state is not self._shown:
            self._shown = state
            self._outbox.post(StatusChanged(state, self.session.id))


def _check(field: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise ProtocolError(
            ErrorCode.INVALID_MESSAGE,
            f"configure.{field}: {value!r} is not supported; use one of: {', '.join(known)}",
        )
