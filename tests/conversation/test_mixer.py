"""The mixer's arithmetic: no clicks, no wrapping, nothing lost, nothing done without need."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listenai.conversation.mixer import (
    AHEAD_SECONDS,
    BEHIND_SECONDS,
    DUCK_DB,
    DUCK_SECONDS,
    LONGEST_READ_SECONDS,
    RAMP_SECONDS,
    UNDUCK_SECONDS,
    Gain,
    Mixer,
    MusicBuffer,
)

RATE = 1_000  # Hz: a millisecond a sample
LOUD = 20_000
DUCKED = 10 ** (-DUCK_DB / 20)

int16s = st.lists(st.integers(-32768, 32767), max_size=200)
levels = st.floats(0, 4, allow_subnormal=False)


def pcm(*samples: int) -> bytes:
    return np.array(samples, "<i2").tobytes()


def numbered(samples: range) -> bytes:
    return np.array(samples).astype(np.uint16).tobytes()


def steady(samples: int, value: int = LOUD) -> bytes:
    return np.full(samples, value, "<i2").tobytes()


def values(audio: bytes) -> np.ndarray:
    return np.frombuffer(audio, "<i2").astype(int)


# --- gain --------------------------------------------------------------------------------


def test_unity_gain_costs_nothing():
    """The object itself, also after a ramp that came back to 1.0."""
    gain, audio = Gain(RATE), steady(50)
    assert gain.apply(audio) is audio
    gain.ramp_to(0.5)
    gain.apply(audio)
    gain.ramp_to(1.0)
    gain.apply(audio)
    assert gain.apply(audio) is audio


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (0.5, (500, -500, 16384, -16384)),
        (0.0, (0, 0, 0, 0)),
        (2.0, (2000, -2000, 32767, -32768)),
    ],
)
def test_a_steady_gain_scales_and_saturates(level: float, expected: tuple[int, ...]):
    """Rounded; what is too loud is clipped and does not wrap."""
    assert Gain(RATE, level).apply(pcm(1000, -1000, 32767, -32768)) == pcm(*expected)


def test_a_ramp_is_straight_and_as_long_as_asked():
    """30 ms for a change of volume; then the level is exact."""
    gain = Gain(RATE)
    gain.ramp_to(0.0)
    heard = values(gain.apply(steady(40)))
    ramp = round(RAMP_SECONDS * RATE)
    straight = LOUD * (1 - np.arange(1, ramp + 1) / ramp)
    assert np.abs(heard[:ramp] - straight).max() <= 1
    assert not heard[ramp - 1 :].any()
    assert gain.level == 0.0


def test_a_ramp_goes_on_where_it_is():
    """Asked again for the same level it does not begin anew; for another, it turns round."""
    gain = Gain(RATE)
    gain.ramp_to(0.0, 0.1)
    gain.apply(steady(50))
    gain.ramp_to(0.0, 0.1)
    assert values(gain.apply(steady(50)))[-1] == 0
    gain.ramp_to(1.0, 0.1)
    gain.apply(steady(50))
    assert gain.level == pytest.approx(0.5)
    gain.ramp_to(0.0, 0.1)
    assert values(gain.apply(steady(1)))[0] == pytest.approx(0.495 * LOUD, abs=1)


@settings(max_examples=100, deadline=None)
@given(
    frames=st.lists(st.tuples(st.integers(0, 60), levels, st.floats(0.01, 0.2)), max_size=12),
)
def test_no_ramp_has_a_step(frames: list[tuple[int, float, float]]):
    """However frames and changes fall: from sample to sample no more than the ramp's slope."""
    gain, last = Gain(RATE), 1.0
    for samples, level, seconds in frames:
        before = gain.level
        gain.ramp_to(level, seconds)
        bound = max(4.0 / (0.01 * RATE), abs(level - before) / (seconds * RATE)) + 1e-4
        heard = np.broadcast_to(gain.levels(samples), samples)
        assert np.abs(np.diff(heard, prepend=last)).max(initial=0) <= bound
        last = float(heard[-1]) if samples else last
        assert gain.level == pytest.approx(last, abs=1e-5)


@settings(max_examples=100, deadline=None)
@given(int16s, levels)
def test_gain_never_wraps(samples: list[int], level: float):
    """Every sample keeps its sign, and is the clipped product."""
    heard = values(Gain(RATE, level).apply(pcm(*samples)))
    exact = np.clip(np.array(samples, float) * level, -32768, 32767)
    assert len(heard) == len(samples)
    assert np.abs(heard - exact).max(initial=0) <= 0.51


