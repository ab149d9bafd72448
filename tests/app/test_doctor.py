"""The doctor finds what is wrong, says what to do, and never falls over it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from fakes import FakeSynthesizer
from openai_server import open_openai_server, refusing, saying
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from listenai.app import open_engines, serve
from listenai.app.doctor import examine, examine_one, machine, reach, speech
from listenai.app.doctor.listeners import who_listens
from listenai.app.doctor.report import Check, Finding, Mark, as_line, broken, look, well
from listenai.config import Config, Loaded, load
from listenai.engines.base import Transcript
from listenai.engines.embedded_chat import EmbeddedChatModel
from listenai.engines.espeak import EspeakSynthesizer
from listenai.errors import ChatModelError, ConfigurationError
from listenai.server.troubles import advice
from listenai.services.asr.protocol import Error, Ready, ServiceErrorCode, write
from listenai.services.llm.server import make_llm_app, serve_llm
from listenai.services.tts.server import serve_tts

MCP_SERVER = Path(__file__).parents[1] / "devices" / "mcp_stdio_server.py"


def loaded(**environment: str) -> Loaded:
    """A configuration that asks for no port in particular, and these variables."""
    return load({"CLOUD_HOST": "127.0.0.1", "CLOUD_PORT": "0", **environment})


async def findings(config: Config, *, having: str) -> list[Finding]:
    """What comes of the checks with this in their name."""
    every = [*machine.configured_checks(config), *reach.checks(config)]
    found = [check for check in every if having in check.name]
    assert found, f"no {having!r} among {[check.name for check in every]}"
    return [await examine_one(check) for check in found]


async def finding(config: Config, *, having: str) -> Finding:
    [only] = await findings(config, having=having)
    return only


# --- lines ---------------------------------------------------------------------------------

CHECK = Check("port 1", "ports", 1.0, partial(trio.sleep, 0))  # type: ignore[arg-type]


def test_a_line_says_well_or_what_to_do() -> None:
    """The second with where to read more; one line, whatever was found."""
    assert as_line(CHECK, well("free")) == "✓ port 1: free"
    told = as_line(CHECK, broken("nginx\n\x1b[31m listens", "ports"))
    assert told == (
        f"✗ port 1: nginx [31m listens — {advice('ports')} [/docs/troubleshooting#ports]"
    )
    assert as_line(CHECK, look("so so")).startswith("! port 1: so so [/docs/")


def test_a_line_fits_any_terminal() -> None:
    """Where there is no ✓ there are words."""
    line = as_line(CHECK, broken("das Gerät — 坏", "ports"), encoding="ascii")
    assert line.startswith("FAIL port 1: das Ger?t - ?")
    assert as_line(CHECK, well("frei"), encoding="latin-1") == "ok   port 1: frei"


async def test_a_check_that_takes_too_long_has_failed(autojump_clock: object) -> None:
    began = trio.current_time()
    found = await examine_one(Check("x", "llm", 30.0, trio.sleep_forever))  # type: ignore[arg-type]
    assert found.mark is Mark.BROKEN
    assert "within 30 s" in found.said
    assert trio.current_time() - began == pytest.approx(30.0)
    assert found.todo == advice("llm")


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (ChatModelError("no model; pull one"), "no model; pull one"),
        (ConfigurationError(["one", "two"]), "one; two"),
        (ExceptionGroup("", [ExceptionGroup("", [ChatModelError("deep")])]), "deep"),
        (RuntimeError("password=hunter2"), "could not be checked (RuntimeError)"),
    ],
)
async def test_whatever_a_check_raises_is_a_finding(raised: Exception, said: str) -> None:
    """Ours tell what to do; the text of others may hold anything and is not shown."""

    async def run() -> Finding:
        raise raised

    found = await examine_one(Check("x", "llm", 1.0, run))
    assert (found.mark, found.said) == (Mark.BROKEN, said)


def test_every_check_is_helped_by_the_page() -> None:
    """Whatever is configured."""
    variants = [
        Config(),
        Config(
            llm_base_url=("http://a/v1",), asr_service_url=("ws://a",), tts_service_url=("ws://b",)
        ),
        Config(mcp_servers_file="gone.json", llm_engine="embedded"),
    ]
    for config in variants:
        every = [
            *machine.checks(),
            *machine.configured_checks(config),
            *reach.checks(config),
            *speech.checks(config),
        ]
        assert len(every) > 10
        assert all(advice(check.trouble) for check in every)


# --- the whole report ----------------------------------------------------------------------


@pytest.mark.engines
async def test_all_is_well_where_nothing_is_configured() -> None:
    """Status 0, a ✓ for each, and the spoken loop has its times."""
    lines: list[str] = []
    status = await examine(loaded(), lines.append)
    assert status == 0, lines
    assert all(line.startswith("✓") for line in lines if "memory" not in line), lines
    assert any("spoken loop: 'what is two plus two' spoken in " in line for line in lines)
    assert "\n" not in "".join(lines)


@pytest.mark.engines
async def test_problems_of_the_configuration_are_lines() -> None:
    """What needs no configuration is checked all the same; what is not needed is not."""
    lines: list[str] = []
    problem = ConfigurationError(["CLOUD_PORT='x': must be a number", "LLM_TIMEOUT='y': no"])
    assert await examine(problem, lines.append) == 1
    assert [line for line in lines if line.startswith("✗")] == [
        "✗ configuration: CLOUD_PORT='x': must be a number [/docs/troubleshooting#configuration]",
        "✗ configuration: LLM_TIMEOUT='y': no [/docs/troubleshooting#configuration]",
    ]
    assert any(line.startswith("✓ spoken loop") for line in lines)


@pytest.mark.engines
async def test_a_warning_is_advice_and_a_failure_is_not() -> None:
    """What has no effect is told without failing; what was configured and fails, fails."""
    lines: list[str] = []
    configuration = loaded(CLOUD_PROT="1", API_KEYS="a b", LLM_ENGINE="embedded")
    assert await examine(configuration, lines.append) == 1
    [warning] = [line for line in lines if line.startswith("!")]
    assert "did you mean CLOUD_PORT?" in warning
    assert [line for line in lines if line.startswith("✗")] == [
        "✗ API keys: API_KEYS, key 1: a key must be visible ASCII characters, without blanks,"
        " commas and colons [/docs/troubleshooting#keys]"
    ]


@pytest.mark.engines
def test_the_command_reports_without_a_traceback(tmp_path: Path) -> None:
    """In a terminal that knows ASCII only, with a configuration that cannot work."""
    environment = {**os.environ, "CLOUD_PORT": "many", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "listenai", "doctor"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == ""
    assert "FAIL configuration: CLOUD_PORT='many': must be a whole number" in done.stdout
    assert "ok   the embedded assistant" in done.stdout


# --- ports ---------------------------------------------------------------------------------


@asynccontextmanager
async def answering_port(answer: bytes) -> AsyncIterator[int]:
    """A port where every request gets this answer; nothing at all for b""."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            if answer:
                await stream.send_all(answer)
                await stream.send_eof()

    async with trio.open_nursery() as nursery:
        serving = partial(trio.serve_tcp, handle, 0, host="127.0.0.1")
        [listener] = await nursery.start(serving)
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def http_answer(body: Mapping[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)


async def test_a_port_that_somebody_has_is_told_with_his_name() -> None:
    """Whether it speaks HTTP or not; here it is this process."""
    for answer in (b"", http_answer({"status": "ok"}), b"HTTP/1.1 404 Not Found\r\n\r\n"):
        async with answering_port(answer) as port:
            found = await finding(Config(host="127.0.0.1", port=port), having="port")
        assert found.mark is Mark.BROKEN
        assert "listens there" in found.said
        assert (f"(process {os.getpid()})" in found.said) is (sys.platform == "linux")
        assert found.todo == advice("ports")


async def test_a_server_that_runs_is_well_or_says_what_is_not() -> None:
    """Its own health; a port that it has is no problem."""
    config = Config(host="127.0.0.1", port=0)
    async with open_engines(fake=True) as engines, trio.open_nursery() as nursery:
        [address] = await nursery.start(serve, config, engines)
        found = await finding(Config(host="127.0.0.1", port=address.port), having="port")
        nursery.cancel_scope.cancel()
    assert found.mark is Mark.WELL
    assert "ListenAI 0.1.0 is running there, and well" in found.said

    services = {"asr": "ok", "llm": "degraded", "tts": "ok"}
    ill = {"status": "degraded", "version": "0.1.0", "services": services}
    async with answering_port(http_answer(ill)) as port:
        found = await finding(Config(host="127.0.0.1", port=port), having="port")
    assert found.mark is Mark.LOOK
    assert found.said.endswith("llm degraded")


async def test_an_address_that_is_not_ours_is_told() -> None:
    found = await finding(Config(host="192.0.2.1", port=9400), having="port")
    assert found.mark is Mark.BROKEN
    assert "CLOUD_HOST=192.0.2.1" in found.said


def test_the_listener_is_found_by_its_socket(tmp_path: Path) -> None:
    """In the tables of Linux: the port in hex, the state, the inode, and who holds it."""
    head = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid ti ino\n"
    )
    rows = [
        " 0: 0100007F:24B8 00000000:0000 01 0:0 00:0 0 0 0 111 1",  # connected, not listening
        " 1: 00000000:24B8 00000000:0000 0A 0:0 00:0 0 0 0 222 1",
    ]
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(head + "\n".join(rows) + "\n")
    for process, socket in (("7", "socket:[111]"), ("9", "socket:[222]")):
        (tmp_path / process / "fd").mkdir(parents=True)
        (tmp_path / process / "fd" / "3").symlink_to(socket)
        (tmp_path / process / "comm").write_text(f"program{process}\n")
    (tmp_path / "8").mkdir()  # ended, or somebody else's
    assert who_listens(0x24B8, proc=tmp_path) == "program9 (process 9)"
    assert who_listens(80, proc=tmp_path) is None
    assert who_listens(80, proc=tmp_path / "none") is None


