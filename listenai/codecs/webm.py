"""Opus packets out of WebM as a browser's MediaRecorder writes it, cut anywhere.

WebM is EBML: elements of id, size and content, nested.  A live recorder knows neither how
long its recording nor how long a cluster becomes and gives both no size, so nesting is not
followed here: what contains others is entered by reading past its header, and all elements
look side by side.  The few that matter are kept until they are whole, all others skipped.

A message is taken whole or not at all: what is refused leaves no trace, and the next message
continues where the last good one ended.  Where that makes no sense, because a bad message
looked good or one is missing, the reader goes on with what makes sense by itself.

Sources: RFC 8794 (EBML), RFC 9559 (Matroska, of which WebM is a part), RFC 7845 (OpusHead).
"""

from __future__ import annotations

from enum import Enum

import attrs

# The largest Opus packet, 48 frames of 1275 bytes, is 61 KiB, and recorders put one in a block.
MAX_ELEMENT_BYTES = 64 * 1024

MOST_TRACKS = 8  # sound and picture are two

EBML_HEADER = bytes.fromhex("1A45DFA3")  # every recording begins with it

_CLUSTER = bytes.fromhex("1F43B675")
_EBML_HEADER_ID, _CLUSTER_ID = int.from_bytes(EBML_HEADER), int.from_bytes(_CLUSTER)
_SEGMENT_ID, _TRACKS_ID, _TRACK_ENTRY_ID, _BLOCK_GROUP_ID = 0x18538067, 0x1654AE6B, 0xAE, 0xA0
_CONTAINERS = frozenset(
    (_EBML_HEADER_ID, _SEGMENT_ID, _TRACKS_ID, _TRACK_ENTRY_ID, _CLUSTER_ID, _BLOCK_GROUP_ID)
)
_TRACK_NUMBER_ID, _CODEC_ID, _CODEC_PRIVATE_ID, _CONTENT_ENCODINGS_ID = 0xD7, 0x86, 0x63A2, 0x6D80
_SIMPLE_BLOCK_ID, _BLOCK_ID = 0xA3, 0xA1
_KEPT = frozenset(
    (
        *(_TRACK_NUMBER_ID, _CODEC_ID, _CODEC_PRIVATE_ID, _CONTENT_ENCODINGS_ID),
        *(_SIMPLE_BLOCK_ID, _BLOCK_ID),
    )
)
# All that Matroska has once there is sound, in clusters and after them, and how long it may be:
# numbers have 8 bytes.  Anything else means that a part is missing; to skip it would make us deaf.
_IN_SOUND = dict.fromkeys((0xE7, 0xA7, 0xAB, 0x9B, 0xFA, 0xFB, 0x75A2, 0xBF), 8) | dict.fromkeys(
    (
        *(_SIMPLE_BLOCK_ID, _BLOCK_ID, 0xAF, 0x75A1, 0xA4, 0x5854, 0xEC),
        *(0x114D9B74, 0x1549A966, 0x1C53BB6B, 0x1254C367, 0x1043A770, 0x1941A469),
    ),
    MAX_ELEMENT_BYTES,
)

_OPUS = "A_OPUS"
_HEAD_BYTES = 19  # of OpusHead, for mono and stereo
_CODEC_CHARACTERS = 32  # the name goes into messages
_RECORD_OPUS = "record sound alone, with mimeType 'audio/webm;codecs=opus'"
_BEGIN_ANEW = "send a recording from its beginning, every byte once and in order"


@attrs.frozen
class OpusStream:
    """A recording begins: packets from here on need a new decoder."""

    pre_skip: int  # samples at 48 kHz to be dropped from the beginning of what is decoded


Found = OpusStream | bytes  # bytes: one Opus packet


class WebmDemuxer:
    """The first Opus track of one recording after the other; keeps at most MAX_ELEMENT_BYTES."""

    def __init__(self) -> None:
        self._reader = _Reader()

    def push(self, data: bytes) -> list[Found]:
        """Takes the next bytes, cut anywhere; gives the streams and packets completed by them.

        Raises ValueError for what is no WebM with Opus; the bytes are then forgotten.
        """
        # A recorder that was started again may have left an element unfinished.  By chance these
        # four bytes begin a message once in 34 years of four messages a second.
        new = data.startswith(EBML_HEADER)
        reader = _Reader() if new else attrs.evolve(self._reader)
        try:
            found = reader.read(data)
        except ValueError:
            if new or (resumed := self._resume(data)) is None:
                raise
            reader, found = resumed
        self._reader = reader
        return found

    def _resume(self, data: bytes) -> tuple[_Reader, list[Found]] | None:
        """Reads from where an element seems to begin: at once, or with the first cluster."""
        for start in (0, data.find(_CLUSTER)):
            reader = attrs.evolve(self._reader, waiting=b"", skip=0)
            if start < 0 or reader.number is None:
                continue
            try:
                found = reader.read(data[start:])
            except ValueError:
                continue
            if found or data.startswith(_CLUSTER, start):  # neither comes about by chance
                return reader, found
        return None


