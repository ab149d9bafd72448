"""One conversation's music: below what the assistant says, and alone while nobody speaks.

Theory.  The music has no turn: it goes on until told otherwise.  Alone it is a stream of its
own, sent in *runs*; a run is cut, by plain code, the moment somebody speaks or a turn begins:
the device forgets what it has not played, and that is given back to the buffer.  While a turn
speaks, its stream carries the music mixed below the voice.  So the device plays one stream at
a time, and whatever stops the assistant stops the music with it.

One task reads the track, second by second in a thread; another sends the runs.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import attrs
import trio

from listenai.audio import SAMPLE_BYTES, scaled
from listenai.conversation.mixer import Mixer, MusicBuffer
from listenai.conversation.outbox import Gate, Outbox
from listenai.conversation.stream import Stream
from listenai.device import Capabilities
from listenai.events import (
    AudioChunk,
    Notice,
    Source,
    StreamEnded,
    StreamFlushed,
    StreamStarted,
)
from listenai.music import Action, Jukebox, Library, MusicError, MusicState, Order, TrackReader
from listenai.sessions.base import Session

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Blocking(Protocol):
    """Calls what blocks, in a thread."""

    async def __call__(self, blocks: Callable[..., T], *arguments: Any) -> T:
        """What it returns, or raises."""


@attrs.frozen
class MusicSource:
    """Where a conversation's music comes from."""

    library: Library
    blocking: Blocking  # reads tracks


@attrs.define(eq=False)
class _Run:
    """Music alone, in a stream of its own; sends through the outbox like a turn."""

    stream: Stream
    gate: Gate = Gate.OPEN
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    untaken: int = 0  # samples of the chunk that waits for the writer

    def taken(self, event: Notice, now: float) -> None:
        """The writer has this message."""
        if isinstance(event, AudioChunk):
            self.untaken = 0
        self.stream.taken(event, now)


