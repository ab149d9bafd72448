"""API keys: read, compared, asked for, and never repeated."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest
import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from loopback import UPGRADE, RawPeer, serving, talk
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route

from listenai.errors import ConfigurationError
from listenai.server.authentication import (
    MAX_GUESSERS,
    MAX_WRONG_KEYS,
    OPEN_PATHS,
    WRONG_KEY_SECONDS,
    Authentication,
    read_keys,
)
from listenai.server.front_door import DoorDeadlines
from listenai.server.head import Head, Refusal, parse_head
from listenai.server.http import make_http_app
from listenai.server.page import page_routes
from listenai.server.protocol_docs import protocol_route
from listenai.wire import Wire

SECRET = "s3cret-Key_of+ann/1="
OTHER = "the-key-of-ben"
KEYS = read_keys(f"ann:{SECRET}, {OTHER}")
BEN = KEYS[1].owner

GIVEN: Mapping[str, tuple[str, str]] = {  # how a key is given: query, header
    "bearer": ("", "Authorization: Bearer {}\r\n"),
    "bearer in other letters": ("", "aUTHORIZATION: bearer  {}\r\n"),
    "x-api-key": ("", "X-API-Key: {}\r\n"),
    "query": ("?key={}", ""),
    "query among others": ("?a=1&key={}&b=2", ""),
}


def ask(given: str, key: str, path: str = "/ws", *, upgrade: bool = True) -> bytes:
    """A request with a key."""
    query, header = (part.format(key) for part in GIVEN[given])
    request = UPGRADE if upgrade else b"GET /ws?model=a HTTP/1.1\r\nHost: x\r\n\r\n"
    request = request.replace(b"/ws?model=a", (path + query).encode())
    return request.replace(b"Host: x\r\n", b"Host: x\r\n" + header.encode())


def head_of(request: bytes, host: str = "127.0.0.1") -> Head:
    head = parse_head(request)
    assert head
    return attrs.evolve(head, peer=(host, 1))


def status(answer: bytes) -> int:
    return int(answer.split()[1])


# --- reading ---------------------------------------------------------------------------------


def test_keys_are_remembered_as_owner_and_hash(tmp_path: Path) -> None:
    """From the variable and the file; an owner may have several; the key itself is not kept."""
    file = tmp_path / "keys"
    file.write_text("# of the kitchen\nkitchen:k1\n\nkitchen:k2\n  k3  \n")
    keys = read_keys("a1 ,ann:a2", str(file))
    owners = [key.owner for key in keys]
    assert owners[1:4] == ["ann", "kitchen", "kitchen"]
    assert owners[0] != owners[4]
    assert all(owner.startswith("key-") and len(owner) == 12 for owner in (owners[0], owners[4]))
    assert read_keys("a1")[0] == keys[0]  # the same owner after a restart
    assert "a1" not in repr(keys)
    assert read_keys("") == read_keys("  ") == ()


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        ("good,,good2", "API_KEYS, key 2: a key must be visible ASCII"),
        (",", "API_KEYS, key 1: a key must be"),
        ("with blank", "without blanks"),
        ("schlüssel", "visible ASCII"),
        ("an owner:secret1", "an owner must be 1 to 64 letters"),
        (":secret1", "an owner must be"),
        ("ann:", "a key must be"),
        ("ann:secret1,ben:secret1", "API_KEYS, key 2: the key belongs to another owner"),
    ],
)
def test_what_is_no_key_is_told_without_repeating_it(listed: str, says: str) -> None:
    """Which one it is and what is allowed."""
    with pytest.raises(ConfigurationError) as error:
        read_keys(listed)
    assert says in str(error.value)
    for secret in ("secret1", "schlüssel", "with blank"):
        assert secret not in str(error.value)


def test_a_file_without_keys_does_not_open_the_server(tmp_path: Path) -> None:
    """Nor does one that is not there, or is no text; every problem is told."""
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_text("# nothing yet\n")
    binary.write_bytes(b"\xff\xfe\x00")
    for file, says in (
        (empty, "has no key"),
        (binary, "it is not UTF-8"),
        (tmp_path / "none", "No such file"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(ConfigurationError) as error:
            read_keys("a b", str(file))
        assert says in error.value.problems[0]
        assert "API_KEYS, key 1" in error.value.problems[-1]


# --- who is it -------------------------------------------------------------------------------


@pytest.mark.parametrize("given", GIVEN)
async def test_a_key_tells_its_owner(given: str) -> None:
    """However it is given."""
    authentication = Authentication(KEYS)
    for key, owner in ((SECRET, "ann"), (OTHER, BEN)):
        head = head_of(ask(given, key))
        assert authentication.refuse(head) is None
        assert authentication.owner(head) == owner
    wrong = head_of(ask(given, SECRET + "x"))
    assert authentication.owner(wrong) is None
    refusal = authentication.refuse(wrong)
    assert refusal
    assert refusal.status == 401


async def test_a_percent_encoded_key_is_the_key() -> None:
    """Browsers encode what a URL cannot hold."""
    encoded = SECRET.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    assert Authentication(KEYS).owner(head_of(ask("query", encoded))) == "ann"


async def test_without_keys_everyone_may_everything() -> None:
    """Also with a key of somewhere else; the owner has no name."""
    authentication = Authentication()
    for head in (head_of(UPGRADE), head_of(ask("bearer", "whatever", "/metrics"))):
        assert authentication.refuse(head) is None
        assert authentication.refuse_http(head) is None
        assert authentication.owner(head) == ""


@pytest.mark.parametrize(
    "header", ["", "Authorization: Basic YTpi", "Authorization: Bearer", "X-API-Key:"]
)
async def test_no_key_is_told_how_to_give_one(header: str) -> None:
    """In words and in a challenge; asking without a key is no guess."""
    request = UPGRADE.replace(
        b"Host: x", b"Host: x" + (b"\r\n" + header.encode() if header else b"")
    )
    authentication = Authentication(KEYS)
    for _ in range(3 * MAX_WRONG_KEYS):
        refusal = authentication.refuse(head_of(request))
        assert refusal
        assert refusal.status == 401
    assert refusal.headers == (("WWW-Authenticate", 'Bearer realm="ListenAI"'),)
    for way in ("Authorization: Bearer KEY", "X-API-Key: KEY", "?key=KEY"):
        assert way in refusal.message
    assert authentication.refused == 3 * MAX_WRONG_KEYS


# --- guessers --------------------------------------------------------------------------------


def refusal_of(authentication: Authentication, key: str, host: str) -> Refusal:
    who = authentication.identify(key, host)
    assert isinstance(who, Refusal)
    return who


async def test_a_guesser_is_slowed_down(autojump_clock: trio.testing.MockClock) -> None:
    """After so many different keys none is looked at any more, until the minute is over."""
    authentication = Authentication(KEYS)
    for number in range(MAX_WRONG_KEYS):
        assert refusal_of(authentication, f"guess{number}", "203.0.113.7").status == 401
        await trio.sleep(1)
    refusal = refusal_of(authentication, "another", "203.0.113.7")
    assert refusal.status == 429
    wait = int(dict(refusal.headers)["Retry-After"])
    assert wait == WRONG_KEY_SECONDS - MAX_WRONG_KEYS
    assert f"try again in {wait} s" in refusal.message
    assert refusal_of(authentication, SECRET, "203.0.113.7").status == 429  # or it would tell
    assert authentication.identify(SECRET, "203.0.113.8") == "ann"
    assert refusal_of(authentication, "another", "203.0.113.8").status == 401
    await trio.sleep(wait)
    assert authentication.identify(SECRET, "203.0.113.7") == "ann"


async def test_guessers_of_one_subscriber_are_one() -> None:
    """Who has a /64 has more addresses than there are guesses."""
    authentication = Authentication(KEYS)
    for number in range(MAX_WRONG_KEYS):
        assert refusal_of(authentication, f"g{number}", f"2001:db8::{number:x}").status == 401
    assert refusal_of(authentication, "one more", "2001:db8::ffff").status == 429
    assert refusal_of(authentication, "one more", "2001:db8:0:1::1").status == 401


async def test_a_misconfigured_device_does_not_lock_out_its_neighbours() -> None:
    """The same wrong key over and over is no guess."""
    authentication = Authentication(KEYS)
    for _ in range(5 * MAX_WRONG_KEYS):
        assert refusal_of(authentication, "an old key", "203.0.113.7").status == 401
    assert authentication.identify(SECRET, "203.0.113.7") == "ann"


async def test_guessers_are_remembered_boundedly() -> None:
    """However many addresses there are, and however many keys each tries."""
    authentication = Authentication(KEYS)
    for number in range(3 * MAX_GUESSERS):
        refusal_of(authentication, "x", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    for number in range(10 * MAX_WRONG_KEYS):
        refusal_of(authentication, f"x{number}", "203.0.113.7")
    assert len(authentication._guessers) == MAX_GUESSERS
    assert max(map(len, authentication._guessers.values())) == MAX_WRONG_KEYS


# --- at the door: default deny ------------------------------------------------------------------


async def _show(request: Request) -> PlainTextResponse:
    return PlainTextResponse("secret " + request.url.query)


def routes(tmp_path: Path) -> list[BaseRoute]:
    """What the server has, and a route that nobody has thought of."""
    (tmp_path / "index.html").write_text("<!doctype html>")
    return [
        protocol_route({"/": ["ListenAI"]}),
        Route("/metrics", _show),
        Route("/mcp", _show, methods=["POST", "DELETE"]),
        Route("/new", _show, methods=["GET", "POST"]),
        Route("/auth/websocket", _show, methods=["POST"]),
        *page_routes(tmp_path),
    ]


async def test_every_route_needs_a_key_but_those_of_the_table(tmp_path: Path) -> None:
    """All of them, with every method; with a key none is refused."""
    app = make_http_app(health=lambda: {"status": "ok"}, routes=routes(tmp_path))
    authentication = Authentication(KEYS)
    opened, closed = set[str](), set[str]()
    async with serving(app=app, refuse_http=authentication.refuse_http) as server:
        for route in app.routes:
            if not isinstance(route, Route):
                continue
            for method in route.methods or ():
                request = f"{method} {route.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
                answer = await talk(server.port, request)
                (closed if status(answer) == 401 else opened).add(route.path)
                keyed = request.replace(b"\r\n\r\n", f"\r\nX-API-Key: {SECRET}\r\n\r\n".encode())
                assert status(await talk(server.port, keyed)) == 200, route.path
    own_tokens = "/auth/websocket"
    page, health = {"/", "/test_client.html"}, {"/health", "/health/ready"}
    assert opened == {*page, *health, "/docs/protocol", own_tokens}
    assert closed == {"/metrics", "/mcp", "/new"}
    assert {row.replace("*", "protocol") for row in OPEN_PATHS} == opened


async def test_files_of_the_page_are_opened_by_name(tmp_path: Path) -> None:
    """The composition adds them to the table."""
    authentication = Authentication(KEYS, open_paths=(*OPEN_PATHS, "/app.js"))
    assert authentication.refuse_http(head_of(b"GET /app.js HTTP/1.1\r\n\r\n")) is None
    assert authentication.refuse_http(head_of(b"GET /app.json HTTP/1.1\r\n\r\n"))


@pytest.mark.parametrize(
    "target",
    [
        *("/metrics/", "//metrics", "/./metrics", "/health/../metrics", "/%6detrics", "/metrics?/"),
        *("/metrics#/health", "/metrics;/health", "/health%2f..%2fmetrics", "/health/metrics"),
        *("/docs", "/docs%2fprotocol", "http://x/health", "/new?x=/health", "/healthx", "*"),
        *("/docs/../metrics", "/docs/%2e%2e/metrics", "/docs/..%2fmetrics"),
    ],
)
async def test_no_spelling_of_a_path_gets_round_the_table(tmp_path: Path, target: str) -> None:
    """Either a key is asked for, or nothing is there."""
    app = make_http_app(health=lambda: {"status": "ok"}, routes=routes(tmp_path))
    async with serving(app=app, refuse_http=Authentication(KEYS).refuse_http) as server:
        answer = await talk(server.port, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert status(answer) in (401, 404)
    assert b"secret" not in answer


def http2_request() -> tuple[bytes, bytes]:
    """The settings with which to ask for HTTP/2, and a request in it."""
    connection = H2Connection(H2Configuration(client_side=True))
    settings = connection.initiate_upgrade_connection()
    assert settings
    names = (":method", ":scheme", ":authority", ":path")
    fields = zip(names, ("GET", "http", "x", "/metrics"), strict=True)
    connection.send_headers(3, list(fields), end_stream=True)
    return settings, connection.data_to_send()


SETTINGS, HTTP2 = http2_request()
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: %s\r\n" % SETTINGS
SECOND = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
SMUGGLED = {
    "pipelined": HEALTH + b"\r\n" + SECOND,
    "after chunks": HEALTH.replace(b"GET", b"POST") + CHUNKED + b"\r\n0\r\n\r\n" + SECOND,
    "after bare line ends": HEALTH[:-2] + b"\n\n" + SECOND,
    "a bare line end in the first line": b"GET /metrics\nX: HTTP/1.1\r\nHost: x\r\n\r\n",
    "two lengths": HEALTH + b"Content-Length: 0\r\nContent-Length: 9\r\n\r\n" + SECOND,
    "HTTP/2": HTTP2,
    "HTTP/2 after HTTP/1": HEALTH + H2C + b"\r\n" + HTTP2,
    "HTTP/2 after chunks": HEALTH + H2C + CHUNKED + b"\r\n0\r\n\r\n" + HTTP2,
    "HTTP/2 after an empty body": HEALTH + H2C + b"Content-Length: 0\r\n\r\n" + HTTP2,
}


@pytest.mark.parametrize("request_name", SMUGGLED)
async def test_nothing_is_smuggled_past_the_door(tmp_path: Path, request_name: str) -> None:
    """A second request behind an open one is never answered."""
    app = make_http_app(health=lambda: {"status": "ok"}, routes=routes(tmp_path))
    refuse_http, soon = Authentication(KEYS).refuse_http, DoorDeadlines(close=0.3, idle=0.5)
    async with serving(app=app, refuse_http=refuse_http, deadlines=soon) as server:
        answer = await talk(server.port, SMUGGLED[request_name], half_close=True)
    assert b"secret" not in answer
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert not answer.startswith(b"HTTP/1.1 101 ")


async def test_the_private_port_is_no_way_round(tmp_path: Path) -> None:
    """Every program of the machine can reach it; it answers the front door alone."""
    app = make_http_app(health=lambda: {"status": "ok"}, routes=routes(tmp_path))
    ports: list[int] = []

    async def seen(scope: object, receive: object, send: object) -> None:
        ports.append(scope["server"][1])  # type: ignore[index]
        await app(scope, receive, send)  # type: ignore[arg-type]

    async with serving(app=seen, refuse_http=Authentication(KEYS).refuse_http) as server:
        assert status(await talk(server.port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")) == 200
        async with await trio.open_tcp_stream("127.0.0.1", ports[-1]) as stream:
            await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await RawPeer(stream).receive_end()
    assert status(answer) == 403
    assert b"secret" not in answer


async def test_browsers_may_ask_whether_they_may_give_a_key(tmp_path: Path) -> None:
    """A preflight comes without one, and is answered without asking the route."""
    app = make_http_app(
        health=lambda: {"status": "ok"}, routes=routes(tmp_path), allowed_origins=("http://a.test",)
    )
    preflight = (
        b"OPTIONS /mcp HTTP/1.1\r\nHost: x\r\nOrigin: http://a.test\r\n"
        b"Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-api-key\r\n\r\n"
    )
    async with serving(app=app, refuse_http=Authentication(KEYS).refuse_http) as server:
        answer = await talk(server.port, preflight)
        assert status(answer) == 200
        assert b"access-control-allow-origin: http://a.test" in answer
        assert b"secret" not in answer
        post = preflight.replace(b"OPTIONS", b"POST")
        assert status(await talk(server.port, post)) == 401


# --- at the door: WebSockets ----------------------------------------------------------------------


@pytest.mark.parametrize("given", GIVEN)
async def test_a_handshake_needs_a_key(given: str) -> None:
    """101 with it, 401 without it, and the conversation can ask whose it is."""
    authentication = Authentication(KEYS)
    owners: list[str | None] = []

    async def converse(wire: Wire, head: Head) -> None:
        owners.append(authentication.owner(head))

    async with serving(converse, refuse=authentication.refuse) as server:
        assert status(await talk(server.port, ask(given, SECRET))) == 101
        for wrong in (UPGRADE, ask(given, "wrong")):
            answer = await talk(server.port, wrong)
            assert status(answer) == 401
            assert b'\r\nWWW-Authenticate: Bearer realm="ListenAI"' in answer
            assert b"with a key of this server\n" in answer
    assert owners == ["ann"]


async def test_a_guesser_at_the_door_is_told_to_wait() -> None:
    """429 and when to come again."""
    async with serving(refuse=Authentication(KEYS).refuse) as server:
        for number in range(MAX_WRONG_KEYS):
            assert status(await talk(server.port, ask("query", f"guess{number}"))) == 401
        answer = await talk(server.port, ask("query", "guess"))
    assert status(answer) == 429
    assert b"\r\nRetry-After: " in answer


# --- the key is nowhere -----------------------------------------------------------------------


@pytest.mark.parametrize("given", GIVEN)
async def test_a_key_is_never_shown(
    given: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the head's repr and target, not in answers, not in logs, not in what routes see."""
    caplog.set_level(logging.DEBUG)
    authentication = Authentication(KEYS)
    heads: list[Head] = []

    async def fail(wire: Wire, head: Head) -> None:
        heads.append(head)
        raise RuntimeError(f"a bug at {head}")

    app = make_http_app(health=lambda: {"status": "ok"}, routes=routes(tmp_path))
    answers: list[bytes] = []
    async with serving(
        fail, app=app, refuse=authentication.refuse, refuse_http=authentication.refuse_http
    ) as server:
        for key in (SECRET, SECRET + "x"):
            requests = [
                ask(given, key),
                *(ask(given, key, path, upgrade=False) for path in ("/metrics", "/no", "/health")),
            ]
            answers += [await talk(server.port, request) for request in requests]
    assert [status(answer) for answer in answers] == [101, 200, 404, 200, 401, 401, 401, 200]
    (head,) = heads
    assert SECRET not in repr(head)
    assert SECRET not in head.target
    assert "connection_failed" in caplog.text
    assert SECRET not in caplog.text
    assert not any(SECRET.encode() in answer for answer in answers)
    if given == "query among others":
        assert head.target == "/ws?a=1&b=2"
        assert answers[1].endswith(b"secret a=1&b=2")


async def test_other_secrets_of_a_head_are_not_shown_either() -> None:
    """Cookies, proxies' credentials, and URLs that the request came from."""
    lines = "Cookie: k=hidden\r\nProxy-Authorization: hidden\r\nReferer: http://x/?key=hidden\r\n"
    head = head_of(UPGRADE.replace(b"Host: x\r\n", b"Host: x\r\n" + lines.encode()))
    assert "hidden" not in repr(head)
    assert "('host', 'x')" in repr(head)
    assert head.header("cookie") == "k=hidden"


async def test_taking_the_key_out_leaves_the_rest_of_the_bytes_alone() -> None:
    """What came with the head, too; and a "key" that is something else."""
    for target, left in (
        ("/?key=a", "/"),
        ("/?a=%20&key=b&c", "/?a=%20&c"),
        ("/?%6Bey=a&key=b", "/"),
        ("/?keys=a&mykey=b", "/?keys=a&mykey=b"),
        ("/key=a", "/key=a"),
        ("/?key=", "/"),
    ):
        request = f"GET {target} HTTP/1.1\r\nHost: {target}\r\n\r\nGET {target}".encode()
        head = head_of(request)
        assert head.target == left
        assert head.read == request.replace(target.encode(), left.encode(), 1)
