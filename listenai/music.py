"""Music: what there is, how it is found, and what a conversation has chosen of it.

A `Jukebox` decides, without waiting and without a sound; the conversation's player
does what it orders, and tells it when a track is over.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, StrEnum
from typing import Any, Protocol

import attrs

from listenai.errors import ToolError

MOST_TITLES_TOLD = 5  # of what there is: more, and nobody listens

# What is said around a title, and what names a kind of music: someone who asks for a kind that
# is not there is better served by other music than by none; one who asks for a title is not.
_FILLERS = """a an the some any my our me us please play put on music song songs track tracks tune
    tunes something anything piece of by for to from 音乐 歌 歌曲 一首 一首歌 曲子 音楽 曲"""
_KINDS = """ambient background blues bossa nova calm calming chill chillout classic classical
    country cheerful dance disco electronic folk funk funky gospel guitar happy hip hop hiphop
    indie instrumental jazz jazzy kids latin lofi lo fi lounge meditation mellow metal oldies
    opera party piano pop popular punk quiet rap reggae relax relaxed relaxing
    rnb rock romantic sad salsa sleep sleepy slow soft soul soundtrack swing techno upbeat violin
    爵士 爵士乐 古典 古典乐 古典音乐 流行 流行音乐 轻音乐 摇滚 摇滚乐 民谣 钢琴 钢琴曲 儿歌
    ジャズ クラシック ロック ポップ ポップス ピアノ"""
_WORD = re.compile(r"[^\W_]+")


class MusicError(ToolError):
    """A track cannot be played; the text says which and why."""


def _searchable(text: str) -> str:
    """Words in one case and without accents or apostrophes, with a space around each."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(char for char in plain if not unicodedata.combining(char) and char not in "'’")
    return f" {' '.join(_WORD.findall(plain))} "


_FILLER_WORDS = frozenset(_searchable(_FILLERS).split())
_KIND_WORDS = frozenset(_searchable(_KINDS).split())


@attrs.frozen
class Track:
    """One piece of music."""

    title: str
    artist: str = ""
    genre: str = ""
    name: str = ""  # of its file below the library's folder, with "/"; empty: it has none
    title_words: str = attrs.field(init=False, eq=False, repr=False)  # as it is searched for
    words: str = attrs.field(init=False, eq=False, repr=False)  # of all fields

    def __attrs_post_init__(self) -> None:
        text = " ".join((self.title, self.artist, self.genre, self.name))
        object.__setattr__(self, "title_words", _searchable(self.title))
        object.__setattr__(self, "words", _searchable(text))


class TrackReader(Protocol):
    """A track that is being read: blocks, so it belongs in a thread, one call at a time."""

    def read(self) -> bytes:
        """About 1 s of int16 mono PCM, b"" at the end.  Raises MusicError."""

    def close(self) -> None:
        """Lets the file go; may be called twice."""


class Library(Protocol):
    """Music that can be played."""

    @property
    def tracks(self) -> Sequence[Track]:
        """All of it, in the order in which it is played; never empty."""

    def open(self, track: Track, rate: int) -> TrackReader:
        """Reads it as PCM of `rate` Hz; blocks like a read.  Raises MusicError."""


def significant_words(query: str) -> list[str]:
    """The words of a request that say which music: none in "play some music please"."""
    return [word for word in _searchable(query).split() if word not in _FILLER_WORDS]


def matching(tracks: Sequence[Track], query: str) -> list[Track]:
    """The tracks a query means: those of this very title, else those with all its words.

    Words are looked for in title, artist, genre, file and folder names; where more of them are
    in the title comes first.
    """
    title = _searchable(query)
    if called := [track for track in tracks if track.title_words == title]:
        return called
    words = [_wanted(word) for word in significant_words(query)]
    found = [track for track in tracks if words and all(word in track.words for word in words)]
    return sorted(found, key=lambda track: -sum(word in track.title_words for word in words))


def _wanted(word: str) -> str:
    """A whole word; any part of the text in scripts that may put no space between words."""
    return f" {word} " if word.isascii() else word


class Action(StrEnum):
    """What a user asks of the music."""

    PLAY = "play"
    STOP = "stop"
    PAUSE = "pause"
    RESUME = "resume"
    NEXT = "next"
    PREVIOUS = "previous"


class MusicState(StrEnum):
    """What the music does."""

    STOPPED = "stopped"
    PLAYING = "playing"
    PAUSED = "paused"


class Order(Enum):
    """What the player has to do now."""

    BEGIN = "play the current track from its start, instead of any other"
    PAUSE = "be silent, and keep the place"
    RESUME = "go on from there"
    STOP = "be silent, and forget the place"
    END = "nothing follows: let what was sent be played"


_S, _A, _O = MusicState, Action, Order

