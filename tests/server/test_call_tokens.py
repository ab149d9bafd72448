"""Tokens for Ninja devices' calls: who gets one, what it opens, and what is said to others."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import httpx
import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listenai.dialects.negotiate import Stranger
from listenai.server.call_tokens import (
    CALL_TOKEN_SECONDS,
    EXAMPLE_SECRET,
    MAX_BODY_BYTES,
    CallTokens,
    TokenRefused,
    call_token_route,
)
from listenai.server.http import make_http_app

SECRET = "a secret of tests, longer than thirty-two bytes"
NOW = 1_767_225_600.0
PATH = "/auth/websocket"


class Clock:
    """A wall clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def user_token(secret: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """What whoever knows the users gives them."""
    return jwt.encode({"sub": "user-123", "exp": NOW + 60, **claims}, secret, algorithm)


def body(**fields: Any) -> dict[str, Any]:
    return {"token": user_token(), "userId": "user-123", "callId": "call-456", **fields}


def client(tokens: CallTokens | None = None, *origins: str) -> httpx.AsyncClient:
    route = call_token_route(tokens or CallTokens(SECRET, Clock()))
    app = make_http_app(health=dict, routes=[route], allowed_origins=origins)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://example.test")


def opening(token: str, user_id: str = "user-123", call_id: str = "call-456") -> dict[str, Any]:
    data = {"userId": user_id, "callId": call_id, "authToken": token}
    return {"type": "session_start", "callId": call_id, "timestamp": 1, "data": data}


# --- over HTTP -----------------------------------------------------------------------------


async def test_a_user_gets_a_token_that_opens_the_call() -> None:
    """Again and again until it expires; nobody keeps a copy of the answer."""
    clock = Clock()
    tokens = CallTokens(SECRET, clock)
    async with client(tokens) as http:
        answer = await http.post(PATH, json=body())
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert set(answer.json()) == {"sessionToken", "expiresIn"}
    assert answer.json()["expiresIn"] == CALL_TOKEN_SECONDS == 300
    token = answer.json()["sessionToken"]
    for later in (0, 299.9):
        clock.now = NOW + later
        assert tokens.identify(opening(token), None, "192.0.2.1") == "ninja:user-123"
    clock.now = NOW + 300
    stranger = tokens.identify(opening(token), None, "192.0.2.1")
    assert isinstance(stranger, Stranger)
    assert "expired" in stranger.message
    assert "POST /auth/websocket" in stranger.message


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("", "JWT_SECRET is not set"),
        (EXAMPLE_SECRET, "the documentation's example"),
        ("x" * 31, "32 bytes or more"),
    ],
)
async def test_without_a_good_secret_there_are_no_tokens(secret: str, words: str) -> None:
    """503, with what to do; a token made with such a secret opens nothing."""
    tokens = CallTokens(secret, Clock())
    async with client(tokens) as http:
        for content in (json.dumps(body()), "nonsense"):
            answer = await http.post(PATH, content=content)
            assert answer.status_code == 503
            assert words in answer.json()["error"]
            assert "openssl rand -hex 32" in answer.json()["error"]
    stranger = tokens.identify(opening("token"), None, "192.0.2.1")
    assert isinstance(stranger, Stranger)
    assert words in stranger.message


async def test_the_shortest_secret_is_as_long_as_the_hash() -> None:
    async with client(CallTokens("x" * 32, Clock())) as http:
        answer = await http.post(PATH, json=body(token=user_token("x" * 32)))
    assert answer.status_code == 200


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    """A token without a signature, which some libraries have believed."""
    parts = (json.dumps(part).encode() for part in (header, claims))
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + "."


WRONG: list[tuple[str, str]] = [
    ("nonsense", "not a JSON Web Token with HS256"),
    ("a.b.c", "not a JSON Web Token"),
    (user_token("another secret of more than thirty-two bytes"), "not signed"),
    (user_token(SECRET + " made longer, for sixty-four bytes", "HS512"), "HS256"),
    (unsigned({"alg": "none", "typ": "JWT"}, {"sub": "user-123"}), "HS256"),
    (user_token(sub="somebody"), "'sub' must equal 'userId'"),
    (user_token(sub=None), "'sub' must equal"),
    (user_token(exp=NOW), "expired"),
    (user_token(exp=NOW - 1), "expired"),
    (user_token(exp=math.nan), "'exp' is no number"),
    (user_token(exp="tomorrow"), "'exp' is no number"),
    (user_token(exp=True), "'exp' is no number"),
    (user_token(nbf=NOW + 1), "not yet good"),
]


@pytest.mark.parametrize(("token", "words"), WRONG, ids=[words for _, words in WRONG])
async def test_a_wrong_token_gets_none(token: str, words: str) -> None:
    """401, with the reason."""
    async with client() as http:
        answer = await http.post(PATH, json=body(token=token))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    "claims", [{}, {"exp": NOW + 0.5}, {"nbf": NOW}, {"aud": "elsewhere", "iat": NOW + 9, "x": 1}]
)
def test_what_else_a_token_says_is_its_makers_business(claims: dict[str, Any]) -> None:
    """sub, exp and nbf count, where they are there."""
    token = jwt.encode({"sub": "user-123", **claims}, SECRET, "HS256")
    assert CallTokens(SECRET, Clock()).issue(token, "user-123", "call-456")


