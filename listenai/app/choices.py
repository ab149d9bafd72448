"""What was chosen for a stage, and why; printed by `serve`."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import attrs

from listenai.app.models import Places, Survey, survey
from listenai.config import Config
from listenai.engines.azure_resource import AzureResource
from listenai.errors import ConfigurationError, EngineError

_log = logging.getLogger(__name__)
T = TypeVar("T")
GPU_DEVICE = Path("/dev/nvidiactl")


def device() -> str:
    """Where models run, as PyTorch names it."""
    return "cuda" if GPU_DEVICE.exists() else "cpu"


def is_openai(urls: Sequence[str], variable: str) -> bool:
    """Whether these services have OpenAI's audio API; ConfigurationError where only some do."""
    kinds = {url.startswith("http") for url in urls}
    if len(kinds) > 1:
        raise ConfigurationError([f"{variable}: either all of them begin with http, or none"])
    return kinds == {True}


@attrs.frozen
class Choice:
    """Which engine was taken for a stage, and why."""

    stage: str
    engine: str
    reason: str

    def __str__(self) -> str:
        return f"{self.stage}: {self.engine} ({self.reason})"


Tell = Callable[[Choice], None]


def log_choice(choice: Choice) -> None:
    """For whoever prints nothing."""
    _log.info("engine_chosen: %s", choice)


def azure_resource(config: Config) -> AzureResource:
    """Whose speech services are asked; ConfigurationError for what cannot be one."""
    return AzureResource(
        config.azure_speech_key, config.azure_speech_endpoint, config.azure_speech_region
    )


def find_models(names: Sequence[str], places: Places) -> Iterator[Survey]:
    """Those of these models that can be loaded here and now, in this order."""
    found = {each.model.name: each for each in survey(places)}
    for name in names:
        if found[name].folder and found[name].installed:
            yield found[name]


def need_model(names: Sequence[str], places: Places, variable: str) -> Survey:
    """The first of these models that can be loaded; ConfigurationError says what is missing."""
    if here := next(find_models(names, places), None):
        return here
    problems = []
    for each in survey(places):
        if each.model.name in names:
            extra = "" if each.installed else f"; first pip install 'listenai[{each.model.extra}]'"
            why = "; ".join(each.problems) or "it is not here"
            problems.append(
                f"{variable}: {each.model.name}: {why}: "
                f"python -m listenai models pull {each.model.name}{extra}"
            )
    raise ConfigurationError(problems)


def need_extra(extra: str, package: str, reason: str) -> None:
    """ConfigurationError unless the package of one of our extras is installed."""
    try:
        installed = importlib.util.find_spec(package) is not None
    except ValueError:  # it was marked as one that must not be imported
        installed = False
    if not installed:
        raise ConfigurationError(
            [f"{reason}: a library is missing: pip install 'listenai[{extra}]'"]
        )


@asynccontextmanager
async def loaded(stage: str, opening: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """What is opened; where it cannot be loaded, a ConfigurationError says so."""
    async with AsyncExitStack() as stack:
        try:
            engine = await stack.enter_async_context(opening)
        except EngineError as error:
            raise ConfigurationError([f"{stage}: {error}"]) from error
        yield engine
