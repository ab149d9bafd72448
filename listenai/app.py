"""The composition root: the only module that names concrete engines and dialects."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus

import attrs
import httpx
import trio

from listenai import __version__
from listenai.audio import SAMPLE_BYTES
from listenai.codecs.resampling import StreamResampler
from listenai.config import DEFAULT_VOICE_ID, Config
from listenai.conversation.conversation import Conversation, Deadlines
from listenai.conversation.dialogue import Engines
from listenai.device import DeviceProfile
from listenai.dialects.base import Dialect
from listenai.dialects.listenai import ListenAIDialect
from listenai.dialects.negotiate import DialectRow, Negotiator
from listenai.effects import Effects
from listenai.engines.base import ChatModel, Synthesizer, Transcriber
from listenai.engines.embedded_chat import EmbeddedChatModel
from listenai.engines.espeak import MAX_SENTENCE_SECONDS, EspeakSynthesizer
from listenai.engines.espeak import SAMPLE_RATE as VOICE_SAMPLE_RATE
from listenai.engines.recognizer import SegmentingRecognizerFactory
from listenai.engines.sphinx import SphinxTranscriber
from listenai.engines.ten_vad import TenVadDetector
from listenai.engines.timed import TimedChatModel, TimedSynthesizer, TimedTranscriber
from listenai.errors import ConfigurationError
from listenai.server.admission import TRY_AGAIN_LATER, Admission, budget, connection_bounds
from listenai.server.front_door import Address, Endpoint, serve_front_door
from listenai.server.head import Head, Refusal
from listenai.server.http import make_http_app
from listenai.server.protocol_docs import protocol_route
from listenai.sessions.base import Session
from listenai.sessions.memory import MemorySessionStore
from listenai.settings import EffectiveConfiguration
from listenai.telemetry import logs
from listenai.tools.base import ToolRegistry
from listenai.tools.music import MusicTool
from listenai.tools.volume import VolumeTool
from listenai.tools.weather import WeatherTool
from listenai.wire import PeekedWire, Wire

_log = logging.getLogger(__name__)

FIRST_MESSAGE_SECONDS = 10.0  # a connection that says nothing is closed
FAKE_SPEECH_MS = 600  # of a sentence of the engines that only take time
DETECTOR_BYTES = 640 * 1024  # of a device: a TEN VAD takes 620 KiB, its pre-roll 10
SENTENCE_BYTES = int(MAX_SENTENCE_SECONDS * VOICE_SAMPLE_RATE) * SAMPLE_BYTES
WEATHER_SECONDS = 8.0  # longer, and the assistant says that it cannot reach the service

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

    Raises ConfigurationError when it cannot listen there, has too little memory, or lacks the
    voice.
    """
    draining = trio.Event() if draining is None else draining
    effects = effects or Effects()
    config = attrs.evolve(config, voice_id=choose_voice(config, engines.synthesizer.voices))
    if not config.mcp_enabled:
        engines = attrs.evolve(engines, make_tools=_make_no_tools)
    server = _Server(
        config,
        engines,
        effects,
        draining,
        _dialects(config),
        make_admission(config),
        make_sessions(config, effects),
        first_message_seconds,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.sessions.sweep)
        await serve_front_door(
            make_http_app(
                health=partial(_health, time.monotonic()),
                routes=[protocol_route(server.negotiator.dialects)],
            ),
            server.converse,
            server.refuse,
            endpoints=[Endpoint(port, config.host) for port in (config.port, *config.extra_ports)],
            draining=draining,
            task_status=task_status,
        )
        nursery.cancel_scope.cancel()


def _health(began: float) -> Mapping[str, object]:
    services = dict.fromkeys(("asr", "llm", "tts"), "ok")  # embedded: they live as we do
    uptime = round(time.monotonic() - began, 1)
    return {
        "status": "ok",
        "version": __version__,
        "uptime_seconds": uptime,
        "services": services,
    }


def bounds_of(config: Config) -> Mapping[str, int]:
    """Bytes that one connection may keep at most, by what keeps them."""
    return connection_bounds(
        utterance_seconds=_profile(config).utterance_seconds,
        detector_bytes=DETECTOR_BYTES,
        sentence_bytes=SENTENCE_BYTES,
    )


