"""Who still gets in: so many connections, and as many as fit into memory.

Every connection is counted with the most it can make the server keep, not with what
it uses now: a server that admits by use runs out of memory when all of its devices
begin to speak, or to misbehave, at once.  Plain objects; nothing here waits.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType

from listenai.audio import SAMPLE_BYTES, SAMPLE_RATE
from listenai.conversation.decoding import MAX_DECODED_BYTES
from listenai.conversation.listening import MAX_PIECE_BYTES
from listenai.conversation.mixer import MOST_SECONDS
from listenai.conversation.outbox import MAX_POSTED
from listenai.conversation.replying import MAX_WAITING_TURNS
from listenai.dialects.hotpin_reply import MAX_WAV_BYTES
from listenai.dialects.messages import MAX_TEXT, SAMPLE_RATES
from listenai.errors import ConfigurationError
from listenai.server.addresses import subscriber
from listenai.server.frames import MAX_MESSAGE_BYTES
from listenai.server.head import MAX_HEAD_BYTES, Refusal
from listenai.server.streams import NOTSENT_BYTES, RECEIVE_BUFFER_BYTES
from listenai.server.websocket import RECEIVE_BYTES
from listenai.sessions.base import MAX_ITEMS

MIB = 1 << 20
RETRY_AFTER_SECONDS = 5  # a place is free when somebody leaves, which nobody can foretell
TRY_AGAIN_LATER = 1013  # close code (IANA registry of RFC 6455, 11.7)

# Copies of the largest message: the bytes of the one that is coming, and these as a message.
# A text counts as its bytes, though Python keeps wide ones at two or four times that.
MESSAGES_HELD = 2
TAKES_HELD = 2  # an utterance being heard, and the one before it that is still transcribed
CHARACTER_BYTES = 4  # Python keeps all of a text at the width of its widest character
ECHO_BYTES = 512 << 10  # a canceller (350 KiB), and what was played in the last 4 s
# Measured: tasks, scopes, parser and dialogue of a connection that listens take 150 to 250 KiB.
OBJECT_BYTES = 384 * 1024

_MEMINFO = Path("/proc/meminfo")  # in KiB
_CONTROL_GROUP = Path("/sys/fs/cgroup")  # in bytes


def connection_bounds(
    *,
    utterance_seconds: float,
    detector_bytes: int,
    sentence_bytes: int,
    collects_replies: bool = False,
) -> Mapping[str, int]:
    """Bytes that one connection may keep at most, by what keeps them; their sum is its bound.

    utterance_seconds: after which an utterance is cut.  detector_bytes: of one device's VAD.
    sentence_bytes: of the longest sentence that a synthesizer may hold while it is played.
    collects_replies: whether a whole reply is kept until it is sent.
    """
    take = int(utterance_seconds * SAMPLE_RATE) * SAMPLE_BYTES
    return MappingProxyType(
        {
            "tasks and objects": OBJECT_BYTES,
            "request head, as read and parsed": 2 * MAX_HEAD_BYTES,
            "kernel, received": 2 * RECEIVE_BUFFER_BYTES,  # Linux doubles it
            "kernel, unsent": NOTSENT_BYTES,
            "one read": RECEIVE_BYTES,
            "messages": MESSAGES_HELD * MAX_MESSAGE_BYTES,
            "audio being listened to": MAX_PIECE_BYTES,
            "audio, decoded": 2 * MAX_DECODED_BYTES,
            "echo": ECHO_BYTES,
            "reply being collected": 2 * MAX_WAV_BYTES * collects_replies,
            "voice detector": detector_bytes,
            "utterance": TAKES_HELD * (take + take // 8),  # a growing bytearray takes an eighth
            "notices": MAX_POSTED * MAX_TEXT * CHARACTER_BYTES,
            "history": MAX_ITEMS * MAX_TEXT * CHARACTER_BYTES,
            "turns that wait, and the one that runs": (
                (MAX_WAITING_TURNS + 1) * MAX_TEXT * CHARACTER_BYTES
            ),
            "sentence being spoken": sentence_bytes,
            "music": round(MOST_SECONDS * max(SAMPLE_RATES)) * SAMPLE_BYTES,
        }
    )


class Admission:
    """Counts connections, each with its bound."""

    def __init__(
        self,
        *,
        max_connections: int,
        budget_bytes: int,
        connection_bytes: int,
        max_per_address: int = 0,
    ) -> None:
        """connection_bytes: of an ordinary connection; `places` are counted in these.

        max_per_address: connections of one client's address; 0: as many as there are.

        Raises ConfigurationError for a budget that no connection fits into.
        """
        if budget_bytes < connection_bytes:
            raise ConfigurationError(
                [
                    f"CLOUD_MEMORY_BUDGET_MB: {budget_bytes // MIB} MiB is too little, one "
                    f"connection may need {-(-connection_bytes // MIB)} MiB; allow that or more, "
                    "or 0 for half of the memory that is free at the start"
                ]
            )
        self.places = min(max_connections, budget_bytes // connection_bytes)
        self._max_connections, self._budget_bytes = max_connections, budget_bytes
        self._connection_bytes, self._held_bytes = connection_bytes, 0
        self.connections = 0  # admitted and not yet over
        self.most_connections = 0  # at any one time
        self.refused = 0  # because the server was full
        self.refused_addresses = 0  # because their address had enough
        self.limited_by_memory = self.places < max_connections
        self._max_per_address = max_per_address
        self._of_address: Counter[str] = Counter()  # as large as there are connections

    def refuse(self, host: str = "", size: int | None = None) -> Refusal | None:
        """Why no more connections are taken now (503, counted); None: one is.

        host: the client's address, which may have as many as it should already (429).
        size: bytes that this one may need at most, where it is no ordinary one.
        """
        needed = self._held_bytes + (size or self._connection_bytes)
        if self.connections >= self._max_connections or needed > self._budget_bytes:
            self.refused += 1
            by_number = self.connections >= self._max_connections
            why = "CLOUD_MAX_CONNECTIONS" if by_number else "memory"
            return _try_later(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"the server is full: {self.connections} connections (limited by {why})",
            )
        if 0 < self._max_per_address <= self._of_address[subscriber(host)]:
            self.refused_addresses += 1
            return _try_later(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"your address has {self._max_per_address} connections already (limited by "
                "CLOUD_MAX_CONNECTIONS_PER_IP); end one of them",
            )
        return None

    @contextmanager
    def connection(self, host: str = "", size: int | None = None) -> Iterator[Refusal | None]:
        """A place for as long as the block runs; the refusal where none is left.

        Asked again after the handshake: whoever shook hands meanwhile may have come first.
        """
        if refusal := self.refuse(host, size):
            yield refusal
            return
        who, held = subscriber(host), size or self._connection_bytes
        self._held_bytes += held
        self.connections += 1
        self.most_connections = max(self.most_connections, self.connections)
        self._of_address[who] += 1
        try:
            yield None
        finally:
            self._held_bytes -= held
            self.connections -= 1
            self._of_address[who] -= 1
            if not self._of_address[who]:
                del self._of_address[who]


def _try_later(status: HTTPStatus, why: str) -> Refusal:
    return Refusal(
        status,
        f"{why}; try again in {RETRY_AFTER_SECONDS} s",
        (("Retry-After", str(RETRY_AFTER_SECONDS)),),
    )


def budget(megabytes: int) -> int:
    """The memory for connections, in bytes; 0 MiB means half of what is available now.

    Raises ConfigurationError where 0 is asked for and the system does not tell.
    """
    if megabytes:
        return megabytes * MIB
    available = available_memory()
    if available is None:
        raise ConfigurationError(
            [
                "CLOUD_MEMORY_BUDGET_MB=0: this system does not tell how much memory is "
                "available; say how many MiB connections may use together"
            ]
        )
    return available // 2


def available_memory(
    *, meminfo: Path = _MEMINFO, control_group: Path = _CONTROL_GROUP
) -> int | None:
    """Bytes that can still be taken: the machine's, or fewer in a control group; None: unknown."""
    known = []
    with suppress(OSError, ValueError, KeyError):
        known.append(_figures(meminfo)["MemAvailable:"] * 1024)
    with suppress(OSError, ValueError, KeyError):  # "max" is no limit
        limit = int((control_group / "memory.max").read_text())
        used = int((control_group / "memory.current").read_text())
        cached = _figures(control_group / "memory.stat")["inactive_file"]  # given up on demand
        known.append(max(0, limit - used + cached))
    if not known:  # no Linux: all there is
        with suppress(AttributeError, OSError, ValueError):
            known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(known) if known else None


def _figures(path: Path) -> dict[str, int]:
    """The numbers of a file of lines that begin with a name and a number."""
    words = (line.split() for line in path.read_text().splitlines())
    return {name: int(number) for name, number, *_ in words}