# --- services ------------------------------------------------------------------------------


@asynccontextmanager
async def greeting_service(greeting: str | None) -> AsyncIterator[str]:
    """A WebSocket that says this first, or nothing; its URL."""

    async def handle(request: WebSocketRequest) -> None:
        socket = await request.accept()
        try:
            if greeting is not None:
                await socket.send_message(greeting)
            while True:
                await socket.get_message()
        except ConnectionClosed:
            pass

    async with trio.open_nursery() as nursery:
        serving = partial(serve_websocket, handle, "127.0.0.1", 0, ssl_context=None)
        server = await nursery.start(serving)
        yield f"ws://127.0.0.1:{server.port}/"
        nursery.cancel_scope.cancel()


async def test_a_service_that_is_ready_has_its_round_trip() -> None:
    """Hearing tells its languages, speaking its voices."""
    async with greeting_service(write(Ready(languages=("zh", "en")))) as url:
        found = await finding(Config(asr_service_url=(url,)), having="ASR")
    assert found.mark is Mark.WELL
    assert found.said.startswith("understands zh, en, ")
    assert found.said.endswith(" ms there and back")

    async with trio.open_nursery() as nursery:
        [url] = await nursery.start(partial(serve_tts, FakeSynthesizer(), port=0))
        found = await finding(Config(tts_service_url=(url,)), having="TTS")
        nursery.cancel_scope.cancel()
    assert found.mark is Mark.WELL, found
    assert "voices at" in found.said


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        (write(Error(ServiceErrorCode.MODEL_NOT_READY, "loading")), "MODEL_NOT_READY: loading"),
        ('{"type": "welcome"}', "it is another service"),
        ("good morning", "it is another service"),
    ],
)
async def test_a_service_that_is_not_ready_says_why(greeting: str, said: str) -> None:
    async with greeting_service(greeting) as url:
        found = await finding(Config(asr_service_url=(url,)), having="ASR")
    assert (found.mark, found.said) == (Mark.BROKEN, said)
    assert found.todo == advice("asr-service")


