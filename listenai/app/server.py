"""The server: one port, its conversations, and what it tells of itself."""

from __future__ import annotations

import logging
import signal
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus

import attrs
import trio
from starlette.routing import BaseRoute, Route

from listenai.app.dialects import dialect_rows
from listenai.app.guards import Guards, bounds_of, make_guards
from listenai.app.observers import Watch, open_watch
from listenai.config import DEFAULT_VOICE_ID, Config
from listenai.conversation.conversation import Conversation, Deadlines
from listenai.conversation.dialogue import Engines
from listenai.conversation.replying import Limits
from listenai.dialects.base import Dialect
from listenai.dialects.negotiate import DialectRow, Negotiator, Stranger, opening_of
from listenai.effects import Effects
from listenai.errors import ConfigurationError, ErrorCode
from listenai.events import ErrorReported
from listenai.server.admission import TRY_AGAIN_LATER
from listenai.server.authentication import given_key
from listenai.server.call_tokens import CallTokens, call_token_route
from listenai.server.front_door import Address, Endpoint, serve_front_door
from listenai.server.head import Head, Refusal
from listenai.server.http import make_http_app
from listenai.server.mcp_endpoint import McpEndpoint
from listenai.server.page import PageFiles, page_routes, web_directory
from listenai.server.protocol_docs import protocol_route
from listenai.server.tls import reload_certificate
from listenai.server.troubleshooting import troubleshooting_route
from listenai.sessions.memory import MemorySessionStore
from listenai.settings import EffectiveConfiguration
from listenai.telemetry import logs
from listenai.tools.base import ToolRegistry
from listenai.wire import DeviceGone, PeekedWire, Wire

_log = logging.getLogger(__name__)

GOODBYE_SECONDS = 2.0  # for the reason why a connection is not wanted
FIRST_MESSAGE_SECONDS = 10.0  # a connection that says nothing is closed

SYSTEM_PROMPT = (
    "You are a friendly voice assistant. Your words are spoken aloud: answer in one to three"
    " short sentences, without lists, markup or emoji."
)


