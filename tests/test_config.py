"""Configuration: every variable of the specs, every problem at once, no secret ever shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio
from fakes import (
    fake_engines,
)
from trio_websocket import open_websocket_url

from listenai.app import choose_voice, serve
from listenai.config import DEFAULT_VOICE_ID, Config, load, show
from listenai.config.others import OTHER_VARIABLES
from listenai.config.variables import defaults
from listenai.conversation.dialogue import Engines
from listenai.conversation.music_player import MusicPlayer
from listenai.errors import ConfigurationError
from listenai.tools.base import ToolRegistry
from listenai.tools.music import MusicTool

ROOT = Path(__file__).parent.parent
SPEC = Path(__file__).parent / "spec"
COMMAND = [sys.executable, "-m", "listenai"]


def spec_000() -> dict[str, str]:
    """Variables and defaults ("" for none) as spec 000 lists them."""
    text = (SPEC / "spec_000_environment.txt").read_text("utf-8")
    lines = [line for line in text.splitlines() if line.startswith("- ")]
    found = {}
    for line in lines:
        parts = re.fullmatch(r"- ([A-Z_]+): [^(]+(?:\(default: (.+)\))?", line)
        assert parts, line
        found[parts[1]] = parts[2] or ""
    assert len(found) == len(lines) == 35
    return found


def other_specs() -> dict[str, str]:
    """Variables of the other specs, each with its spec."""
    return {
        name: number
        for number in ("001", "002", "004")
        for name in re.findall(
            r'(?m)^([A-Z_]+)=|getenv\("([A-Z_]+)"\)',
            (SPEC / f"spec_{number}_environment.txt").read_text("utf-8"),
        )
        for name in name
        if name
    }


SPEC_000 = spec_000()
ONE_VALUE = {name for name in SPEC_000 if name.startswith("AUDIO_")}
# A value that is not the default, where one cannot be made from it.
CHANGED = {
    "CLOUD_HOST": "127.0.0.1",
    "CLOUD_LOG_LEVEL": "DEBUG",
    "CLOUD_LOG_FORMAT": "text",
    "TTS_MODE": "full",
    "ASR_SERVICE_URL": "wss://asr.example:1/a",
    "TTS_SERVICE_URL": "ws://tts.example/tts",
    "LLM_BASE_URL": "https://llm.example/v1/",
    "MCP_PROTOCOL_VERSION": "2025-06-18",
}


def changed(name: str, default: str) -> str:
    if name in CHANGED:
        return CHANGED[name]
    if default in {"true", "false"}:
        return "false" if default == "true" else "true"
    if re.fullmatch(r"[0-9.]+", default) and default.count(".") < 2:
        return f"{float(default) + 1:g}"
    return f"other {default}".strip()


def problems(environment: Mapping[str, str], **options: object) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        load(environment, options)
    return caught.value.problems


def shown(environment: Mapping[str, str], **options: object) -> dict[str, tuple[str, str]]:
    """The effective values as a user sees them, with their origins."""
    document = json.loads(show.as_json(load(environment, options)))
    return {row["variable"]: (row["value"], row["from"]) for row in document["settings"]}


# --- the specs' variables ------------------------------------------------------------------


@pytest.mark.parametrize(("name", "default"), SPEC_000.items())
def test_defaults_are_those_of_spec_000(name: str, default: str):
    """Under its own name; where the spec has somebody's address, the choice is ours."""
    value, origin = shown({})[name]
    host = urlsplit(default).hostname or ""
    somebodys = "://" in default and ip_address(host).is_private
    expected = "" if somebodys else "2" if default == "2.0" else default
    assert (value, origin) == (expected, "default")


