"""How well spoken commands are understood: `python scripts/bench/accuracy.py`.

Sentences are drawn by seed from the command grammar, spoken by flite in several voices
and speeds, and given to a transcriber; ten sentences from outside the grammar are spoken
too.  The table has the rate of exact sentences and the word error rate of each group.
`run` takes any `transcribe(pcm) -> text`, so the same audio can go through a real socket.
Needs flite on the PATH (`apt install flite`).
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

import attrs
import numpy as np
import trio

from listenai.audio import SAMPLE_RATE
from listenai.commands import load_commands, spoken_words
from listenai.engines.base import SpeakerMemory
from listenai.engines.sphinx import SphinxTranscriber

VOICES = ("slt", "rms", "kal16")  # goal: 95 % exact
HARD_VOICES = ("awb",)  # a Scottish accent; goal: 75 % exact
STRETCHES = (0.9, 1.0, 1.15)  # of the duration: below one is faster
OPEN_SENTENCES = (  # goal: at most 20 % word error rate
    "i would like to know more about the history of the city",
    "my sister is going to visit her friends in the summer",
    "the meeting was moved to thursday morning",
    "can we talk about what happened at the school",
    "he bought a new car last week",
    "please write a letter to my father",
    "we need more milk and bread from the store",
    "there are many people in the street today",
    "the children are playing in the garden",
    "she told me that the train would be late",
)

FIXTURES = Path(__file__).parents[2] / "tests" / "data" / "texts.json"
PRE_ROLL_SECONDS = 0.3  # what the server keeps from before the first speech frame
TAIL_SECONDS = 0.08  # five silent VAD frames end a segment
QUIET_AMPLITUDE = 4  # of the background between words: a quiet room, -78 dBFS
AUDIBLE = 100  # samples above this belong to the speech

Transcribe = Callable[[bytes], Awaitable[str]]


@attrs.frozen
class Group:
    """A voice at a speed, saying sentences of one kind."""

    kind: str  # "commands" or "open"
    voice: str
    stretch: float
    sentences: tuple[str, ...]


@attrs.frozen
class Score:
    """What came of one group."""

    kind: str
    voice: str
    stretch: float
    count: int
    exact: int
    words: int
    word_errors: int
    mistakes: tuple[tuple[str, str], ...]  # (said, understood)


def sentences(seed: int, count: int) -> tuple[str, ...]:
    """Different sentences of the command grammar, none a fixture; the same for the same seed."""
    fixtures = json.loads(FIXTURES.read_text(encoding="utf-8")).values()
    taken = {" ".join(spoken_words(one["spoken"])) for one in fixtures}
    chance = random.Random(seed)
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        if (sentence := load_commands().draw(chance)) not in taken:
            drawn[sentence] = None
    return tuple(drawn)


def speak(text: str, voice: str, stretch: float = 1.0) -> bytes:
    """Speech of flite as a VAD would cut it: int16 mono 16 kHz with pre-roll and tail."""
    command = ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch}"]
    made = subprocess.run(
        [*command, "-t", text, "-o", "/dev/stdout"], capture_output=True, check=True
    )
    # A pipe cannot be seeked, so flite leaves the sizes in the header wrong.
    return cut_like_vad(made.stdout[44:])


def cut_like_vad(pcm: bytes) -> bytes:
    """From the pre-roll before the first loud sample to the tail after the last, on quiet noise."""
    before, after = int(PRE_ROLL_SECONDS * SAMPLE_RATE), int(TAIL_SECONDS * SAMPLE_RATE)
    samples = np.pad(np.frombuffer(pcm, np.int16).astype(np.int32), (before, after))
    loud = np.flatnonzero(np.abs(samples) > AUDIBLE)
    samples = samples[loud[0] - before : loud[-1] + after]
    noise = np.random.default_rng(0).integers(-QUIET_AMPLITUDE, QUIET_AMPLITUDE + 1, samples.size)
    return np.clip(samples + noise, -32768, 32767).astype("<i2").tobytes()


def groups(seed: int, count: int) -> tuple[Group, ...]:
    """Every voice at every speed with `count` commands between them, and the open sentences."""
    drawn = sentences(seed, count)
    commands = [
        Group("commands", voice, stretch, drawn)
        for voice in (*VOICES, *HARD_VOICES)
        for stretch in STRETCHES
    ]
    return (*commands, *(Group("open", voice, 1.0, OPEN_SENTENCES) for voice in VOICES))


def word_errors(said: Sequence[str], understood: Sequence[str]) -> int:
    """Substitutions, insertions and deletions between two word lists."""
    row = list(range(len(understood) + 1))
    for i, a in enumerate(said, start=1):
        before, row[0] = row[0], i
        for j, b in enumerate(understood, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def score(group: Group, understood: Sequence[str]) -> Score:
    """Compares what was understood with what was said, word by word."""
    pairs = [
        (spoken_words(a), spoken_words(b)) for a, b in zip(group.sentences, understood, strict=True)
    ]
    return Score(
        group.kind,
        group.voice,
        group.stretch,
        count=len(pairs),
        exact=sum(a == b for a, b in pairs),
        words=sum(len(a) for a, _ in pairs),
        word_errors=sum(word_errors(a, b) for a, b in pairs),
        mistakes=tuple((" ".join(a), " ".join(b)) for a, b in pairs if a != b),
    )


async def run(groups: Iterable[Group], transcribe: Transcribe) -> list[Score]:
    """Speaks every group's sentences to the transcriber, one after the other."""
    scores = []
    for group in groups:
        understood = []
        for text in group.sentences:
            pcm = await trio.to_thread.run_sync(speak, text, group.voice, group.stretch)
            understood.append(await transcribe(pcm))
        scores.append(score(group, understood))
    return scores