async def test_a_service_that_says_nothing_is_given_up(autojump_clock: Any) -> None:
    autojump_clock.autojump_threshold = 0.2  # the sockets are real
    async with greeting_service(None) as url:
        found = await finding(Config(tts_service_url=(url,)), having="TTS")
    assert (found.mark, found.said) == (Mark.BROKEN, "it does not say that it is ready")


async def test_a_service_that_is_not_there_is_told_without_its_password() -> None:
    """In the name of the line, too."""
    config = Config(asr_service_url=("ws://user:hunter2@127.0.0.1:1/?key=hunter3",))
    [check] = [each for each in reach.checks(config) if "ASR" in each.name]
    line = as_line(check, await examine_one(check))
    assert line.startswith("✗ ASR service ws://127.0.0.1:1/: ")
    assert "hunter" not in line


# --- the language model --------------------------------------------------------------------


def llm(url: str, **more: Any) -> Config:
    return Config(llm_base_url=(f"{url}/v1",), llm_model="stand-in", **more)


async def test_the_language_model_is_asked_a_tiny_question() -> None:
    """With key and model, once, for a few tokens."""
    async with open_openai_server(saying("Yes."), api_key="k-hunter2") as server:
        found = await finding(llm(server.url, llm_api_key="k-hunter2"), having="language model")
        [asked] = server.requests
    assert found.mark is Mark.WELL
    assert found.said.startswith("stand-in answers in ")
    assert asked.body["model"] == "stand-in"
    assert asked.body["max_tokens"] == reach.ENOUGH_TOKENS