@pytest.mark.parametrize(("name", "default"), SPEC_000.items())
def test_a_changed_value_changes_the_configuration(name: str, default: str):
    """That setting and no other; audio formats that do not work are refused."""
    value = changed(name, default)
    if name in ONE_VALUE:
        allowed = f"must be {default} (the only one that works yet)"
        assert problems({name: value}) == (f"{name}={value!r}: {allowed}",)
        assert load({name: default}).config == Config()
        return
    before, after = load({}), load({name: value})
    [(old, new)] = [
        (old, new)
        for old, new in zip(before.settings, after.settings, strict=True)
        if old.value != new.value
    ]
    assert (new.setting.variable, new.origin) == (name, "environment")
    [only] = new.value if isinstance(new.value, tuple) else [new.value]
    assert str(only).lower() in {value.lower(), f"{value}.0"}
    assert before.config != after.config
    # What works is silent; what does not, says so.
    assert [warning.split(": ")[1] for warning in after.warnings] == [name] * bool(old.setting.idle)


def test_every_variable_of_the_other_specs_is_known():
    """And nothing else is in the table, but what those specs name and is not ours as well."""
    ours = {row.setting.variable for row in defaults()}
    others = {name: spec for name, spec in other_specs().items() if name not in ours}
    assert {other.variable: other.spec for other in OTHER_VARIABLES} == others
    assert len(other_specs()) == 42
    assert {"API_KEYS", "VOSK_MODEL_PATH", "AZURE_OPENAI_KEY"} <= set(other_specs()) - set(others)


@pytest.mark.parametrize("other", OTHER_VARIABLES, ids=lambda other: other.variable)
def test_a_variable_of_another_spec_sets_ours_or_is_warned_about(other):
    """Never ignored in silence."""
    assert bool(other.sets) != bool(other.reason)
    if not other.sets:
        loaded = load({other.variable: "7"})
        assert loaded.config == Config()
        assert loaded.warnings == (f"accepted, no effect: {other.variable}: {other.reason}",)
        return
    values = {"HOST": "127.0.0.1", "LOG_LEVEL": "debug", "STREAM_TTS_ENGINE": "pyttsx3"}
    value = values.get(other.variable, "1")
    alias, own = load({other.variable: value}), load({other.sets: value})
    assert alias.config == own.config != Config()
    [row] = [row for row in alias.settings if row.setting.variable == other.sets]
    assert row.origin == f"environment {other.variable}"


def test_our_name_wins_over_another_systems_and_that_is_told():
    """Wherever the two are given; the value that lost is not shown."""
    loaded = load({"LOG_LEVEL": "DEBUG", "CLOUD_LOG_LEVEL": "ERROR"})
    assert loaded.config.log_level == "ERROR"
    expected = "not used: LOG_LEVEL: CLOUD_LOG_LEVEL comes from CLOUD_LOG_LEVEL (environment)"
    assert loaded.warnings == (expected,)
    loaded = load({"SERVER_PORT": "1", "PORT": "2"})
    assert loaded.config.port == 1
    assert any("not used: PORT: CLOUD_PORT comes from" in it for it in loaded.warnings)


def test_a_host_that_is_no_address_is_not_taken():
    """Shells and build tools set HOST to names of theirs."""
    loaded = load({"HOST": "x86_64-conda-linux-gnu"})
    assert loaded.config == Config()
    assert loaded.warnings == ("not used: HOST: as CLOUD_HOST it must be an IP address",)


def test_a_variable_of_another_spec_that_is_empty_is_not_given():
    """`REDIS_PASSWORD=` stands so in spec 004."""
    assert load({"REDIS_PASSWORD": "", "PORT": ""}) == load({})


def test_slips_of_the_pen_are_told(tmp_path: Path):
    """In the environment only those that look like ours: others may have their own."""
    assert load({"CLOUD_PROT": "1"}).warnings == (
        "unknown, no effect: CLOUD_PROT; did you mean CLOUD_PORT?",
    )
    assert load({"cloud_port": "1"}).warnings[0].endswith("did you mean CLOUD_PORT?")
    assert load({"CLOUD_SDK_VERSION": "1", "PATH": "/bin"}).warnings == ()
    file = tmp_path / ".env"
    file.write_text("CLOUD_SDK_VERSION=1\n")
    assert load({}, env_file=file).warnings == ("unknown, no effect: CLOUD_SDK_VERSION",)


