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
from listenai.codecs.resampling import StreamResampler
from listenai.config import Config
from listenai.conversation.conversation import Conversation, Deadlines
from listenai.conversation.dialogue import Engines
from listenai.device import DeviceProfile
from listenai.dialects.listenai import ListenAIDialect
from listenai.dialects.negotiate import DialectRow, Negotiator
from listenai.effects import Effects
from listenai.engines.base import ChatModel, Synthesizer, Transcriber
from listenai.engines.embedded_chat import EmbeddedChatModel
from listenai.engines.espeak import EspeakSynthesizer
from listenai.engines.recognizer import SegmentingRecognizerFactory
from listenai.engines.sphinx import SphinxTranscriber
from listenai.engines.ten_vad import TenVadDetector
from listenai.engines.timed import TimedChatModel, TimedSynthesizer, TimedTranscriber
from listenai.server.front_door import Address, Endpoint, serve_front_door
from listenai.server.head import Head, Refusal
from listenai.server.http import make_http_app
from listenai.sessions.base import Session
from listenai.settings import EffectiveConfiguration
from listenai.tools.base import ToolRegistry
from listenai.tools.music import MusicTool
from listenai.tools.volume import VolumeTool
from listenai.tools.weather import WeatherTool
from listenai.wire import Wire

_log = logging.getLogger(__name__)

FIRST_MESSAGE_SECONDS = 10.0  # a connection that says nothing is closed
FAKE_SPEECH_MS = 600  # of a sentence of the engines that only take time
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
    task_status: trio.TaskStatus[Sequence[Address]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until cancelled, or until `draining` is set and every reply was finished.

    task_status: reports the addresses once connections are accepted.

    Raises ConfigurationError when it cannot listen there.
    """
    draining = trio.Event() if draining is None else draining
    server = _Server(config, engines, effects or Effects(), draining, _dialects(config))
    await serve_front_door(
        make_http_app(health=partial(_health, time.monotonic())),
        server.converse,
        server.refuse,
        endpoints=[Endpoint(config.port, config.host)],
        draining=draining,
        task_status=task_status,
    )


def _health(began: float) -> Mapping[str, object]:
    services = dict.fromkeys(("asr", "llm", "tts"), "ok")  # embedded: they live as we do
    uptime = round(time.monotonic() - began, 1)
    return {
        "status": "ok",
        "version": __version__,
        "uptime_seconds": uptime,
        "services": services,
    }


def _dialects(config: Config) -> Negotiator:
    """The table of dialects: a new one is a row here and a module in `dialects`."""
    profile = DeviceProfile(temperature=config.temperature, max_tokens=config.max_tokens)
    listenai = partial(ListenAIDialect, profile)
    return Negotiator([DialectRow("ListenAI", ("/", "/listenai", "/ws"), listenai)])


@attrs.frozen
class _Server:
    """What every connection shares."""

    config: Config
    engines: Engines
    effects: Effects
    draining: trio.Event
    negotiator: Negotiator

    def refuse(self, head: Head) -> Refusal | None:
        """Why a handshake is not accepted: its path."""
        reason = self.negotiator.refuse(head.path)
        return Refusal(HTTPStatus.NOT_FOUND, reason) if reason else None

    async def converse(self, wire: Wire, head: Head) -> None:
        """One connection, from its first message to its end."""
        with trio.move_on_after(FIRST_MESSAGE_SECONDS) as waiting:
            first = await wire.receive()
        if waiting.cancelled_caught:
            reason = f"no message within {FIRST_MESSAGE_SECONDS:g} s"
            await wire.aclose(1008, reason)
            return
        conversation = Conversation(
            wire,
            self.negotiator.choose(head.path, first),
            self.engines,
            self._open_session,
            self.effects,
            Deadlines(
                turn=self.config.interaction_timeout,
                ping_interval=self.config.ping_interval,
                ping_timeout=self.config.ping_timeout,
            ),
        )
        await conversation.run(first, self.draining)

    def _open_session(self, session_id: str | None) -> tuple[Session, bool]:
        configuration = EffectiveConfiguration(
            voice_id=self.config.voice_id, system_prompt=SYSTEM_PROMPT
        )
        identity = session_id or self.effects.new_id()
        return Session(identity, self.effects.wall_clock(), configuration), False


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


def _make_tools(weather: WeatherTool, session: Session) -> ToolRegistry:
    """The tools of one conversation."""

    def apply_volume(percent: int) -> None:
        session.volume = percent

    registry = ToolRegistry()
    registry.register(weather)
    registry.register(VolumeTool(lambda: session.volume, apply_volume))
    registry.register(MusicTool())
    return registry