async def test_a_wrong_key_and_a_wrong_model_are_told() -> None:
    """Without the key."""
    async with open_openai_server(api_key="right", models=["other"]) as server:
        wrong = await finding(llm(server.url, llm_api_key="k-hunter2"), having="language model")
        unknown = await finding(llm(server.url, llm_api_key="right"), having="language model")
    assert wrong.mark is unknown.mark is Mark.BROKEN
    assert "hunter2" not in wrong.said
    assert "stand-in" in unknown.said
    assert wrong.said != unknown.said


async def test_each_of_several_servers_has_a_line() -> None:
    """One that fails is not hidden by one that works."""
    async with (
        open_openai_server(refusing(500, "broken"), usual=refusing(500, "broken")) as bad,
        open_openai_server() as good,
    ):
        config = Config(llm_base_url=(f"{bad.url}/v1", f"{good.url}/v1"))
        found = await findings(config, having="language model")
    assert [each.mark for each in found] == [Mark.BROKEN, Mark.WELL]


async def test_without_a_url_it_says_what_would_be_taken() -> None:
    embedded = await finding(Config(llm_engine="embedded"), having="language model")
    assert (embedded.mark, embedded.said.split(" (")[0]) == (Mark.WELL, "the embedded assistant")
    nowhere = await finding(Config(llm_engine="openai"), having="language model")
    assert nowhere.mark is Mark.BROKEN
    assert "LLM_BASE_URL" in nowhere.said


# --- files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("having", "config", "mark", "said"),
    [
        ("API keys", Config(api_keys="a:k1,a:k2,b:k3"), Mark.WELL, "3 keys of 2 owners"),
        ("API keys", Config(api_keys_file="none.txt"), Mark.BROKEN, "cannot be read"),
        ("TLS", Config(tls_cert_file="none.pem"), Mark.BROKEN, "TLS_CERT_FILE"),
        ("music", Config(music_dir="none"), Mark.BROKEN, "MUSIC_DIR"),
        ("traces", Config(), Mark.WELL, "none"),
        ("memory", Config(memory_budget_mb=1), Mark.BROKEN, "CLOUD_MEMORY_BUDGET_MB"),
        ("memory", Config(memory_budget_mb=100, max_connections=1000), Mark.LOOK, "1000"),
        ("memory", Config(memory_budget_mb=10_000, max_connections=1), Mark.WELL, "1 connection"),
        ("MCP", Config(), Mark.WELL, "none"),
        ("MCP", Config(mcp_servers_file="none.json"), Mark.BROKEN, "none.json"),
        ("tools", Config(mcp_enabled=False), Mark.WELL, "off"),
    ],
)
async def test_files_and_bounds(having: str, config: Config, mark: Mark, said: str) -> None:
    """Readable and enough, or what is wrong."""
    found = await finding(config, having=having)
    assert found.mark is mark, found
    assert said in found.said