def make_admission(config: Config) -> Admission:
    """Who gets in: as many as CLOUD_MAX_CONNECTIONS and the memory budget allow."""
    admission = Admission(
        max_connections=config.max_connections,
        budget_bytes=budget(config.memory_budget_mb),
        connection_bytes=sum(bounds_of(config).values()),
    )
    if admission.limited_by_memory:
        _log.warning("few_connections: memory for %d connections only", admission.places)
    return admission


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


def _profile(config: Config) -> DeviceProfile:
    return DeviceProfile(temperature=config.temperature, max_tokens=config.max_tokens)


def _dialects(config: Config) -> Negotiator:
    """The table of dialects: a new one is a row here and a module in `dialects`."""
    listenai = partial(ListenAIDialect, _profile(config))
    return Negotiator([DialectRow("ListenAI", ("/", "/listenai", "/ws"), listenai)])


@attrs.frozen
class _Server:
    """What every connection shares."""

    config: Config
    engines: Engines
    effects: Effects
    draining: trio.Event
    negotiator: Negotiator
    admission: Admission
    sessions: MemorySessionStore
    first_message_seconds: float

    def refuse(self, head: Head) -> Refusal | None:
        """Why a handshake is not accepted: its path, or a full server."""
        if reason := self.negotiator.refuse(head.path):
            return Refusal(HTTPStatus.NOT_FOUND, reason)
        return self.admission.refuse()

    async def converse(self, wire: Wire, head: Head) -> None:
        """One connection, from its first message to its end; it has its place so long."""
        with self.admission.connection() as refusal:
            if refusal:
                await wire.aclose(TRY_AGAIN_LATER, refusal.message)
            else:
                await self._converse(wire, head)

    async def _converse(self, wire: Wire, head: Head) -> None:
        with trio.move_on_after(self.first_message_seconds) as waiting:
            dialect, peeked = await self._choose_dialect(wire, head)
        if waiting.cancelled_caught:
            reason = f"no message within {self.first_message_seconds:g} s"
            await wire.aclose(1008, reason)
            return
        conversation = Conversation(
            peeked,
            dialect,
            self.engines,
            self.sessions,
            self.effects,
            Deadlines(
                turn=self.config.interaction_timeout,
                ping_interval=self.config.ping_interval,
                ping_timeout=self.config.ping_timeout,
            ),
        )
        await conversation.run(self.draining)

    async def _choose_dialect(self, wire: Wire, head: Head) -> tuple[Dialect, Wire]:
        """By path and first message, which the wire then gives again."""
        first = await wire.receive()
        return self.negotiator.choose(head.path, first), PeekedWire(wire, first)


# --- engines -------------------------------------------------------------------------------


@asynccontextmanager
async def open_engines(
    *, fake: bool = False, fake_speech_ms: int = FAKE_SPEECH_MS
) -> AsyncIterator[Engines]:
    """The embedded engines, or for benchmarks those that only take time.

    fake_speech_ms: how long each sentence of the latter plays.
    """
    async with httpx.AsyncClient(timeout=WEATHER_SECONDS) as client:
        make_tools = partial(_make_tools, WeatherTool(client))
        if fake:
            speech = TimedSynthesizer(fake_speech_ms)
            yield _engines(TimedTranscriber(), TimedChatModel(), speech, make_tools)
            return
        transcriber, synthesizer = SphinxTranscriber(), EspeakSynthesizer()
        try:
            async with trio.open_nursery() as nursery:
                # The first question should not wait for what is loaded on first use.
                nursery.start_soon(transcriber.warm)
                nursery.start_soon(trio.to_thread.run_sync, synthesizer.load)
                yield _engines(transcriber, EmbeddedChatModel(), synthesizer, make_tools)
                nursery.cancel_scope.cancel()
        finally:
            transcriber.close()


def _engines(
    transcriber: Transcriber,
    chat_model: ChatModel,
    synthesizer: Synthesizer,
    make_tools: Callable[[Session], ToolRegistry],
) -> Engines:
    recognizers = SegmentingRecognizerFactory(TenVadDetector, transcriber)
    return Engines(recognizers, chat_model, synthesizer, StreamResampler, make_tools)


def _make_no_tools(_session: Session) -> ToolRegistry:
    """MCP_ENABLED=false."""
    return ToolRegistry()


def _make_tools(weather: WeatherTool, session: Session) -> ToolRegistry:
    """The tools of one conversation."""

    def apply_volume(percent: int) -> None:
        session.volume = percent

    registry = ToolRegistry()
    registry.register(weather)
    registry.register(VolumeTool(lambda: session.volume, apply_volume))
    registry.register(MusicTool())
    return registry
