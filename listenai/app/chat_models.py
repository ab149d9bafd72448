"""Which chat model answers."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from listenai.app.choices import Choice, Tell
from listenai.config import DEFAULT_LLM_MODEL, Config
from listenai.effects import Effects
from listenai.engines.base import ChatModel
from listenai.engines.embedded_chat import EmbeddedChatModel
from listenai.engines.ollama import find_ollama
from listenai.engines.openai_chat import OpenAIChatModel
from listenai.engines.upstreams import Upstream
from listenai.errors import ConfigurationError


async def choose_chat_model(config: Config, client: httpx.AsyncClient, tell: Tell) -> ChatModel:
    """An explicit URL, else an Ollama that answers, else the embedded assistant."""
    if config.llm_engine == "embedded":
        return _embedded("LLM_ENGINE=embedded", tell)
    if config.llm_base_url:
        urls = config.llm_base_url
        return openai_model(config, client, urls, config.llm_model, "LLM_BASE_URL", tell)
    if config.llm_engine == "openai":
        raise ConfigurationError(["LLM_ENGINE=openai: LLM_BASE_URL has to say where it is"])
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


def _embedded(reason: str, tell: Tell) -> ChatModel:
    tell(Choice("language model", "the embedded assistant", reason))
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
    tell(Choice("language model", f"{model} at {names}", reason))
    return OpenAIChatModel(
        client,
        upstreams,
        model=model,
        random=Effects().random,
        api_key=config.llm_api_key if api_key is None else api_key,
        token_seconds=config.llm_token_timeout,
        total_seconds=config.llm_timeout,
    )
