"""What every device of a run says, and when a voice activity detector must have noticed it."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

from listenai.audio import FRAME_BYTES, FRAME_SECONDS, SAMPLE_RATE, Framer, dbfs
from listenai.engines.base import Detector
from listenai.engines.recognizer import MIN_SPEECH_SECONDS
from listenai.engines.segmenter import Change, Segmenter
from listenai.wav import read_wav

SENTENCE = "what is the time in london"
VOICE = "slt"
AUDIBLE_DBFS = -50.0  # a frame above this belongs to the sentence
# A reply of 600 ms begins half a second after the end of speech; the pause must outlast it.
SILENCE_SECONDS = 1.5
SUSPICION = (3, 4)  # what the server uses for a device that cancels its echo


class UnusableSpeech(Exception):
    """The clip does not give one segment of speech in each loop; the message says what it gave."""


@attrs.frozen
class Loop:
    """One sentence and one silence, played again and again.

    messages: 512 bytes each, int16 little-endian mono 16 kHz, 16 ms.
    """

    messages: tuple[bytes, ...]

    @property
    def seconds(self) -> float:
        """How long one round takes."""
        return len(self.messages) * FRAME_SECONDS


@attrs.frozen
class Segment:
    """Which message of the endless stream, counted from 0, completes each decision."""

    started: int
    suspected: int
    ended: int


def make_loop(pcm: bytes, silence_seconds: float = SILENCE_SECONDS, whole: int = 1) -> Loop:
    """Trims the speech to what is audible and adds digital silence; UnusableSpeech if none is.

    whole: its length is a multiple of so many messages.
    """
    frames = list(Framer().push(pcm))
    loud = [at for at, frame in enumerate(frames) if dbfs(frame) > AUDIBLE_DBFS]
    if not loud:
        raise UnusableSpeech(f"nothing in the clip is louder than {AUDIBLE_DBFS:g} dBFS")
    spoken = frames[loud[0] : loud[-1] + 1]
    silent = round(silence_seconds / FRAME_SECONDS)
    silent += -(len(spoken) + silent) % whole
    return Loop((*spoken, *[bytes(FRAME_BYTES)] * silent))


def regroup(
    loop: Loop, segments: Sequence[Segment], message_bytes: int
) -> tuple[list[bytes], list[Segment]]:
    """The loop in messages of another size, and which of them complete the decisions.

    message_bytes: a divisor of the loop's.
    """
    audio = b"".join(loop.messages)
    assert len(audio) % message_bytes == 0

    def completing(frame: int) -> int:
        return -(-(frame + 1) * FRAME_BYTES // message_bytes) - 1 if frame >= 0 else frame

    messages = [audio[at : at + message_bytes] for at in range(0, len(audio), message_bytes)]
    return messages, [Segment(*map(completing, attrs.astuple(segment))) for segment in segments]


def speak() -> bytes:
    """The sentence, spoken by flite: int16 mono 16 kHz.  UnusableSpeech says what to install."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sentence.wav")
        try:
            command = ["flite", "-voice", VOICE, "-t", SENTENCE, "-o", path]
            subprocess.run(command, check=True, capture_output=True)
        except FileNotFoundError:
            raise UnusableSpeech(
                "the program flite, which speaks the sentence, is not installed; "
                "apt-get install flite, or give a recording with --speech"
            ) from None
        return read_clip(path)


def read_clip(path: Path) -> bytes:
    """A mono 16 kHz WAV file; raises UnusableSpeech for another format, WavError for no WAV."""
    clip = read_wav(path)
    if clip.sample_rate != SAMPLE_RATE or clip.samples.shape[1] != 1:
        raise UnusableSpeech(
            f"{path} has {clip.sample_rate} Hz and {clip.samples.shape[1]} channels; "
            f"convert it to {SAMPLE_RATE} Hz, mono"
        )
    return clip.samples.astype("<i2").tobytes()


def decide(probabilities: Iterable[float]) -> list[Segment]:
    """The segments that the server's segmenter makes of the probabilities of a stream."""
    segmenter = Segmenter(suspicion=SUSPICION)
    segments: list[Segment] = []
    started = suspected = -1
    for at, probability in enumerate(probabilities):
        change = segmenter.push(probability)
        if Change.STARTED in change:
            started, suspected = at, -1
        if Change.SUSPECTED in change:
            suspected = at
        if Change.ENDED in change:
            segments.append(Segment(started, suspected, at))
    return segments


def consult(detector: Detector, loop: Loop, seconds: float) -> list[Segment]:
    """The oracle: the server's own detector and segmenter, run over the whole stream in advance.

    The detector remembers what it heard in earlier rounds, so no round stands for another.
    Every device plays the same stream from its beginning: one oracle serves them all.
    Raises UnusableSpeech unless every round gives exactly one segment fit for a transcript.
    """
    rounds = int(seconds / loop.seconds) + 1
    segments = decide(detector.process(message) for message in loop.messages * rounds)
    check_one_each(segments, len(loop.messages), rounds)
    return segments


def check_one_each(segments: Sequence[Segment], period: int, rounds: int) -> None:
    """Raises UnusableSpeech unless each round of `period` messages has one usable segment."""
    for number in range(rounds):
        inside = [s for s in segments if number * period <= s.started < (number + 1) * period]
        described = [
            (s.started % period, s.suspected % period, s.ended - number * period) for s in inside
        ]
        if len(inside) != 1:
            problem = f"{len(inside)} segments"
        elif inside[0].ended >= (number + 1) * period:
            problem = "speech that goes on into the next round"
        elif inside[0].suspected < 0:
            problem = "speech too scattered to be suspected"
        elif (inside[0].ended - inside[0].started) * FRAME_SECONDS < MIN_SPEECH_SECONDS:
            problem = "speech too short for a transcript"
        else:
            continue
        raise UnusableSpeech(
            f"round {number + 1} of {rounds} has {problem} {described}; it must have exactly one "
            "segment: choose another clip with --speech"
        )
