"""`serve` on a terminal offers better models, once; it never downloads silently."""

from __future__ import annotations

from collections.abc import Callable

from listenai.app import ears, voices
from listenai.app.models import Places, PullFailed, chosen_models, pull, survey
from listenai.config import Config
from listenai.engines.model_files import Model

ASKED = "models-offered"  # a file in our folder of the cache: who said no is not asked again


def wanted_models(config: Config, places: Places) -> list[Model]:
    """What would suit this machine and is not here: of stages that choose for themselves.

    One for which a cloud, or a model by its path, is configured has chosen.
    """
    heard, _ = ears.choose_engine(config, places)
    spoken, _ = voices.choose_engine(config, places)
    automatic = {
        "asr": config.asr_engine == "auto"
        and not config.asr_service_url
        and heard in ("embedded", *ears.MODELS),
        "tts": config.tts_engine == "auto"
        and not config.tts_service_url
        and spoken in ("embedded", *voices.MODELS),
    }
    here = {each.model.name for each in survey(places) if each.folder}
    default = chosen_models("default")
    return [model for model in default if automatic[model.does] and model.name not in here]


def offer_models(
    config: Config,
    places: Places,
    confirm: Callable[[str], bool],
    tell: Callable[[str], None],
    *,
    fetch: Callable[[str, Places, Callable[[str], None]], None] = pull,
) -> None:
    """Asks whether to download them, unless it has asked before."""
    asked = places.cache_folder / "listenai" / ASKED
    wanted = wanted_models(config, places)
    if asked.exists() or not wanted:
        return
    try:
        asked.parent.mkdir(parents=True, exist_ok=True)
        asked.touch()
    except OSError:
        return  # where nothing can be kept, it would ask at every start
    size = sum(model.megabytes for model in wanted)
    names = " and ".join(f"{model.name} ({model.licence})" for model in wanted)
    if not confirm(f"Better ears and a better voice: download {names}, {size} MB?"):
        tell("Later: python -m listenai models pull default")
        return
    for model in wanted:
        try:
            fetch(model.name, places, tell)
        except PullFailed as error:
            tell(f"{error}")
            return
    installed = {each.model.extra: each.installed for each in survey(places)}
    for extra in sorted({model.extra for model in wanted}):
        if not installed[extra]:
            tell(f"Its library is missing: pip install '.[{extra}]'")