async def test_a_folder_without_music_is_advice(tmp_path: Path) -> None:
    found = await finding(Config(music_dir=str(tmp_path)), having="music")
    assert found.mark is Mark.LOOK
    assert "no music" in found.said


async def test_each_mcp_server_has_a_line(tmp_path: Path) -> None:
    """With its tools, or how its program fails; what it is given is not shown."""
    file = tmp_path / "servers.json"
    servers = {
        "gone": {"command": "no-such-program", "args": ["--key=hunter2"]},
        "good": {"command": sys.executable, "args": [str(MCP_SERVER), "modern"]},
    }
    file.write_text(json.dumps({"mcpServers": servers}))
    gone, good = await findings(Config(mcp_servers_file=str(file)), having="MCP server ")
    assert gone.mark is Mark.BROKEN
    assert "No such file" in gone.said
    assert "hunter2" not in gone.said + gone.todo
    assert good.mark is Mark.WELL
    assert " tools, after " in good.said


# --- speech --------------------------------------------------------------------------------


class Mishearing:
    """Understands the same words of everything."""

    languages = ("en",)

    def __init__(self, text: str) -> None:
        self.text = text

    @asynccontextmanager
    async def open_utterance(self, **_: object) -> AsyncIterator[Mishearing]:
        yield self

    async def accept(self, pcm: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async def partial(self) -> str:
        return ""

    async def finish(self) -> Transcript:
        return Transcript(self.text)


@pytest.mark.engines
async def test_the_spoken_loop_wants_the_words_back() -> None:
    """And speech in what was spoken: silence is noticed before it is misheard."""
    deaf = await speech.spoken_loop(EspeakSynthesizer(), Mishearing("what is true"))
    assert deaf.mark is Mark.BROKEN
    assert "'what is two plus two' was understood as 'what is true'" in deaf.said
    mute = await speech.spoken_loop(FakeSynthesizer(), Mishearing("what is two plus two"))
    assert mute.mark is Mark.BROKEN
    assert "frames of speech" in mute.said


async def test_the_assistant_must_do_its_sum() -> None:
    assert (await speech.answering(EmbeddedChatModel())).mark is Mark.WELL


def names(checks: list[Check]) -> str:
    return " ".join(check.name for check in checks)


@pytest.mark.parametrize("elsewhere", ["asr_service_url", "tts_service_url"])
def test_engines_that_are_elsewhere_are_not_looked_for_here(elsewhere: str) -> None:
    """The loop needs both of them."""
    config = Config(**{elsewhere: "ws://127.0.0.1:1/"})  # type: ignore[arg-type]
    missing = "PocketSphinx" if elsewhere.startswith("asr") else "espeak"
    assert missing in names(machine.configured_checks(Config()))
    assert missing not in names(machine.configured_checks(config))
    assert "spoken loop" in names(speech.checks(Config()))
    assert "spoken loop" not in names(speech.checks(config))


@pytest.mark.parametrize(
    ("config", "missing"),
    [
        (Config(vosk_model_path="model"), {"PocketSphinx", "spoken loop"}),
        (Config(whisper_model="small-int8"), {"PocketSphinx", "spoken loop"}),
        (Config(asr_engine="sherpa"), {"PocketSphinx", "spoken loop"}),
        (Config(tts_engine="pyttsx3"), {"espeak-ng", "spoken loop"}),
        (Config(azure_speech_key="k"), {"PocketSphinx", "espeak-ng", "spoken loop"}),
        (Config(groq_api_key="k"), {"embedded assistant"}),
        (Config(azure_openai_key="k"), {"embedded assistant"}),
        (Config(llm_base_url=("http://127.0.0.1:9/v1",)), {"embedded assistant"}),
        (Config(groq_api_key="k", llm_engine="embedded"), set()),
        (Config(azure_speech_key="k", asr_engine="embedded", tts_engine="embedded"), set()),
    ],
)
def test_the_embedded_engines_are_looked_at_where_they_would_be_taken(
    config: Config, missing: set[str]
) -> None:
    """A cloud, a library or a model of somebody's own takes their place."""
    every = {"PocketSphinx", "espeak-ng", "spoken loop", "embedded assistant"}
    told = names([*machine.configured_checks(config), *speech.checks(config)])
    assert {name for name in every if name not in told} == missing


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (Config(groq_api_key="k-hunter2"), "llama3-8b-8192 at Groq, api.groq.com (GROQ_API_KEY is"),
        (
            Config(groq_api_key="k-hunter2", llm_engine="groq", llm_base_url=("http://a/v1",)),
            "llama3-8b-8192 at Groq, api.groq.com (LLM_ENGINE=groq)",
        ),
        (
            Config(
                azure_openai_key="k-hunter2",
                azure_openai_endpoint="https://house.example",
                llm_model="mini",
            ),
            "mini at Azure, house.example (AZURE_OPENAI_ENDPOINT is set)",
        ),
    ],
)
async def test_a_cloud_that_would_answer_is_named_and_not_asked(config: Config, said: str) -> None:
    """Without its key; another URL is not asked in its place."""
    found = await finding(config, having="language model")
    assert found.mark is Mark.WELL
    assert found.said.startswith(said)
    assert "not here" in found.said
    assert "hunter2" not in found.said


