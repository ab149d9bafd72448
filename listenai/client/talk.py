"""`listenai talk`: a scripted device that asks the questions of WAV files and judges the answers.

The parts: `speaker` (the loudspeaker), `turns` (what arrived),
`device` and `connection`, `microphone` and
`sound_card` (its edges), `report` (what is printed).
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import trio

from listenai.client.connection import ConnectionLost, ServerUnreachable
from listenai.client.device import (
    CAPABILITIES,
    REPLY_SECONDS,
    Device,
    ReplyTimeout,
    ServerRefused,
)
from listenai.client.microphone import to_microphone
from listenai.client.report import (
    describe_barge_in,
    describe_reply,
    law_problems,
    measure_barge_in,
    reply_problems,
)
from listenai.client.sound_card import LATENCY_MS, NoSoundCard, open_sound_card
from listenai.client.speaker import timeline
from listenai.client.turns import Reply, Turn
from listenai.errors import ListenAIError
from listenai.wav import WavError, read_wav, write_wav

__all__ = [
    "ConnectionLost",
    "Device",
    "Reply",
    "ReplyTimeout",
    "ServerRefused",
    "ServerUnreachable",
    "TalkOptions",
    "talk",
]

SUCCESS, FAILURE, UNUSABLE = 0, 1, 2  # exit statuses

Echo = Callable[[str], None]


@attrs.frozen
class TalkOptions:
    """What `talk` does."""

    url: str  # ws:// or wss://
    files: tuple[Path, ...] = ()  # questions, asked one after another
    barge_in: Path | None = None  # spoken over the first question's reply
    barge_in_at: float = 1.0  # seconds after the reply's first audible sound
    save: Path | None = None  # all that was heard, from the first sound on, pauses included
    timeout_seconds: float = REPLY_SECONDS  # from a question's end to its reply's end
    gap_seconds: float = 0.5  # between a reply's end and the next question
    api_key: str | None = None
    session_id: str | None = None  # goes on with a session, and leaves it to be gone on with
    language: str | None = None
    voice_id: str | None = None
    mic: bool = False  # the microphone in place of files, until Ctrl-C

    def problems(self) -> list[str]:
        """What is wrong with them, each with what is allowed."""
        found = []
        if not self.url.startswith(("ws://", "wss://")):
            found.append(f"the address must begin with ws:// or wss://, not {self.url!r}")
        if bool(self.files) == self.mic:
            found.append("give WAV files to ask, or --mic to speak yourself: one of the two")
        if self.mic and (self.barge_in or self.save):
            found.append("--barge-in and --save go with WAV files, not with --mic")
        if self.barge_in_at < 0:
            found.append(f"--at must be 0 or more seconds, not {self.barge_in_at:g}")
        if self.timeout_seconds <= 0:
            found.append(f"--timeout must be above 0 seconds, not {self.timeout_seconds:g}")
        if self.gap_seconds < 0:
            found.append(f"the gap must be 0 or more seconds, not {self.gap_seconds:g}")
        if self.save is not None and not self.save.parent.is_dir():
            found.append(f"cannot write {self.save}: there is no folder {self.save.parent}")
        return found


@attrs.frozen
class _Question:
    name: str
    pcm: bytes  # int16 mono 16 kHz


class _BargeInTooLate(ListenAIError):
    """The reply had ended before it could be interrupted."""


async def talk(options: TalkOptions, echo: Echo = print, sound_driver: Any = None) -> int:
    """Asks, prints and judges; returns the exit status.

    0: every question got an audible answer and every law of the protocol held.
    1: not so, and why was printed.  2: bad options, an unreadable file, no server.
    `sound_driver` stands in for the package `sounddevice`.
    """
    if problems := options.problems():
        for problem in problems:
            echo(problem)
        return UNUSABLE
    try:
        if options.mic:
            problems = await _talk_live(options, echo, sound_driver)
        else:
            problems = await _talk_script(options, echo)
    except (WavError, ServerUnreachable, ServerRefused, NoSoundCard) as error:
        echo(str(error))
        return UNUSABLE
    for problem in problems:
        echo(f"FAILED {problem}")
    return FAILURE if problems else SUCCESS


async def _talk_script(options: TalkOptions, echo: Echo) -> list[str]:
    questions = [_load(path) for path in options.files]
    barge_in = _load(options.barge_in) if options.barge_in else None
    problems: list[str] = []
    try:
        async with Device.connect(
            options.url, api_key=options.api_key, session_id=options.session_id
        ) as device:
            await _configure(device, options)
            await _ask_all(device, questions, barge_in, options, echo, problems)
            if options.session_id is None:
                await device.end_session()
    except ConnectionLost as error:
        problems.append(str(error))
    if options.save is not None:
        _save(device, options.save, echo)
    return [*problems, *law_problems(device.log.violations)]


async def _ask_all(
    device: Device,
    questions: list[_Question],
    barge_in: _Question | None,
    options: TalkOptions,
    echo: Echo,
    problems: list[str],
) -> None:
    """Asks all questions; adds what was wrong with the answers to `problems`."""
    for number, question in enumerate(questions):
        if number:
            await trio.sleep(options.gap_seconds)
        echo(question.name)
        try:
            if number == 0 and barge_in is not None:
                problems += await _ask_and_barge_in(device, question, barge_in, options, echo)
            else:
                problems += await _ask(device, question, options, echo)
        except (ReplyTimeout, _BargeInTooLate) as error:
            problems.append(f"{question.name}: {error}")
            return  # what follows would be confused


async def _ask(device: Device, question: _Question, options: TalkOptions, echo: Echo) -> list[str]:
    await device.speak(question.pcm)
    reply = await device.wait_reply(options.timeout_seconds)
    return _judge(question, reply, echo)


async def _ask_and_barge_in(
    device: Device,
    question: _Question,
    barge_in: _Question,
    options: TalkOptions,
    echo: Echo,
) -> list[str]:
    asked = await device.speak(question.pcm)
    turn, audible_at = await device.wait_sound(options.timeout_seconds)
    await trio.sleep_until(audible_at + options.barge_in_at)
    if turn.closed or device.speaker.idle:
        raise _BargeInTooLate(
            f"the reply was over {options.barge_in_at:g} s after its first sound; "
            "use a smaller --at, or a question with a longer answer"
        )
    spoken = await device.speak(barge_in.pcm)
    answer = await device.wait_reply(options.timeout_seconds)

    interrupted = device.reply(turn, asked)
    for line in describe_reply(interrupted):
        echo(line)
    assert spoken.started_at is not None  # it was sent
    for line in describe_barge_in(measure_barge_in(spoken.started_at, interrupted)):
        echo(line)
    echo(barge_in.name)
    problems = _judge(barge_in, answer, echo)
    if interrupted.interrupted is None:
        problems.insert(0, f"{barge_in.name}: speaking over the reply did not interrupt it")
    return problems


def _judge(question: _Question, reply: Reply, echo: Echo) -> list[str]:
    for line in describe_reply(reply):
        echo(line)
    return [f"{question.name}: {problem}" for problem in reply_problems(reply)]


async def _talk_live(options: TalkOptions, echo: Echo, driver: Any) -> list[str]:
    """The real microphone, until Ctrl-C or the server leaves."""
    capabilities = {**CAPABILITIES, "echo": "raw"}  # nothing here cancels the loudspeaker's echo
    problems: list[str] = []
    async with (
        open_sound_card(driver) as card,
        Device.connect(
            options.url,
            api_key=options.api_key,
            session_id=options.session_id,
            capabilities=capabilities,
            microphone=card,
            loudspeaker=card.play,
            output_latency_ms=LATENCY_MS,
        ) as device,
    ):
        await _configure(device, options)
        with trio.open_signal_receiver(signal.SIGINT) as interrupts:
            echo("Speak; Ctrl-C ends.")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_at, interrupts, nursery.cancel_scope)
                try:
                    await _print_turns(device, echo)
                except ConnectionLost as error:
                    problems.append(str(error))
                    nursery.cancel_scope.cancel()
    return [*problems, *law_problems(device.log.violations)]


async def _cancel_at(interrupts: Any, scope: trio.CancelScope) -> None:
    async for _ in interrupts:
        scope.cancel()


async def _print_turns(device: Device, echo: Echo) -> None:
    printed = 0

    def fresh() -> list[Turn]:
        return [turn for turn in device.log.turns_after(printed) if turn.closed]

    while True:
        await device.wait_until(lambda: bool(fresh()))
        for turn in fresh():
            echo(f"you    {turn.transcript or ''}")
            echo(f"reply  {turn.text}{'  [interrupted]' if turn.interrupted else ''}")
            printed = turn.id


async def _configure(device: Device, options: TalkOptions) -> None:
    wanted = {"language": options.language, "voice_id": options.voice_id}
    settings = {name: value for name, value in wanted.items() if value is not None}
    if settings:
        await device.configure(**settings)


def _load(path: Path) -> _Question:
    return _Question(path.name, to_microphone(read_wav(path)))


def _save(device: Device, path: Path, echo: Echo) -> None:
    spans = device.speaker.spans
    rate = max((span.sample_rate for span in spans), default=16_000)
    write_wav(path, timeline(spans, rate), rate)
    echo(f"saved what was heard: {path}")