def test_pieces_do_not_matter_to_a_ramp():
    """The same audio, whole or sample by sample."""
    whole, pieces = Gain(RATE), Gain(RATE)
    whole.ramp_to(0.1, 0.05)
    pieces.ramp_to(0.1, 0.05)
    at_once = values(whole.apply(steady(80)))
    one_by_one = values(b"".join(pieces.apply(steady(1)) for _ in range(80)))
    assert np.abs(at_once - one_by_one).max() <= 1


@pytest.mark.parametrize("level", [-0.1, float("nan"), float("inf")])
def test_a_gain_that_is_none_is_refused(level: float):
    """Wherever it is given."""
    with pytest.raises(ValueError, match="a gain is 0 or more, and finite, not"):
        Gain(RATE, level)
    with pytest.raises(ValueError, match="a gain is 0 or more"):
        Gain(RATE).ramp_to(level)
    with pytest.raises(ValueError, match="a gain is 0 or more"):
        Gain(RATE).jump_to(level)


# --- the buffer --------------------------------------------------------------------------

steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(0, 700)),
        st.tuples(st.just("give back"), st.integers(0, 1000)),
        st.tuples(st.just("fill"), st.integers(1, 2000)),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(steps)
def test_nothing_is_lost_or_doubled(operations: list[tuple[str, int]]):
    """Whatever is taken and given back, the next samples are those after what was played."""
    buffer, added, played = MusicBuffer(RATE), 0, 0
    most = (AHEAD_SECONDS + LONGEST_READ_SECONDS + 2 * BEHIND_SECONDS) * RATE
    takeable_back = 0
    for operation, samples in operations:
        match operation:
            case "fill" if buffer.wanted:
                buffer.append(numbered(range(added, added + samples)))
                added += samples
            case "take":
                ahead = added - played
                got = buffer.take(samples)
                assert got == numbered(range(played, played + min(samples, ahead)))
                played += len(got) // 2
                takeable_back = min(BEHIND_SECONDS * RATE, takeable_back + len(got) // 2)
            case "give back":
                back = int(min(samples, takeable_back))
                buffer.give_back(back)
                played -= back
                takeable_back -= back
        assert buffer.ahead == added - played
        assert buffer.behind == takeable_back
        assert buffer.ahead + takeable_back <= most
        assert len(buffer._audio) / 2 <= most  # the bound it promises


def test_it_says_how_much_is_wanted():
    """Up to two seconds ahead; nothing after the end."""
    buffer = MusicBuffer(RATE)
    assert buffer.wanted == 2 * RATE
    buffer.append(steady(1500))
    assert buffer.wanted == 500
    buffer.append(steady(1000))
    assert buffer.wanted == 0
    buffer.take(1000)
    assert buffer.wanted == 500
    buffer.complete()
    assert buffer.wanted == 0


def test_it_ends_when_all_was_taken_and_nothing_follows():
    """And has not ended once something was given back."""
    buffer = MusicBuffer(RATE)
    buffer.append(steady(10))
    assert buffer.take(20) == steady(10)
    assert not buffer.ended
    buffer.complete()
    assert buffer.ended
    buffer.give_back(4)
    assert not buffer.ended
    assert buffer.take(20) == steady(4)
    assert buffer.ended


def test_cleared_it_is_new():
    """Nothing of the old music comes back, and new music may be added."""
    buffer = MusicBuffer(RATE)
    buffer.append(steady(100))
    buffer.take(50)
    buffer.complete()
    buffer.clear()
    assert (buffer.ahead, buffer.ended) == (0, False)
    with pytest.raises(ValueError, match="the last 0 can be"):
        buffer.give_back(1)
    buffer.append(steady(3, 7))
    assert buffer.take(9) == steady(3, 7)


def test_what_a_caller_must_not_do_is_refused():
    """With what it may do."""
    buffer = MusicBuffer(RATE)
    with pytest.raises(ValueError, match="3 bytes of music are not whole"):
        buffer.append(b"abc")
    with pytest.raises(ValueError, match="only while some are wanted"):
        buffer.append(steady(6 * RATE))
    buffer.append(steady(3 * RATE))
    buffer.take(3 * RATE)
    with pytest.raises(ValueError, match="1001 samples of music were given back; the last 1000"):
        buffer.give_back(1001)
    with pytest.raises(ValueError, match="-1 samples"):
        buffer.give_back(-1)
    buffer.complete()
    with pytest.raises(ValueError, match="after it was said to be complete"):
        buffer.append(steady(1))


# --- the mixer ---------------------------------------------------------------------------


def test_without_music_speech_is_untouched():
    """The object itself, empty or not."""
    mixer, speech = Mixer(RATE), steady(60)
    assert mixer.mix(speech, b"") is speech
    assert mixer.mix(b"", b"") == b""


def test_music_alone_is_untouched():
    """At full level, the object itself."""
    music = steady(60)
    assert Mixer(RATE).mix(b"", music) is music


def test_music_makes_way_for_speech_and_comes_back():
    """18 dB down within 150 ms, up again in 400 ms, in between it stays."""
    mixer, silence = Mixer(RATE), steady(60, 0)
    down = values(b"".join(mixer.mix(silence, steady(60)) for _ in range(5)))
    assert (np.diff(down) <= 0).all()
    assert down[round(DUCK_SECONDS * RATE) - 10] > LOUD * DUCKED + 10
    assert (np.abs(down[round(DUCK_SECONDS * RATE) :] - LOUD * DUCKED) <= 1).all()
    up = values(b"".join(mixer.mix(b"", steady(60)) for _ in range(8)))
    assert (np.diff(up) >= 0).all()
    assert up[round(UNDUCK_SECONDS * RATE) - 10] < LOUD - 10
    assert (up[round(UNDUCK_SECONDS * RATE) :] == LOUD).all()


def test_music_that_begins_under_speech_begins_quiet():
    """No loud moment before the ramp; and what begins after speech fades in."""
    mixer = Mixer(RATE)
    mixer.mix(steady(60), b"")
    assert values(mixer.mix(steady(60, 0), steady(60))).max() <= LOUD * DUCKED + 1
    mixer.mix(steady(60), b"")
    assert values(mixer.mix(b"", steady(60)))[0] < LOUD * DUCKED * 1.1


def test_music_that_was_cut_comes_back_quietly():
    """Under speech at once, alone in a ramp."""
    mixer = Mixer(RATE)
    mixer.mix(b"", steady(60))
    mixer.cut()
    assert values(mixer.mix(steady(60, 0), steady(60))).max() <= LOUD * DUCKED + 1
    mixer.cut()
    back = values(mixer.mix(b"", steady(500)))
    assert back[0] < LOUD * DUCKED * 1.1
    assert back[-1] == LOUD


@pytest.mark.parametrize(("speech", "music"), [(40, 60), (60, 40), (0, 60), (60, 0), (60, 60)])
def test_the_longer_one_gives_the_length(speech: int, music: int):
    """Where one is over, the other goes on alone."""
    mixer = Mixer(RATE)
    mixer.mix(steady(1), b"")  # ducked
    mixed = values(mixer.mix(steady(speech, 1000), steady(music, 8000)))
    assert len(mixed) == max(speech, music)
    under = 8000 * DUCKED if speech else None
    if speech and music:
        both = min(speech, music)
        assert mixed[both - 1] == pytest.approx(1000 + under, abs=1)
    if speech > music:
        assert (mixed[music:] == 1000).all()
    if speech and music > speech:
        assert mixed[-1] == pytest.approx(under, abs=1)


@settings(max_examples=100, deadline=None)
@given(int16s.filter(bool), int16s.filter(bool))
def test_a_sum_saturates(speech: list[int], music: list[int]):
    """Never wraps: every sample is the clipped sum."""
    mixer = Mixer(RATE)
    mixer.mix(steady(1), b"")  # ducked
    mixed = values(mixer.mix(pcm(*speech), pcm(*music)))
    exact = np.zeros(max(len(speech), len(music)))
    exact[: len(music)] += np.array(music) * DUCKED
    exact[: len(speech)] += speech
    assert np.abs(mixed - np.clip(exact, -32768, 32767)).max() <= 0.51


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_ducking_never_clicks(speaking: list[bool]):
    """However speech comes and goes, music of a steady level moves by the ramp's slope at most."""
    mixer = Mixer(RATE)
    silence = steady(20, 0)
    heard = b"".join(mixer.mix(silence if speech else b"", steady(20)) for speech in speaking)
    slope = LOUD * (1 - DUCKED) / (DUCK_SECONDS * RATE)
    assert np.abs(np.diff(values(heard), prepend=LOUD)).max() <= slope + 2