class _Lacing(Enum):
    """How the packets of a block are told apart, as its flags say."""

    NONE = 0x00
    XIPH = 0x02
    FIXED = 0x04
    EBML = 0x06


@attrs.frozen
class _Track:
    """What a TrackEntry says, as far as it was read."""

    number: int = 0
    codec: str = "no codec"
    head: bytes = b""


@attrs.define
class _Reader:
    """Where in a recording we are; all fields are values, so that a copy is a way back."""

    begun: bool = False
    tracks: tuple[_Track, ...] = ()
    number: int | None = None  # of the track that is listened to; None: no cluster yet
    waiting: bytes = b""  # an element that is not yet whole
    skip: int = 0  # bytes of an element that does not matter

    def read(self, data: bytes) -> list[Found]:
        """Takes bytes; ValueError leaves this reader unusable."""
        skipped = min(self.skip, len(data))
        self.skip -= skipped
        data = self.waiting + data[skipped:]
        if not self.begun and data[:4] != EBML_HEADER[: len(data)]:
            raise ValueError(
                "this is no WebM: it does not begin with an EBML header (1A 45 DF A3), and none "
                f"came before; {_BEGIN_ANEW}"
            )
        found: list[Found] = []
        at = 0
        while (header := _element_header(data, at)) is not None:
            element, size, start = header
            if element in _CONTAINERS:
                self._enter(element, found)
                at = start
                continue
            end = start + self._checked_size(element, size)
            if element in _KEPT:
                if end > len(data):
                    break
                self._keep(element, data[start:end], found)
            self.skip = max(0, end - len(data))
            at = min(end, len(data))
        self.waiting = data[at:]
        return found

    def _checked_size(self, element: int, size: int | None) -> int:
        most = MAX_ELEMENT_BYTES
        if self.number is not None and not (most := _IN_SOUND.get(element, 0)):
            raise ValueError(
                f"a part of this WebM is missing: there is no element {element:X} between blocks; "
                + _BEGIN_ANEW
            )
        if size is None or size > most:
            length = "an unknown number of" if size is None else size
            raise ValueError(
                "this is no WebM of a microphone, or a part is missing: an element (id "
                f"{element:X}) has {length} bytes, and at most {most} are allowed; {_RECORD_OPUS}"
            )
        return size

    def _enter(self, container: int, found: list[Found]) -> None:
        """Goes into an element that contains others."""
        if container == _EBML_HEADER_ID:  # the first one, or the recorder was started again
            self.begun, self.tracks, self.number = True, (), None
        elif container == _TRACK_ENTRY_ID:
            if len(self.tracks) == MOST_TRACKS:
                raise ValueError(
                    f"this WebM has more than {MOST_TRACKS} tracks, which is what is allowed; "
                    + _RECORD_OPUS
                )
            self.tracks += (_Track(),)
        elif container == _CLUSTER_ID and self.number is None:
            self._listen(found)

    def _listen(self, found: list[Found]) -> None:
        """Chooses the track; all are known when the first cluster begins."""
        track = next((track for track in self.tracks if track.codec == _OPUS), None)
        if track is None:
            codecs = ", ".join(track.codec for track in self.tracks) or "no track"
            raise ValueError(f"this WebM holds {codecs}; only A_OPUS can be heard: {_RECORD_OPUS}")
        found.append(OpusStream(_pre_skip(track.head)))
        self.number = track.number

    def _keep(self, element: int, content: bytes, found: list[Found]) -> None:
        """Takes in a whole element."""
        if element in (_SIMPLE_BLOCK_ID, _BLOCK_ID):
            if self.number is None:
                raise ValueError(f"this WebM has sound before a track and a cluster; {_BEGIN_ANEW}")
            found.extend(_packets(content, self.number))
        elif element == _CONTENT_ENCODINGS_ID:
            raise ValueError(
                f"this WebM has a compressed or encrypted track, which cannot be heard; "
                f"{_RECORD_OPUS}"
            )
        elif self.tracks:
            *others, track = self.tracks
            if element == _TRACK_NUMBER_ID:
                track = attrs.evolve(track, number=int.from_bytes(content))
            elif element == _CODEC_ID:
                track = attrs.evolve(
                    track, codec=content[:_CODEC_CHARACTERS].decode("ascii", "replace")
                )
            else:
                track = attrs.evolve(track, head=content[:_HEAD_BYTES])
            self.tracks = (*others, track)