# --- what wins -----------------------------------------------------------------------------


def test_options_win_over_the_environment_and_that_over_the_file(tmp_path: Path):
    """Each value's origin is told."""
    file = tmp_path / ".env"
    file.write_text(
        "\ufeff# ours\nexport CLOUD_PORT=1\nCLOUD_HOST = '::1'  # six\n"
        'TTS_VOICE_ID="cm$n"\nCLOUD_LOG_LEVEL=error\n\n',
        encoding="utf-8",
    )
    environment = {"CLOUD_PORT": "2", "CLOUD_HOST": "127.0.0.2"}
    loaded = load(environment, {"port": "3", "host": None}, file)
    rows = {row.setting.variable: (row.value, row.origin) for row in loaded.settings}
    assert rows["CLOUD_PORT"] == (3, "option")
    assert rows["CLOUD_HOST"] == ("127.0.0.2", "environment")
    assert rows["TTS_VOICE_ID"] == ("cm$n", ".env")  # taken literally
    assert rows["CLOUD_LOG_LEVEL"] == ("ERROR", ".env")
    assert rows["CLOUD_LOG_FORMAT"] == ("json", "default")


def test_no_file_is_no_problem(tmp_path: Path):
    """A file that is there but cannot be read is one."""
    assert load({}, env_file=tmp_path / ".env").config == Config()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load({}, env_file=tmp_path)


def test_a_bad_file_is_told_by_line_without_its_text(tmp_path: Path):
    """There may be a secret in the line that is wrong."""
    file = tmp_path / ".env"
    file.write_bytes(b'A=1\n\nLLM_API_KEY sk-12345\nB="sk-12345\nCLOUD_PORT=1\nCLOUD_PORT=2\nC\n')
    with pytest.raises(ConfigurationError) as caught:
        load({"CLOUD_PORT": "x"}, env_file=file)
    told = [re.sub(r".*[.]env", ".env", problem) for problem in caught.value.problems]
    must = 'must be NAME=value, NAME="value" or # a comment'
    assert told[:2] == [f".env line 3: {must}", f".env line 4: {must}"]
    assert told[2:4] == [
        ".env line 6: CLOUD_PORT is there twice; keep one of them",
        f".env line 7: {must}",
    ]
    assert told[4].startswith("CLOUD_PORT='x': ")
    assert "12345" not in str(told)
    file.write_bytes(b"A=\xff")
    with pytest.raises(ConfigurationError, match=r"is not UTF-8 \(byte 2\)"):
        load({}, env_file=file)


