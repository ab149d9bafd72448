"""Is there an Ollama on this machine, and what can it talk with?"""

from __future__ import annotations

import re
from typing import Any

import attrs
import httpx
import trio

OLLAMA_URL = "http://127.0.0.1:11434"
FIND_SECONDS = 0.5  # it is on this machine, or it is not

# Families of models that turn text into vectors; they answer no chat.
_EMBEDDING = re.compile(r"embed|bert|minilm|\bbge|\bgte-|rerank|arctic-", re.IGNORECASE)


@attrs.frozen
class OllamaFound:
    """An Ollama that answers, and its chat models, the one changed last first."""

    base_url: str
    models: tuple[str, ...]

    @property
    def model(self) -> str | None:
        """The first chat model, None where none was pulled yet."""
        return self.models[0] if self.models else None


async def find_ollama(client: httpx.AsyncClient, base_url: str = OLLAMA_URL) -> OllamaFound | None:
    """The Ollama at this URL (with or without /v1); None when nobody answers within 0.5 s."""
    url = base_url.rstrip("/").removesuffix("/v1")
    with trio.move_on_after(FIND_SECONDS):
        try:
            response = await client.get(f"{url}/api/tags", timeout=None, follow_redirects=False)
            listed = response.raise_for_status().json()["models"]
            models = [each for each in listed if isinstance(each, dict) and _can_chat(each)]
            return OllamaFound(base_url, tuple(str(each["name"]) for each in models))
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError):
            return None  # somebody else's port
    return None


def _can_chat(model: dict[str, Any]) -> bool:
    capabilities = model.get("capabilities")  # of newer versions
    if isinstance(capabilities, list):
        return "completion" in capabilities
    details = model.get("details")
    family = details.get("family", "") if isinstance(details, dict) else ""
    return not _EMBEDDING.search(f"{model['name']} {family}")
