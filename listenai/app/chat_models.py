"""Which chat model answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx

from listenai.app.choices import Choice, Tell
from listenai.config import DEFAULT_LLM_MODEL, Config
from listenai.effects import Effects
from listenai.engines.base import ChatModel
from listenai.engines.embedded_chat import EmbeddedChatModel
from listenai.engines.hosted_chat import (
    GROQ_MODEL,
    GROQ_URL,
    groq_chat_model,
    open_azure_chat_model,
)
from listenai.engines.ollama import find_ollama
from listenai.engines.openai_chat import OpenAIChatModel
from listenai.engines.upstreams import Upstream
from listenai.errors import ConfigurationError

STAGE = "language model"


@asynccontextmanager
async def open_chat_model(
    config: Config, client: httpx.AsyncClient, tell: Tell
) -> AsyncIterator[ChatModel]:
    """An explicit URL, else a cloud whose key is set, else an Ollama, else the embedded one."""
    engine, reason = choose_cloud(config)
    if engine == "azure":
        async with _open_azure(config, reason, tell) as azure:
            yield azure
    else:
        yield await choose_chat_model(config, client, tell)


def choose_cloud(config: Config) -> tuple[str, str]:
    """Which cloud, or "" for none, and why it."""
    if config.llm_engine != "auto":
        return config.llm_engine, f"LLM_ENGINE={config.llm_engine}"
    if config.llm_base_url:
        return ("groq" if _is_groqs(config) else ""), "LLM_BASE_URL"
    for engine, variable, value in (
        ("azure", "AZURE_OPENAI_ENDPOINT", config.azure_openai_endpoint),
        ("azure", "AZURE_OPENAI_KEY", config.azure_openai_key),
        ("groq", "GROQ_API_KEY", config.groq_api_key),
    ):
        if value:
            return engine, f"{variable} is set"
    return "", ""


def _is_groqs(config: Config) -> bool:
    """Whether LLM_BASE_URL is Groq's, and its key is where Groq's users have it."""
    hosts = {urlsplit(url).hostname for url in config.llm_base_url}
    groqs = hosts == {urlsplit(config.groq_base_url or GROQ_URL).hostname}
    return groqs and bool(config.groq_api_key) and not config.llm_api_key


async def choose_chat_model(config: Config, client: httpx.AsyncClient, tell: Tell) -> ChatModel:
    """As `open_chat_model`, but for Azure, whose connections are its own."""
    engine, reason = choose_cloud(config)
    assert engine != "azure", "its connections are closed by open_chat_model"
    if engine == "embedded":
        return _embedded(reason, tell)
    if engine == "groq":
        return _groq(config, client, reason, tell)
    if config.llm_base_url:
        urls = config.llm_base_url
        return openai_model(config, client, urls, config.llm_model, "LLM_BASE_URL", tell)
    if engine == "openai":
        raise ConfigurationError(["LLM_ENGINE=openai: LLM_BASE_URL has to say where it is"])
    return await _local_model(config, client, tell)


async def _local_model(config: Config, client: httpx.AsyncClient, tell: Tell) -> ChatModel:
    """An Ollama on this machine that answers, else the embedded assistant."""
    if not config.ollama_url:
        return _embedded("no LLM_BASE_URL, and no LLM_OLLAMA_URL", tell)
    async with httpx.AsyncClient(trust_env=False) as local:  # a proxy does not know our machine
        ollama = await find_ollama(local, config.ollama_url)
    if ollama is None:
        return _embedded("no LLM_BASE_URL, and no Ollama answers on this machine", tell)
    chosen = config.llm_model != DEFAULT_LLM_MODEL
    model = config.llm_model if chosen else ollama.model
    if model is None:
        return _embedded("the Ollama on this machine has no model: `ollama pull` one", tell)
    reason = "no LLM_BASE_URL, but this Ollama answers"
    return openai_model(config, client, (ollama.base_url,), model, reason, tell)


@asynccontextmanager
async def _open_azure(config: Config, reason: str, tell: Tell) -> AsyncIterator[ChatModel]:
    opening = open_azure_chat_model(
        config.azure_openai_endpoint,
        config.azure_openai_key,
        deployment=config.llm_model,
        random=Effects().random,
        api_version=config.azure_openai_api_version,
        token_seconds=config.llm_token_timeout,
        total_seconds=config.llm_timeout,
    )
    async with opening as azure:
        where = urlsplit(config.azure_openai_endpoint).hostname
        tell(Choice(STAGE, f"{config.llm_model} at Azure, {where}", reason))
        yield azure


def _groq(config: Config, client: httpx.AsyncClient, reason: str, tell: Tell) -> ChatModel:
    if not config.groq_api_key:
        raise ConfigurationError([f"{reason}: GROQ_API_KEY has to be set"])
    url = config.llm_base_url[0] if _is_groqs(config) else config.groq_base_url or GROQ_URL
    model = GROQ_MODEL if config.llm_model == DEFAULT_LLM_MODEL else config.llm_model
    tell(Choice(STAGE, f"{model} at Groq, {urlsplit(url).hostname}", reason))
    return groq_chat_model(
        client,
        config.groq_api_key,
        random=Effects().random,
        url=url,
        model=model,
        token_seconds=config.llm_token_timeout,
        total_seconds=config.llm_timeout,
    )


def _embedded(reason: str, tell: Tell) -> ChatModel:
    tell(Choice(STAGE, "the embedded assistant", reason))
    return EmbeddedChatModel()


def openai_model(
    config: Config,
    client: httpx.AsyncClient,
    base_urls: Sequence[str],
    model: str,
    reason: str,
    tell: Tell,
    api_key: str | None = None,
) -> ChatModel:
    """Servers at these URLs; api_key: None for LLM_API_KEY."""
    upstreams = [Upstream(url) for url in base_urls]
    names = ", then ".join(upstream.name for upstream in upstreams)
    tell(Choice(STAGE, f"{model} at {names}", reason))
    return OpenAIChatModel(
        client,
        upstreams,
        model=model,
        random=Effects().random,
        api_key=config.llm_api_key if api_key is None else api_key,
        token_seconds=config.llm_token_timeout,
        total_seconds=config.llm_timeout,
    )
