"""Fun-ASR-Nano and SenseVoice through FunASR: speech to text on a GPU, or patiently on a CPU.

One loaded model decodes one batch at a time, in one thread.  What waits is sorted
by what it is worth: finished utterances first, those that end within a few milliseconds of
each other as one batch; partial transcripts, which decode an unfinished utterance anew,
only while nothing else wants the model.  Between two tokens the thread looks which
utterances are still wanted.

PyTorch keeps the GIL for too long for a server that streams audio: run this in a process of
its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from listenai.engines.base import HOTWORDS, SpeakerMemory
from listenai.engines.funasr_model import DecodingJob, FunasrModel
from listenai.engines.whole_utterance import WholeUtterance, samples_of
from listenai.errors import TranscriberError

DEFAULT_BATCH_SIZE = 8
# Two devices whose users stop together share a batch; nobody notices so little.
BATCH_WINDOW_SECONDS = 0.005
# Audio between two partial transcripts of an utterance: about a word.
PARTIAL_SECONDS = 0.4
# One frame of the models' features; they fail or crash below it.
MIN_SAMPLES = 400


class FunasrTranscriber:
    """Speech to text by Fun-ASR-Nano or SenseVoice (engines.base.Transcriber); see `open`.

    decodings: calls of the model; dropped_partials: partial transcripts not made or cut off
    because a finished utterance wanted the model.
    """

    def __init__(self, model: FunasrModel, *, batch_size: int) -> None:
        """Not for callers: `open` also loads the model and serves it."""
        if batch_size < 1:
            raise ValueError(f"a batch of {batch_size} decodes nothing; allowed is 1 or more")
        self.languages: Sequence[str] = tuple(model.family.languages)
        self.decodings = 0
        self.dropped_partials = 0
        self._model = model
        self._batch_size = batch_size
        self._waiting: list[DecodingJob] = []  # at most one of each open utterance
        self._decoding: Sequence[DecodingJob] = ()
        self._news = trio.Event()
        self._thread = trio.CapacityLimiter(1)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        folder: Path,
        *,
        model: str = "fun-asr-nano",
        device: str = "cpu",
        batch_size: int = DEFAULT_BATCH_SIZE,
        hotwords: Sequence[str] = (),
        itn: bool = True,
        dump_folder: Path | None = None,
    ) -> AsyncIterator[FunasrTranscriber]:
        """Loads a model from its folder and serves it inside the `async with`.

        model: "fun-asr-nano" or "sensevoice-small".  device: as PyTorch names it, "cuda:0".
        hotwords: names to be listened for (Fun-ASR-Nano).  itn: numbers as digits.
        dump_folder: for debugging alone: each utterance is kept there as a WAV file.
        Raises TranscriberError: packages or files are missing, or the model does not load.
        """
        loaded = await trio.to_thread.run_sync(
            lambda: FunasrModel.load(folder, model, device, hotwords, itn, dump_folder)
        )
        transcriber = cls(loaded, batch_size=batch_size)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transcriber._serve)
            try:
                yield transcriber
            finally:
                transcriber._forget_all()
                nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def open_utterance(
        self, *, language: str, speaker: SpeakerMemory
    ) -> AsyncIterator[WholeUtterance]:
        """Collects one utterance; `language` may be a dialect, like "yue" or "zh-HK".

        The speaker's hotwords are listened for beside ours.  Raises TranscriberError for a language
        that the model does not know.
        """
        known = self._model.family.language_of(language)
        hotwords = tuple(speaker.values.get(HOTWORDS, ()))  # as they are when the utterance begins

        async def decode(pcm: bytes, *, partial: bool) -> str | None:
            if partial and self.is_busy:
                self.dropped_partials += 1
                return None
            return await self.transcribe(DecodingJob(samples_of(pcm), known, partial, hotwords))

        yield WholeUtterance(decode, min_samples=MIN_SAMPLES, partial_seconds=PARTIAL_SECONDS)

    @property
    def is_busy(self) -> bool:
        """Whether the model has work: a partial transcript would keep somebody waiting."""
        return bool(self._decoding or self._waiting)

    async def transcribe(self, job: DecodingJob) -> str | None:
        """The text of what was said; None for a partial one that was dropped.

        Raises TranscriberError.
        """
        self._waiting.append(job)
        self._news.set()
        if not job.partial:
            self._drop_partials()
        try:
            await job.done.wait()
        finally:
            job.unwanted = True
            if job in self._waiting:
                self._waiting.remove(job)
        if job.error:
            raise job.error
        return job.text

    def _drop_partials(self) -> None:
        for job in [*self._waiting, *self._decoding]:
            if job.partial and not job.unwanted:
                self.dropped_partials += 1
                self._end(job)

    def _end(self, job: DecodingJob) -> None:
        job.unwanted = True
        job.done.set()
        if job in self._waiting:
            self._waiting.remove(job)

    def _forget_all(self) -> None:
        for job in [*self._waiting, *self._decoding]:
            job.error = TranscriberError("speech recognition was closed meanwhile")
            self._end(job)

    async def _serve(self) -> None:
        """Decodes what waits, batch after batch."""
        while True:
            while not self._waiting:
                self._news = trio.Event()
                await self._news.wait()
            if len(self._waiting) < self._batch_size and not self._waiting[0].partial:
                await trio.sleep(BATCH_WINDOW_SECONDS)
            if batch := self._next_batch():
                await self._decode(batch)

    def _next_batch(self) -> list[DecodingJob]:
        """Finished utterances of one prompt before partial ones, the oldest first."""
        jobs = sorted(self._waiting, key=lambda job: job.partial)
        alike = [job for job in jobs if _what_a_batch_shares(job) == _what_a_batch_shares(jobs[0])]
        return alike[: self._batch_size]

    async def _decode(self, batch: list[DecodingJob]) -> None:
        self._waiting = [job for job in self._waiting if job not in batch]
        self._decoding = batch
        try:
            await self._try_to_decode(batch)
        except TranscriberError as error:
            if len(batch) == 1:
                batch[0].error = error
            else:  # one may have spoilt it for the others
                for job in batch:
                    if not job.unwanted:
                        await self._decode([job])
        finally:
            self._decoding = ()
        for job in batch:
            job.done.set()

    async def _try_to_decode(self, batch: list[DecodingJob]) -> None:
        self.decodings += 1
        texts = await trio.to_thread.run_sync(self._model.decode, batch, limiter=self._thread)
        for job, text in zip(batch, texts, strict=True):
            if not job.unwanted:
                job.text = text


def _what_a_batch_shares(job: DecodingJob) -> tuple[object, ...]:
    """A batch has one prompt, in which language and hotwords are."""
    return job.partial, job.language, job.hotwords
