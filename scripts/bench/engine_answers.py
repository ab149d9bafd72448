"""How soon the engines answer, on the spoken fixtures: see README.md.

Each fixture is played in real time into an ear like a device's: TEN VAD, the segmenter and the
transcriber.  Then each synthesizer says what the fixtures say.  Engines that are not installed,
or whose models are not here, are named on standard error and left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import attrs
import click
import trio
from accuracy import word_errors
from report import Row, failing_plainly, first_of, table, write_json
from speech import SUSPICION, read_clip
from turns import percentile

from listenai.app import ears, voices
from listenai.app.models import places_of
from listenai.app.server import choose_voice
from listenai.audio import FRAME_BYTES, FRAME_SECONDS, SAMPLE_BYTES
from listenai.commands import spoken_words
from listenai.config import Config
from listenai.engines.base import Synthesizer, Transcriber
from listenai.engines.ears import SegmentingRecognizerFactory
from listenai.engines.ten_vad import TenVadDetector
from listenai.errors import ConfigurationError
from listenai.speech import (
    FinalTranscript,
    PartialTranscript,
    SpeechEnded,
    SpeechEvent,
    SpeechStarted,
    TranscriptionFailed,
)

FIXTURES = Path(__file__).parents[2] / "tests" / "data"
ASR = ("embedded", "sherpa", "vosk", "faster-whisper", "funasr")
TTS = ("embedded", "sherpa", "pyttsx3", "voxcpm")
CAP_SECONDS = 30.0
PADDING_SECONDS = 0.5  # of silence after a fixture: its last segment ends
PATIENCE_SECONDS = 30.0  # for a final transcript
HEADINGS = {
    "stage": "stage",
    "engine": "engine",
    "fixtures": "fixtures",
    "load_ms": "load ms",
    "exact": "exact",
    "word_error_rate": "WER",
    "partial_p50_ms": "first partial p50",
    "partial_p99_ms": "max ms",
    "without_partial": "none",
    "final_p50_ms": "final p50",
    "final_p99_ms": "max ms",
    "audio_p50_ms": "first audio p50",
    "audio_p99_ms": "max ms",
    "real_time_factor": "RTF",
}


@attrs.frozen
class Fixture:
    """A recording, and what is said in it."""

    pcm: bytes  # int16 mono 16 kHz
    text: str


@attrs.define
class Heard:
    """What an ear told of one fixture; times in seconds of Trio's clock."""

    started: float = 0.0
    ended: float = 0.0
    partial: float = 0.0
    final: float = 0.0
    text: str = ""
    pending: set[int] = attrs.field(factory=set)  # segments whose text is not known
    settled: trio.Event = attrs.field(factory=trio.Event)

    def hear(self, event: SpeechEvent) -> None:
        """Notes the first start and partial, and the last end and final."""
        now = trio.current_time()
        match event:
            case SpeechStarted(segment_id=number):
                self.started = self.started or now
                self.pending.add(number)
                self.settled = trio.Event()  # a pause inside the sentence was no end
            case PartialTranscript():
                self.partial = self.partial or now
            case SpeechEnded(segment_id=number, transcript_follows=follows):
                self.ended = now
                if not follows:
                    self.pending.discard(number)
            case FinalTranscript(segment_id=number, text=text):
                self.final, self.text = now, text
                self.pending.discard(number)
            case TranscriptionFailed(message=message):
                raise click.ClickException(f"speech recognition failed: {message}")
        if self.ended and not self.pending:
            self.settled.set()


def fixtures(limit: int) -> list[Fixture]:
    """The first of the spoken fixtures, by name."""
    texts = json.loads((FIXTURES / "texts.json").read_text(encoding="utf-8"))
    return [
        Fixture(read_clip(FIXTURES / name), texts[name]["spoken"]) for name in sorted(texts)[:limit]
    ]


async def listen(transcriber: Transcriber, fixture: Fixture) -> Heard:
    """Plays one fixture in real time to a new ear."""
    heard = Heard()
    ears_of = SegmentingRecognizerFactory(TenVadDetector, transcriber)
    padding = bytes(int(PADDING_SECONDS / FRAME_SECONDS) * FRAME_BYTES)
    pcm = fixture.pcm + padding
    async with ears_of.open(heard.hear, suspicion=SUSPICION, cap_seconds=CAP_SECONDS) as ear:
        began = trio.current_time()
        for number, at in enumerate(range(0, len(pcm), FRAME_BYTES)):
            await trio.sleep_until(began + number * FRAME_SECONDS)
            ear.accept(pcm[at : at + FRAME_BYTES])
        with trio.move_on_after(PATIENCE_SECONDS) as waiting:
            await heard.settled.wait()
    if waiting.cancelled_caught or not heard.final:
        raise click.ClickException(f"nothing was understood of {fixture.text!r}")
    return heard


