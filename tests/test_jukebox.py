"""What a conversation chooses of the music: queries, the state machine, the playlist."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest

from listenai.errors import ToolError
from listenai.music import Jukebox, MusicState, Order, Track, TrackReader, matching

BLUE = Track("Blue Moon", "The Fakes", "Jazz", "evening/01 blue_moon.mp3")
CAFE = Track("Café Olé", "María", "Bossa Nova", "evening/02.flac")
ROCKET = Track("Rocket", "Loud Band", "Rock", "loud/rocket.ogg")
MOON = Track("Don't Moon", "Loud Band", "", "loud/moon.wav")
CHINESE = Track("月亮代表我的心", "邓丽君", "", "moon.wav")
TRACKS = (BLUE, CAFE, ROCKET, MOON, CHINESE)
TUNE = Track("The Tune", "Nobody")


@attrs.define
class Shelf:
    """A library without files."""

    tracks: Sequence[Track] = TRACKS

    def open(self, track: Track, rate: int) -> TrackReader:
        raise NotImplementedError


@attrs.define
class Player:
    """A jukebox, and the orders it gave."""

    tracks: Sequence[Track] = TRACKS
    orders: list[Order] = attrs.field(factory=list)
    jukebox: Jukebox = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.jukebox = Jukebox(Shelf(self.tracks), self.orders.append)

    def do(self, *actions: str) -> None:
        for action in actions:
            self.jukebox.control(action)

    def end(self) -> Track | None:
        """The track ends; what plays then."""
        self.jukebox.track_ended()
        return self.jukebox.current if self.jukebox.state is MusicState.PLAYING else None


# --- queries -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("blue moon", [BLUE]),
        ("play Blue Moon by the fakes, please", [BLUE]),
        ("some JAZZ music", [BLUE]),
        ("cafe ole", [CAFE]),
        ("maria", [CAFE]),
        ("dont moon", [MOON]),
        ("moon", [BLUE, MOON, CHINESE]),  # those with it in the title first
        ("loud", [ROCKET, MOON]),  # a folder
        ("evening", [BLUE, CAFE]),
        ("rock", [ROCKET]),  # by its genre
        ("rocke", []),  # no part of a word
        ("月亮", [CHINESE]),  # but where words are not spaced
        ("moon rocket", []),
        ("some music", []),
        ("", []),
        ("!?", []),
    ],
)
def test_a_query_finds(query: str, found: list[Track]):
    """Words of title, artist, genre, file and folder, whatever the case and accents."""
    assert matching(TRACKS, query) == found


def test_a_title_of_fillers_is_found():
    """Someone who says the very title means it."""
    music = Track("Music")
    assert matching([Track("Music Box"), music], "music") == [music]


# --- the state machine -------------------------------------------------------------------

BEFORE = {
    MusicState.STOPPED: ("play", "stop"),
    MusicState.PLAYING: ("play",),
    MusicState.PAUSED: ("play", "pause"),
}
S, O = MusicState, Order  # noqa: E741


@pytest.mark.parametrize(
    ("state", "action", "after", "orders"),
    [
        (S.STOPPED, "play", S.PLAYING, [O.BEGIN]),
        (S.STOPPED, "resume", S.PLAYING, [O.BEGIN]),
        (S.STOPPED, "next", S.PLAYING, [O.BEGIN]),
        (S.STOPPED, "previous", S.PLAYING, [O.BEGIN]),
        (S.STOPPED, "stop", S.STOPPED, []),
        (S.PLAYING, "play", S.PLAYING, []),
        (S.PLAYING, "resume", S.PLAYING, []),
        (S.PLAYING, "pause", S.PAUSED, [O.PAUSE]),
        (S.PLAYING, "stop", S.STOPPED, [O.STOP]),
        (S.PLAYING, "next", S.PLAYING, [O.BEGIN]),
        (S.PLAYING, "previous", S.PLAYING, [O.BEGIN]),
        (S.PAUSED, "play", S.PLAYING, [O.RESUME]),
        (S.PAUSED, "resume", S.PLAYING, [O.RESUME]),
        (S.PAUSED, "pause", S.PAUSED, []),
        (S.PAUSED, "stop", S.STOPPED, [O.STOP]),
        (S.PAUSED, "next", S.PLAYING, [O.BEGIN]),
        (S.PAUSED, "previous", S.PLAYING, [O.BEGIN]),
    ],
)
def test_every_action_in_every_state(
    state: MusicState, action: str, after: MusicState, orders: list[Order]
):
    """The next state, what the player is told, and the model."""
    player = Player()
    player.do(*BEFORE[state])
    player.orders.clear()
    told = player.jukebox.control(action)
    assert player.jukebox.state is after
    assert player.orders == orders
    current = player.jukebox.current
    assert current
    assert told == {"state": after.value, "title": current.title, "artist": current.artist}


@pytest.mark.parametrize("before", [(), ("play", "stop")])
def test_what_does_not_play_cannot_be_paused(before: tuple[str, ...]):
    """And nothing changes."""
    player = Player()
    player.do(*before)
    player.orders.clear()
    with pytest.raises(ToolError, match="nothing to pause: no music is playing"):
        player.jukebox.control("pause")
    assert (player.jukebox.state, player.orders) == (MusicState.STOPPED, [])


@pytest.mark.parametrize(
    ("action", "track"), [("play", BLUE), ("resume", BLUE), ("next", BLUE), ("previous", BLUE)]
)
def test_the_first_action_begins_with_the_first_track(action: str, track: Track):
    """There is nothing to go on from."""
    player = Player()
    player.do(action)
    assert (player.jukebox.current, player.orders) == (track, [Order.BEGIN])


@pytest.mark.parametrize("action", ["play", "resume"])
def test_what_was_stopped_begins_again(action: str):
    """The same track, and not the first."""
    player = Player()
    player.do("play", "next", "stop", action)
    assert (player.jukebox.current, player.orders[-1]) == (CAFE, Order.BEGIN)


def test_nothing_chosen_nothing_told():
    """Stopping what never played is no mistake."""
    assert Player().jukebox.control("stop") == {"state": "stopped"}


def test_the_state_is_known_before_the_order_is_given():
    """The player may look at the jukebox when it is told."""
    seen = []
    jukebox = Jukebox(Shelf(), lambda order: seen.append((order, jukebox.state, jukebox.current)))
    for action in ("play", "pause", "resume", "next", "stop"):
        jukebox.control(action)
    assert seen == [
        (Order.BEGIN, MusicState.PLAYING, BLUE),
        (Order.PAUSE, MusicState.PAUSED, BLUE),
        (Order.RESUME, MusicState.PLAYING, BLUE),
        (Order.BEGIN, MusicState.PLAYING, CAFE),
        (Order.STOP, MusicState.STOPPED, CAFE),
    ]


def test_no_action_at_all():
    """A caller's mistake, not the model's."""
    with pytest.raises(ValueError, match="'dance' is not a valid Action"):
        Player().jukebox.control("dance")


# --- what is chosen, and what comes after ------------------------------------------------


@pytest.mark.parametrize("before", [*BEFORE.values(), ()])
def test_a_chosen_track_begins(before: tuple[str, ...]):
    """In every state; also the one that plays already."""
    player = Player()
    player.do(*before)
    for _ in range(2):
        player.orders.clear()
        told = player.jukebox.control("play", "rocket")
        assert told == {"state": "playing", "title": "Rocket", "artist": "Loud Band"}
        assert (player.jukebox.current, player.orders) == (ROCKET, [Order.BEGIN])


def test_a_single_match_is_a_place_in_the_library():
    """What follows it there comes next; at the end of the library the music stops."""
    player = Player()
    player.jukebox.control("play", "rocket")
    assert [player.end(), player.end(), player.end()] == [MOON, CHINESE, None]
    assert player.jukebox.state is MusicState.STOPPED
    assert player.orders == [Order.BEGIN] * 3 + [Order.END]


def test_several_matches_are_the_playlist():
    """Someone who asks for a band hears the band, and not what lies beside it."""
    player = Player()
    player.jukebox.control("play", "loud band")
    assert player.jukebox.current is ROCKET
    assert [player.end(), player.end()] == [MOON, None]


def test_next_and_previous_go_round():
    """Someone who asks wants music."""
    player = Player()
    player.jukebox.control("play", "loud band")
    heard = []
    for action in ("next", "next", "previous", "previous"):
        player.do(action)
        heard.append(player.jukebox.current)
    assert heard == [MOON, ROCKET, MOON, ROCKET]


@pytest.mark.parametrize("query", ["some music", "something", " ", "!"])
def test_a_query_that_names_nothing_is_none(query: str):
    """Plain "play": it goes on."""
    player = Player()
    player.do("play", "next", "pause")
    player.jukebox.control("play", query)
    assert player.jukebox.current is CAFE
    assert player.orders[-1] is Order.RESUME


def test_a_kind_of_music_that_is_not_there():
    """Other music plays, all there is, and the model is told so."""
    player = Player()
    player.jukebox.control("play", "loud band")
    player.orders.clear()
    told = player.jukebox.control("play", "some relaxing piano music")
    assert told["title"] == "Blue Moon"
    assert told["note"] == ("there is no 'some relaxing piano music' here, so other music plays")
    assert player.orders == [Order.BEGIN]
    assert player.end() is CAFE


def test_a_title_that_is_not_there_is_refused():
    """With some of what there is; what plays goes on."""
    player = Player([*TRACKS, TUNE])
    player.do("play")
    with pytest.raises(ToolError) as refused:
        player.jukebox.control("play", "Yesterday")
    assert str(refused.value) == (
        "there is no music named 'Yesterday' here; there is: 'Blue Moon', 'Café Olé', 'Rocket', "
        "\"Don't Moon\", '月亮代表我的心' and 1 more"
    )
    assert (player.jukebox.state, player.orders) == (MusicState.PLAYING, [Order.BEGIN])


def test_with_the_tune_alone():
    """Jazz it is not, and it says so; a title it is not either; next is the same again."""
    player = Player([TUNE])
    assert player.jukebox.control("play", "jazz")["note"] == (
        "there is no 'jazz' here, so other music plays"
    )
    with pytest.raises(ToolError, match=r"no music named 'Yesterday' here; there is: 'The Tune'$"):
        player.jukebox.control("play", "Yesterday")
    player.do("next")
    assert (player.jukebox.current, player.orders) == (TUNE, [Order.BEGIN] * 2)
    assert player.end() is None


@pytest.mark.parametrize("before", [("play", "stop"), ("play", "pause")])
def test_the_end_of_a_track_that_does_not_play(before: tuple[str, ...]):
    """A stop that overtook it counts."""
    player = Player()
    player.do(*before)
    player.orders.clear()
    assert player.end() is None
    assert player.orders == []
    assert player.jukebox.current is BLUE


def test_a_library_may_be_scanned_meanwhile():
    """What plays there no longer has a place in it: the music stops, or begins from the start."""
    shelf = Shelf((TUNE,))
    jukebox = Jukebox(shelf, lambda order: None)
    jukebox.control("play")
    shelf.tracks = TRACKS
    jukebox.control("next")
    assert jukebox.current is BLUE
    shelf.tracks = (TUNE,)
    jukebox.track_ended()
    assert (jukebox.state, jukebox.current) == (MusicState.STOPPED, BLUE)


def test_a_playlist_outlives_a_scan():
    """What was asked for plays on."""
    shelf = Shelf()
    jukebox = Jukebox(shelf, lambda order: None)
    jukebox.control("play", "loud band")
    shelf.tracks = (TUNE,)
    jukebox.track_ended()
    assert jukebox.current is MOON
