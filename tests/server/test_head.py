"""Heads of connections: understood byte by byte, or told what was wrong."""

from __future__ import annotations

import pytest
from loopback import UPGRADE

from listenai.server.head import MAX_HEAD_BYTES, BadHead, check_upgrade, parse_head


def test_a_head_is_understood_once_it_is_whole() -> None:
    """Byte by byte there is nothing, then everything; bytes that follow are kept."""
    assert not any(parse_head(UPGRADE[:end]) for end in range(len(UPGRADE)))
    head = parse_head(UPGRADE + b"more")
    assert head
    assert (head.method, head.target, head.path, head.query) == (
        "GET",
        "/ws?model=a",
        "/ws",
        "model=a",
    )
    assert (head.header("host"), head.header("cookie")) == ("x", None)
    assert head.tokens("connection") == {"keep-alive", "upgrade"}
    assert head.is_upgrade
    assert head.read.endswith(b"more")
    check_upgrade(head)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (b"", 0),
        (b"Content-Length: 12\r\n", 12),
        (b"Transfer-Encoding: chunked\r\n", None),
        (b"Content-Length: 12\r\nTransfer-Encoding: chunked\r\n", None),
        (b"Content-Length: 1\r\nContent-Length: 2\r\n", None),
        (b"Content-Length: -1\r\n", None),
    ],
)
def test_the_length_of_a_request_is_known_or_not(headers: bytes, body: int | None) -> None:
    """Where two parsers could differ it is not known."""
    request = b"POST / HTTP/1.1\r\n" + headers + b"\r\n"
    head = parse_head(request + b"more")
    assert head
    assert head.size == len(request)
    assert head.request_bytes == (None if body is None else len(request) + body)


@pytest.mark.parametrize(
    ("data", "status", "says"),
    [
        (b"\x16\x03\x01\x02\x00", 400, "no TLS: use ws://"),
        (b"\x00\x01", 400, "send an HTTP/1.1 request"),
        (b"GET /\r\n\r\n", 400, "METHOD target HTTP/1.1"),
        (b"G(T / HTTP/1.1\r\n\r\n", 400, "METHOD target HTTP/1.1"),
        (b"PRI * HTTP/2.0\r\n\r\n", 505, "use HTTP/1.1"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400, "Name: value"),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400, "Name: value"),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400, "Name: value"),
        (b"GET / HTTP/1.1\r\nA: b\nHost: c\r\n\r\n", 400, "Name: value"),
        (b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", 400, "Name: value"),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * MAX_HEAD_BYTES, 431, "16384 bytes"),
    ],
)
def test_a_bad_head_is_told_what_was_wrong(data: bytes, status: int, says: str) -> None:
    """Each refusal has its status and a hint."""
    with pytest.raises(BadHead) as refused:
        parse_head(data)
    assert refused.value.refusal.status == status
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "status", "says"),
    [
        (b"GET", b"POST", 400, "not POST"),
        (b"HTTP/1.1", b"HTTP/1.0", 400, "HTTP/1.0"),
        (b"Host: x\r\n", b"", 400, "Host"),
        (b", Upgrade", b"", 400, "Connection: Upgrade"),
        (b"Upgrade: websocket\r\n", b"", 400, "Upgrade: websocket"),
        (b"Host", b"Content-Length: 3\r\nHost", 400, "no body"),
        (b"Version: 13", b"Version: 8", 426, "Version: 13"),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"c2hvcnQ=", 400, "16 bytes"),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"!", 400, "16 bytes"),
        (b"Sec-WebSocket-Key", b"Sec-WebSocket-Nay", 400, "16 bytes"),
    ],
)
def test_a_malformed_handshake_is_told_what_was_wrong(
    old: bytes, new: bytes, status: int, says: str
) -> None:
    """Each refusal has its status and names the header."""
    head = parse_head(UPGRADE.replace(old, new))
    assert head
    assert head.is_upgrade
    with pytest.raises(BadHead) as refused:
        check_upgrade(head)
    assert refused.value.refusal.status == status
    assert says in str(refused.value)
