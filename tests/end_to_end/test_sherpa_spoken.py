"""A spoken turn through sherpa-onnx in the server's own process, on tiny graphs made here."""

from __future__ import annotations

from pathlib import Path

import pytest
from end_to_end_server import recording
from openai_server import open_openai_server, saying
from served import server_process

from listenai.client.device import Device

pytestmark = [pytest.mark.models, pytest.mark.engines, pytest.mark.slow]

HEARD = "what time is it"
QUESTION = "stop.wav"  # other words than are heard: nothing but the graph can have heard them
# A graph speaks for 12 ms a sound: long enough to count as audible.
ANSWER = "It is noon, the sun stands high above the house, and everybody sits down to eat."
SPEAKER_DBFS = -20.0  # the first speaker's graph says one level, a tenth of full scale


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for MODELS_DIR with a tiny SenseVoice and a tiny Kokoro, by our names for them."""
    for package in ("sherpa_onnx", "onnx", "espeakng_loader"):
        pytest.importorskip(package, reason=f"{package} is missing: see scripts/test.sh")
    import espeakng_loader
    from engines.tiny_models import tiny_sherpa

    folder = tmp_path_factory.mktemp("models")
    tiny_sherpa.build_sensevoice(folder / "sherpa-sensevoice", {"auto": "ni hao", "en": HEARD})
    espeak_data = Path(espeakng_loader.get_data_path())
    tiny_sherpa.build_kokoro(folder / "sherpa-kokoro", espeak_data)
    return folder


async def test_a_spoken_turn_is_heard_and_answered_by_the_graphs(
    models: Path, tmp_path: Path
) -> None:
    """The words are one graph's, the level of the sound is the other's; and so a second time."""
    async with (
        open_openai_server(usual=saying(ANSWER)) as chat_model,
        server_process(
            directory=tmp_path,
            MODELS_DIR=str(models),
            ASR_ENGINE="sherpa",
            TTS_ENGINE="sherpa",
            LLM_BASE_URL=chat_model.url,
        ) as server,
        Device.connect(server.ws) as device,
    ):
        for _ in range(2):
            await device.speak(recording(QUESTION))
            reply = await device.wait_reply()
            assert reply.transcript == HEARD == chat_model.requests[-1].last_text
            assert (reply.text, reply.errors) == (ANSWER, ())
            assert reply.audible
            assert reply.level_dbfs == pytest.approx(SPEAKER_DBFS, abs=0.5)
        assert not device.log.violations
