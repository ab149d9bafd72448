"""Chat models of clouds that speak OpenAI's API, at addresses and with keys of their own.

Azure OpenAI has a model's deployment in the path, an `api-version`, and the key in a header
`api-key`; Groq differs in its address alone.  All the rest is `openai_chat`, whose advice names
variables that are not the ones to look at here: it is translated.
"""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import httpx

from listenai.engines.base import ChatMessage, ChatModel, ChatSettings, ReplyPart
from listenai.engines.openai_chat import OpenAIChatModel
from listenai.engines.upstreams import Upstream
from listenai.errors import ChatModelError, ConfigurationError
from listenai.events import ToolSchema

AZURE_API_VERSION = "2024-10-21"  # the last generally available one with dates
GROQ_URL = "https://api.groq.com/openai/v1"
GROQ_MODEL = "llama3-8b-8192"  # spec 002
MAX_CONNECTIONS = 100  # more turns than that wait

_AZURES_NAMES = {
    "LLM_API_KEY": "AZURE_OPENAI_KEY",
    "LLM_BASE_URL": "AZURE_OPENAI_ENDPOINT, and LLM_MODEL, the name of the deployment",
    "LLM_MODEL": "LLM_MODEL, the name of the deployment,",
}
_GROQS_NAMES = {"LLM_API_KEY": "GROQ_API_KEY", "LLM_BASE_URL": "GROQ_BASE_URL"}


class HostedChatModel:
    """A ChatModel whose errors name these variables: ours in openai_chat → the ones to look at."""

    def __init__(self, model: ChatModel, names: Mapping[str, str]) -> None:
        self._model = model
        self._names = names

    @asynccontextmanager
    async def open_reply(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[ToolSchema],
        settings: ChatSettings,
    ) -> AsyncIterator[AsyncIterator[ReplyPart]]:
        """Streams one reply; raises ChatModelError, on entering or while streaming."""
        try:
            async with self._model.open_reply(messages, tools, settings) as reply:
                yield reply
        except ChatModelError as error:
            ours = re.compile("|".join(map(re.escape, self._names)))
            told = ours.sub(lambda m: self._names[m[0]], str(error))
            raise ChatModelError(told, timed_out=error.timed_out) from error


@asynccontextmanager
async def open_azure_chat_model(
    endpoint: str,
    key: str,
    *,
    deployment: str,
    random: random.Random,
    api_version: str = AZURE_API_VERSION,
    token_seconds: float = 30.0,
    total_seconds: float = 120.0,
) -> AsyncIterator[ChatModel]:
    """A deployment of an Azure OpenAI resource, like https://NAME.openai.azure.com.

    Raises ConfigurationError for a key or an endpoint that cannot be one.
    """
    if not re.fullmatch(r"[!-~]+", key):
        raise ConfigurationError(
            ["AZURE_OPENAI_KEY: must be the key of an Azure OpenAI resource, visible ASCII"]
        )
    try:
        upstream = Upstream(azure_chat_url(endpoint, deployment, api_version))
    except ConfigurationError as error:
        raise ConfigurationError(
            [
                f"AZURE_OPENAI_ENDPOINT={urlsplit(endpoint).hostname or ''!r}: must be the"
                " resource's address, like https://NAME.openai.azure.com"
            ]
        ) from error
    # The key is a header of these connections, and nowhere else.
    limits = httpx.Limits(max_connections=MAX_CONNECTIONS)
    async with httpx.AsyncClient(headers={"api-key": key}, limits=limits) as client:
        model = OpenAIChatModel(
            client,
            [upstream],
            model=deployment,
            random=random,
            token_seconds=token_seconds,
            total_seconds=total_seconds,
        )
        yield HostedChatModel(model, _AZURES_NAMES)


def azure_chat_url(endpoint: str, deployment: str, api_version: str) -> str:
    """Where a deployment completes chats; an endpoint that says so itself stays as it is."""
    parts = urlsplit(endpoint)
    path = parts.path.rstrip("/")
    if path.endswith(("/openai/v1", "/chat/completions")):
        return endpoint
    path = f"{path.removesuffix('/openai')}/openai/deployments/{quote(deployment, safe='')}"
    query = urlencode({"api-version": api_version})
    return urlunsplit((parts.scheme, parts.netloc, f"{path}/chat/completions", query, ""))


def groq_chat_model(
    client: httpx.AsyncClient,
    key: str,
    *,
    random: random.Random,
    url: str = GROQ_URL,
    model: str = GROQ_MODEL,
    token_seconds: float = 30.0,
    total_seconds: float = 120.0,
) -> ChatModel:
    """A model at Groq.

    client: shared and pooled; its timeouts are not used.  Who made it closes it.
    Raises ConfigurationError for a key or a URL that cannot be one.
    """
    openai = OpenAIChatModel(
        client,
        [Upstream(url)],
        model=model,
        random=random,
        api_key=key,
        token_seconds=token_seconds,
        total_seconds=total_seconds,
    )
    return HostedChatModel(openai, _GROQS_NAMES)
