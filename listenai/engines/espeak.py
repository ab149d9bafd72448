"""espeak-ng inside this process: the embedded synthesizer.

The library has one set of global variables: one voice, one callback, one
sentence at a time.  So it exists once a process, behind a lock that covers
choosing the voice and speaking.  It speaks a thousand times faster than real
time (20 s of speech take about 15 ms), while a device listens in real time.
Therefore the thread never waits for the listener: it puts a whole sentence into
a buffer that belongs to that sentence and is free for the next one.  What is
bounded is the sentence (MAX_SENTENCE_SECONDS).

Leaving a sentence cancels the task that waits for the thread; the thread sees
that at its next chunk, within a millisecond, tells the library to stop and gives
the lock back.  The thread itself is never abandoned.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence

import attrs
import trio

from listenai.audio import SAMPLE_BYTES
from listenai.engines.base import SpeechChunk, WordTiming
from listenai.errors import SynthesizerError

SAMPLE_RATE = 22_050  # Hz; what every voice of espeak-ng has
# How much the library says at a time.  Each chunk takes the GIL once, so tiny ones would
# make a busy server slow to speak; 100 ms of speech are computed in about 0.1 ms.
CHUNK_MS = 100
# The longest sentence, and so the buffer of one: 5.3 MB.  300 characters (the longest a
# conversation asks for) are 10 to 25 s; 300 symbols that must be spelt out come to 95 s.
MAX_SENTENCE_SECONDS = 120.0
_CHUNK_BYTES = SAMPLE_RATE * CHUNK_MS // 1000 * SAMPLE_BYTES
_MAX_CHUNKS = int(MAX_SENTENCE_SECONDS * 1000 / CHUNK_MS) + 1  # all are full but the last


@attrs.frozen
class _Voice:
    name: str  # as espeak-ng knows it; "+f3" is a variant: the same language, another larynx
    description: str


_VOICES: Mapping[str, _Voice] = {
    "en-us": _Voice("en-us", "American English, male"),
    "en-us+f3": _Voice("en-us+f3", "American English, female"),
    "en-us+m3": _Voice("en-us+m3", "American English, another male"),
    "en-gb": _Voice("en-gb-x-rp", "British English, male"),
    "en-gb+f3": _Voice("en-gb-x-rp+f3", "British English, female"),
    "cmn": _Voice("cmn", "Mandarin Chinese, male"),
    "cmn+f3": _Voice("cmn+f3", "Mandarin Chinese, female"),
    "ja": _Voice("ja", "Japanese (kana), male"),
    "ja+f3": _Voice("ja+f3", "Japanese (kana), female"),
}
_ALIASES: Mapping[str, str] = {
    "default": "the male voice of the conversation's language",
    "doubao-通用女声": "the female voice of the conversation's language",  # spec 000's example
}
_LANGUAGE_VOICES: Mapping[str, Mapping[str, str]] = {
    "default": {"en": "en-us", "zh": "cmn", "ja": "ja"},
    "doubao-通用女声": {"en": "en-us+f3", "zh": "cmn+f3", "ja": "ja+f3"},
}


class EspeakSynthesizer:
    """Speaks with espeak-ng; the library is loaded at the first sentence, or by `load`."""

    sample_rate = SAMPLE_RATE

    def __init__(self) -> None:
        self.voices: Mapping[str, str] = {
            **_ALIASES,
            **{voice_id: voice.description for voice_id, voice in _VOICES.items()},
        }
        # Who waits for the library waits here, where waiting can be cancelled; the lock
        # inside the library is for the other instances of this class.
        self._one_at_a_time = trio.CapacityLimiter(1)

    def load(self) -> None:
        """Loads the library now (3 ms); raises SynthesizerError when it is missing."""
        _load_library()

    @trio.as_safe_channel
    async def open_speech(
        self, text: str, *, voice_id: str, language: str
    ) -> AsyncGenerator[SpeechChunk, None]:
        """Streams one sentence in chunks of 100 to 200 ms; no chunks for text without words.

        Raises SynthesizerError for an unknown voice, a missing library, or a sentence of
        more than MAX_SENTENCE_SECONDS.
        """
        voice = self._choose_voice(voice_id, language)
        if not any(character.isalnum() for character in text):
            return
        chunks_in, chunks = trio.open_memory_channel[SpeechChunk](_MAX_CHUNKS)
        failures: list[SynthesizerError] = []  # raised outside the nursery: not in a group
        async with chunks, trio.open_nursery() as nursery:
            nursery.start_soon(self._speak, text, voice, chunks_in, failures)
            async for chunk in chunks:
                yield chunk
        for failure in failures:
            raise failure

    async def _speak(
        self,
        text: str,
        voice: _Voice,
        chunks: trio.MemorySendChannel[SpeechChunk],
        failures: list[SynthesizerError],
    ) -> None:
        """Puts the whole sentence into `chunks` and closes it, from a thread that never waits."""
        trio_loop = trio.lowlevel.current_trio_token()

        def give(chunk: SpeechChunk) -> None:
            trio.from_thread.check_cancelled()
            # Asked for in order, done in order, and before the thread's end is reported.
            trio_loop.run_sync_soon(chunks.send_nowait, chunk)

        def speak() -> None:
            sentence = _Sentence(text, give)
            _load_library().speak(text, voice.name, sentence.accept)
            sentence.finish()

        with chunks:
            try:
                await trio.to_thread.run_sync(speak, limiter=self._one_at_a_time)
            except SynthesizerError as error:
                failures.append(error)

    def _choose_voice(self, voice_id: str, language: str) -> _Voice:
        if voice_id in _LANGUAGE_VOICES:
            voices = _LANGUAGE_VOICES[voice_id]
            return _VOICES[voices.get(language.lower().split("-")[0], voices["en"])]
        if voice_id not in _VOICES:
            raise SynthesizerError(
                f"there is no voice {voice_id!r}; choose one of {', '.join(self.voices)}"
            )
        return _VOICES[voice_id]


@attrs.frozen
class _WordEvent:
    """The library begins a word."""

    position: int  # of its first character in the text, from 0
    sample: int


class _Sentence:
    """Turns what the library says of one sentence into chunks with word timings.

    The library tells where a word begins, but not reliably where it ends ("I'm" is one
    letter long, a quoted word none), and tells some words several times.  Here a word
    ends at the next blank or where the next word begins; so it is known one word late,
    and a chunk is kept back until the next one comes.
    """

    def __init__(self, text: str, give: Callable[[SpeechChunk], None]) -> None:
        self._text = text
        self._give = give
        self._pcm = b""
        self._samples = 0
        self._word: _WordEvent | None = None
        self._words: list[WordTiming] = []

    def accept(self, pcm: bytes, words: Sequence[_WordEvent]) -> None:
        """Takes audio, and the words that begin in it or begin the audio after it."""
        for word in words:
            self._begin_word(word)
        if not pcm:
            return
        self._samples += len(pcm) // SAMPLE_BYTES
        if self._samples > MAX_SENTENCE_SECONDS * SAMPLE_RATE:
            raise SynthesizerError(
                f"a sentence of {len(self._text)} characters takes more than "
                f"{MAX_SENTENCE_SECONDS:g} seconds to say; split it into shorter ones"
            )
        # The library's chunks are shorter where a clause ends; few and full ones are given.
        if len(self._pcm) >= _CHUNK_BYTES:
            self._give_chunk()
        self._pcm += pcm

    def finish(self) -> None:
        """Gives the rest: the sentence is over."""
        self._end_word(len(self._text))
        self._give_chunk()

    def _give_chunk(self) -> None:
        if self._pcm:
            self._give(SpeechChunk(self._pcm, tuple(self._words)))
            self._pcm = b""
            self._words.clear()

    def _begin_word(self, word: _WordEvent) -> None:
        if self._word and word.position <= self._word.position:
            return  # told before: numbers and foreign words are said in pieces
        if not self._text[word.position : word.position + 1].strip():
            return  # a blank that the library pronounced, or beyond the text
        self._end_word(word.position)
        self._word = word

    def _end_word(self, limit: int) -> None:
        if self._word:
            start = self._word.position
            end = start + len(self._text[start:limit].split(maxsplit=1)[0])
            self._words.append(WordTiming(start, end, self._word.sample))


# --- the library -------------------------------------------------------------------------

_OUTPUT_TO_CALLBACK = 2  # AUDIO_OUTPUT_SYNCHRONOUS
_DO_NOT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT: report a problem, do not end the process
_UTF8 = 1  # espeakCHARS_UTF8
_IN_CHARACTERS = 1  # POS_CHARACTER
_LIST_ENDS, _WORD_BEGINS = 0, 1  # espeakEVENT_LIST_TERMINATED, espeakEVENT_WORD
_GO_ON, _STOP = 0, 1  # what a callback answers


class _Event(ctypes.Structure):
    """`espeak_EVENT` of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # in characters, from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)
