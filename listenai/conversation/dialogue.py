"""A begun session's talk: the floor, wired to listening and to replying.

The floor's actions are carried out at once by plain code, in the order given,
whichever task asked; nothing can come between a decision and its effects.
"""

from __future__ import annotations

import math
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
    ToolFinished,
)
from listenai.conversation.background_tools import BackgroundTools
from listenai.conversation.decoding import MakeDecoder
from listenai.conversation.device_tools import DeviceTools
from listenai.conversation.echo import open_policy
from listenai.conversation.floor import Floor
from listenai.conversation.listening import Listening, Mark
from listenai.conversation.music_player import MusicPlayer, MusicSource
from listenai.conversation.outbox import Outbox
from listenai.conversation.own_voice import OwnVoice
from listenai.conversation.replying import MAX_WAITING_TURNS, Limits, Replying
from listenai.conversation.speaking import MakeResampler, Speaking
from listenai.conversation.thinking import Thinking
from listenai.conversation.tool_calls import ToolCalls
from listenai.conversation.turn import Turn
from listenai.device import Capabilities, DeviceProfile, Duplex
from listenai.effects import Effects
from listenai.engines.base import ChatModel, EchoCanceller, RecognizerFactory, Synthesizer
from listenai.errors import DeviceStalled, ErrorCode, ProtocolError
from listenai.events import (
    DeviceToolReturned,
    HistoryForgotten,
    InterruptPressed,
    Notice,
    PlaybackReported,
    SpeechDiscarded,
    SpeechFinished,
    State,
    StatisticsAsked,
    StatisticsSent,
    StatusChanged,
    TextTyped,
    VoiceNoticed,
)
from listenai.observer import Fact
from listenai.sessions.base import Session
from listenai.settings import Configuration, EffectiveConfiguration, Offer
from listenai.speech import SpeechEnded, SpeechEvent, SpeechStarted
from listenai.tools.base import ArgumentChecker, ToolRegistry

# Results waiting to be told; nobody listens to more, and the history has them all.
MAX_ANNOUNCEMENTS = 8

DialogueCommand = (
    Configuration
    | TextTyped
    | SpeechFinished
    | SpeechDiscarded
    | InterruptPressed
    | PlaybackReported
    | DeviceToolReturned
    | HistoryForgotten
    | StatisticsAsked
)