def _element_header(data: bytes, at: int) -> tuple[int, int | None, int] | None:
    """An element's id, its size (None: unknown) and where its content begins; None: cut off."""
    if at >= len(data):
        return None
    id_end = at + _width(data[at], 4, "id")
    if id_end >= len(data):
        return None
    width = _width(data[id_end], 8, "size")
    start = id_end + width
    if start > len(data):
        return None
    unknown = (1 << 7 * width) - 1
    size = int.from_bytes(data[id_end:start]) & unknown
    return int.from_bytes(data[at:id_end]), None if size == unknown else size, start


def _width(first: int, most: int, what: str) -> int:
    """How many bytes a number has, which its first byte tells by its leading zeros."""
    width = 9 - first.bit_length()
    if width > most:
        raise ValueError(
            f"this is no WebM, or a part is missing: an element's {what} cannot begin with the "
            f"byte {first:02X}; {_BEGIN_ANEW}"
        )
    return width


def _pre_skip(head: bytes) -> int:
    """Samples at 48 kHz; RFC 7845, section 5.1.

    The output gain there, which recorders leave at 0 dB, is ignored.
    """
    if len(head) < _HEAD_BYTES or not head.startswith(b"OpusHead") or head[8] >= 16:
        raise ValueError(f"this WebM's Opus track has no OpusHead of version 1; {_RECORD_OPUS}")
    channels, mapping = head[9], head[18]
    if mapping != 0 or channels not in (1, 2):
        raise ValueError(
            f"this WebM has {channels} channels in mapping family {mapping}; allowed are mono and "
            "stereo, in mapping family 0"
        )
    return int.from_bytes(head[10:12], "little")


def _packets(block: bytes, number: int) -> list[bytes]:
    """The packets of a block, which may hold several (lacing); none where it is another track's."""
    try:
        track, at = _number(block, 0)
        lacing = _Lacing(block[at + 2] & 0x06)  # after the time, two bytes that nobody asks for
        at += 3
        if track != number:
            return []
        if lacing is _Lacing.NONE:
            return [block[at:]]
        sizes, at = _laced_sizes(block, at + 1, count=block[at] + 1, lacing=lacing)
    except IndexError:
        raise ValueError(f"a block of this WebM is cut off; {_BEGIN_ANEW}") from None
    last = len(block) - at - sum(sizes)
    if min((last, *sizes)) < 0:
        raise ValueError(f"a block of this WebM holds less than it says; {_BEGIN_ANEW}")
    packets = []
    for size in (*sizes, last):
        packets.append(block[at : at + size])
        at += size
    return packets


def _laced_sizes(block: bytes, at: int, *, count: int, lacing: _Lacing) -> tuple[list[int], int]:
    """The sizes of all packets but the last, and where the first begins; RFC 9559, section 10.3."""
    sizes: list[int] = []
    if lacing is _Lacing.FIXED:
        size, rest = divmod(len(block) - at, count)
        if rest:
            raise ValueError(f"a block of this WebM cannot be cut into {count}; {_BEGIN_ANEW}")
        return [size] * (count - 1), at
    while len(sizes) < count - 1:
        if lacing is _Lacing.XIPH:
            begin = at
            while block[at] == 255:
                at += 1
            size, at = 255 * (at - begin) + block[at], at + 1
        elif not sizes:
            size, at = _number(block, at)
        else:  # the difference to the one before, around zero
            begin = at
            coded, at = _number(block, at)
            size = sizes[-1] + coded - ((1 << 7 * (at - begin) - 1) - 1)
        sizes.append(size)
    return sizes, at


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number of variable width, and where it ends, which may be beyond the data."""
    width = _width(data[at], 8, "number")
    return int.from_bytes(data[at : at + width]) & (1 << 7 * width) - 1, at + width