async def serve(
    config: Config,
    engines: Engines,
    *,
    draining: trio.Event | None = None,
    effects: Effects | None = None,
    first_message_seconds: float = FIRST_MESSAGE_SECONDS,
    task_status: trio.TaskStatus[Sequence[Address]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until cancelled, or until `draining` is set and every reply was finished.

    first_message_seconds: a connection that says nothing for so long is closed.
    task_status: reports the addresses once connections are accepted.

    Raises ConfigurationError when it cannot listen there, has too little memory, lacks the
    voice, or was given keys, origins or certificates that cannot work.
    """
    draining = trio.Event() if draining is None else draining
    effects = effects or Effects()
    config = attrs.evolve(config, voice_id=choose_voice(config, engines.synthesizer.voices))
    if not config.mcp_enabled:
        engines = attrs.evolve(engines, make_tools=lambda _session, _music: ToolRegistry())
    page = page_routes(web_directory())
    paths = [path for route in page if isinstance(route, PageFiles) for path in route.routes]
    guards = make_guards(config, paths)
    sessions = make_sessions(config, effects)
    async with (
        open_watch(config, engines, guards, sessions) as watch,
        trio.open_nursery() as nursery,
    ):
        server = _Server(
            config,
            engines,
            effects,
            draining,
            Negotiator(dialect_rows(config, guards.authentication, effects)),
            guards,
            sessions,
            watch,
            first_message_seconds,
        )
        nursery.start_soon(sessions.sweep)
        if guards.tls:
            nursery.start_soon(_reload_on_hangup, guards.tls, config)
        ports = (config.port, *config.extra_ports)
        await serve_front_door(
            make_http_app(
                health=partial(watch.show_health, draining),
                routes=[*server.routes(), *page],
                allowed_origins=guards.origins.allowed,
            ),
            server.converse,
            server.refuse,
            endpoints=[Endpoint(port, config.host, guards.tls) for port in ports],
            refuse_http=guards.authentication.refuse_http,
            proxies=guards.proxies,
            draining=draining,
            task_status=task_status,
        )
        nursery.cancel_scope.cancel()


def make_sessions(config: Config, effects: Effects) -> MemorySessionStore:
    """Where sessions are kept, and what a new one is set to."""
    configuration = EffectiveConfiguration(
        voice_id=config.voice_id, system_prompt=SYSTEM_PROMPT, tools=config.mcp_enabled
    )
    return MemorySessionStore(
        effects, config.session_timeout, config.max_sessions, lambda: configuration
    )


def choose_voice(config: Config, voices: Mapping[str, str]) -> str:
    """The voice of a new session; spec 000's default stands for the first voice there is.

    Raises ConfigurationError for another voice that the synthesizer does not have.
    """
    if config.voice_id in voices:
        return config.voice_id
    if config.voice_id == DEFAULT_VOICE_ID:
        return next(iter(voices))
    raise ConfigurationError(
        [f"TTS_VOICE_ID={config.voice_id!r}: must be one of {', '.join(voices)}"]
    )


def start_logging(config: Config) -> None:
    """Logs as the configuration says."""
    logs.start_logging(config.log_level, config.log_format)


async def _reload_on_hangup(context: ssl.SSLContext, config: Config) -> None:
    """SIGHUP: the certificate was renewed."""
    with trio.open_signal_receiver(signal.SIGHUP) as hangups:
        async for _ in hangups:
            try:
                reload_certificate(context, config.tls_cert_file, config.tls_key_file)
            except ConfigurationError as error:
                _log.error("certificate_not_reloaded: %s", error)
            else:
                _log.info("certificate_reloaded")


async def _refuse_stranger(wire: Wire, dialect: Dialect, stranger: Stranger) -> None:
    error = ErrorReported(ErrorCode.UNAUTHORIZED, stranger.message)
    with suppress(DeviceGone), trio.move_on_after(GOODBYE_SECONDS):
        for message in dialect.send(error, trio.current_time()):
            await wire.send(message)
    await wire.aclose(1008, "not authorized")


@attrs.frozen
class _Server:
    """What every connection shares."""

    config: Config
    engines: Engines
    effects: Effects
    draining: trio.Event
    negotiator: Negotiator
    guards: Guards
    sessions: MemorySessionStore
    watch: Watch
    first_message_seconds: float

    def routes(self) -> list[BaseRoute]:
        """What HTTP clients get, beside the page and the health."""
        routes: list[BaseRoute] = [
            protocol_route(self.negotiator.dialects),
            troubleshooting_route(),
            call_token_route(CallTokens(self.config.jwt_secret, self.effects.wall_clock)),
            self.watch.metrics_route(),
        ]
        if self.config.mcp_enabled:
            endpoint = McpEndpoint(
                self.engines.server_tools,
                self.engines.checker,
                name=self.config.mcp_server_name,
                version=self.config.mcp_server_version,
                instructions=self.config.mcp_instructions,
                allowed_origins=self.guards.origins.allowed,
            )
            routes.append(Route("/mcp", endpoint))
        return routes

    def refuse(self, head: Head) -> Refusal | None:
        """Why a handshake is not accepted: its path, its page, its key, or a full server."""
        if reason := self.negotiator.refuse(head.path):
            return Refusal(HTTPStatus.NOT_FOUND, reason)
        guards = self.guards
        in_band = self.negotiator.authenticates_in_band(head.path) and given_key(head) is None
        return (
            guards.origins.refuse(head)
            or (None if in_band else guards.authentication.refuse(head))
            or guards.admission.refuse(head.peer[0], self._bytes_on(head.path))
        )

    def _bytes_on(self, path: str) -> int:
        """What a connection may need at most, whichever dialect of its path it speaks."""
        return max(sum(bounds_of(row.profile).values()) for row in self.negotiator.rows_on(path))

    async def converse(self, wire: Wire, head: Head) -> None:
        """One connection, from its first message to its end; it has its place so long."""
        size = self._bytes_on(head.path)
        with self.guards.admission.connection(head.peer[0], size) as refusal:
            if refusal:
                await wire.aclose(TRY_AGAIN_LATER, refusal.message)
            else:
                await self._converse(wire, head)

    async def _converse(self, wire: Wire, head: Head) -> None:
        with trio.move_on_after(self.first_message_seconds) as waiting:
            row, owner, peeked = await self._meet(wire, head)
        if waiting.cancelled_caught:
            reason = f"no message within {self.first_message_seconds:g} s"
            await wire.aclose(1008, reason)
            return
        if isinstance(owner, Stranger):
            await _refuse_stranger(wire, row.make(), owner)
            return
        connection_id, peer = self.effects.new_id(), head.peer[0]
        observer = self.watch.observers.open_connection(connection_id, row.name, peer)
        conversation = Conversation(
            peeked,
            row.make(),
            self.engines,
            self.sessions,
            self.effects,
            deadlines=Deadlines(
                turn=self.config.interaction_timeout,
                filler=self.config.tool_filler,
                ping_interval=self.config.ping_interval,
                ping_timeout=self.config.ping_timeout,
            ),
            limits=Limits(self.guards.rates.open(owner), self.guards.places),
            owner=f"{row.name}:{owner}",  # a session is of one dialect: their settings differ
            observer=observer,
        )
        await conversation.run(self.draining)

    async def _meet(self, wire: Wire, head: Head) -> tuple[DialectRow, str | Stranger, Wire]:
        """The dialect, and who speaks it: by handshake and first message, which the wire gives
        again.  It is large: nothing here keeps it."""
        first = await wire.receive()
        row = self.negotiator.row_for(head.path, first)
        key_owner = self.guards.authentication.owner(head)
        owner: str | Stranger
        if row.identify:
            owner = row.identify(opening_of(first) or {}, key_owner, head.peer[0])
        elif key_owner is None:  # on a path where another dialect asks for the key itself
            owner = Stranger("this needs an API key, in the handshake")
        else:
            owner = key_owner
        return row, owner, PeekedWire(wire, first)