@attrs.frozen
class Engines:
    """Everything shared that hears, thinks and speaks."""

    recognizers: RecognizerFactory
    chat_model: ChatModel
    synthesizer: Synthesizer
    make_resampler: MakeResampler
    make_decoder: MakeDecoder
    make_tools: Callable[[Session, MusicPlayer], ToolRegistry]
    checker: ArgumentChecker
    music: MusicSource
    server_tools: ToolRegistry = attrs.field(factory=ToolRegistry)  # in no conversation's name
    make_echo_canceller: Callable[[], EchoCanceller] | None = None  # one for each device


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
        filler_seconds: float,
        changed: Callable[[], None],
        limits: Limits,
        observe: Callable[[Fact, float], None],
    ) -> None:
        self.session, self._changed, self._observe = session, changed, observe
        self._segments_before = session.last_segment_id
        self._engines, self._profile, self._effects = engines, profile, effects
        self._capabilities, self._device_tools, self._outbox = capabilities, device_tools, outbox
        lead_seconds = profile.lead(capabilities)
        self._music = MusicPlayer(
            engines.music, outbox, session, capabilities, lead_seconds, profile.chunk_seconds
        )
        self._tools = engines.make_tools(session, self._music)
        self._late_results: list[ToolFinished] = []  # for the history, while a turn runs
        self._forgetting = False  # the history ends with the turns that were begun
        self._background = BackgroundTools(outbox, session, effects, self._tool_finished)
        self._listening = Listening(engines.recognizers, self._hear, self._marked)
        self._own_voice = OwnVoice(
            open_policy(capabilities, profile, engines.make_echo_canceller),
            self._listening,
            self._tell_duplex,
            profile.paced,
        )
        self._replying = Replying(
            Thinking(
                engines.chat_model,
                ToolCalls(
                    self._tools,
                    device_tools,
                    engines.checker,
                    self._background,
                    outbox,
                    session,
                    effects,
                    filler_seconds,
                ),
                outbox,
                session,
                profile,
            ),
            Speaking(
                engines.synthesizer,
                engines.make_resampler,
                self._music,
                outbox,
                session,
                lead_seconds,
                profile.chunk_seconds,
                self._show,
                profile.speaks,
            ),
            outbox,
            session,
            capabilities,
            effects,
            turn_seconds,
            limits,
            self._show,
            self._turn_left,
            observe,
        )
        self.floor = Floor(
            last_turn_id=session.last_turn_id,
            max_waiting_turns=MAX_WAITING_TURNS,
            is_echo=self._own_voice.is_own,
        )
        self._floor_deadline = math.inf  # which `_expire_floor` waits for
        self._floor_changed = trio.Event()
        self._shown: State | None = None
        self._use_configuration(session.configuration)

    async def run(self) -> None:
        """Talks until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._background.run)
            nursery.start_soon(self._expire_floor)
            nursery.start_soon(self._music.run)
            nursery.start_soon(self._replying.run)
            await self._listening.run(
                suspicion=self._own_voice.suspicion,
                cap_seconds=self._profile.utterance_seconds,
                conditioning=self._profile.conditioning,
            )

    async def drain(self) -> None:
        """Finishes the reply in progress, begins no other; the caller bounds it."""
        self.floor.draining = True
        while self.floor.busy:
            await self._floor_changed.wait()

    def close(self) -> None:
        """After `run`, and the last: what was heard but never answered goes into the history."""
        try:
            self._replying.commit_waiting()
        finally:
            self._late_results += self.floor.announcements
            self._keep_late_results()
            # These call us back: in a cycle all they hold would wait for the garbage collector.
            del self.floor, self._replying, self._background, self._own_voice, self._listening

    # --- requests --------------------------------------------------------------------------

    async def hear(self, pcm: bytes) -> None:
        """The microphone: int16 mono 16 kHz; may have to wait."""
        await self._own_voice.listen(pcm)

    async def handle(self, command: DialogueCommand) -> None:
        """Does what the device asks; a mark may have to wait, as audio.  Raises ProtocolError."""
        match command:
            case SpeechFinished() | SpeechDiscarded():
                self._own_voice.end()
                await self._listening.put_mark(command)
            case TextTyped() | InterruptPressed():
                if isinstance(command, InterruptPressed) and self.floor.quiet:
                    self._music.silence()  # there is no reply: the button means the music
                self._apply(self.floor.handle(command, trio.current_time()))
            case PlaybackReported():
                self._replying.report(command)
                self._own_voice.report(command)
            case Configuration():
                self._configure(command)
            case DeviceToolReturned():
                self._device_tools.answer(command)
            case HistoryForgotten():
                self._forgetting = True
                self._forget_history()
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

    # --- our own voice ---------------------------------------------------------------------

    @property
    def duplex(self) -> Duplex:
        """Whether speech interrupts."""
        return self._own_voice.duplex

    def sent(self, notice: Notice) -> None:
        """The device is given this."""
        self._own_voice.sent(notice)

    def _tell_duplex(self, duplex: Duplex) -> None:
        state = self._shown or State.LISTENING
        self._outbox.post(StatusChanged(state, self.session.id, duplex=duplex))

    # --- the floor -------------------------------------------------------------------------

    def _hear(self, event: SpeechEvent) -> None:
        # An ear counts its segments from 1, a session goes on.
        numbered = attrs.evolve(event, segment_id=self._segments_before + event.segment_id)
        self.session.last_segment_id = numbered.segment_id
        self._observe(numbered, trio.current_time())
        if isinstance(event, SpeechStarted):
            self._own_voice.speech_began()
        if self._profile.tell_voice and isinstance(event, SpeechStarted | SpeechEnded):
            threshold = event.loudness_threshold if isinstance(event, SpeechStarted) else None
            self._outbox.post(VoiceNoticed(isinstance(event, SpeechStarted), threshold))
        self._apply(self.floor.handle(numbered, trio.current_time()))

    def _marked(self, mark: Mark) -> None:
        self._apply(self.floor.handle(mark, trio.current_time()))

    def _tool_finished(self, finished: ToolFinished, announce: bool) -> None:
        if announce and len(self.floor.announcements) < MAX_ANNOUNCEMENTS:
            self._apply(self.floor.announce(finished, trio.current_time()))
            return
        self._late_results.append(finished)
        if not self.floor.busy:
            self._keep_late_results()

    def _keep_late_results(self) -> None:
        """After the turn that called for them: a history tells things in their order."""
        for finished in self._late_results:
            self._background.keep(finished)
        self._late_results.clear()

    def _forget_history(self) -> None:
        if self._forgetting and not self.floor.busy:
            self._forgetting = False
            self.session.items.clear()
            self._changed()

    def _turn_left(self, turn: Turn) -> None:
        self._keep_late_results()
        self._changed()
        with suppress(DeviceStalled):  # it may be the very end of a stalled connection
            self._apply(self.floor.turn_left(turn.id, trio.current_time()))
        self._forget_history()

    async def _expire_floor(self) -> None:
        while True:
            self._floor_deadline = self.floor.next_deadline()
            with trio.move_on_at(self._floor_deadline) as timer:
                await self._floor_changed.wait()
            if timer.cancelled_caught:
                self._apply(self.floor.expire(trio.current_time()))

    def _apply(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, Tell):  # observed when it is sent
                self._outbox.post(action.notice)
                continue
            self._observe(action, trio.current_time())
            match action:
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
        self._music.set_alone(self.floor.quiet)
        # Rarely: whoever waits for the floor wants its deadline, or its quiet when draining.
        if self.floor.next_deadline() != self._floor_deadline or self.floor.draining:
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
