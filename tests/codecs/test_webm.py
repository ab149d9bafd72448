"""WebM of browsers and of FFmpeg, in any pieces; and everything that is no such thing."""

from __future__ import annotations

from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from listenai.codecs.webm import MAX_ELEMENT_BYTES, MOST_TRACKS, Found, OpusStream, WebmDemuxer

RECORDINGS = Path(__file__).parent / "recordings"
CHROMIUM, FIREFOX, FFMPEG = (
    (RECORDINGS / f"{writer}.webm").read_bytes() for writer in ("chromium", "firefox", "ffmpeg")
)
# As `ondataavailable` gave them, every 100 ms.
CHROMIUM_MESSAGES = (176, 43, 43, 2278, 1954, 1806, 1907, 2165, 1953)
FIREFOX_MESSAGES = (335, 60, 60, 1970, 1650, 1650, 1417, 1803, 1730, 1650, 1336)

UNKNOWN = b"\x01" + b"\xff" * 7
SEGMENT, TRACKS, TRACK, CLUSTER = "18538067", "1654AE6B", "AE", "1F43B675"
HEAD = b"OpusHead\x01\x01" + (312).to_bytes(2, "little") + (48_000).to_bytes(4, "little") + bytes(3)


def element(id_: str, content: bytes, width: int = 4) -> bytes:
    return bytes.fromhex(id_) + (len(content) | 1 << 7 * width).to_bytes(width) + content


def endless(id_: str, content: bytes = b"") -> bytes:
    return bytes.fromhex(id_) + UNKNOWN + content


def track(
    *, number: int = 1, codec: bytes = b"A_OPUS", head: bytes = HEAD, more: bytes = b""
) -> bytes:
    parts = element("D7", bytes([number])), element("86", codec), element("63A2", head), more
    return element(TRACK, b"".join(parts))


def beginning(*tracks: bytes) -> bytes:
    header = element("1A45DFA3", element("4282", b"webm"))
    return header + endless(SEGMENT) + element(TRACKS, b"".join(tracks or (track(),)))


def simple_block(*, body: bytes, number: int = 1, flags: int = 0x80) -> bytes:
    return element("A3", bytes([0x80 | number, 0, 0, flags]) + body)


def recording(*blocks: bytes) -> bytes:
    return beginning() + endless(CLUSTER, element("E7", b"\0") + b"".join(blocks))


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(each for each in cuts if each < len(data))})
    return [data[a:b] for a, b in pairwise(places)]


def messages(data: bytes, sizes: tuple[int, ...]) -> list[bytes]:
    return cut(data, list(accumulate(sizes)))


def demuxed(pieces: list[bytes]) -> list[Found]:
    demuxer = WebmDemuxer()
    return [found for piece in pieces for found in demuxer.push(piece)]


def packets(data: bytes) -> list[bytes]:
    stream, *found = demuxed([data])
    assert isinstance(stream, OpusStream)
    return [each for each in found if isinstance(each, bytes)]


@pytest.mark.parametrize(
    ("data", "count", "pre_skip"), [(CHROMIUM, 17, 0), (FIREFOX, 54, 312), (FFMPEG, 18, 312)]
)
def test_recordings_are_read(data: bytes, count: int, pre_skip: int) -> None:
    """One stream, and every packet of it: of 60 ms, and of 20 ms in Firefox."""
    stream, *found = demuxed([data])
    assert stream == OpusStream(pre_skip)
    assert len(found) == count
    configurations = {each[0] >> 3 for each in found if isinstance(each, bytes)}
    assert len(configurations) <= 3  # the first byte is Opus's, and much the same in all


@settings(max_examples=60, deadline=None)
@given(data=st.sampled_from([CHROMIUM, FIREFOX, FFMPEG]), cuts=st.lists(st.integers(1, 13_000)))
def test_pieces_do_not_matter(data: bytes, cuts: list[int]) -> None:
    """Wherever it is cut, the same comes out."""
    assert demuxed(cut(data, cuts)) == demuxed([data])


def test_every_single_cut() -> None:
    """Each byte of FFmpeg's file once ends a message, and once they all do."""
    whole = demuxed([FFMPEG])
    assert all(demuxed([FFMPEG[:at], FFMPEG[at:]]) == whole for at in range(1, len(FFMPEG)))
    assert demuxed([bytes([each]) for each in FFMPEG]) == whole


def test_a_recorder_that_is_started_again_begins_anew() -> None:
    """In mid message, and after a recording that was broken off in the middle of a block."""
    both = demuxed([CHROMIUM + FFMPEG])
    assert both == demuxed([CHROMIUM]) + demuxed([FFMPEG])
    assert demuxed([CHROMIUM[:5_000], FFMPEG])[-19:] == demuxed([FFMPEG])
    assert demuxed([beginning()[:9], FFMPEG]) == demuxed([FFMPEG])