# Without a choice to make: (state, action) -> (next state, what to do).  NEXT and PREVIOUS, and
# PLAY with a query, begin a track in every state.  What is not here is refused.
_TRANSITIONS: Mapping[tuple[MusicState, Action], tuple[MusicState, Order | None]] = {
    (_S.STOPPED, _A.PLAY): (_S.PLAYING, _O.BEGIN),
    (_S.STOPPED, _A.RESUME): (_S.PLAYING, _O.BEGIN),
    (_S.STOPPED, _A.STOP): (_S.STOPPED, None),
    (_S.PLAYING, _A.PLAY): (_S.PLAYING, None),
    (_S.PLAYING, _A.RESUME): (_S.PLAYING, None),
    (_S.PLAYING, _A.PAUSE): (_S.PAUSED, _O.PAUSE),
    (_S.PLAYING, _A.STOP): (_S.STOPPED, _O.STOP),
    (_S.PAUSED, _A.PLAY): (_S.PLAYING, _O.RESUME),
    (_S.PAUSED, _A.RESUME): (_S.PLAYING, _O.RESUME),
    (_S.PAUSED, _A.PAUSE): (_S.PAUSED, None),
    (_S.PAUSED, _A.STOP): (_S.STOPPED, _O.STOP),
}


class Jukebox:
    """What one conversation has chosen to hear, and in which order it goes on.

    A query that fits several tracks makes them the playlist; one that fits a single track is a
    place in the whole library.  Asked for a kind of music that is not there, it plays what is
    there and says so; asked for a title that is not there, it refuses and names what is.
    """

    def __init__(self, library: Library, changed: Callable[[Order], None]) -> None:
        """`changed` is called after each change, once; it must not call back."""
        self._library = library
        self._changed = changed
        self._playlist: Sequence[Track] = ()  # none: the whole library, as it is by then
        self._current: Track | None = None
        self._state = MusicState.STOPPED

    @property
    def state(self) -> MusicState:
        """What the music does."""
        return self._state

    @property
    def current(self) -> Track | None:
        """The track that plays, is paused, or played last."""
        return self._current

    def control(self, action: str, query: str | None = None) -> Mapping[str, Any]:
        """Does an Action; only PLAY heeds the query.

        Returns the `state`, and the `title` and `artist` of the current track; a `note` where it
        is not what was asked for.  Raises ToolError, and then nothing has changed; ValueError
        for what is no Action.
        """
        match Action(action):
            case Action.PLAY if query:
                return self._play(query)
            case Action.NEXT:
                self._step(+1)
            case Action.PREVIOUS:
                self._step(-1)
            case plain:
                self._do(plain)
        return self._told()

    def track_ended(self) -> None:
        """The current track was played, or cannot be: the next begins, or the music stops."""
        if self._state is not MusicState.PLAYING:
            return
        tracks, place = self._tracks(), self._place()
        if place is not None and place + 1 < len(tracks):
            self._begin(tracks[place + 1])
        else:
            self._state = MusicState.STOPPED
            self._changed(Order.END)

    def _do(self, action: Action) -> None:
        """What needs no choice, but for the first track where there was none yet."""
        if (self._state, action) not in _TRANSITIONS:
            raise ToolError(f"there is nothing to {action}: no music is playing")
        state, order = _TRANSITIONS[self._state, action]
        if order is Order.BEGIN:
            self._begin(self._current or self._tracks()[0])
        else:
            self._state = state
            if order:
                self._changed(order)

    def _begin(self, track: Track) -> None:
        self._current, self._state = track, MusicState.PLAYING
        self._changed(Order.BEGIN)

    def _step(self, by: int) -> None:
        """To a neighbour in the playlist, which is a ring for those who ask."""
        tracks, place = self._tracks(), self._place()
        self._begin(tracks[0 if place is None else (place + by) % len(tracks)])

    def _place(self) -> int | None:
        """Where in the playlist the current track is."""
        tracks = self._tracks()
        return tracks.index(self._current) if self._current in tracks else None

    def _tracks(self) -> Sequence[Track]:
        """What is played one after the other."""
        return self._playlist or self._library.tracks

    def _play(self, query: str) -> Mapping[str, Any]:
        """Begins what the query means."""
        tracks, words = self._library.tracks, significant_words(query)
        if found := matching(tracks, query):
            self._playlist = found if len(found) > 1 else ()
            self._begin(found[0])
        elif not words:  # "some music"
            self._do(Action.PLAY)
        elif all(word in _KIND_WORDS for word in words):
            self._playlist = ()
            self._begin(tracks[0])
            return {**self._told(), "note": f"there is no {query!r} here, so other music plays"}
        else:
            raise ToolError(f"there is no music named {query!r} here; there is: {_some_of(tracks)}")
        return self._told()

    def _told(self) -> Mapping[str, Any]:
        told: dict[str, Any] = {"state": self._state.value}
        if self._current:
            told["title"] = self._current.title
            if self._current.artist:
                told["artist"] = self._current.artist
        return told


def _some_of(tracks: Sequence[Track]) -> str:
    names = ", ".join(repr(track.title) for track in tracks[:MOST_TITLES_TOLD])
    more = len(tracks) - MOST_TITLES_TOLD
    return f"{names} and {more} more" if more > 0 else names