_Accept = Callable[[bytes, Sequence[_WordEvent]], None]
_lock = threading.Lock()  # over the library: loading it, choosing a voice, speaking
_library: _Library | None = None


def _load_library() -> _Library:
    """The process's one library."""
    global _library  # noqa: PLW0603 - as global as the variables of the library itself
    with _lock:
        if _library is None:
            _library = _Library()
        return _library


class _Library:
    """libespeak-ng through ctypes, which lets go of the GIL while it speaks."""

    def __init__(self) -> None:
        try:
            import espeakng_loader  # noqa: PLC0415 - an optional dependency

            self._c = ctypes.CDLL(espeakng_loader.get_library_path())
            data = espeakng_loader.get_data_path()
        except (ImportError, OSError, RuntimeError) as error:
            raise SynthesizerError(
                f"espeak-ng cannot be loaded ({error}); install it with "
                "pip install 'listenai[embedded]', or choose another synthesizer"
            ) from error
        rate = self._c.espeak_Initialize(_OUTPUT_TO_CALLBACK, CHUNK_MS, data.encode(), _DO_NOT_EXIT)
        if rate != SAMPLE_RATE:
            raise SynthesizerError(
                f"espeak-ng did not start with its data in {data}: its answer was {rate}, not the "
                f"sample rate {SAMPLE_RATE}; reinstall espeakng-loader"
            )
        self._c.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
        self._c.espeak_Synth.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,  # bytes, with the 0 at the end
            ctypes.c_uint,  # where to begin
            ctypes.c_int,  # in what that is counted
            ctypes.c_uint,  # where to end, 0: nowhere
            ctypes.c_uint,  # flags
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        self._accept: _Accept | None = None
        self._error: BaseException | None = None
        self._callback = _CALLBACK(self._called)  # the library keeps only a pointer to it
        self._c.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, voice: str, accept: _Accept) -> None:
        """Says the text; an exception of `accept` stops the library and is raised here."""
        # Text ends at a 0, and half a character cannot be encoded; both keep their place.
        encoded = text.replace("\0", " ").encode("utf-8", "replace")
        with _lock:
            if result := self._c.espeak_SetVoiceByName(voice.encode()):
                # It would go on with the voice of the sentence before.
                raise SynthesizerError(f"espeak-ng lacks the voice {voice!r} (error {result})")
            self._accept, self._error = accept, None
            try:
                result = self._c.espeak_Synth(
                    encoded, len(encoded) + 1, 0, _IN_CHARACTERS, 0, _UTF8, None, None
                )
                if self._error:
                    raise self._error
            finally:
                self._accept = self._error = None
        if result:
            raise SynthesizerError(f"espeak-ng could not say {len(text)} characters: {result}")

    # No exception can pass through the library's own frames, so it is kept for `speak`.
    def _called(self, samples: ctypes._Pointer[ctypes.c_short], count: int, events: object) -> int:
        assert self._accept
        try:
            pcm = ctypes.string_at(samples, count * SAMPLE_BYTES) if samples and count > 0 else b""
            self._accept(pcm, list(_word_events(events)))
        except BaseException as error:
            self._error = error
            return _STOP
        return _GO_ON


def _word_events(events: object) -> Iterator[_WordEvent]:
    """The words in a list of events that ends with a terminator."""
    index = 0
    while (event := events[index]).type != _LIST_ENDS:  # type: ignore[index]
        if event.type == _WORD_BEGINS:
            yield _WordEvent(event.text_position - 1, event.sample)
        index += 1
