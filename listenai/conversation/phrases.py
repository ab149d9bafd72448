"""SANS-IO: what the assistant says of itself, without a chat model."""

from __future__ import annotations

from collections.abc import Mapping

# After a tool has been silent for a while.
ONE_MOMENT: Mapping[str, str] = {
    "en": "One moment, please. ",
    "zh": "请稍等。",
    "ja": "少々お待ちください。",
}
# After the chat model has failed.
CANNOT_ANSWER: Mapping[str, str] = {
    "en": "Sorry, I cannot answer right now. ",
    "zh": "抱歉，我现在无法回答。",
    "ja": "申し訳ありません、今はお答えできません。",
}


def in_language(phrase: Mapping[str, str], language: str) -> str:
    """The phrase in this language, in English where it has none."""
    return phrase.get(language, phrase["en"])
