"""Hotpin through real sockets, told by a device that knows its specification and no more."""

from __future__ import annotations

import json
import logging
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from end_to_end_server import TEXTS, RunningServer, recording
from fakes import FakeChatModel, FakeSynthesizer
from served import begun, connected, served
from trio_websocket import ConnectionClosed

from listenai.engines.timed import HEARD_TEXT
from listenai.errors import ChatModelError, SynthesizerError

pytestmark = [pytest.mark.engines, pytest.mark.usefixtures("nothing_left")]

CLIENT = Path(__file__).parents[1] / "devices" / "hotpin.py"
HELLO = '{"session_id":"esp32-001"}'
SPEECH = "what_time_is_it.wav"  # where any words will do: the engines know one sentence only


@attrs.frozen
class Log:
    """What a device was told and what it played."""

    told: list[dict[str, Any]]
    played: list[dict[str, Any]]
    faults: list[str]
    close_code: int | None

    @property
    def lines(self) -> list[str]:
        """In short, without what was said."""
        spoken = ("transcript", "response", "session_id")
        return [" ".join(v for k, v in one.items() if k not in spoken) for one in self.told]

    def said(self, name: str) -> list[str]:
        return [one[name] for one in self.told if name in one]


TURN = ["processing transcription", "processing llm", "processing tts", "complete"]


async def device(url: str, *steps: str, hello: str = HELLO) -> Log:
    """One connection of a device."""
    command = [sys.executable, str(CLIENT), url, hello, *steps]
    with trio.fail_after(60):
        done = await trio.run_process(
            command, capture_stdout=True, stderr=subprocess.STDOUT, check=False
        )
    assert done.returncode == 0, done.stdout.decode()
    return Log(**json.loads(done.stdout))


@pytest.fixture
def pcm(tmp_path: Path) -> Callable[[str], str]:
    """Writes a spoken fixture as what a microphone gives; its path."""

    def write(name: str) -> str:
        path = tmp_path / f"{name}.pcm"
        path.write_bytes(recording(name))
        return str(path)

    return write


async def test_the_device_knows_nothing_of_the_code():
    """Its imports are the standard library's and a WebSocket client's."""
    source = CLIENT.read_text("utf-8")
    imported = set(re.findall(r"^\s*(?:from|import) (\w+)", source, re.MULTILINE))
    assert imported == {"json", "pathlib", "struct", "sys", "time", "websockets"}


# --- spoken ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["ws", "hotpin"])
async def test_spoken_questions_are_answered_in_files(
    server: RunningServer, pcm: Callable[[str], str], path: str
):
    """Stage by stage, within the buffers and ten seconds of a device; one after the other."""
    names = ["twelve_times_seven.wav", "volume_fifty.wav", "no.wav"]
    log = await device(server.url + path, *(f"talk {pcm(name)}" for name in names))
    assert log.faults == []
    assert log.lines == ["connected", *TURN * 3]
    assert log.told[0] == {"status": "connected", "session_id": "esp32-001"}
    assert log.said("transcript") == [TEXTS[name] for name in names]
    assert "84" in log.said("response")[0] or "eighty" in log.said("response")[0]
    assert "50" in log.said("response")[1] or "fifty" in log.said("response")[1]
    for file in log.played:
        assert file["seconds_after_eos"] < 8
        assert file["data_size"] == file["size"] - 44 == file["file_size"] - 36
        assert (file["sample_rate"], file["channels"], file["bits"]) == (16_000, 1, 16)
        assert (file["byte_rate"], file["block_align"], file["fmt_size"]) == (32_000, 2, 16)
        assert set(file["chunks"][:-1]) <= {4096}
        assert file["data_size"] > 16_000
    loud, half, _ = (file["peak"] for file in log.played)
    assert loud > 1.5 * half > 3000  # the tool has done its work


async def test_music_is_no_file(server: RunningServer, pcm: Callable[[str], str]):
    """It would never be complete: the device is told something, and asks the next question."""
    steps = [f"talk {pcm(name)}" for name in ("comma_pause.wav", "twelve_times_seven.wav")]
    log = await device(server.url + "hotpin", *steps)
    assert log.faults == []
    assert log.lines == ["connected", *TURN * 2]


# --- interruption, errors, reset ---------------------------------------------------------------


