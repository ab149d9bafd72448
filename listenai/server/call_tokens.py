"""Tokens for the calls of Ninja devices (spec 004, "Authenticate and Start Session").

A user brings a JSON Web Token of whoever knows users (HS256, JWT_SECRET) and gets one for a
call.  Call tokens are signed with a key of their own, made from the secret: neither kind passes
for the other, so that a call token opens its one call and is never exchanged for another.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable
from contextlib import aclosing
from http import HTTPStatus
from importlib import import_module
from typing import Any, Final

import attrs
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from listenai.dialects.fields import Id, MessageReader
from listenai.dialects.json_text import parse_object
from listenai.dialects.negotiate import Stranger
from listenai.dialects.ninja_messages import Token, UserId
from listenai.errors import ListenAIError, ProtocolError
from listenai.events import JsonObject

CALL_TOKEN_SECONDS = 300  # spec 004 says for how long a session token is good
EXAMPLE_SECRET = "your-secret-key-change-in-production"  # noqa: S105 - of spec 004: known to all
MIN_SECRET_BYTES = 32  # RFC 7518, 3.2: as long as the hash, or it can be guessed
MAX_BODY_BYTES = 16 * 1024

_HEARD_OUT_BYTES = 1 << 20  # of a body that is too large
_ALGORITHM = "HS256"
_ADVICE = "make one with `openssl rand -hex 32`, and give it to whoever signs tokens, too"
# Times are checked here, by the clock that was given; the rest is for whoever made the token.
_UNCHECKED: Final[Any] = {
    f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")
}


class TokenRefused(ListenAIError):
    """A token that is not good; the message says why."""


class CallTokens:
    """Makes and knows call tokens.

    secret: JWT_SECRET.  wall_clock: seconds since 1970.
    """

    def __init__(self, secret: str, wall_clock: Callable[[], float]) -> None:
        self._secret, self._wall_clock = secret.encode(), wall_clock
        self._call_key = hmac.digest(self._secret, b"listenai call token", "sha256")
        self.problem = _problem_of(secret)  # why there are no tokens, and what to do; or None
        # PyJWT brings all of cryptography: 60 ms and 5 MiB for a server that never needs it.
        self._jwt: Any = None if self.problem else import_module("jwt")

    def issue(self, token: str, user_id: str, call_id: str) -> str:
        """A token for this call of the user whom `token` names; only where there is no `problem`.

        Raises TokenRefused for a token that is not this user's.
        """
        assert not self.problem
        claims = self._claims(token, self._secret)
        if claims.get("sub") != user_id:
            raise TokenRefused("the token's 'sub' must equal 'userId'")
        now = int(self._wall_clock())
        call = {"sub": user_id, "callId": call_id, "iat": now, "exp": now + CALL_TOKEN_SECONDS}
        signed: str = self._jwt.encode(call, self._call_key, _ALGORITHM)
        return signed

    def refuse(self, token: str, user_id: str, call_id: str) -> str | None:
        """Why a call token is not good for this user and call, or None."""
        if self.problem:
            return self.problem
        try:
            claims = self._claims(token, self._call_key)
        except TokenRefused as refused:
            return f"data.authToken: {refused}; get one from POST /auth/websocket"
        if (claims.get("sub"), claims.get("callId")) != (user_id, call_id):
            return "data.authToken is for another user or call; get one from POST /auth/websocket"
        return None

    def identify(self, opening: JsonObject, _owner: str | None, _peer: str) -> str | Stranger:
        """The owner of a connection by its first message, or why it is nobody's."""
        data = opening.get("data")
        if opening.get("type") != "session_start" or not isinstance(data, dict):
            return Stranger("the first message must be session_start, with data")
        given = [data.get(name) for name in ("authToken", "userId", "callId")]
        if not all(isinstance(value, str) for value in given):
            return Stranger("session_start: data must have authToken, userId and callId as text")
        token, user_id, call_id = map(str, given)
        if problem := self.refuse(token, user_id, call_id):
            return Stranger(problem)
        return f"ninja:{user_id}"

    def _claims(self, token: str, key: bytes) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = self._jwt.decode(
                token, key, algorithms=[_ALGORITHM], options=_UNCHECKED
            )
        except self._jwt.InvalidSignatureError:
            raise TokenRefused("the token is not signed with this server's secret") from None
        except self._jwt.PyJWTError:
            raise TokenRefused(f"not a JSON Web Token with {_ALGORITHM}") from None
        now = self._wall_clock()
        begin, end = _time(claims, "nbf", -math.inf), _time(claims, "exp", math.inf)
        if now >= end:
            raise TokenRefused("the token has expired")
        if now < begin:
            raise TokenRefused("the token is not yet good; compare the clocks")
        return claims


def _problem_of(secret: str) -> str | None:
    if not secret:
        return f"JWT_SECRET is not set on this server: {_ADVICE}"
    if secret == EXAMPLE_SECRET:
        return f"JWT_SECRET is the documentation's example, which all know: {_ADVICE}"
    if len(secret.encode()) < MIN_SECRET_BYTES:
        return f"JWT_SECRET must have {MIN_SECRET_BYTES} bytes or more: {_ADVICE}"
    return None


def _time(claims: dict[str, Any], name: str, otherwise: float) -> float:
    """A claim in seconds since 1970; raises TokenRefused for what is no time."""
    value = claims.get(name, otherwise)
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise TokenRefused(f"the token's {name!r} is no number")
    return value


# --- over HTTP -----------------------------------------------------------------------------


@attrs.frozen
class _Wanted:
    """The body of a request; its names are those of the wire."""

    token: Token
    userId: UserId  # noqa: N815
    callId: Id  # noqa: N815


_READER: Final[MessageReader[_Wanted]] = MessageReader({}, unknown_fields=True)


def call_token_route(tokens: CallTokens) -> Route:
    """`POST /auth/websocket` {token, userId, callId} → {sessionToken, expiresIn}.

    400 for another body, 401 for a wrong token, 413 for too much, 503 without a secret.
    """

    async def issue(request: Request) -> Response:
        if tokens.problem:
            return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, tokens.problem)
        body = await _body(request)
        if len(body) > MAX_BODY_BYTES:
            return _refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"more than {MAX_BODY_BYTES} bytes; send token, userId and callId alone",
            )
        try:
            wanted = _READER.read_as(_Wanted, parse_object(body.decode()), "body")
            token = tokens.issue(wanted.token, wanted.userId, wanted.callId)
        except UnicodeDecodeError:
            return _refusal(HTTPStatus.BAD_REQUEST, "the body must be JSON in UTF-8")
        except ProtocolError as error:
            return _refusal(HTTPStatus.BAD_REQUEST, str(error))
        except TokenRefused as error:
            challenge = {"WWW-Authenticate": "Bearer"}
            return _refusal(HTTPStatus.UNAUTHORIZED, str(error), challenge)
        return JSONResponse(
            {"sessionToken": token, "expiresIn": CALL_TOKEN_SECONDS}, headers=_NOT_STORED
        )

    return Route("/auth/websocket", issue, methods=["POST"])


async def _body(request: Request) -> bytes:
    """The whole body, or the beginning of one that is too large; who sends it hears the answer."""
    body, size = b"", 0
    async with aclosing(request.stream()) as parts:
        async for part in parts:
            size += len(part)
            body += part[: MAX_BODY_BYTES + 1 - len(body)]
            if size > _HEARD_OUT_BYTES:
                break
    return body


_NOT_STORED = {"Cache-Control": "no-store"}


def _refusal(status: HTTPStatus, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": message}, status, _NOT_STORED | (headers or {}))
