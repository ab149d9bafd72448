"""The head of a connection: what was asked for, checked before any library sees it.

Only the first request's head is read, and the bytes are handed on untouched, so
this never becomes a second HTTP implementation that could disagree with the first.
The one exception is an API key in the URL: URLs are logged, shown and repeated in
answers, so the key is taken out here, before anybody can.
"""

from __future__ import annotations

import base64
import binascii
import re
from http import HTTPStatus
from urllib.parse import unquote

import attrs

MAX_HEAD_BYTES = 16 * 1024  # what h11, behind the splice, accepts too
_END = b"\r\n\r\n"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_KEY_BYTES = 16  # of Sec-WebSocket-Key, decoded: RFC 6455, 4.1
_SECRET_HEADERS = {"authorization", "proxy-authorization", "x-api-key", "cookie", "referer"}

Headers = tuple[tuple[str, str], ...]


def _shown(headers: Headers) -> str:
    """For a repr, without what may hold a key."""
    kept = ((name, "***" if name in _SECRET_HEADERS else value) for name, value in headers)
    return repr(tuple(kept))


@attrs.frozen
class Refusal:
    """An answer that ends a connection; the message says what was wrong and what to do."""

    status: HTTPStatus
    message: str
    headers: Headers = ()


class BadHead(Exception):
    """The head of a connection cannot be served."""

    def __init__(self, status: HTTPStatus, message: str, headers: Headers = ()) -> None:
        super().__init__(message)
        self.refusal = Refusal(status, message, headers)