async def test_speech_while_it_waits_interrupts(pcm: Callable[[str], str]):
    """The old question gets an error, the new one an answer, and no byte of the old."""
    chat = FakeChatModel("One two three.")

    def answer(messages: Any) -> Any:
        chat.delay = 0.0 if len(chat.asked) > 1 else math.inf
        return FakeChatModel("One two three.")._parts(messages)

    chat.answer = answer
    async with served(engines={"chat_model": chat}) as server:
        speech = pcm(SPEECH)
        log = await device(
            server.ws + "ws",
            *(f"record {speech}", "eos", "read processing llm"),
            *(f"record {speech}", "read error", "eos", "wait"),
        )
    assert log.faults == []
    assert log.lines == ["connected", *TURN[:2], "error Interrupted", *TURN]
    assert len(log.played) == 1
    assert [m.content for m in chat.asked[1][1] if m.role == "assistant"] == []


async def test_an_error_for_each_thing_that_goes_wrong(pcm: Callable[[str], str], tmp_path: Path):
    """No audio, no words, no model, no voice, no message; and then an answer."""
    silence = tmp_path / "silence.pcm"
    silence.write_bytes(bytes(32_000))
    chat, voice = FakeChatModel("One two three."), FakeSynthesizer(0.3)
    speech, url_path = f"talk {pcm(SPEECH)}", "hotpin"
    async with served(engines={"chat_model": chat, "synthesizer": voice}) as server:
        url = server.ws + url_path
        log = await device(url, "eos", "wait", f"talk {silence}", "send hello", "read error")
        assert log.faults == []
        assert log.lines[:4] == [
            "connected",
            "error Empty audio buffer",
            "processing transcription",
            "error Could not understand audio",
        ]
        assert "not JSON" in log.lines[4]
        chat.fail = ChatModelError("down")
        log = await device(url, speech)
        assert log.lines[1:] == [*TURN[:2], "error Service temporarily unavailable"]
        chat.fail, voice.fail = None, SynthesizerError("mute")
        log = await device(url, speech)
        assert log.lines[-1] == "error TTS synthesis failure"
        assert log.played == []
        voice.fail = None
        log = await device(url, speech)
        assert (log.lines[1:], log.faults) == (TURN, [])


async def test_asked_twice_it_is_busy(pcm: Callable[[str], str]):
    """And answers the first question."""
    async with served(engines={"chat_model": FakeChatModel("One two.", delay=0.2)}) as server:
        steps = (f"record {pcm(SPEECH)}", "eos", "eos", "read complete")
        log = await device(server.ws + "hotpin", *steps)
    assert log.faults == []
    assert sorted(log.lines[1:]) == sorted([*TURN, "error Busy"])
    assert len(log.played) == 1


async def test_a_reset_begins_anew(pcm: Callable[[str], str]):
    """In the same session: the model is asked without what was said before."""
    chat = FakeChatModel("One two three.")
    async with served(engines={"chat_model": chat}) as server:
        talk = f"talk {pcm(SPEECH)}"
        log = await device(server.ws + "hotpin", talk, "reset", talk, talk)
    assert log.lines == ["connected", *TURN, "reset", *TURN * 2]
    said = [[m.content for m in asked if m.role != "system"] for _, asked in chat.asked]
    assert said[0] == said[1] == [HEARD_TEXT]
    assert [text.strip() for text in said[2]] == [HEARD_TEXT, "One two three.", HEARD_TEXT]


# --- the device's limits -----------------------------------------------------------------------


SENTENCES = [f"Sentence number {number} is quite a long one, as it goes." for number in range(10)]


@pytest.mark.parametrize(("seconds", "spoken"), [(4.5, 3), (1.0, 10)], ids=["long", "short"])
async def test_a_long_answer_fits_into_the_device(
    pcm: Callable[[str], str], seconds: float, spoken: int
):
    """As many sentences as there is room for; and as much of their text."""
    engines = {
        "chat_model": FakeChatModel(" ".join(SENTENCES), delay=0.0),
        "synthesizer": FakeSynthesizer(seconds),
    }
    async with served(engines=engines) as server:
        log = await device(server.ws + "hotpin", f"talk {pcm(SPEECH)}")
    assert log.faults == []
    assert log.lines[1:] == TURN
    [file], [response] = log.played, log.said("response")
    assert file["data_size"] == spoken * seconds * 32_000
    assert " ".join(SENTENCES).startswith(response.rstrip("…"))
    assert response.endswith("…") is (spoken == 10)


