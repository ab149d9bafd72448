"""Which dialect a connection speaks: by its path, and where a path is shared by the first message.

The table comes from the composition root.  On a path that several dialects share
all but one say which first messages they `claim`; that one takes the rest, so
there is a dialect for everything, and it is the one to say what was wrong with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import attrs

from listenai.device import DeviceProfile
from listenai.dialects.base import Dialect
from listenai.events import JsonObject
from listenai.wire import Message

MAX_CLAIMED_CHARACTERS = 1 << 16  # a first message introduces a device; this is ample for that
_SHOWN_CHARACTERS = 100  # of an unknown path


@attrs.frozen
class Stranger:
    """Somebody whose key or token is not good; what is to be done is said in words."""

    message: str


@attrs.frozen
class DialectRow:
    """One dialect of the table: where it is spoken and how a translator of it is made."""

    name: str
    paths: tuple[str, ...]
    make: Callable[[], Dialect]  # a new one for each connection
    # True of the first messages that are this dialect's, asked on shared paths only; gets
    # JSON objects only.  None: takes what nobody claims.
    claims: Callable[[JsonObject], bool] | None = None
    # For a dialect that asks for a key or token in its first message, where a handshake without
    # one is then no reason for a refusal: who is it?  Gets that message ({}: no JSON object), the
    # owner of the handshake's key (None: it had no good one) and the peer's address.
    identify: Callable[[JsonObject, str | None, str], str | Stranger] | None = None
    profile: DeviceProfile = attrs.field(factory=DeviceProfile)  # what its devices may need


class Negotiator:
    """Chooses dialects from a table; raises ValueError for a table that leaves a doubt."""

    def __init__(self, table: Sequence[DialectRow]) -> None:
        self._rows: dict[str, list[DialectRow]] = {}
        for row in table:
            for path in row.paths:
                self._rows.setdefault(path, []).append(row)
        for path, rows in self._rows.items():
            _check(path, rows)

    @property
    def dialects(self) -> Mapping[str, Sequence[str]]:
        """The names of the dialects that are spoken on each path."""
        return {path: [row.name for row in rows] for path, rows in self._rows.items()}

    def refuse(self, path: str) -> str | None:
        """Why a handshake for this path is refused (404), or None; the query does not count."""
        if _bare(path) in self._rows:
            return None
        known = ", ".join(
            f"{path} ({' or '.join(row.name for row in rows)})" for path, rows in self._rows.items()
        )
        return f"unknown path {_bare(path)[:_SHOWN_CHARACTERS]!r}; connect to one of: {known}"

    def rows_on(self, path: str) -> Sequence[DialectRow]:
        """The dialects that are spoken on a path, whatever its query."""
        return self._rows.get(_bare(path), ())

    def authenticates_in_band(self, path: str) -> bool:
        """Whether a dialect of this path asks for a key itself, so that a handshake need not."""
        return any(row.identify is not None for row in self.rows_on(path))

    def row_for(self, path: str, first_message: Message) -> DialectRow:
        """The row of a connection's dialect, whatever its first message is.

        Raises ValueError for a path that `refuse` refuses.
        """
        if (reason := self.refuse(path)) is not None:
            raise ValueError(reason)
        rows = self._rows[_bare(path)]
        if len(rows) == 1:
            return rows[0]
        opening = opening_of(first_message)
        claimant = next(
            (row for row in rows if opening is not None and row.claims and row.claims(opening)),
            None,
        )
        return claimant or next(row for row in rows if row.claims is None)


def _check(path: str, rows: Sequence[DialectRow]) -> None:
    if not path.startswith("/") or "?" in path:
        raise ValueError(f"path {path!r} must begin with '/' and have no query")
    takers = [row.name for row in rows if row.claims is None]
    if len(rows) > 1 and len(takers) != 1:
        raise ValueError(
            f"{', '.join(row.name for row in rows)} share path {path!r}: exactly one of them must "
            f"have no `claims` and take what the others do not; these have none: {takers}"
        )


def _bare(path: str) -> str:
    """The path of a request target, without its query."""
    return path.partition("?")[0]


def opening_of(message: Message) -> JsonObject | None:
    """The JSON object that a first message is; None for anything else."""
    if not isinstance(message, str) or len(message) > MAX_CLAIMED_CHARACTERS:
        return None
    try:
        value = json.loads(message)
        if "\\u" in message:  # escapes can spell half of a surrogate pair, which is no text
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # JSON errors are ValueErrors, as are endless integers
        return None
    return value if isinstance(value, dict) else None