def table(scores: Iterable[Score]) -> str:
    """The scores as text, a line for each group, and what went wrong below it."""
    lines = ["kind      voice  stretch  exact            word errors"]
    for one in scores:
        exact, errors = one.exact / one.count, one.word_errors / one.words
        lines.append(
            f"{one.kind:9} {one.voice:6} {one.stretch:<8} {one.exact:3}/{one.count:<3} {exact:6.1%}"
            f"   {one.word_errors:3}/{one.words:<4} {errors:6.1%}"
        )
        lines += [f"    said {said!r}: {understood!r}" for said, understood in one.mistakes]
    return "\n".join(lines)


def summary(scores: Sequence[Score]) -> dict[str, float]:
    """The three numbers that there are goals for."""
    commands = [one for one in scores if one.kind == "commands"]
    easy = [one for one in commands if one.voice in VOICES]
    hard = [one for one in commands if one.voice in HARD_VOICES]
    others = [one for one in scores if one.kind == "open"]
    return {
        "commands_exact": sum(one.exact for one in easy) / sum(one.count for one in easy),
        "hard_voice_exact": sum(one.exact for one in hard) / sum(one.count for one in hard),
        "open_word_error_rate": sum(one.word_errors for one in others)
        / sum(one.words for one in others),
    }


async def measure(seed: int, count: int) -> list[Score]:
    """Scores the embedded transcriber; each group is a device of its own."""
    transcriber = SphinxTranscriber(instances=1)
    scores = []
    for group in groups(seed, count):
        speaker = SpeakerMemory()

        async def transcribe(pcm: bytes, speaker: SpeakerMemory = speaker) -> str:
            async with transcriber.open_utterance(language="en", speaker=speaker) as utterance:
                await utterance.accept(pcm)
                return (await utterance.finish()).text

        scores += await run([group], transcribe)
    transcriber.close()
    return scores


def main() -> None:
    """Prints the table; `--json FILE` writes it for other programs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=50, help="command sentences (default 50)")
    parser.add_argument("--json", type=Path, help="where to write the scores as JSON")
    asked = parser.parse_args()
    if shutil.which("flite") is None:
        sys.exit("flite is not installed: apt install flite")
    scores = trio.run(measure, asked.seed, asked.count)
    print(table(scores))
    print(*(f"{name} {value:.1%}" for name, value in summary(scores).items()), sep="\n")
    if asked.json:
        rows = [attrs.asdict(one) for one in scores]
        asked.json.write_text(json.dumps({"summary": summary(scores), "groups": rows}, indent=1))


if __name__ == "__main__":
    main()