# --- blocks ------------------------------------------------------------------------------


def test_a_block_group_is_read() -> None:
    """Its block; what else is in it is skipped."""
    block = element("A1", b"\x81\0\0\0packet")
    group = element("A0", block + element("75A2", b"\x12\x34") + element("9B", b"\x14"))
    assert packets(recording(group, simple_block(body=b"next"))) == [b"packet", b"next"]


def test_other_tracks_are_not_heard() -> None:
    """The first Opus track is, whatever its place and number."""
    tracks = track(number=7, codec=b"V_VP8"), track(number=3), track(number=4)
    blocks = [simple_block(number=n, body=bytes([n])) for n in (7, 3, 4, 3)]
    assert packets(beginning(*tracks) + endless(CLUSTER, b"".join(blocks))) == [b"\3", b"\3"]


def xiph_sizes(laced: list[bytes]) -> bytes:
    return b"".join(b"\xff" * (len(each) // 255) + bytes([len(each) % 255]) for each in laced[:-1])


def ebml_sizes(laced: list[bytes]) -> bytes:
    first, *others = (len(each) for each in laced[:-1]) if laced[1:] else [0]
    coded = (first | 1 << 28).to_bytes(4) if laced[1:] else b""
    for before, size in pairwise([first, *others]):
        coded += (size - before + (1 << 20) - 1 | 1 << 21).to_bytes(3)
    return coded


@settings(max_examples=80, deadline=None)
@given(laced=st.lists(st.binary(min_size=1, max_size=700), min_size=1, max_size=12))
@example([b"a" * 255, b"b" * 510, b"c"])
def test_laced_blocks(laced: list[bytes]) -> None:
    """Several packets a block: with Xiph's sizes and with EBML's."""
    count, content = bytes([len(laced) - 1]), b"".join(laced)
    for flags, sizes in ((0x02, xiph_sizes(laced)), (0x06, ebml_sizes(laced))):
        block = simple_block(flags=flags, body=count + sizes + content)
        assert packets(recording(block)) == laced


@given(size=st.integers(1, 50), count=st.integers(1, 256))
def test_blocks_of_equal_packets(size: int, count: int) -> None:
    """The third lacing needs no sizes."""
    laced = [bytes([index]) * size for index in range(count)]
    block = simple_block(flags=0x04, body=bytes([count - 1]) + b"".join(laced))
    assert packets(recording(block)) == laced


# --- what is refused ---------------------------------------------------------------------

CODED = element("6D80", b"\x80")
BAD = {
    "PCM": (b"\0\1\0\2", "does not begin with an EBML header"),
    "one byte": (b"\x81", "does not begin with an EBML header"),
    "Ogg": (b"OggS\0\2", "1A 45 DF A3"),
    "no Opus": (recording().replace(b"A_OPUS", b"A_FLAC"), "holds A_FLAC; .*codecs=opus"),
    "a picture alone": (beginning(track(codec=b"V_VP8")) + endless(CLUSTER), "holds V_VP8"),
    "no track": (element("1A45DFA3", b"") + endless(CLUSTER), "holds no track"),
    "too many tracks": (beginning(*[track()] * (MOST_TRACKS + 1)), f"more than {MOST_TRACKS}"),
    "no OpusHead": (beginning(track(head=b"Opus")) + endless(CLUSTER), "no OpusHead"),
    "OpusHead 16": (recording().replace(b"Head\1", b"Head\x10"), "no OpusHead of version 1"),
    "five channels": (recording().replace(b"Head\1\1", b"Head\1\5"), "5 channels"),
    "encrypted": (beginning(track(more=CODED)), "compressed or encrypted"),
    "sound first": (beginning() + simple_block(body=b"x"), "before a track and a cluster"),
    "too long": (
        recording(bytes.fromhex("A3") + (MAX_ELEMENT_BYTES + 1 | 1 << 28).to_bytes(4)),
        rf"id A3\) has {MAX_ELEMENT_BYTES + 1} bytes, and at most {MAX_ELEMENT_BYTES}",
    ),
    "too long to skip": (recording(bytes.fromhex("EC01FFFFFFFFFFFFFE")), "id EC"),
    "endless": (recording(endless("A3")), "an unknown number of bytes"),
    "no id": (recording(b"\x08\x81x"), "id cannot begin with the byte 08"),
    "no size": (recording(b"\xa3\x00x"), "size cannot begin with the byte 00"),
    "nothing known": (recording(element("81", b"")), "no element 81 between blocks"),
    "no block": (recording(element("A3", b"\x81\0")), "cut off"),
    "no track number": (recording(element("A3", b"\x00\0\0\0")), "number cannot begin"),
    "long number": (recording(element("A3", b"\x01\0\0\0")), "cut off"),
    "no lace": (recording(simple_block(flags=2, body=b"")), "cut off"),
    "endless lace": (recording(simple_block(flags=2, body=b"\1\xff\xff")), "cut off"),
    "too little": (recording(simple_block(flags=2, body=b"\1\x09xx")), "less than it says"),
    "negative": (recording(simple_block(flags=6, body=b"\2\x82\x80xxxx")), "less than it says"),
    "unequal": (recording(simple_block(flags=4, body=b"\1xxx")), "cannot be cut into 2"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_heard_is_refused(name: str) -> None:
    """In words; a good recording is read afterwards."""
    data, words = BAD[name]
    demuxer = WebmDemuxer()
    with pytest.raises(ValueError, match=words):
        demuxer.push(data)
    assert demuxer.push(FFMPEG) == demuxed([FFMPEG])


def test_the_longest_element_is_read() -> None:
    """Also in small pieces."""
    body = bytes(MAX_ELEMENT_BYTES - 4)
    data = recording(simple_block(body=body))
    assert demuxed(cut(data, list(range(0, len(data), 4_096))))[1:] == [body]


@settings(max_examples=200, deadline=None)
@given(pieces=st.lists(st.binary(max_size=60), max_size=8), at=st.integers(0, len(FFMPEG)))
def test_random_bytes_do_no_harm(pieces: list[bytes], at: int) -> None:
    """Alone, and within a recording: nothing but ValueError, and never more than was put in."""
    for prefix in (b"", FFMPEG[:at]):
        demuxer = WebmDemuxer()
        demuxer.push(prefix)
        size = len(FFMPEG[:at])
        for piece in pieces:
            size += len(piece)
            try:
                found = demuxer.push(piece)
            except ValueError:
                continue
            assert sum(len(each) for each in found if isinstance(each, bytes)) <= size


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, len(FFMPEG)), garbage=st.binary(min_size=1, max_size=600))
def test_a_refused_message_leaves_no_trace(at: int, garbage: bytes) -> None:
    """Wherever it comes: what follows is read as if it had not come."""
    demuxer = WebmDemuxer()
    found = demuxer.push(FFMPEG[:at])
    try:
        demuxer.push(garbage)
    except ValueError:
        assert found + demuxer.push(FFMPEG[at:]) == demuxed([FFMPEG])


@pytest.mark.parametrize(
    "refused",
    [
        b"skipped" + b"\x08\x81x",
        b"skipped" + simple_block(body=b"lost") + beginning() + b"\x08\x81x",
        b"skipped" + element("1A45DFA3", b"") + element("A3", b"x"),
        element("EC", b"as\x08\x81x"),  # makes sense by itself, and says nothing
    ],
)
def test_a_message_that_is_refused_late_leaves_no_trace(refused: bytes) -> None:
    """After the rest of an element that is skipped, a block, or a new recording."""
    demuxer = WebmDemuxer()
    demuxer.push(recording(element("EC", b"to be skipped"))[: -len(b"skipped")])
    with pytest.raises(ValueError, match="WebM"):
        demuxer.push(refused)
    assert demuxer.push(b"skipped" + simple_block(body=b"heard")) == [b"heard"]


@pytest.mark.parametrize("lost", range(1, 16))
def test_after_a_lost_message_it_goes_on_with_the_next_cluster(lost: int) -> None:
    """One message is lost, and what was before the next of Chromium's clusters, each 100 ms."""
    whole = demuxed([CHROMIUM])
    pieces = cut(CHROMIUM, list(range(500, len(CHROMIUM), 700)))
    demuxer = WebmDemuxer()
    found: list[Found] = []
    for piece in pieces[:lost] + pieces[lost + 1 :]:
        try:
            found += demuxer.push(piece)
        except ValueError as error:
            assert "missing" in str(error)  # noqa: PT017 -- not all of them need to be refused
    assert len(whole) - 5 <= len(found) < len(whole)
    assert found[-1] == whole[-1]


def test_after_a_lost_message_it_goes_on_where_a_message_begins_with_a_block() -> None:
    """As Firefox's do; the block that was broken off is not heard."""
    pieces = messages(FIREFOX, FIREFOX_MESSAGES)
    broken = [*pieces[:4], pieces[4][:-20], *pieces[5:]]
    demuxer = WebmDemuxer()
    found = [each for piece in broken for each in demuxer.push(piece)]
    assert found[-20:] == demuxed(pieces)[-20:]