class MusicPlayer:
    """Plays what is asked for; `run` is its life."""

    def __init__(
        self,
        source: MusicSource,
        outbox: Outbox,
        session: Session,
        capabilities: Capabilities,
        lead_seconds: float,
        chunk_seconds: float,
    ) -> None:
        self._source, self._outbox, self._session = source, outbox, session
        self._device_forgets = capabilities.flush
        self._lead_seconds, self._chunk_seconds = lead_seconds, chunk_seconds
        self._jukebox = Jukebox(source.library, self._obey)
        self._alone = False  # nobody speaks, or is about to
        self._run: _Run | None = None
        self._begin_track = False  # the current track is to be read from its start
        self._use_rate(session.configuration.output_sample_rate)
        self._changed = trio.Event()

    @property
    def can_play(self) -> bool:
        """Whether the device plays as it is sent, so that music can be sent as it is played."""
        return self._lead_seconds != math.inf

    # --- plain code: what others want of it ----------------------------------------------------

    async def control(self, action: str, query: str | None) -> Mapping[str, Any]:
        """Does what the assistant was asked for (`tools.music.MusicPlayer`); raises ToolError."""
        told = self._jukebox.control(action, query)
        if self._begin_track or self._jukebox.state is not MusicState.PLAYING:
            self._cut()
        return told

    def silence(self) -> None:
        """The button: music that plays is paused, and can be resumed."""
        if self._jukebox.state is MusicState.PLAYING:
            self._jukebox.control(Action.PAUSE)
            self._cut()

    @property
    def playing(self) -> bool:
        """Whether there is something to be heard."""
        return self._jukebox.state is MusicState.PLAYING and self._buffer.ahead > 0

    def set_alone(self, alone: bool) -> None:
        """Whether nobody speaks: else music sounds only below a turn's voice."""
        if alone is not self._alone:
            self._alone = alone
            if not alone:
                self._cut()
            self._wake()

    def below(self, speech: bytes, sample_rate: int) -> bytes:
        """The speech with music below it, where music plays; silence counts as speech."""
        if not self.playing or sample_rate != self._rate:
            return self._mixer.mix(speech, b"")
        return self._mixer.mix(speech, self._take(len(speech) // SAMPLE_BYTES))

    def give_back(self, samples: int) -> None:
        """So much of what was mixed last will never be played."""
        self._buffer.give_back(min(samples, self._buffer.behind))

    def _obey(self, order: Order) -> None:
        """The jukebox has changed."""
        if order is Order.BEGIN:
            self._begin_track = True
            self._buffer.clear()
        self._wake()

    def _cut(self) -> None:
        """The run that goes on is over."""
        run, self._run = self._run, None
        if not run:
            return
        run.gate = Gate.SHUT
        run.scope.cancel()
        self._mixer.cut()
        stream = run.stream
        unplayed = run.untaken
        run.untaken = 0
        if stream.opened and self._device_forgets:
            self._outbox.post(StreamFlushed(stream.id))
            unplayed += stream.playout.sent - stream.playout.played(trio.current_time())
        elif stream.opened and not stream.ended:  # it plays what it has
            self._outbox.post(StreamEnded(stream.id, stream.playout.sent))
        self.give_back(unplayed)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _take(self, samples: int) -> bytes:
        """The next music; at the end of a track, the next track begins."""
        pcm = self._buffer.take(samples)
        if self._buffer.ended:
            self._jukebox.track_ended()
        if self._buffer.wanted:
            self._wake()
        return pcm

    def _use_rate(self, rate: int) -> None:
        self._rate = rate  # Hz
        self._buffer = MusicBuffer(rate)
        self._mixer = Mixer(rate)

    # --- tasks -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_tracks)
            while True:
                if self._alone and self.playing:
                    await self._play_alone()
                else:
                    await self._changed.wait()

    async def _play_alone(self) -> None:
        """One run: until it is cut, or there is no more music."""
        self._session.last_stream_id += 1
        stream = Stream(self._session.last_stream_id, self._rate, self._lead_seconds)
        run = self._run = _Run(stream)
        with run.scope:
            turn_id = self._session.last_turn_id
            started = StreamStarted(turn_id, stream.id, stream.sample_rate, Source.MUSIC)
            await self._outbox.send(run, started)
            while self._rate == stream.sample_rate:
                await trio.sleep_until(stream.playout.due())
                if self.playing:
                    await self._send_chunk(run)
                elif self._jukebox.state is MusicState.PLAYING:  # the reader is behind
                    await self._changed.wait()
                else:
                    break
            await self._outbox.send(run, StreamEnded(stream.id, stream.playout.sent))
            await trio.sleep_until(stream.playout.ends_at())
        if self._run is run:
            self._run = None

    async def _send_chunk(self, run: _Run) -> None:
        pcm = self._mixer.mix(b"", self._take(int(self._rate * self._chunk_seconds)))
        run.untaken = len(pcm) // SAMPLE_BYTES
        await self._outbox.send(run, AudioChunk(run.stream.id, scaled(pcm, self._session.volume)))

    async def _read_tracks(self) -> None:
        """Keeps the buffer full."""
        reader: TrackReader | None = None
        try:
            while True:
                rate = self._session.configuration.output_sample_rate
                if rate != self._rate:  # the track begins anew at the rate that is now wanted
                    self._use_rate(rate)
                    self._begin_track = self._jukebox.current is not None
                if self._begin_track and self._jukebox.state is not MusicState.STOPPED:
                    if reader:
                        reader.close()
                    reader = await self._open_track()
                elif reader and self._buffer.wanted and not self._begin_track:
                    await self._read_more(reader)
                else:
                    await self._changed.wait()
        finally:
            if reader:
                reader.close()

    async def _open_track(self) -> TrackReader | None:
        self._begin_track = False
        track = self._jukebox.current
        assert track  # or nothing could be begun
        try:
            return await self._source.blocking(self._source.library.open, track, self._rate)
        except MusicError as error:
            self._give_up_track(error)
            return None

    async def _read_more(self, reader: TrackReader) -> None:
        buffer = self._buffer
        try:
            pcm = await self._source.blocking(reader.read)
        except MusicError as error:
            self._give_up_track(error)
            return
        if self._begin_track or self._buffer is not buffer:
            return  # meanwhile another track was wanted
        if pcm:
            buffer.append(pcm)
        else:
            buffer.complete()
            if buffer.ended:
                self._jukebox.track_ended()
        self._wake()

    def _give_up_track(self, error: MusicError) -> None:
        _log.warning("music_track_failed: %s", error)
        if not self._begin_track:
            self._jukebox.track_ended()
