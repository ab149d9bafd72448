"""What `serve` offers on a terminal, once."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from listenai.app.model_offer import offer_models, wanted_models
from listenai.app.models import Places, PullFailed
from listenai.config import Config


@attrs.define
class Person:
    """Answers questions, and remembers what was said."""

    answer: bool
    asked: list[str] = attrs.field(factory=list)
    told: list[str] = attrs.field(factory=list)
    fetched: list[str] = attrs.field(factory=list)

    def confirm(self, question: str) -> bool:
        self.asked.append(question)
        return self.answer

    def fetch(self, name: str, _places: Places, _tell: object) -> None:
        if name == "sherpa-kokoro":
            raise PullFailed("the hub cannot be reached")
        self.fetched.append(name)

    def meets(self, places: Places, **config: object) -> None:
        settings = Config(**config)  # type: ignore[arg-type]
        offer_models(settings, places, self.confirm, self.told.append, fetch=self.fetch)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "models", tmp_path / "cache")


def test_who_says_no_is_asked_once_and_told_how_to_do_it_later(places: Places):
    """Size and licence are in the question; nothing is downloaded."""
    person = Person(answer=False)
    person.meets(places)
    person.meets(places)
    [question] = person.asked
    assert " MB?" in question
    assert "(" in question
    assert person.fetched == []
    assert person.told == ["Later: python -m listenai models pull default"]


def test_who_says_yes_gets_them_and_is_told_what_goes_wrong(places: Places):
    """One after the other; the server starts all the same."""
    person = Person(answer=True)
    person.meets(places)
    assert person.fetched == [model.name for model in wanted_models(Config(), places)][:1]
    assert "the hub cannot be reached" in person.told


@pytest.mark.parametrize(
    "config",
    [
        {"asr_engine": "embedded", "tts_engine": "embedded"},
        {"asr_service_url": ("ws://a",), "tts_service_url": ("ws://b/tts",)},
    ],
)
def test_nothing_is_offered_where_the_engines_were_chosen(config: dict, places: Places):
    """Nor is it remembered as asked."""
    person = Person(answer=True)
    person.meets(places, **config)
    assert person.asked == []
    person.meets(places)
    assert len(person.asked) == 1


@pytest.mark.parametrize(
    ("config", "offered"),
    [
        ({}, {"asr", "tts"}),
        ({"vosk_model_path": "model"}, {"tts"}),
        ({"whisper_model": "small-int8"}, {"tts"}),
        ({"azure_speech_key": "k"}, set()),  # it hears and speaks
        ({"azure_speech_key": "k", "tts_engine": "pyttsx3"}, set()),
        ({"tts_engine": "pyttsx3"}, {"asr"}),
        ({"groq_api_key": "k"}, {"asr", "tts"}),  # it answers, and does neither
    ],
)
def test_a_cloud_or_a_model_by_its_path_is_a_choice(config: dict, offered: set, places: Places):
    """For the stage that it serves; the other one is offered what is better."""
    settings = Config(**config)
    assert {model.does for model in wanted_models(settings, places)} == offered


def test_it_does_not_ask_where_it_cannot_remember(tmp_path: Path):
    """Or it would ask at every start."""
    (tmp_path / "cache").write_text("a file, and no folder")
    person = Person(answer=False)
    person.meets(Places(None, tmp_path / "cache"))
    assert person.asked == []
