"""Sessions in the memory of this process.

Theory.  Nothing here waits but a claim for an older holder to let go, so each
step is whole.  A record is *held* (it has a holder), *wanted* (claims wait for
the holder), or *idle*; a record that is none of these is gone.  The holder is
told once, and has TAKEOVER_SECONDS from then, however many claims follow; of
the claims that wait only the newest is granted, the others are overtaken.

What was saved is a copy, as if it had gone over a network: stores that share one
backend behave like servers that share one database.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import attrs
import trio

from listenai.effects import Effects
from listenai.errors import ErrorCode, ProtocolError
from listenai.sessions.base import Lease, LeaseLost, Session
from listenai.settings import EffectiveConfiguration

_log = logging.getLogger(__name__)

# Leaving a reply and writing down what was heard takes milliseconds, an engine in a thread
# that finishes its chunk 300; a user who has moved to another device waits so long.
TAKEOVER_SECONDS = 2.0
NEVER = float("inf")


@attrs.define(eq=False)
class _Record:
    """One session in the backend."""

    owner: str
    newest_epoch: int = 0  # of the claims, granted or not
    holder: MemoryLease | None = None
    waiting: int = 0  # claims that wait for the holder
    saved: Session | None = None
    idle_since: float = 0.0  # Trio's time
    changed: trio.Event = attrs.field(factory=trio.Event)

    def tell(self) -> None:
        """Wakes the claims that wait."""
        self.changed.set()
        self.changed = trio.Event()


@attrs.define(eq=False)
class MemoryBackend:
    """What several stores share, as servers share a database; and what became of sessions."""

    records: dict[str, _Record] = attrs.field(factory=dict)
    idle: dict[str, _Record] = attrs.field(factory=dict)  # the longest idle first
    last_epoch: int = 0
    expired: int = 0  # sessions forgotten because they were idle for too long
    evicted: int = 0  # ... and because there were too many
    fenced: int = 0  # holders that did not let go in time
    idled: trio.Event = attrs.field(factory=trio.Event)  # another one is idle

    def settle(self, session_id: str, record: _Record) -> None:
        """A record that nobody holds or waits for is idle, or gone if nothing was saved."""
        record.tell()
        if record.holder or record.waiting or self.records.get(session_id) is not record:
            return
        if record.saved is None:
            del self.records[session_id]
        else:
            record.idle_since = trio.current_time()
            self.idle[session_id] = record
            self.idled.set()
            self.idled = trio.Event()

    def forget_longest_idle(self) -> None:
        """The first of the idle ones goes."""
        session_id = next(iter(self.idle))
        del self.idle[session_id], self.records[session_id]


@attrs.define(eq=False)
class MemoryLease:
    """A `Lease`; made by `MemorySessionStore.claim`."""

    session: Session
    restored: bool
    epoch: int
    _record: _Record
    _backend: MemoryBackend
    _wanted: trio.Event = attrs.field(factory=trio.Event)
    _ends_at: float = NEVER  # Trio's time; set when somebody wants the session

    async def save(self) -> None:
        """Keeps a copy of the session; raises LeaseLost."""
        self._check()
        self._record.saved = self.session.copy()

    async def release(self) -> None:
        """Lets go; raises LeaseLost."""
        self._check()
        self._record.holder = None
        self._backend.settle(self.session.id, self._record)

    async def erase(self) -> None:
        """Forgets what was saved, and lets go; raises LeaseLost."""
        self._check()
        self._record.saved = None
        await self.release()

    async def wait_lost(self) -> None:
        """Returns when a newer claim waits for this lease's end."""
        await self._wanted.wait()

    def ask(self) -> float:
        """Tells the holder that the session is wanted; returns when its time is over."""
        if not self._wanted.is_set():
            self._wanted.set()
            self._ends_at = trio.current_time() + TAKEOVER_SECONDS
        return self._ends_at

    def _check(self) -> None:
        if self._record.holder is not self:
            raise LeaseLost(
                f"session {self.session.id!r}: the lease with epoch {self.epoch} is over;"
                " claim the session again"
            )