async def recognition(transcriber: Transcriber, chosen: Sequence[Fixture]) -> Row:
    """First partial after the start of speech, final after its end, and how right it is."""
    said, partials, finals = [], [], []
    for fixture in chosen:
        heard = await listen(transcriber, fixture)
        said.append((spoken_words(fixture.text), spoken_words(heard.text)))
        finals.append((heard.final - heard.ended) * 1e3)
        if heard.partial:
            partials.append((heard.partial - heard.started) * 1e3)
    errors = sum(word_errors(*pair) for pair in said)
    row: Row = {
        "exact": sum(spoken == understood for spoken, understood in said),
        "word_error_rate": errors / sum(len(spoken) for spoken, _ in said),
        "without_partial": len(chosen) - len(partials),
    }
    return row | _percentiles("partial", partials) | _percentiles("final", finals)


async def synthesis(synthesizer: Synthesizer, chosen: Sequence[Fixture]) -> Row:
    """First audio of a sentence, and the time for all of it by how long it plays."""
    firsts, took, plays = [], 0.0, 0.0
    voice = choose_voice(Config(), synthesizer.voices)
    for fixture in chosen:
        asked, first, heard = trio.current_time(), 0.0, 0
        opening = synthesizer.open_speech(fixture.text, voice_id=voice, language="en")
        async with opening as chunks:
            async for chunk in chunks:
                first = first or trio.current_time()
                heard += len(chunk.pcm)
        if not heard:
            raise click.ClickException(f"no audio of {fixture.text!r}")
        firsts.append((first - asked) * 1e3)
        took += trio.current_time() - asked
        plays += heard / SAMPLE_BYTES / synthesizer.sample_rate
    return _percentiles("audio", firsts) | {"real_time_factor": took / plays}


async def measure(asr: Sequence[str], tts: Sequence[str], limit: int) -> list[Row]:
    """A row for each engine that is here."""
    config = Config()
    places, chosen = places_of(config, os.environ), fixtures(limit)
    rows = []
    for engine in asr:
        opening = ears.open_own_transcriber(places, engine, "--asr", _ignore, config)
        rows += await _row("asr", engine, opening, chosen, recognition)
    for engine in tts:
        speaking = voices.open_own_synthesizer(config, places, engine, "--tts", _ignore)
        rows += await _row("tts", engine, speaking, chosen, synthesis)
    return rows


async def _row(
    stage: str,
    engine: str,
    opening: AbstractAsyncContextManager[Transcriber] | AbstractAsyncContextManager[Synthesizer],
    chosen: Sequence[Fixture],
    figures: Callable[..., Awaitable[Row]],
) -> list[Row]:
    asked = trio.current_time()
    try:
        async with opening as opened:
            if warm := getattr(opened, "warm", None):
                await warm()
            row: Row = {"stage": stage, "engine": engine, "fixtures": len(chosen)}
            row["load_ms"] = (trio.current_time() - asked) * 1e3
            return [row | await figures(opened, chosen)]
    except* ConfigurationError as group:
        click.echo(f"{stage} {engine}: not measured: {first_of(group)}", err=True)
    return []


def _percentiles(name: str, milliseconds: Sequence[float]) -> Mapping[str, float | None]:
    return {f"{name}_p{each}_ms": percentile(milliseconds, each) for each in (50, 99)}


def _ignore(_choice: object) -> None:
    """Nobody has to be told which engine it is."""


def _engines(known: Sequence[str]) -> Callable[[object, object, str], list[str]]:
    def split(_context: object, _option: object, given: str) -> list[str]:
        names = [name for name in given.split(",") if name]
        if unknown := set(names) - set(known):
            raise click.BadParameter(
                f"{', '.join(sorted(unknown))} is unknown; allowed, with commas between them: "
                f"{', '.join(known)}"
            )
        return names

    return split


@click.command()
@click.option("--asr", default=",".join(ASR), callback=_engines(ASR), show_default=True)
@click.option("--tts", default=",".join(TTS), callback=_engines(TTS), show_default=True)
@click.option("--fixtures", "limit", type=click.IntRange(1), default=100, help="At most.  [all]")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the rows here.")
def main(*, asr: list[str], tts: list[str], limit: int, json_path: Path | None) -> None:
    """Milliseconds to the first partial, the final transcript and the first audio."""
    with failing_plainly():
        rows = trio.run(measure, asr, tts, limit)
    if not rows:
        raise click.ClickException("none of these engines is here")
    click.echo(table(rows, HEADINGS))
    if json_path:
        write_json(json_path, "engine answers", rows)


if __name__ == "__main__":
    main()
