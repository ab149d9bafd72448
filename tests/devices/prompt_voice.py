"""A page written from spec 001 alone: prompt_voice.py URL SCENARIO FILE.wav …

Prints what it was told and what it played as one JSON object; knows nothing of the server's code.
It is strict where the specification is: a message that is not in its list ends it.
"""

import base64
import io
import json
import queue
import sys
import threading
import time
import wave
from typing import Self

from websockets.sync.client import ClientConnection, connect

PCM_CHUNK_BYTES = 5120  # "STREAM_PCM_CHUNK_SIZE"
PAGE_RATE = 48_000  # Hz: what most sound cards give an AudioWorklet
MOST_QUEUED = 50  # chunks: a page holds ten seconds
SECONDS = 20  # for any one answer
BREATH = bytes(2 * 16_000)  # a second of silence before a word

# "Server → Client", and `metrics` of section 4.
FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "partial_transcript": {"text": str},
    "final_transcript": {"text": str, "id": str},
    "llm_token": {"text": str, "done": bool},
    "tts_chunk": {"seq": int, "audio_b64": str, "mime": str},
    "tts_phrase_done": {"seq": int},
    "tts_complete": {},
    "error": {"code": str, "message": str, "recoverable": bool},
    "info": {"message": str},
    "metrics": dict.fromkeys(("t0", "t1", "t2", "t3", "t4", "rtf"), (float, type(None))),
}


class PlaybackQueue:
    """ "Playback Queue": plays chunks in the order of their numbers, until `tts_complete`."""

    def __init__(self) -> None:
        self.replies: list[dict] = []
        self._begin()

    def _begin(self) -> None:
        self._waiting: dict[int, bytes] = {}
        self._reply = {"seconds": [], "rates": [], "phrases": [], "dropped": 0, "sounds": False}

    def push(self, seq: int, file: bytes) -> None:
        assert seq > len(self._reply["seconds"]), f"chunk {seq} was played already"
        self._waiting[seq] = file
        assert len(self._waiting) <= MOST_QUEUED
        while (following := len(self._reply["seconds"]) + 1) in self._waiting:
            self._play(self._waiting.pop(following))

    def _play(self, file: bytes) -> None:
        with wave.open(io.BytesIO(file)) as chunk:
            assert (chunk.getnchannels(), chunk.getsampwidth()) == (1, 2)
            pcm = chunk.readframes(chunk.getnframes())
            assert len(pcm) == 2 * chunk.getnframes()
            self._reply["rates"].append(chunk.getframerate())
            self._reply["seconds"].append(chunk.getnframes() / chunk.getframerate())
            self._reply["sounds"] |= any(pcm)

    def end_phrase(self, seq: int) -> None:
        assert seq == len(self._reply["seconds"]), "a phrase ends with the chunk that came last"
        self._reply["phrases"].append(seq)

    def stop(self) -> None:
        self._reply["dropped"] += len(self._waiting)
        self._waiting.clear()

    def complete(self) -> None:
        assert not self._waiting, f"chunks are missing before {sorted(self._waiting)}"
        self.replies.append(self._reply)
        self._begin()


class Page:
    """One connection and what the user sees and hears of it."""

    def __init__(self, link: ClientConnection) -> None:
        self._link = link
        self.told: list[dict] = []
        self.queue = PlaybackQueue()

    def say(self, kind: str, **fields: object) -> None:
        self._link.send(json.dumps({"type": kind, **fields}))

    def send_audio(self, pcm: bytes) -> None:
        self._link.send(pcm)

    def until(self, kind: str, **fields: object) -> dict:
        """Takes messages up to one of this kind with these values."""
        while True:
            message = self._take()
            if message["type"] == kind and fields.items() <= message.items():
                return message

    def _take(self) -> dict:
        text = self._link.recv(timeout=SECONDS)
        assert isinstance(text, str), "audio comes in base64"
        message = json.loads(text)
        for name, kind in FIELDS[message["type"]].items():
            assert isinstance(message[name], kind), message
        self.told.append(message)
        match message["type"]:
            case "tts_chunk":
                assert message["mime"] == "audio/wav"
                self.queue.push(
                    message["seq"], base64.b64decode(message.pop("audio_b64"), validate=True)
                )
            case "tts_phrase_done":
                self.queue.end_phrase(message["seq"])
            case "tts_complete":
                self.queue.complete()
            case "info" if message["message"] == "interrupted":
                self.queue.stop()
        return message