async def test_a_cloud_without_its_key_is_broken() -> None:
    """As `serve` would say it."""
    groq = await finding(Config(llm_engine="groq"), having="language model")
    assert groq.mark is Mark.BROKEN
    assert "LLM_ENGINE=groq: GROQ_API_KEY has to be set" in groq.said
    azure = await finding(Config(asr_engine="azure"), having="engines that were asked for")
    assert azure.mark is Mark.BROKEN
    assert "AZURE_SPEECH_KEY" in azure.said


async def test_models_are_said_to_be_needless_only_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded engines need none, and clouds are not embedded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "the embedded engines need none" in (await finding(Config(), having="models")).said
    clouds = Config(azure_speech_key="k", azure_speech_region="eastus2")
    assert (await finding(clouds, having="models")).said.endswith("none of them is asked for")
    engines = await finding(clouds, having="engines that were asked for")
    assert engines.said == "ASR_ENGINE=azure, TTS_ENGINE=azure"


async def test_an_engine_that_is_asked_for_and_not_here_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what gets it; one that needs no model is well, and a service needs none of ours."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    engines = "engines that were asked for"
    missing = await finding(Config(asr_engine="sherpa"), having=engines)
    assert missing.mark is Mark.BROKEN
    assert "ASR_ENGINE=sherpa: sherpa-sensevoice" in missing.said
    assert (await finding(Config(), having=engines)).said == (
        "ASR_ENGINE=embedded, TTS_ENGINE=embedded"
    )
    served = Config(asr_service_url=("ws://a",), tts_service_url=("ws://b/tts",))
    assert (await finding(served, having=engines)).said == "none: there are services"


async def test_services_with_openais_audio_api_are_asked_for_their_models() -> None:
    """A key that is refused is told; what nobody answers is broken."""
    app = make_llm_app(EmbeddedChatModel(), api_key="right", model_names=["m"])
    async with trio.open_nursery() as nursery:
        url = await nursery.start(partial(serve_llm, app, port=0))
        for key, mark in (("right", Mark.WELL), ("wrong", Mark.BROKEN)):
            config = Config(asr_service_url=(url,), asr_api_key=key)
            assert (await finding(config, having="ASR service")).mark is mark
        nursery.cancel_scope.cancel()
    away = Config(tts_service_url=("http://127.0.0.1:9",))
    found = await finding(away, having="TTS service")
    assert (found.mark, "cannot be reached" in found.said) == (Mark.BROKEN, True)
