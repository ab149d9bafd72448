"""The command line: `python -m listenai serve | asr | tts | llm | talk | config | doctor | …`."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import attrs
import click
import trio

from listenai import __version__
from listenai.config import Config, Loaded, load
from listenai.errors import ConfigurationError

UNUSABLE = 2  # exit status: nothing was tried, because it cannot work
ENV_FILE = Path(".env")  # in the working directory

_log = logging.getLogger(__name__)
_host = click.option("--host", help="Address to listen on.  [CLOUD_HOST, default 0.0.0.0]")
_port = click.option(
    "--port", help="Port to listen on; 0: any free one.  [CLOUD_PORT, default 9400]"
)


def _check_workers(_context: click.Context, _option: click.Parameter, workers: int) -> None:
    if workers != 1:
        raise click.BadParameter(
            f"{workers} is not possible, only 1: sessions live in this process's memory; run one "
            "process, or several on ports of their own behind a proxy that keeps a session's "
            "connections together"
        )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="listenai")
def main() -> None:
    """A realtime voice assistant server, and a device to try it with."""


# --- serve ---------------------------------------------------------------------------------


@main.command()
@_host
@_port
@click.option("--fake-engines", is_flag=True, help="Engines that only take time: for benchmarks.")
@click.option(
    "--fake-speech-ms",
    type=click.IntRange(100, 60_000),
    default=600,
    help="How long a sentence of theirs plays.  [600]",
)
@click.option(
    "--workers",
    type=int,
    default=1,
    callback=_check_workers,
    expose_value=False,
    help="Processes to run: 1, which has the sessions in its memory.  [1]",
)
def serve(host: str | None, port: str | None, fake_engines: bool, fake_speech_ms: int) -> None:
    """Run the server until Ctrl-C; a second Ctrl-C does not wait for replies in progress."""
    loaded = _load(host=host, port=port)
    with _loading():
        from listenai.app import start_logging

    start_logging(loaded.config)
    for warning in loaded.warnings:
        _log.warning("configuration: %s", warning)
    if not fake_engines and sys.stdin.isatty() and sys.stdout.isatty():
        from listenai.app.model_offer import offer_models
        from listenai.app.models import places_of

        places = places_of(loaded.config, os.environ)
        offer_models(loaded.config, places, click.confirm, click.echo)
    try:
        trio.run(_serve, loaded.config, fake_engines, fake_speech_ms)
    except* ConfigurationError as group:
        _stop(_problems(group))


@contextmanager
def _loading() -> Iterator[None]:
    """No garbage is looked for among what is imported inside, which takes a tenth less so."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def _load(**options: Any) -> Loaded:
    try:
        return load(os.environ, options, ENV_FILE)
    except ConfigurationError as error:
        _stop(error.problems)


async def _serve(config: Config, fake_engines: bool, fake_speech_ms: int) -> None:
    from listenai.app import open_engines  # its imports take longer than `--help` should
    from listenai.app import serve as serve_app

    serving, draining = trio.Event(), trio.Event()
    opening = open_engines(
        config, fake=fake_engines, fake_speech_ms=fake_speech_ms, tell=click.echo
    )
    async with trio.open_nursery() as nursery:
        everything = nursery.cancel_scope
        await nursery.start(_end_on_signal, serving, draining, config.drain_timeout, everything)
        async with opening as engines, trio.open_nursery() as connections:
            run = partial(serve_app, config, engines, draining=draining)
            for address in await connections.start(run):
                here = address.host in ("0.0.0.0", "::", "127.0.0.1")  # noqa: S104
                shown = attrs.evolve(address, host="localhost") if here else address
                click.echo(f"ListenAI is listening: open {shown.url('http')}/")
                click.echo(f"Devices connect to {shown.url('ws')}/   (Ctrl-C ends the server)")
            serving.set()
            # What was imported stays for ever.  Looked through again with every full collection
            # it would hold up all conversations for 30 ms and more.
            gc.freeze()
        everything.cancel()