class Microphone:
    """The AudioWorklet: a piece of audio whenever its time has passed, silence by default."""

    def __init__(self, page: Page, rate: int = 16_000) -> None:
        self._page, self._rate = page, rate
        self._sounds: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._off = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.idle = threading.Event()  # all that was said has been sent

    def hear(self, pcm: bytes) -> None:
        self.idle.clear()
        for start in range(0, len(pcm), PCM_CHUNK_BYTES):
            self._sounds.put(pcm[start : start + PCM_CHUNK_BYTES])

    def _run(self) -> None:
        due = time.monotonic()
        while not self._off.wait(max(0.0, due - time.monotonic())):
            if self._sounds.empty():
                self.idle.set()
            piece = bytes(PCM_CHUNK_BYTES) if self.idle.is_set() else self._sounds.get()
            self._page.send_audio(piece)
            due += len(piece) / 2 / self._rate

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._off.set()
        self._thread.join()


# --- what a user does ------------------------------------------------------------------------


def speak(page: Page, pcm: bytes, rate: int = 16_000) -> None:
    """Holds the button while this is said; the page was started."""
    with Microphone(page, rate) as microphone:
        microphone.hear(pcm)
        assert microphone.idle.wait(SECONDS)
    page.say("stop")


def push_to_talk(page: Page, spoken: list[bytes]) -> None:
    """A button for each utterance; the sound card's rate is not the server's."""
    for pcm in spoken:
        page.say("start", sample_rate=PAGE_RATE)
        page.until("info")
        speak(page, upsampled(pcm), PAGE_RATE)
        page.until("metrics")


def hands_free(page: Page, spoken: list[bytes]) -> None:
    """One start, and the microphone stays open; silence ends each utterance."""
    page.say("start", sample_rate=16_000)
    with Microphone(page) as microphone:
        for pcm in spoken:
            microphone.hear(BREATH + pcm)
            page.until("metrics")
    page.say("stop")


def cancel(page: Page, spoken: list[bytes]) -> None:
    """The first utterance was not meant, the second is."""
    first, second = spoken
    page.say("start")
    page.until("info")
    page.send_audio(first)
    page.say("cancel")
    page.until("info", message="cancelled")
    page.say("start", sample_rate=16_000)
    speak(page, second)
    page.until("metrics")


def barge_in(page: Page, spoken: list[bytes]) -> None:
    """The second utterance is said over the first answer, into the open microphone."""
    first, second = spoken
    page.say("start", sample_rate=16_000)
    with Microphone(page) as microphone:
        microphone.hear(first)
        page.until("tts_chunk", seq=30)  # six seconds were heard
        microphone.hear(second)
        page.until("tts_complete")
        page.until("tts_complete")
        page.until("metrics")


def press_again(page: Page, spoken: list[bytes]) -> None:
    """The button is pressed during the first answer, for the second utterance."""
    first, second = spoken
    page.say("start", sample_rate=16_000)
    speak(page, first)
    page.until("tts_chunk", seq=5)
    page.say("start", sample_rate=16_000)
    page.until("tts_complete")
    speak(page, BREATH + second)
    page.until("tts_complete")
    page.until("metrics")


SCENARIOS = {
    each.__name__: each for each in (push_to_talk, hands_free, cancel, barge_in, press_again)
}


def pcm_of(path: str) -> bytes:
    with wave.open(path) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        return file.readframes(file.getnframes())


def upsampled(pcm: bytes) -> bytes:
    """16 kHz at 48 kHz: each sample three times."""
    return b"".join(3 * pcm[at : at + 2] for at in range(0, len(pcm), 2))


url, scenario, *paths = sys.argv[1:]
with connect(url) as link:
    page = Page(link)
    SCENARIOS[scenario](page, [pcm_of(path) for path in paths])
print(json.dumps({"told": page.told, "replies": page.queue.replies}))