# --- what is wrong -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "must"),
    [
        ("CLOUD_PORT", "", "a whole number from 0 to 65535"),
        ("CLOUD_PORT", "65536", "a whole number from 0 to 65535"),
        ("CLOUD_PORT", "9_400", "a whole number from 0 to 65535"),
        ("CLOUD_PORT", "٩٤٠٠", "a whole number from 0 to 65535"),
        ("CLOUD_PORT", "9400.0", "a whole number from 0 to 65535"),
        ("CLOUD_PING_TIMEOUT", "nan", "a number from 1 to 86400"),
        ("CLOUD_PING_TIMEOUT", "inf", "a number from 1 to 86400"),
        ("CLOUD_PING_TIMEOUT", "-1", "a number from 1 to 86400"),
        ("CLOUD_MAX_SESSIONS", "0", "a whole number from 1 to 1000000"),
        ("CLOUD_MEMORY_BUDGET_MB", "-1", "a whole number from 0 to 100000000"),
        ("CLOUD_RATE_LIMIT_ENABLED", "perhaps", "true or false (also yes, no, on, off, 1, 0)"),
        ("CLOUD_LOG_FORMAT", "xml", "one of json, text"),
        ("ASR_ENGINE", "whisper", "one of auto, embedded, sherpa, funasr, vosk, faster-whisper"),
        ("VAD_ENGINE", "silero", "one of ten, webrtc"),
        ("CLOUD_HOST", "  ", "text that is not empty"),
        ("TTS_VOICE_ID", "\udcff", "text that is not empty"),
        ("MCP_PROTOCOL_VERSION", "latest", "a date like 2024-11-05"),
        ("CLOUD_EXTRA_PORTS", "8000,,3002", "different ports from 1 to 65535 with commas"),
        ("CLOUD_EXTRA_PORTS", "8000,8000", "different ports from 1 to 65535 with commas"),
        ("CLOUD_EXTRA_PORTS", "0", "different ports from 1 to 65535 with commas"),
        ("CLOUD_EXTRA_PORTS", "8000,9400", "ports other than CLOUD_PORT=9400"),
        ("ASR_SERVICE_URL", "ftp://asr.example", "a URL that begins with ws:// or wss://"),
        ("LLM_BASE_URL", "llm.example/v1", "a URL that begins with http:// or https://"),
        ("LLM_BASE_URL", "http:///v1", "a URL that begins with http:// or https://"),
        ("LLM_BASE_URL", "http://llm.example:x/", "a URL that begins with http:// or https://"),
        ("LLM_BASE_URL", "http://[::1/", "a URL that begins with http:// or https://"),
        ("LLM_BASE_URL", "http://llm.exa mple/", "a URL that begins with http:// or https://"),
    ],
)
def test_a_problem_names_variable_value_and_what_is_allowed(name: str, value: str, must: str):
    """In one line."""
    [problem] = problems({name: value})
    assert problem.startswith(f"{name}={value!r}: must be {must}")


def test_values_may_have_blanks_around_them_and_words_any_case():
    """As people write them."""
    environment = {"CLOUD_PORT": " 80 ", "MCP_ENABLED": "No", "CLOUD_EXTRA_PORTS": "8000, 3002"}
    config = load(environment).config
    assert (config.port, config.mcp_enabled, config.extra_ports) == (80, False, (8000, 3002))


def test_the_name_that_was_used_is_the_name_that_is_told():
    """And what it was read as."""
    told = "PORT='abc' (read as CLOUD_PORT): must be a whole number from 0 to 65535"
    assert problems({"PORT": "abc"}) == (told,)


BAD = {
    "CLOUD_PORT": "many",
    "CLOUD_LOG_LEVEL": "LOUD",
    "AUDIO_SAMPLE_RATE": "44100",
    "LLM_BASE_URL": "ftp://joe:sk-12345@x/",
}


@pytest.mark.parametrize("command", ["serve", "config"])
def test_five_mistakes_are_told_at_once_and_end_with_status_2(command: str, tmp_path: Path):
    """Two in the file; no traceback and no secret."""
    (tmp_path / ".env").write_text("CLOUD_PING_INTERVAL=soon\nTTS_MODE=full\nCLOUD_PORT=1\n")
    done = run(command, cwd=tmp_path, **BAD)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 5
    for name in (*BAD, "CLOUD_PING_INTERVAL"):
        assert sum(line.startswith(f"listenai: {name}=") for line in lines) == 1
    assert "CLOUD_PING_INTERVAL='soon' in .env: must be a number from 1 to 3600" in done.stderr
    assert "12345" not in done.stderr
    assert done.stdout == ""


# --- secrets -------------------------------------------------------------------------------

