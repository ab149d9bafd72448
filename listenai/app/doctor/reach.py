"""What can be checked by asking: ports, services, the language model, MCP servers."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

import attrs
import httpx
import trio

from listenai.app.chat_models import choose_cloud, open_chat_model
from listenai.app.choices import Choice
from listenai.app.doctor.listeners import who_listens
from listenai.app.doctor.report import Check, Finding, broken, look, well
from listenai.config import DEFAULT_LLM_MODEL, Config
from listenai.effects import Effects
from listenai.engines.base import ChatMessage, ChatSettings
from listenai.engines.ollama import find_ollama
from listenai.engines.openai_chat import OpenAIChatModel
from listenai.engines.upstreams import Upstream
from listenai.errors import ChatModelError, ConfigurationError, ListenAIError
from listenai.services.asr.protocol import Ready as AsrReady
from listenai.services.asr.protocol import read_message
from listenai.services.pool import without_secrets
from listenai.services.sockets import LOST, open_socket, why_lost
from listenai.services.tts.messages import Ready as TtsReady
from listenai.services.tts.protocol import decode_reply
from listenai.tools.mcp_connection import load_sdk, open_connection, reason_of
from listenai.tools.mcp_servers import McpServer, StdioMcpServer, read_mcp_servers

CONNECT_SECONDS = 5.0  # for a service or a server to answer at all
PORT_SECONDS = 6.0
HEALTH_SECONDS = 2.0  # for each of http and https
LLM_SECONDS = 30.0  # a model may have to be loaded for the first question
MCP_SECONDS = 30.0  # many are downloaded when they are first started
MESSAGE_BYTES = 1 << 20  # of what a service says first
ENOUGH_TOKENS = 16  # for a word, and for what some models say before it

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where the server is asked


def checks(config: Config) -> list[Check]:
    """Those that the configuration asks for."""
    return [
        *(_port_check(config, port) for port in (config.port, *config.extra_ports)),
        *_service_checks(config),
        *_llm_checks(config),
        *_mcp_checks(config),
    ]


# --- ports ---------------------------------------------------------------------------------


def _port_check(config: Config, port: int) -> Check:
    return Check(f"port {port}", "ports", PORT_SECONDS, partial(_port, config, port))


async def _port(config: Config, port: int) -> Finding:
    """Free, or taken by a server that is well."""
    if port == 0:
        return well("any that is free when the server starts")
    try:
        for listener in await trio.open_tcp_listeners(port, host=config.host):
            await listener.aclose()
    except (OSError, UnicodeError) as error:
        return await _taken(config, port, error)
    return well("free")


async def _taken(config: Config, port: int, error: Exception) -> Finding:
    number = getattr(error, "errno", None)
    if number == errno.EACCES:
        return broken("this user may not listen there", "ports")
    if number != errno.EADDRINUSE:
        why = getattr(error, "strerror", None) or "no such address"
        return broken(f"cannot listen on CLOUD_HOST={config.host}: {why}", "configuration")
    health = await _health(config, port)
    who = await trio.to_thread.run_sync(who_listens, port)
    if health is None:
        return broken(f"{who or 'another program'} listens there", "ports")
    services = health.get("services")
    parts = services.items() if isinstance(services, dict) else ()
    ill = [str(name) for name, state in parts if state != "ok"]
    running = f"ListenAI {health.get('version')} is running there"
    if ill or health.get("status") != "ok":
        what = f"{', '.join(ill)} degraded" if ill else str(health.get("status"))
        return look(f"{running}: {what}", "server")
    return well(f"{running}, and well, for {health.get('uptime_seconds')} s")


async def _health(config: Config, port: int) -> Mapping[str, object] | None:
    """What a ListenAI at this port says of itself, with TLS or without; None: it is none."""
    host = WILDCARDS.get(config.host, config.host)
    place = f"{f'[{host}]' if ':' in host else host}:{port}"
    # It is our own machine, under a name that no certificate has; nothing secret is sent.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        for scheme in ("http", "https"):
            with suppress(httpx.HTTPError, httpx.InvalidURL, ValueError):
                answer = await client.get(f"{scheme}://{place}/health", timeout=HEALTH_SECONDS)
                health = answer.json()
                if isinstance(health, dict) and {"status", "version", "services"} <= health.keys():
                    return health
    return None


# --- services ------------------------------------------------------------------------------


@attrs.frozen
class _Greeting:
    """What a service says when it is ready, in words."""

    trouble: str
    read: Callable[[str], object]
    ready: Callable[[object], str | None]  # None: it is not


def _asr_ready(message: object) -> str | None:
    return f"understands {', '.join(message.languages)}" if isinstance(message, AsrReady) else None


def _tts_ready(message: object) -> str | None:
    if isinstance(message, TtsReady):
        return f"has {len(message.voices)} voices at {message.sample_rate} Hz"
    return None


_ASR = _Greeting("asr-service", read_message, _asr_ready)
_TTS = _Greeting("tts-service", decode_reply, _tts_ready)


def _service_checks(config: Config) -> list[Check]:
    rows = [("ASR", _ASR, url, config.asr_api_key) for url in config.asr_service_url]
    rows += [("TTS", _TTS, url, config.tts_api_key) for url in config.tts_service_url]
    return [
        Check(
            f"{name} service {without_secrets(url)}",
            greeting.trouble,
            2 * CONNECT_SECONDS,
            partial(_audio_api, url, key, greeting.trouble)
            if url.startswith("http")
            else partial(_service, url, greeting),
        )
        for name, greeting, url, key in rows
    ]


async def _audio_api(url: str, key: str, trouble: str) -> Finding:
    """Whether a server with OpenAI's API takes the key; what it can do, it does not tell."""
    base = url.rstrip("/")
    models = f"{base if base.endswith('/v1') else f'{base}/v1'}/models"
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    began = trio.current_time()
    try:
        async with httpx.AsyncClient() as client:
            answer = await client.get(models, headers=headers, timeout=CONNECT_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return broken(f"it cannot be reached ({type(error).__name__})", trouble)
    if answer.status_code in (401, 403):
        return broken("it does not take this API key", trouble)
    return well(f"answers, {_milliseconds(trio.current_time() - began)} there and back")


async def _service(url: str, greeting: _Greeting) -> Finding:
    """Connects, waits until the service is ready, and measures a ping."""
    problem = "it does not say that it is ready"
    first: str | bytes = b""
    took = 0.0
    try:
        async with open_socket(
            url, seconds=CONNECT_SECONDS, max_message_bytes=MESSAGE_BYTES
        ) as socket:
            with trio.move_on_after(CONNECT_SECONDS):
                first = await socket.get_message()
                began = trio.current_time()
                await socket.ping()
                took = trio.current_time() - began
                problem = ""
    except* LOST as group:
        problem = why_lost(group)
    said = _greeted(first, greeting) if isinstance(first, str) else None
    if isinstance(said, Finding):
        return said  # an error that it told tells more than that it hung up after it
    if problem or said is None:
        return broken(problem or "it is another service", greeting.trouble)
    return well(f"{said}, {_milliseconds(took)} there and back")


def _greeted(first: str, greeting: _Greeting) -> str | Finding | None:
    """What it can do; a finding where it tells an error; None for what is no greeting."""
    try:
        message = greeting.read(first)
    except ListenAIError:
        return None
    code, why = getattr(message, "code", None), getattr(message, "message", "")
    return broken(f"{code}: {why}", greeting.trouble) if code else greeting.ready(message)


# --- the language model --------------------------------------------------------------------


def _llm_checks(config: Config) -> list[Check]:
    cloud, _ = choose_cloud(config)
    if cloud in {"azure", "groq", "embedded"} or not config.llm_base_url:
        return [Check("language model", "llm", CONNECT_SECONDS, partial(_chosen_llm, config))]
    upstreams = [Upstream(url) for url in config.llm_base_url]
    return [
        Check(f"language model {each.name}", "llm", LLM_SECONDS + 1, partial(_llm, config, each))
        for each in upstreams
    ]


async def _llm(config: Config, upstream: Upstream) -> Finding:
    """Has it say a word, as a reply would be asked for."""
    began = trio.current_time()
    async with httpx.AsyncClient() as client:
        model = OpenAIChatModel(
            client,
            [upstream],
            model=config.llm_model,
            random=Effects().random,
            api_key=config.llm_api_key,
            token_seconds=min(config.llm_token_timeout, LLM_SECONDS),
            total_seconds=min(config.llm_timeout, LLM_SECONDS),
            connect_seconds=CONNECT_SECONDS,
            retries=0,
        )
        question = [ChatMessage("user", "Say: yes")]
        try:
            async with model.open_reply(
                question, [], ChatSettings(max_tokens=ENOUGH_TOKENS)
            ) as reply:
                await anext(reply, None)
        except ChatModelError as error:
            return broken(str(error), "llm")
    return well(f"{config.llm_model} answers in {_milliseconds(trio.current_time() - began)}")


async def _chosen_llm(config: Config) -> Finding:
    """What `serve` would take without a URL; raises ConfigurationError where it would not start."""
    cloud, _ = choose_cloud(config)
    if cloud in {"azure", "groq"}:
        chosen: list[Choice] = []
        async with httpx.AsyncClient() as client, open_chat_model(config, client, chosen.append):
            [taken] = chosen
        said = f"{taken.engine} ({taken.reason})"
        return well(f"{said}; it is asked when somebody speaks, and not here")
    if config.llm_engine == "embedded":
        return well("the embedded assistant (LLM_ENGINE=embedded)")
    if config.llm_engine == "openai":
        return broken("LLM_ENGINE=openai: LLM_BASE_URL has to say where it is")
    async with httpx.AsyncClient(trust_env=False) as local:
        ollama = await find_ollama(local, config.ollama_url)
    if ollama is None:
        return well("the embedded assistant (no LLM_BASE_URL, and no Ollama on this machine)")
    model = config.llm_model if config.llm_model != DEFAULT_LLM_MODEL else ollama.model
    if model is None:
        return look(
            "the embedded assistant: the Ollama on this machine has no model", "llm-offline"
        )
    return well(f"{model} of the Ollama on this machine")


# --- MCP servers ---------------------------------------------------------------------------


def _mcp_checks(config: Config) -> list[Check]:
    if not config.mcp_enabled or not config.mcp_servers_file:
        why = "none" if config.mcp_enabled else "none: tools are off (MCP_ENABLED)"
        return [_mcp_constant(well(why))]
    try:
        servers = read_mcp_servers(config.mcp_servers_file)
    except ConfigurationError as error:
        return [_mcp_constant(broken(problem)) for problem in error.problems]
    return [
        Check(f"MCP server {each.name}", "mcp", MCP_SECONDS, partial(_mcp, each))
        for each in servers
    ] or [_mcp_constant(well("none that is not disabled"))]


def _mcp_constant(finding: Finding) -> Check:
    async def run() -> Finding:
        return finding

    return Check("MCP servers", "mcp", PORT_SECONDS, run)


async def _mcp(server: McpServer) -> Finding:
    """Connects and lists its tools."""
    await trio.to_thread.run_sync(load_sdk)  # ConfigurationError where it is not installed
    began = trio.current_time()
    tools = None
    try:
        async with open_connection(server) as connection:
            tools = len(await connection.list_tools())
            took = trio.current_time() - began
    except Exception as failure:
        if tools is None:
            what = "its program" if isinstance(server, StdioMcpServer) else "it"
            return broken(f"{what} cannot be used: {reason_of(failure)}", "mcp")
    return well(f"{tools} tools, after {_milliseconds(took)}")


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