async def test_a_header_without_sizes_for_players_of_streams(pcm: Callable[[str], str]):
    """HOTPIN_EXACT_WAV=false: what the specification's own client would stumble over."""
    async with served(hotpin_exact_wav=False) as server:
        log = await device(server.ws + "hotpin", f"talk {pcm(SPEECH)}")
    assert log.lines[1:] == TURN
    assert log.faults == ["data_size is more than came"]
    [file] = log.played
    assert (file["file_size"], file["data_size"]) == (0xFFFFFFFF, 0xFFFFFFFF)
    assert file["size"] == 44 + 9600


# --- sessions and keys ---------------------------------------------------------------------------


async def test_who_comes_back_goes_on_where_it_was(pcm: Callable[[str], str]):
    """By its session_id; another device has another history, at the same time too."""
    chat = FakeChatModel("One two three.")
    talk = f"talk {pcm(SPEECH)}"
    async with served(engines={"chat_model": chat}) as server:
        url = server.ws + "ws"
        await device(url, talk, "reset", talk)
        async with trio.open_nursery() as nursery:
            for name in ("esp32-001", "esp32-002"):
                hello = json.dumps({"session_id": name})
                nursery.start_soon(lambda h=hello: device(url, talk, hello=h))
    said = [sum(m.role == "user" for m in asked) for _, asked in chat.asked]
    assert sorted(said) == [1, 1, 1, 2]


async def test_a_device_has_to_say_who_it_is():
    """An error that tells how, and 1008."""
    async with served() as server:
        log = await device(server.ws + "hotpin", hello="{}")
    assert log.close_code == 1008
    assert '{"session_id":"your-device-id"}' in log.told[0]["message"]


async def test_keys_are_given_in_the_first_message(pcm: Callable[[str], str]):
    """Or in the handshake; without one, or with a wrong one, 1008; sessions are their owners'."""
    async with served(api_keys="alice:one,bob:two") as server:
        url = server.ws + "ws"
        talk = f"talk {pcm(SPEECH)}"
        for hello in (
            '{"session_id":"a"}',
            '{"session_id":"a","api_key":"three"}',
            '{"session_id":"a","api_key":["one"]}',
        ):
            log = await device(url, hello=hello)
            assert log.close_code == 1008
            assert log.told[0]["message"].startswith("Invalid API key")
        log = await device(url, talk, hello='{"session_id":"a","api_key":"one"}')
        assert (log.lines, log.close_code) == (["connected", *TURN], None)
        log = await device(url, talk, hello='{"session_id":"a","api_key":"two"}')
        assert log.close_code == 1008
        assert "'a'" in log.told[0]["message"]
        log = await device(url + "?key=two", talk, hello='{"session_id":"b"}')
        assert log.lines == ["connected", *TURN]
        async with connected(url) as peer:  # others on this path still need theirs
            await peer.send("start_session")
            assert (await peer.until("error"))["code"] == "UNAUTHORIZED"
            assert await peer.close_code() == 1008


async def test_a_newer_connection_takes_the_session_over(pcm: Callable[[str], str]):
    """The older is told, and closed with 4001; sessions of other dialects are others."""
    async with (
        served() as server,
        begun(server.ws, session_id="esp32-002"),
        connected(server.ws + "hotpin") as older,
    ):
        await older.send_raw('{"session_id":"esp32-001"}')
        assert '"connected"' in await older.socket.get_message()
        log = await device(server.ws + "hotpin")
        assert log.lines == ["connected"]
        assert "newer connection" in await older.socket.get_message()
        with pytest.raises(ConnectionClosed) as closed:
            await older.socket.get_message()
        assert closed.value.reason.code == 4001


async def test_nothing_of_what_is_said_is_logged(
    pcm: Callable[[str], str], caplog: pytest.LogCaptureFixture
):
    """Spec 002, 9.1 logs transcripts; privacy wins."""
    caplog.set_level(logging.DEBUG, "listenai")
    async with served(engines={"chat_model": FakeChatModel("Umbrellas help.")}) as server:
        log = await device(server.ws + "hotpin", f"talk {pcm(SPEECH)}")
    assert log.lines[1:] == TURN
    logged = "\n".join(f"{vars(record)}" for record in caplog.records)
    assert "push_to_talk_released" in logged
    assert "london" not in logged.lower()
    assert "umbrellas" not in logged.lower()
