"""API keys: who may ask for what, and who is it.

Everything needs a key but what the table names.  A key is known by its hash alone; where it
comes from it is taken out of whatever is logged, repeated or handed on.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from pathlib import Path

import attrs
import trio

from listenai.errors import ConfigurationError
from listenai.server.addresses import subscriber
from listenai.server.head import Head, Refusal

# What stays open when there are keys, and why; everything else needs one.  A row ends in "/*"
# where it stands for all below, too.
OPEN_PATHS = (
    *("/", "/test_client.html"),  # a browser asks for the page before it can be given a key
    *("/health", "/health/ready"),  # load balancers and supervisors have none
    "/auth/websocket",  # asks for a token of its own
    "/docs/*",  # says how to give it
)

# So many different wrong keys an address may try in a minute, before it has to wait: no hindrance
# for who mistypes, and for a guesser hopeless.  The same wrong key again is a misconfigured
# device, not a guess: it does not lock out its neighbours.
MAX_WRONG_KEYS = 10
WRONG_KEY_SECONDS = 60.0
MAX_GUESSERS = 1024  # addresses remembered, each with its wrong keys' hashes: 1 MiB in all

_KEY = re.compile(r"[!-+\--9;-~]+")  # visible ASCII but comma and colon
_OWNER = re.compile(r"[\w.-]{1,64}", re.ASCII)


@attrs.frozen
class ApiKey:
    """A key as it is remembered."""

    owner: str  # whose it is; a part of its hash where no name is given
    digest: bytes = attrs.field(repr=False)


def read_keys(listed: str, file: str = "") -> tuple[ApiKey, ...]:
    """The keys of API_KEYS (commas between them) and API_KEYS_FILE (one a line, # comments).

    Each is a key or "owner:key"; an owner may have several.  Raises ConfigurationError for what
    is none, and where keys were meant and there are none: the server would be open to all.
    """
    keys: dict[bytes, ApiKey] = {}
    problems: list[str] = []
    for place, text in (*_listed(listed), *_in_file(file, problems)):
        key, problem = _read_key(text)
        if key and keys.setdefault(key.digest, key).owner != key.owner:
            problem = "the key belongs to another owner already; give each owner keys of their own"
        if key and not problem:
            continue
        problems.append(f"{place}: {problem}")
    if problems:
        raise ConfigurationError(problems)
    return tuple(keys.values())


def _listed(listed: str) -> Iterator[tuple[str, str]]:
    if listed.strip():
        for number, text in enumerate(listed.split(","), 1):
            yield f"API_KEYS, key {number}", text.strip()


def _in_file(file: str, problems: list[str]) -> Iterator[tuple[str, str]]:
    if not file:
        return
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        problems.append(f"API_KEYS_FILE={file!r} cannot be read: {why}; give one key a line")
        return
    found = [
        (f"API_KEYS_FILE, line {number}", line.strip())
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not found:
        problems.append(f"API_KEYS_FILE={file!r} has no key; give one a line")
    yield from found


def _read_key(text: str) -> tuple[ApiKey | None, str]:
    """A key, or what is wrong with it: the text itself must not be repeated."""
    owner, colon, secret = text.rpartition(":")
    if not _KEY.fullmatch(secret):
        return None, "a key must be visible ASCII characters, without blanks, commas and colons"
    if colon and not _OWNER.fullmatch(owner):
        return None, "an owner must be 1 to 64 letters, digits, dots, hyphens and underscores"
    digest = _digest(secret)
    return ApiKey(owner or f"key-{digest.hex()[:8]}", digest), ""


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


class Authentication:
    """Knows owners by their keys; without any keys everyone may do everything."""

    def __init__(
        self, keys: Sequence[ApiKey] = (), *, open_paths: Sequence[str] = OPEN_PATHS
    ) -> None:
        self._keys, self._open_paths = tuple(keys), tuple(open_paths)
        self._guessers: OrderedDict[str, dict[bytes, float]] = OrderedDict()
        self.refused = 0  # since the start

    # --- what the front door asks ------------------------------------------------------------

    def refuse(self, head: Head) -> Refusal | None:
        """Why a request without a known key is refused (401, or 429 for a guesser); None: it is."""
        who = self.identify(given_key(head), head.peer[0])
        return who if isinstance(who, Refusal) else None

    def refuse_http(self, head: Head) -> Refusal | None:
        """As `refuse`, for a request that is no WebSocket handshake: open paths need no key."""
        return None if self._is_open(head) else self.refuse(head)

    def owner(self, head: Head) -> str | None:
        """Whose key came with a request; "" where there are no keys; None: nobody we know."""
        return self._owner(given_key(head))

    # --- what dialects ask that take a key in their first message ------------------------------

    def identify(self, key: str | None, host: str) -> str | Refusal:
        """The owner of a key, "" where there are no keys; the refusal of anything else.

        host: the address of who gives the key: one that tries many is slowed down.
        """
        if not self._keys:
            return ""
        if key and (wait := self._must_wait(host)):
            return self._refuse(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too many different wrong API keys came from this address; "
                f"try again in {wait} s, with a key of this server",
                ("Retry-After", str(wait)),
            )
        owner = self._owner(key)
        if owner is not None:
            return owner
        if key:
            self._note_wrong(key, host)
        challenge = 'Bearer realm="ListenAI"' + (', error="invalid_token"' if key else "")
        problem = "this API key is not known here" if key else "this needs an API key"
        return self._refuse(
            HTTPStatus.UNAUTHORIZED,
            f"{problem}: send the header 'Authorization: Bearer KEY' or 'X-API-Key: KEY', or, "
            "where no headers can be set, '?key=KEY' in the URL, with a key of this server",
            ("WWW-Authenticate", challenge),
        )

    def _owner(self, key: str | None) -> str | None:
        if not self._keys:
            return ""
        digest, owner = _digest(key or ""), None
        for known in self._keys:  # all of them: how long it takes tells nothing
            if hmac.compare_digest(known.digest, digest):
                owner = known.owner
        return owner

    def _is_open(self, head: Head) -> bool:
        """Whether nothing is asked for that needs a key: by the path exactly as it was sent."""
        preflight = head.header("origin") and head.header("access-control-request-method")
        if head.method == "OPTIONS" and preflight:
            return True  # browsers ask without a key whether they may send one (Fetch, 3.3)
        return any(
            head.path.startswith(row[:-1]) if row.endswith("/*") else head.path == row
            for row in self._open_paths
        )

    def _refuse(self, status: HTTPStatus, message: str, header: tuple[str, str]) -> Refusal:
        self.refused += 1
        return Refusal(status, message, (header,))

    # --- guessers ----------------------------------------------------------------------------

    def _must_wait(self, host: str) -> int | None:
        """Seconds before this address may try another key."""
        wrong = self._guessers.get(subscriber(host))
        if not wrong:
            return None
        now = trio.current_time()
        for digest in [old for old, at in wrong.items() if at + WRONG_KEY_SECONDS <= now]:
            del wrong[digest]
        if len(wrong) < MAX_WRONG_KEYS:
            return None
        return math.ceil(min(wrong.values()) + WRONG_KEY_SECONDS - now)

    def _note_wrong(self, key: str, host: str) -> None:
        who = subscriber(host)
        wrong = self._guessers.setdefault(who, {})
        wrong.setdefault(_digest(key), trio.current_time())
        self._guessers.move_to_end(who)
        if len(self._guessers) > MAX_GUESSERS:
            self._guessers.popitem(last=False)


def given_key(head: Head) -> str | None:
    """The key that came with a request: in a header, or else in the URL."""
    scheme, _, token = (head.header("authorization") or "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return head.header("x-api-key") or head.key or None
