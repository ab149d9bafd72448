"""Speech recognition in this process: PocketSphinx, twice side by side.

Each utterance goes to a decoder that knows only the sentences of the command grammar
and to one with a general language model; `sphinx_agreement` tells whose text to take.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import numpy as np
import trio

from listenai.audio import SAMPLE_BYTES, SAMPLE_RATE
from listenai.commands import CommandGrammar, load_commands
from listenai.engines.base import SpeakerMemory, Transcript
from listenai.engines.sphinx_agreement import MOST_DISAGREEMENT, disagreement, plausible, text_of
from listenai.engines.sphinx_library import Decoder, known_words, model_path, pronunciations
from listenai.errors import TranscriberError

# An instance is 110 MB; a decoder pair hears several times faster than real time, so two
# on two cores keep up with a handful of people who speak at once.
DEFAULT_INSTANCES = 2

# 60 ms: some 6 ms of work, 16 at worst, which is how long a cancelled utterance keeps its thread.
STEP_BYTES = 60 * SAMPLE_RATE // 1000 * SAMPLE_BYTES

# The recognizer cuts 80 ms after the last speech, but both decoders take the last
# consonant for noise unless a pause follows ("fifteen" becomes "fifty").
PAUSE_SECONDS = 0.2
PAUSE_AMPLITUDE = 4  # -78 dBFS: digital silence has no spectrum

# Cepstral mean of four voices at a usual level: a better first guess about an unknown
# device than the model's own, which loses quiet first words.
UNKNOWN_CHANNEL = "44.2,1.4,4.9,16.9,-1.8,-0.1,3.0,-4.4,-2.9,-2.9,3.7,1.6,1.8"
CHANNEL_KEY = "sphinx.channel"  # in SpeakerMemory

_PAUSE = (
    np.random.default_rng(0)
    .integers(-PAUSE_AMPLITUDE, PAUSE_AMPLITUDE + 1, int(PAUSE_SECONDS * SAMPLE_RATE))
    .astype("<i2")
    .tobytes()
)


class SphinxTranscriber:
    """English speech to text by PocketSphinx (engines.base.Transcriber).

    Instances are made when they are first needed, `instances` at most; an utterance has
    one to itself and waits while all are busy.  `loaded` counts the instances made.
    """

    languages = ("en",)

    def __init__(
        self, *, instances: int = DEFAULT_INSTANCES, grammar: CommandGrammar | None = None
    ) -> None:
        """Loads nothing yet; `grammar` is the package's command grammar unless given."""
        if instances < 1:
            raise ValueError(f"{instances} instances cannot hear anything; allowed is 1 or more")
        self.loaded = 0
        self._grammar = grammar or load_commands()
        self._instances = trio.Semaphore(instances, max_value=instances)
        self._threads = trio.CapacityLimiter(instances)
        self._warming = trio.Lock()
        self._idle: list[_Instance] = []
        self._closed = False

    async def warm(self) -> None:
        """Returns once an instance is loaded, so that the first utterance need not wait for it."""
        # Whoever warms it meanwhile waits for the same instance.
        async with self._warming, self._instance():
            pass

    @asynccontextmanager
    async def open_utterance(
        self, *, language: str, speaker: SpeakerMemory
    ) -> AsyncIterator[SphinxUtterance]:
        """A private instance for one utterance; waits while all are busy.

        Raises TranscriberError for a language other than English.
        """
        if language not in self.languages:
            raise TranscriberError(
                f"PocketSphinx does not understand {language!r}; allowed: "
                f"{', '.join(self.languages)}.  For others choose another transcriber."
            )
        async with self._instance() as instance:
            channel = speaker.values.get(CHANNEL_KEY, UNKNOWN_CHANNEL)
            await trio.to_thread.run_sync(instance.begin, channel, limiter=self._threads)
            yield SphinxUtterance(instance, self._threads, speaker)

    def close(self) -> None:
        """Frees all instances, those in use when their utterances end; none can be opened."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    @asynccontextmanager
    async def _instance(self) -> AsyncIterator[_Instance]:
        async with self._instances:
            if self._closed:
                raise TranscriberError("this transcriber is closed; make another one")
            instance = self._idle.pop() if self._idle else await self._load()
            try:
                yield instance
            finally:
                self._give_back(instance)

    async def _load(self) -> _Instance:
        # Threads are never abandoned, here and below, so that nobody loses an instance or
        # uses one that came back.
        instance = await trio.to_thread.run_sync(
            _Instance.load, self._grammar, limiter=self._threads
        )
        self.loaded += 1
        return instance

    def _give_back(self, instance: _Instance) -> None:
        if self._closed:
            instance.close()
        else:
            self._idle.append(instance)


class SphinxUtterance:
    """One utterance (engines.base.Utterance); made by SphinxTranscriber.open_utterance."""

    def __init__(
        self, instance: _Instance, threads: trio.CapacityLimiter, speaker: SpeakerMemory
    ) -> None:
        self._instance, self._threads, self._speaker = instance, threads, speaker
        self._rest = b""  # half a sample, waiting for its other half

    async def accept(self, pcm: bytes) -> None:
        """Decodes audio of any length, int16 mono 16 kHz, in steps of STEP_BYTES."""
        data = self._rest + pcm
        whole = len(data) - len(data) % SAMPLE_BYTES
        self._rest = data[whole:]
        for start in range(0, whole, STEP_BYTES):
            step = data[start : min(start + STEP_BYTES, whole)]
            await trio.to_thread.run_sync(self._instance.feed, step, limiter=self._threads)

    async def partial(self) -> str:
        """The words so far, usually within 300 ms of speech; "" until both decoders hear some."""
        heard = await trio.to_thread.run_sync(self._instance.listen, limiter=self._threads)
        return heard.text if heard.both else ""

    async def finish(self) -> Transcript:
        """The words of everything accepted; the channel is kept for the next utterance."""
        heard = await trio.to_thread.run_sync(self._instance.finish, limiter=self._threads)
        if heard.text:  # noise says nothing about a voice
            self._speaker.values[CHANNEL_KEY] = heard.channel
        return Transcript(heard.text, complete=True if heard.is_command else None)


@attrs.frozen
class _Heard:
    """What two decoders made of the same audio."""

    text: str
    is_command: bool = False  # the text is the grammar's, and a whole sentence of it
    both: bool = False  # both decoders heard words
    channel: str = UNKNOWN_CHANNEL


class _Instance:
    """A pair of decoders.  All methods work for milliseconds: call them in threads."""

    def __init__(self, grammar: CommandGrammar, commands: Decoder, general: Decoder) -> None:
        self._grammar, self._commands, self._general = grammar, commands, general
        self._begun = False
        # Two threads in one decoder would corrupt memory: that must not depend on the
        # callers' good manners.
        self._one_thread = threading.Lock()

    @classmethod
    def load(cls, grammar: CommandGrammar) -> _Instance:
        """Reads the models: half a second, 110 MB.  Raises TranscriberError."""
        acoustic = {"hmm": str(model_path("en-us/en-us"))}
        dictionary = model_path("en-us/cmudict-en-us.dict")
        words = known_words(grammar.words, pronunciations(grammar.words, dictionary))
        # Its best path through the lattice ends a word early at the end of the audio
        # ("seventy" for "seven"); the search's own does not.
        commands = Decoder({**acoustic, "bestpath": False})
        try:
            commands.load_grammar(grammar.jsgf, words)
            general = Decoder(
                {
                    **acoustic,
                    "dict": str(dictionary),
                    "lm": str(model_path("en-us/en-us.lm.bin")),
                    # Bounds on the work of a frame, and no second pass over the audio:
                    # the answer is there as soon as the audio is.
                    "maxhmmpf": 3000,
                    "maxwpf": 5,
                    "fwdflat": False,
                }
            )
        except TranscriberError:
            commands.close()
            raise
        return cls(grammar, commands, general)

    def begin(self, channel: str) -> None:
        """Starts an utterance, leaving one that was never finished."""
        with self._one_thread:
            for decoder in (self._commands, self._general):
                if self._begun:
                    decoder.end()
                decoder.channel = channel
                decoder.start()
            self._begun = True

    def feed(self, pcm: bytes) -> None:
        with self._one_thread:
            self._feed(pcm)

    def listen(self) -> _Heard:
        """What is understood so far."""
        with self._one_thread:
            commands, general = self._commands.words(), plausible(self._general.words())
            agree = disagreement(commands, general) <= MOST_DISAGREEMENT
            return _Heard(text_of(commands if agree else general), both=bool(commands and general))

    def finish(self) -> _Heard:
        """Ends the utterance: what was understood, and the channel it came through."""
        with self._one_thread:
            self._feed(_PAUSE)
            for decoder in (self._commands, self._general):
                decoder.end()
            self._begun = False
            commands, general = self._commands.words(), plausible(self._general.words())
            # PocketSphinx does not promise that a path through the grammar is finished.
            is_command = disagreement(
                commands, general
            ) <= MOST_DISAGREEMENT and self._grammar.accepts(text_of(commands))
            text = text_of(commands if is_command else general)
            return _Heard(text, is_command, bool(text), self._general.channel)

    def close(self) -> None:
        with self._one_thread:
            self._commands.close()
            self._general.close()

    def _feed(self, pcm: bytes) -> None:
        self._commands.feed(pcm)
        self._general.feed(pcm)