async def _end_on_signal(
    serving: trio.Event,
    draining: trio.Event,
    drain_seconds: float,
    everything: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    """First signal: replies are finished, for so long; the second, or that time: the end.

    While it does not serve yet, the first signal is the end.
    """
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        await anext(signals)
        draining.set()
        if serving.is_set():
            with trio.move_on_after(drain_seconds):
                await anext(signals)
        everything.cancel()


# --- services ------------------------------------------------------------------------------

ASR_ENGINES = ("embedded", "sherpa", "funasr", "vosk", "faster-whisper", "azure")
TTS_ENGINES = ("embedded", "sherpa", "voxcpm", "pyttsx3", "azure")


def _service(default_port: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Options that all services have."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in (
            click.option("--child", is_flag=True, hidden=True),
            click.option("--port", type=click.IntRange(0, 65535), default=default_port),
            click.option("--host", default="0.0.0.0", help="Address to listen on."),  # noqa: S104
        ):
            command = option(command)
        return command

    return decorate


@main.command()
@_service(9200)
@click.option("--engine", type=click.Choice(ASR_ENGINES), help="[ASR_ENGINE]")
def asr(host: str, port: int, engine: str | None, child: bool) -> None:
    """Run speech recognition as a service; ASR_SERVICE_URL is where `serve` looks for it."""
    _run_service("run_asr", child, engine, host, port)


@main.command()
@_service(9300)
@click.option("--engine", type=click.Choice(TTS_ENGINES), help="[TTS_ENGINE]")
def tts(host: str, port: int, engine: str | None, child: bool) -> None:
    """Run speech synthesis as a service; TTS_SERVICE_URL is where `serve` looks for it."""
    _run_service("run_tts", child, engine, host, port)


@main.command()
@_service(8000)
def llm(host: str, port: int, child: bool) -> None:
    """Run an OpenAI-compatible language model service; LLM_BASE_URL is where it is looked for."""
    _run_service("run_llm", child, host, port)


def _run_service(name: str, child: bool, *arguments: Any) -> None:
    loaded = _load()
    from listenai.app import service_commands, start_logging

    start_logging(loaded.config)
    run = partial(getattr(service_commands, name), loaded.config, *arguments)
    try:
        trio.run(partial(service_commands.until_told, run, child=child))
    except* ConfigurationError as group:
        _stop(_problems(group))


# --- talk ----------------------------------------------------------------------------------


@main.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="FILE.wav...")
@click.option("--url", help="The server's ws:// or wss:// address; default: one started here.")
@click.option("--save", type=click.Path(path_type=Path), help="Save what was heard as WAV.")
@click.option("--barge-in", type=click.Path(path_type=Path), help="Speak this over the reply.")
@click.option("--at", "barge_in_at", default=1.0, help="...so many seconds into it.  [1.0]")
@click.option("--timeout", default=90.0, help="Seconds to wait for each reply's end.  [90]")
@click.option("--language", help="Ask for this language (en, zh, ja).")
@click.option("--voice", "voice_id", help="Ask for this voice.")
@click.option("--mic", is_flag=True, help="Use the microphone and loudspeaker, until Ctrl-C.")
def talk(files: tuple[Path, ...], url: str | None, timeout: float, **options: Any) -> None:
    """Be a device: ask the server the questions in FILE.wav... and print what comes back.

    Streams the files in real time, shows transcript, reply, tools and latencies, and
    exits with 0 only if every question got an audible answer.
    """
    sys.exit(trio.run(_talk, url, {**options, "files": files, "timeout_seconds": timeout}))


async def _talk(url: str | None, options: dict[str, Any]) -> int:
    from listenai.client.talk import TalkOptions
    from listenai.client.talk import talk as talk_to

    if url:
        return await talk_to(TalkOptions(url=url, **options), click.echo)
    from listenai.app import open_engines
    from listenai.app import serve as serve_app

    config = _load(host="127.0.0.1", port="0", extra_ports="").config
    async with open_engines() as engines, trio.open_nursery() as nursery:
        [address] = await nursery.start(serve_app, config, engines)
        status = await talk_to(TalkOptions(url=address.url("ws") + "/", **options), click.echo)
        nursery.cancel_scope.cancel()
    return status


# --- config --------------------------------------------------------------------------------


@main.command("config")
@_host
@_port
@click.option("--json", "as_json", is_flag=True, help="As one JSON object, with the warnings.")
@click.option("--markdown", is_flag=True, help="Every variable with its meaning, for the README.")
def show_config(host: str | None, port: str | None, as_json: bool, markdown: bool) -> None:
    """Show the settings that `serve` would run with, and where each comes from.

    An option wins over the environment, and that over the file .env in the working directory.
    Secrets are masked.
    """
    from listenai.config import show

    if markdown:
        click.echo(show.as_markdown())
        return
    loaded = _load(host=host, port=port)
    if as_json:
        click.echo(show.as_json(loaded))
        return
    click.echo(show.as_text(loaded))
    for warning in loaded.warnings:
        click.echo(f"listenai: {warning}", err=True)


# --- doctor --------------------------------------------------------------------------------


@main.command()
@_host
@_port
def doctor(host: str | None, port: str | None) -> None:
    """Check that everything is there, can be reached and works: a line for each, and what to do.

    The exit status is 0 only if nothing is broken; a line that begins with ! is advice.
    """
    configuration: Loaded | ConfigurationError
    try:
        configuration = load(os.environ, {"host": host, "port": port}, ENV_FILE)
    except ConfigurationError as error:
        configuration = error
    try:
        from listenai.app.doctor import examine
    except (ImportError, OSError) as error:  # OSError: a native library that does not load
        _stop([f"the installation is broken ({error}); run scripts/run.sh, or pip install '.'"])
    status = 130  # as shells have it for Ctrl-C
    try:
        status = trio.run(examine, configuration, click.echo, sys.stdout.encoding)
    except* KeyboardInterrupt:
        click.echo("listenai: interrupted", err=True)
    sys.exit(status)


# --- models --------------------------------------------------------------------------------


@main.group("models", invoke_without_command=True)
@click.pass_context
def models_command(context: click.Context) -> None:
    """List the models that the engines can use: where they are looked for, found or not."""
    if context.invoked_subcommand is None:
        from listenai.app.models import as_lines, places_of

        for line in as_lines(places_of(_load().config, os.environ)):
            click.echo(line)


@models_command.command("pull")
@click.argument("name")
def pull_model(name: str) -> None:
    """Download the model NAME, or go on with it; `default`: what suits this machine."""
    from listenai.app.models import PullFailed, places_of, pull

    try:
        pull(name, places_of(_load().config, os.environ), click.echo)
    except PullFailed as error:
        click.echo(f"listenai: {error}", err=True)
        sys.exit(1)


# --- small parts -----------------------------------------------------------------------------


def _problems(group: BaseExceptionGroup[ConfigurationError]) -> Sequence[str]:
    found: list[str] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            found += _problems(error)
        else:
            found += error.problems
    return found


def _stop(problems: Sequence[str]) -> NoReturn:
    for problem in problems:
        click.echo(f"listenai: {problem}", err=True)
    sys.exit(UNUSABLE)