BAD_BODIES: list[tuple[bytes, str]] = [
    (b"", "not JSON"),
    (b"[]", "JSON object"),
    (b"\xff", "UTF-8"),
    (b'{"token":"a","token":"b"}', "twice"),
    (b"{}", "'userId' is missing"),
    (json.dumps(body(token=1)).encode(), "'token' must be text"),
    (json.dumps(body(token="x" * 4097)).encode(), "4096"),
    (json.dumps(body(userId="a b")).encode(), "'userId' must be 1 to 128"),
    (json.dumps(body(callId="a/b")).encode(), "'callId' must be 1 to 64"),
]


@pytest.mark.parametrize(("content", "words"), BAD_BODIES, ids=lambda value: str(value)[:30])
async def test_a_bad_body_is_explained(content: bytes, words: str) -> None:
    """400, naming the field and what is allowed."""
    async with client() as http:
        answer = await http.post(PATH, content=content)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


async def test_too_much_and_other_methods_are_refused() -> None:
    async with client() as http:
        assert (await http.post(PATH, content=bytes(MAX_BODY_BYTES + 1))).status_code == 413
        assert (await http.post(PATH, content=bytes(MAX_BODY_BYTES))).status_code == 400
        assert (await http.get(PATH)).status_code == 405


async def test_pages_of_allowed_origins_may_ask() -> None:
    """CORS as for the rest: a page sends JSON, so that its browser asks first."""
    origin = {"Origin": "http://localhost:3000"}
    asks = origin | {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    for allowed, status in ((("http://localhost:3000",), 200), ((), 400)):
        async with client(None, *allowed) as http:
            assert (await http.options(PATH, headers=asks)).status_code == status
            answer = await http.post(PATH, json=body(), headers=origin)
            leave = answer.headers.get("access-control-allow-origin")
            assert leave == ("http://localhost:3000" if allowed else None)


# --- in the first message --------------------------------------------------------------------


def test_a_token_is_for_one_user_and_one_call() -> None:
    """Whoever changes either is a stranger."""
    tokens = CallTokens(SECRET, Clock())
    token = tokens.issue(user_token(), "user-123", "call-456")
    assert tokens.refuse(token, "user-123", "call-456") is None
    for who in (("user-123", "call-7"), ("user-7", "call-456")):
        assert "another user or call" in (tokens.refuse(token, *who) or "")


def test_neither_kind_of_token_passes_for_the_other() -> None:
    """A call token cannot be exchanged for another call's; a user's opens nothing by itself."""
    tokens = CallTokens(SECRET, Clock())
    token = tokens.issue(user_token(), "user-123", "call-456")
    with pytest.raises(TokenRefused, match="not signed"):
        tokens.issue(token, "user-123", "call-7")
    made = user_token(callId="call-456")
    assert "not signed" in (tokens.refuse(made, "user-123", "call-456") or "")


def test_servers_with_one_secret_know_each_others_tokens() -> None:
    token = CallTokens(SECRET, Clock()).issue(user_token(), "user-123", "call-456")
    assert CallTokens(SECRET, Clock()).refuse(token, "user-123", "call-456") is None
    assert CallTokens(SECRET + "2", Clock()).refuse(token, "user-123", "call-456")


@pytest.mark.parametrize(
    "first",
    [
        {},
        {"type": "heartbeat"},
        {"type": "session_start"},
        {"type": "session_start", "data": []},
        {"type": "session_start", "data": {"authToken": 1, "userId": "a", "callId": "b"}},
        {"type": "session_start", "data": {"userId": "a", "callId": "b"}},
    ],
)
def test_who_does_not_say_who_it_is_is_a_stranger(first: dict[str, Any]) -> None:
    """And is told what to say; an API key of the handshake does not help."""
    stranger = CallTokens(SECRET, Clock()).identify(first, "an owner", "192.0.2.1")
    assert isinstance(stranger, Stranger)
    assert "session_start" in stranger.message


JSONISH = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["authToken", "userId", "callId"]), inner, max_size=3)
    ),
    max_leaves=4,
)


@settings(max_examples=1000, deadline=None, derandomize=True, database=None)
@given(st.text(max_size=60) | JSONISH.map(lambda value: unsigned({"alg": "HS256"}, {"a": value})),
       JSONISH)  # fmt: skip
def test_no_token_breaks_anything(token: str, data: Any) -> None:
    """Whatever is given for one: it is refused in words."""
    tokens = CallTokens(SECRET, Clock())
    with pytest.raises(TokenRefused):
        tokens.issue(token, "user-123", "call-456")
    assert tokens.refuse(token, "user-123", "call-456")
    assert isinstance(
        tokens.identify({"type": "session_start", "data": data}, "", "192.0.2.1"), Stranger
    )