@attrs.frozen
class Head:
    """The request that opened a connection, and every byte read so far."""

    method: str
    target: str  # as sent, but for an API key: path and query, percent-encoded
    version: str  # "HTTP/1.1"
    headers: Headers = attrs.field(repr=_shown)  # names in lower case
    read: bytes = attrs.field(repr=False)  # the head, with this target, and what came with it
    peer: tuple[str, int] = ("", 0)  # address and port
    secure: bool = False  # over TLS
    key: str = attrs.field(default="", repr=False)  # the `key` of the query, decoded

    @property
    def size(self) -> int:
        """How many bytes of what was read are the head itself."""
        return self.read.index(_END) + len(_END)

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What follows the "?", or ""."""
        return self.target.partition("?")[2]

    def values(self, name: str) -> list[str]:
        """Every value of a header, in order; the name in lower case."""
        return [value for header, value in self.headers if header == name]

    def header(self, name: str) -> str | None:
        """The first value of a header; the name in lower case."""
        return next(iter(self.values(name)), None)

    def tokens(self, name: str) -> set[str]:
        """The comma-separated words of a header, in lower case."""
        return {word.strip().lower() for value in self.values(name) for word in value.split(",")}

    @property
    def request_bytes(self) -> int | None:
        """How long the whole request is, body included; None: only its own end will tell."""
        lengths = self.values("content-length")
        if self.values("transfer-encoding") or len(lengths) > 1:
            return None
        if lengths and not re.fullmatch("[0-9]{1,18}", lengths[0]):
            return None  # nonsense, and for the application to refuse
        return self.size + (int(lengths[0]) if lengths else 0)

    @property
    def is_upgrade(self) -> bool:
        """True of WebSocket handshakes, good or bad ones."""
        return "websocket" in self.tokens("upgrade") or "sec-websocket-key" in dict(self.headers)


def parse_head(read: bytes) -> Head | None:
    """Understands what was read from a connection; None while the blank line is missing.

    Raises BadHead for anything that is not a head of HTTP/1 of at most MAX_HEAD_BYTES.
    """
    if read and not read[:1].isalpha():
        tls = read[0] == 0x16  # a TLS handshake record
        hint = "this port has no TLS: use ws:// or http://" if tls else "send an HTTP/1.1 request"
        raise BadHead(HTTPStatus.BAD_REQUEST, f"this is not HTTP; {hint}")
    end = read.find(_END, 0, MAX_HEAD_BYTES)
    if end < 0:
        if len(read) >= MAX_HEAD_BYTES:
            raise BadHead(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"the request head is longer than {MAX_HEAD_BYTES} bytes; send fewer headers",
            )
        return None
    first, *lines = read[:end].decode("latin-1").split("\r\n")
    method, whole_target, version = _request_line(first)
    target, key = _take_key(whole_target)
    if target != whole_target:
        read = read.replace(whole_target.encode("latin-1"), target.encode("latin-1"), 1)
    headers = tuple(_header(line) for line in lines)
    return Head(method, target, version, headers, read, key=key)


def _request_line(line: str) -> tuple[str, str, str]:
    words = line.split(" ")
    if len(words) != 3 or not _TOKEN.fullmatch(words[0]) or not words[2].startswith("HTTP/"):
        raise BadHead(HTTPStatus.BAD_REQUEST, 'the request line must be "METHOD target HTTP/1.1"')
    if words[2] not in ("HTTP/1.0", "HTTP/1.1"):
        raise BadHead(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "use HTTP/1.1")
    return words[0], words[1], words[2]


def _take_key(target: str) -> tuple[str, str]:
    """A target without the `key` of its query, and that key."""
    path, _, query = target.partition("?")
    kept, keys = [], []
    for field in query.split("&"):
        name, _, value = field.partition("=")
        if unquote(name) == "key":
            keys.append(unquote(value))  # a "+" is one: keys may have them, but no blanks
        else:
            kept.append(field)
    if not keys:
        return target, ""
    return path + ("?" + "&".join(kept) if kept else ""), keys[0]


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    # A line end of half the length may end a line, or the head, for another parser.
    if not colon or not _TOKEN.fullmatch(name) or "\r" in value or "\n" in value:
        raise BadHead(HTTPStatus.BAD_REQUEST, 'every header must be "Name: value" on one line')
    return name.lower(), value.strip(" \t")


def check_upgrade(head: Head) -> None:
    """Raises BadHead for a WebSocket handshake that RFC 6455, 4.2.1 does not allow."""
    if head.method != "GET" or head.version != "HTTP/1.1":
        problem = f"must be GET over HTTP/1.1, not {head.method} over {head.version}"
    elif not head.header("host"):
        problem = "must have a Host header"
    elif "upgrade" not in head.tokens("connection"):
        problem = 'must say "Connection: Upgrade" (does a proxy in between remove it?)'
    elif "websocket" not in head.tokens("upgrade"):
        problem = 'must say "Upgrade: websocket" (does a proxy in between remove it?)'
    elif head.values("transfer-encoding") or head.header("content-length") not in (None, "0"):
        problem = "must have no body"
    elif head.values("sec-websocket-version") != ["13"]:
        raise BadHead(
            HTTPStatus.UPGRADE_REQUIRED,
            'a WebSocket handshake must say "Sec-WebSocket-Version: 13"',
            (("Sec-WebSocket-Version", "13"),),
        )
    elif not _is_key(head.values("sec-websocket-key")):
        problem = f"must have one Sec-WebSocket-Key: {_KEY_BYTES} bytes in base64"
    else:
        return
    raise BadHead(HTTPStatus.BAD_REQUEST, f"a WebSocket handshake {problem}")


def _is_key(values: list[str]) -> bool:
    try:
        return len(values) == 1 and len(base64.b64decode(values[0], validate=True)) == _KEY_BYTES
    except (binascii.Error, ValueError):
        return False


def answer(refusal: Refusal) -> bytes:
    """A whole HTTP answer, after which the connection is to be closed."""
    body = (refusal.message + "\n").encode()
    headers = (
        ("Content-Type", "text/plain; charset=utf-8"),
        ("X-Content-Type-Options", "nosniff"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
        *refusal.headers,
    )
    lines = [f"HTTP/1.1 {refusal.status.value} {refusal.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode("latin-1") + _END + body