@attrs.frozen
class MemorySessionStore:
    """A `SessionStore` that forgets the sessions nobody has held for a while.

    idle_seconds: how long an unclaimed session is kept.  max_sessions: claimed ones count
    too; when there are so many, the longest idle one makes room for a new one.
    make_configuration: what a new session is set to.
    """

    effects: Effects
    idle_seconds: float
    max_sessions: int
    make_configuration: Callable[[], EffectiveConfiguration]
    backend: MemoryBackend = attrs.field(factory=MemoryBackend)

    @property
    def kept(self) -> int:
        """Sessions that are kept now, claimed ones too."""
        return len(self.backend.records)

    async def claim(self, session_id: str | None, owner: str) -> Lease:
        """See `SessionStore`: waits TAKEOVER_SECONDS at most for an older holder."""
        backend = self.backend
        self._expire()
        session_id = session_id or self.effects.new_id()
        record = backend.records.get(session_id) or self._new_record(session_id, owner)
        if record.owner != owner:
            raise ProtocolError(
                ErrorCode.SESSION_ERROR,
                f"session {session_id!r} belongs to somebody else; start one with another"
                " session_id, or with none to be given one",
            )
        backend.last_epoch += 1
        epoch = record.newest_epoch = backend.last_epoch
        if record.holder:
            await self._wait_released(session_id, record, record.holder, epoch)
        # From here to the return nothing waits: who is cancelled was not granted it.
        backend.idle.pop(session_id, None)
        return self._grant(session_id, record, epoch)

    async def sweep(self) -> None:
        """Forgets sessions at the moment their time is over; never returns."""
        while True:
            self._expire()
            first = next(iter(self.backend.idle.values()), None)
            with trio.move_on_at(self._expires_at(first) if first else NEVER):
                await self.backend.idled.wait()

    # --- the parts of a claim ----------------------------------------------------------------

    def _new_record(self, session_id: str, owner: str) -> _Record:
        backend = self.backend
        if len(backend.records) >= self.max_sessions:
            if not backend.idle:
                raise ProtocolError(
                    ErrorCode.SESSION_ERROR,
                    f"the server is full: all of its {self.max_sessions} sessions are in use;"
                    " try again later",
                )
            backend.forget_longest_idle()
            backend.evicted += 1
            _log.info("session_evicted max_sessions=%d", self.max_sessions)
        record = backend.records[session_id] = _Record(owner)
        return record

    async def _wait_released(
        self, session_id: str, record: _Record, holder: MemoryLease, epoch: int
    ) -> None:
        """Until the holder has let go or its time is over; raises LeaseLost when overtaken."""
        deadline = holder.ask()
        record.tell()  # a claim that waits already is overtaken by this one
        record.waiting += 1
        try:
            with trio.move_on_at(deadline):
                while record.holder and record.newest_epoch == epoch:
                    await record.changed.wait()
            if record.newest_epoch != epoch:
                raise LeaseLost(f"session {session_id!r} was claimed by a newer connection")
        except BaseException:
            record.waiting -= 1
            self.backend.settle(session_id, record)
            raise
        record.waiting -= 1

    def _grant(self, session_id: str, record: _Record, epoch: int) -> MemoryLease:
        if record.holder:
            self.backend.fenced += 1
            _log.warning("session_fenced epoch=%d: its holder did not let go", record.holder.epoch)
        now = self.effects.wall_clock()
        if restored := record.saved is not None:
            session = record.saved.copy()
            session.last_activity = now
        else:
            session = Session(session_id, now, self.make_configuration())
        record.holder = MemoryLease(session, restored, epoch, record, self.backend)
        return record.holder

    # --- what is over --------------------------------------------------------------------------

    def _expires_at(self, record: _Record) -> float:
        return record.idle_since + self.idle_seconds

    def _expire(self) -> None:
        """Forgets the sessions whose time is over."""
        idle, now = self.backend.idle, trio.current_time()
        while idle and self._expires_at(next(iter(idle.values()))) <= now:
            self.backend.forget_longest_idle()
            self.backend.expired += 1