SECRETS = {
    "LLM_API_KEY": "sk-12345",
    "LLM_UPSTREAM_API_KEY": "sk-12345",
    "GROQ_API_KEY": "gsk-12345",
    "AZURE_OPENAI_KEY": "az-12345",
    "API_KEYS": "12345,6",
    "JWT_SECRET": "12345",
    "REDIS_PASSWORD": "12345",
    "REDIS_URL": "redis://:12345@r/",
    "ASR_SERVICE_URL": "ws://joe:p@ss/12345@asr.example:1/a",
    "TTS_SERVICE_URL": "ws://12345@tts.example/tts?key=12345#12345",
    "LLM_BASE_URL": "https://llm.example/v1?12345",
}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_secrets_are_not_printed(options: list[str], tmp_path: Path):
    """What is harmless in the same value is."""
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-12345\nLLM_APY_KEY=sk-12345\n")
    done = run("config", *options, cwd=tmp_path, **SECRETS)
    assert done.returncode == 0, done.stderr
    everything = done.stdout + done.stderr
    assert "12345" not in everything
    assert "ws://********@asr.example:1/a" in everything
    assert "ws://********@tts.example/tts?********" in everything
    for name in SECRETS:
        assert name in everything
    assert "LLM_APY_KEY; did you mean LLM_API_KEY?" in everything


def test_secrets_are_in_no_problem_and_in_no_repr():
    """A key with half a character in it is a problem; the key is not told."""
    loaded = load(SECRETS)
    assert loaded.config.llm_api_key == "sk-12345"
    assert "12345" not in repr(loaded.config)
    assert "12345" not in str(loaded.warnings)
    told = problems(
        {
            "LLM_API_KEY": "sk-12345\udcff",
            "LLM_BASE_URL": "http:/joe:12345@llm.example",
            "ASR_SERVICE_URL": "joe:12345@asr.example",
        }
    )
    assert len(told) == 3
    assert "12345" not in str(told)


# --- the command and the README --------------------------------------------------------------


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line with nothing of this shell's configuration."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env={**kept, "PYTHONIOENCODING": "utf-8", **environment},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def test_the_command_prints_what_is_in_force(tmp_path: Path):
    """A line for each variable; warnings on standard error."""
    done = run(
        "config",
        "--port",
        "81",
        cwd=tmp_path,
        MCP_PROTOCOL_VERSION="2025-03-26",
        MCP_INSTRUCTIONS="a\nb",
        TTS_CFG_VALUE="3",
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines[1:]] == [row.setting.variable for row in defaults()]
    assert ["CLOUD_PORT", "81", "option"] in lines
    assert ["MCP_INSTRUCTIONS", r"'a\nb'", "environment"] in lines
    assert ["TTS_CFG_VALUE", "3", "environment"] in lines
    version = ["MCP_PROTOCOL_VERSION", "2025-03-26", "environment"]
    assert [*version, "no", "effect", "yet"] in lines
    assert "listenai: accepted, no effect yet: MCP_PROTOCOL_VERSION: " in done.stderr


def test_the_command_prints_json(tmp_path: Path):
    """One document, warnings in it, nothing on standard error."""
    done = run("config", "--json", cwd=tmp_path, REDIS_URL="redis://r/", MCP_ENABLED="0")
    document = json.loads(done.stdout)
    rows = {row["variable"]: row for row in document["settings"]}
    assert rows["MCP_ENABLED"] == {
        "variable": "MCP_ENABLED",
        "value": "false",
        "from": "environment",
        "effect": True,
        "note": "",
    }
    assert document["warnings"] == [
        "accepted, no effect: REDIS_URL: sessions are kept in this process's memory"
    ]
    assert done.stderr == ""


def test_the_readme_has_every_variable():
    """Between its markers, as the command makes it."""
    readme = (ROOT / "README.md").read_text("utf-8")
    found = re.search(r"<!-- config -->\n(.*)\n<!-- /config -->", readme, re.DOTALL)
    assert found, "README.md has no <!-- config --> and <!-- /config -->"
    assert found[1].strip() == show.as_markdown(), (
        "between the markers put what `python -m listenai config --markdown` prints"
    )
    for name in {*SPEC_000, *other_specs()}:
        assert f"\n| `{name}` |" in found[1]


# --- what is wired ---------------------------------------------------------------------------


def engines() -> Engines:
    def make_tools(_session: object, music: MusicPlayer) -> ToolRegistry:
        registry = ToolRegistry()
        registry.register(MusicTool(music))
        return registry

    return fake_engines(make_tools=make_tools)


