"""One connection: reader → listening → floor → turns → outbox → writer, in two nurseries.

Theory.  The writer lives in the outer nursery and outlives everything else, so
that the last words (an error, a goodbye) still go out; all other tasks live in
the inner one.  When the device leaves, both are cancelled; when something
fails, the device is told first, then the failure is raised to whoever serves
the connection.  Whatever happens, nothing of the connection is left afterwards
and what was heard has been written into the session, which is saved and released
as soon as the inner nursery is left: a newer connection may be waiting for it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs
import trio

from listenai.conversation.decoding import Decoding
from listenai.conversation.device_tools import DeviceTools, check_device_tools
from listenai.conversation.dialogue import Dialogue, Engines
from listenai.conversation.goodbye import (
    BROKEN,
    GOING_AWAY,
    STALLED,
    TAKEN_OVER,
    Goodbye,
    goodbye_of,
)
from listenai.conversation.limits import Kind
from listenai.conversation.replying import Limits
from listenai.conversation.writer import Writer, message_bytes
from listenai.dialects.base import NEVER, Dialect
from listenai.effects import Effects
from listenai.errors import DeviceStalled, ErrorCode, ProtocolError
from listenai.events import (
    Answer,
    AudioReceived,
    Command,
    EncodedAudio,
    ErrorReported,
    HangUp,
    Notice,
    PingReceived,
    PongSent,
    Request,
    SessionEnd,
    SessionStart,
    SpeechDiscarded,
    SpeechFinished,
    State,
    StatusChanged,
)
from listenai.observer import NOBODY, ConnectionObserver, SessionOpened
from listenai.sessions.base import Lease, LeaseLost, SessionStore
from listenai.wire import DeviceGone, Message, Wire

_log = logging.getLogger(__name__)

# Saving and releasing a session, in seconds: less than a newer connection waits for it.
LET_GO_SECONDS = 1.0


@attrs.frozen
class Deadlines:
    """How long a connection waits, in seconds."""

    turn: float = 600.0  # spec 000: CLOUD_INTERACTION_TIMEOUT
    stall: float = 5.0  # one message not taken by the device
    filler: float = 2.0  # of silence while tools run, before a line is said; 0: none is
    ping_interval: float = 30.0  # spec 000: CLOUD_PING_INTERVAL
    ping_timeout: float = 300.0  # spec 000: CLOUD_PING_TIMEOUT


class Conversation:
    """One connection.  `run` is its whole life."""

    def __init__(
        self,
        wire: Wire,
        dialect: Dialect,
        engines: Engines,
        sessions: SessionStore,
        effects: Effects,
        *,
        deadlines: Deadlines,
        limits: Limits,
        owner: str = "",  # who is at the other end; nobody we know
        observer: ConnectionObserver = NOBODY,
    ) -> None:
        self._wire, self._dialect = wire, dialect
        self._engines, self._sessions = engines, sessions
        self._effects, self._deadlines, self._owner = effects, deadlines, owner
        self._limits, self._observer = limits, observer
        self._writer = Writer(wire, dialect, observer, deadlines.stall, self._told)
        self._outbox = self._writer.outbox
        self._decoding = Decoding(engines.make_decoder)
        self._asked = SessionStart()  # by the device, though it may have been refused
        self._deadline = NEVER  # which the dialect is known to wait for
        self._deadline_changed = trio.Event()
        self._dialogue: Dialogue | None = None
        self._lease: Lease | None = None
        self._session_changed = trio.Event()
        self._session_ended = False  # the device wants it erased
        self._goodbye = Goodbye()
        self._failure: BaseExceptionGroup[Exception] | None = None  # a bug of ours

    async def run(self, draining: trio.Event) -> None:
        """Until the device leaves or the drain is done; raises only our own bugs.

        draining: when set, the reply in progress is finished and the device is told goodbye.
        """
        try:
            await self._converse(draining)
        except trio.Cancelled:
            self._say_goodbye(GOING_AWAY)
            raise
        finally:
            self._observer.closed(self._goodbye.code, self._goodbye.reason)

    async def _converse(self, draining: trio.Event) -> None:
        try:
            # Tasks, even the last: what a nursery's own block raises Trio leaves in a cycle.
            async with trio.open_nursery() as outer:
                outer.start_soon(self._writer.write)
                outer.start_soon(self._talk, draining)
        except* DeviceGone as group:
            _log.debug("device_left", extra=self._extra())
            self._hand_back_unsent()
            self._say_goodbye(goodbye_of(group))
        except* DeviceStalled as group:
            _log.warning("device_stalled: %s", group.exceptions[0], extra=self._extra())
            self._hand_back_unsent()
            self._say_goodbye(STALLED)
        await self._wire.aclose(self._goodbye.code, self._goodbye.reason)
        if self._failure:
            raise self._failure

    async def _talk(self, draining: trio.Event) -> None:
        """Holds the session; afterwards the device is told why there is no more."""
        try:
            async with self._keeping_session(), trio.open_nursery() as self._inner:
                self._inner.start_soon(self._ping)
                self._inner.start_soon(self._expire_dialect)
                self._inner.start_soon(self._drain, draining)
                self._inner.start_soon(self._read)
        except* (DeviceGone, DeviceStalled):
            raise
        except* Exception as group:  # a bug of ours: first the device is told
            self._failure = group
            self._say_goodbye(BROKEN)
            self._tell(ErrorReported(ErrorCode.INTERNAL_ERROR, "an internal error"))
        else:
            self._tell_closing()
        self._outbox.close()

    def _extra(self) -> dict[str, object]:
        """For a record of a task that is older than the session."""
        return {"fields": {"session": self._lease.session.id}} if self._lease else {}

    def _hand_back_unsent(self) -> None:
        """What the device missed, unless a newer connection of its has it all."""
        if self._goodbye != TAKEN_OVER:
            self._writer.hand_back_unsent()

    # --- reading ---------------------------------------------------------------------------

    async def _read(self) -> None:
        """Takes messages until the inner nursery is cancelled; holds none while it waits."""
        while True:
            await self._take(await self._receive())

    async def _receive(self) -> Message:
        message = await self._wire.receive()
        self._observer.received(message_bytes(message))
        return message

    async def _take(self, message: Message) -> None:
        try:
            for request in self._dialect.receive(message, trio.current_time()):
                await self._handle(request)
        except ProtocolError as error:
            self._outbox.post(ErrorReported(error.code, str(error)))
        self._note_deadline()

    async def _handle(self, request: Request) -> None:
        match request:
            case AudioReceived(pcm=pcm):
                await self._hear(pcm)
            case EncodedAudio():
                await self._hear(await self._decoding.decode(request))
            case _:
                await self._obey(request)

    async def _hear(self, pcm: bytes) -> None:
        """The microphone: nearly all that comes, so it takes the shortest way.

        No observer is told, who knows the messages' sizes; too much at once has to wait.
        """
        take = self._limits.rate.take
        while seconds := take(Kind.AUDIO, trio.current_time(), len(pcm)):  # noqa: ASYNC110
            await trio.sleep(seconds)  # what the bucket needs to be full enough
        dialogue = self._dialogue or await self._begin(self._asked)  # as if asked again
        await dialogue.hear(pcm)

    async def _obey(self, command: Command) -> None:
        match command:
            case SpeechFinished() | SpeechDiscarded():
                self._decoding.end()
            case SessionStart() if not self._dialogue:
                self._asked = command
        now = trio.current_time()
        self._observer.observe(command, now)
        if refusal := self._limits.rate.refuse(command, now):
            self._outbox.post(refusal)
            return
        match command:
            case Answer():
                self._outbox.post(command)
            case HangUp(code=code, reason=reason):
                self._say_goodbye(Goodbye(code, reason))
                self._inner.cancel_scope.cancel()
            case PingReceived(id=ping_id):
                self._outbox.post(PongSent(ping_id))
            case SessionStart():
                await self._begin(command)
            case SessionEnd():
                self._session_ended = True
                self._say_goodbye(Goodbye(1000, "session ended"))
                self._inner.cancel_scope.cancel()
            case _:
                await (self._dialogue or await self._begin(self._asked)).handle(command)

    async def _begin(self, request: SessionStart) -> Dialogue:
        """Opens the session and starts talking; a connection does so once."""
        if self._dialogue:
            message = f"this connection has the session {self._dialogue.session.id!r} already"
            raise ProtocolError(ErrorCode.SESSION_ERROR, message)
        try:
            check_device_tools(self._engines.checker, request.device_tools)
            lease = await self._claim(request.session_id)
        except ProtocolError:  # what it asks for next is another session, on the same device
            self._asked = SessionStart(capabilities=request.capabilities)
            raise
        session = lease.session
        if not lease.restored:
            session.configuration = session.configuration.merged(
                self._dialect.profile.configuration
            )
        self._observer.observe(SessionOpened(session.id, lease.restored), trio.current_time())
        self._dialogue = dialogue = Dialogue(
            self._engines,
            self._dialect.profile,
            session,
            request.capabilities,
            DeviceTools(request.device_tools),
            self._outbox,
            self._effects,
            turn_seconds=self._deadlines.turn,
            filler_seconds=self._deadlines.filler,
            changed=self._note_change,
            limits=self._limits,
            observe=self._observer.observe,
        )
        self._outbox.post(
            StatusChanged(
                State.READY,
                session.id,
                lease.restored,
                session.configuration,
                dialogue.offer,
                duplex=dialogue.duplex,
            )
        )
        self._inner.start_soon(dialogue.run)
        return dialogue

    # --- the session -----------------------------------------------------------------------

    async def _claim(self, session_id: str | None) -> Lease:
        """Holds the session from here on; raises ProtocolError where it cannot be had."""
        try:
            self._lease = lease = await self._sessions.claim(session_id, self._owner)
        except LeaseLost as lost:
            self._leave_to_newer()
            raise ProtocolError(ErrorCode.SESSION_ERROR, str(lost)) from lost
        self._inner.start_soon(self._wait_taken_over, lease)
        self._inner.start_soon(self._save_changes, lease)
        return lease

    async def _wait_taken_over(self, lease: Lease) -> None:
        await lease.wait_lost()
        message = f"the session {lease.session.id!r} was taken over by a newer connection"
        self._tell(ErrorReported(ErrorCode.SESSION_ERROR, message))
        self._leave_to_newer()

    def _leave_to_newer(self) -> None:
        self._say_goodbye(TAKEN_OVER)
        self._inner.cancel_scope.cancel()

    def _note_change(self) -> None:
        self._session_changed.set()

    async def _save_changes(self, lease: Lease) -> None:
        """Saves after each turn: should we not live to let go, a turn is lost at most."""
        with suppress(LeaseLost):  # `_wait_taken_over` is told
            while True:
                await self._session_changed.wait()
                self._session_changed = trio.Event()
                await lease.save()

    @asynccontextmanager
    async def _keeping_session(self) -> AsyncIterator[None]:
        """However the talk inside ends, the session is complete, saved and free after it."""
        try:
            yield
        finally:
            try:
                if dialogue := self._dialogue:
                    self._dialogue = None
                    dialogue.close()
            finally:
                with trio.move_on_after(LET_GO_SECONDS, shield=True) as bound:
                    await self._let_go()
                if bound.cancelled_caught:
                    message = "session_not_released: the store took too long"
                    _log.warning(message, extra=self._extra())

    async def _let_go(self) -> None:
        with suppress(LeaseLost):  # a newer holder did not wait for us
            if self._lease and self._session_ended:
                await self._lease.erase()
            elif self._lease:
                try:
                    await self._lease.save()
                finally:
                    await self._lease.release()

    # --- the dialect's own deadlines ---------------------------------------------------------

    def _told(self, notice: Notice) -> None:
        self._note_deadline()
        if self._dialogue:
            self._dialogue.sent(notice)

    def _note_deadline(self) -> None:
        if self._dialect.next_deadline() != self._deadline:
            self._deadline_changed.set()

    async def _expire_dialect(self) -> None:
        while True:
            self._deadline_changed = trio.Event()
            self._deadline = self._dialect.next_deadline()
            with trio.move_on_at(self._deadline) as timer:
                await self._deadline_changed.wait()
            if timer.cancelled_caught:
                try:
                    for request in self._dialect.expire(trio.current_time()):
                        await self._handle(request)
                except ProtocolError as error:
                    self._outbox.post(ErrorReported(error.code, str(error)))

    async def _ping(self) -> None:
        while True:
            await trio.sleep(self._deadlines.ping_interval)
            with trio.move_on_after(self._deadlines.ping_timeout) as timer:
                await self._wire.ping()
            if timer.cancelled_caught:
                raise DeviceStalled(f"no answer to a ping for {self._deadlines.ping_timeout:g} s")

    async def _drain(self, draining: trio.Event) -> None:
        await draining.wait()
        if self._dialogue:
            await self._dialogue.drain()
        self._say_goodbye(GOING_AWAY)
        self._inner.cancel_scope.cancel()

    # --- the end ---------------------------------------------------------------------------

    def _say_goodbye(self, goodbye: Goodbye) -> None:
        if self._goodbye == Goodbye():  # the first reason is the reason
            self._goodbye = goodbye

    def _tell_closing(self) -> None:
        if self._lease:
            session = self._lease.session
            statistics = session.statistics(self._effects.wall_clock())
            self._tell(StatusChanged(State.CLOSING, session.id, statistics=statistics))

    def _tell(self, event: Notice) -> None:
        with suppress(DeviceStalled):  # then it will not read this either
            self._outbox.post(event)