async def test_extra_ports_are_open_too(unused_ports: tuple[int, int]):
    """The same door behind each."""
    port, more = unused_ports
    config = load({}, {"host": "127.0.0.1", "port": port, "extra_ports": more}).config
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(serve, config, engines())
        assert [address.port for address in addresses] == [port, more]
        for number in (port, more):
            stream = await trio.open_tcp_stream("127.0.0.1", number)
            await stream.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in await stream.receive_some()
            await stream.aclose()
        nursery.cancel_scope.cancel()


@pytest.fixture
async def unused_ports() -> tuple[int, int]:
    """Two ports that were free a moment ago."""
    listeners = [(await trio.open_tcp_listeners(0, host="127.0.0.1"))[0] for _ in range(2)]
    found = tuple(listener.socket.getsockname()[1] for listener in listeners)
    for listener in listeners:
        await listener.aclose()
    return found


def test_the_default_voice_works_with_every_synthesizer():
    """It stands for the first one there is; a voice that is not there is a problem."""
    assert choose_voice(Config(), {DEFAULT_VOICE_ID: "", "b": ""}) == DEFAULT_VOICE_ID
    assert choose_voice(Config(), {"a": "", "b": ""}) == "a"
    assert choose_voice(Config(voice_id="b"), {"a": "", "b": ""}) == "b"
    with pytest.raises(ConfigurationError) as caught:
        choose_voice(Config(voice_id="c"), {"a": "", "b": ""})
    assert caught.value.problems == ("TTS_VOICE_ID='c': must be one of a, b",)


async def test_a_server_with_an_unknown_voice_does_not_start():
    """Rather than fail in every reply."""
    with trio.fail_after(5), pytest.raises(ConfigurationError, match="TTS_VOICE_ID='c'"):
        await serve(Config(host="127.0.0.1", port=0, voice_id="c"), engines())


@pytest.mark.parametrize(("enabled", "tools"), [("true", ["play_music"]), ("false", [])])
async def test_tools_can_be_turned_off(enabled: str, tools: list[str]):
    """MCP_ENABLED=false: no tool is offered, and a new session has them turned off."""
    config = load({"MCP_ENABLED": enabled}, {"host": "127.0.0.1", "port": 0}).config
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve, config, engines())
        async with open_websocket_url(address.url("ws") + "/") as socket:
            await socket.send_message('{"type":"start_session"}')
            ready = json.loads(await socket.get_message())
        nursery.cancel_scope.cancel()
    assert ready["state"] == "ready"
    assert ready["capabilities"]["tools"] == tools
    assert ready["configuration"]["tools"] is bool(tools)


@pytest.mark.parametrize("log_format", ["json", "text"])
async def test_serve_warns_in_its_log(log_format: str, tmp_path: Path):
    """In the format that is configured, before it listens."""
    (tmp_path / ".env").write_text(
        f"CLOUD_LOG_FORMAT={log_format}\nMCP_PROTOCOL_VERSION=2025-03-26\n"
    )
    command = [*COMMAND, "serve", "--host", "127.0.0.1", "--port", "0", "--fake-engines"]
    async with trio.open_nursery() as nursery:
        run_server = partial(
            trio.run_process,
            command,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
        )
        process = await nursery.start(run_server)
        with trio.fail_after(20):
            assert await process.stdout.receive_some()
        process.terminate()
        with trio.fail_after(20):
            said = b"".join([part async for part in process.stderr]).decode()
    line = next(line for line in said.splitlines() if "MCP_PROTOCOL_VERSION" in line)
    event = "configuration: accepted, no effect yet: MCP_PROTOCOL_VERSION: every version"
    if log_format == "json":
        entry = json.loads(line)
        assert (entry["level"], entry["logger"]) == ("WARNING", "listenai.cli")
        assert entry["event"].startswith(event)
    else:
        assert f" WARNING listenai.cli {event}" in line
