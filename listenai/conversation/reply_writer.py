"""The text of one reply: told to the device as it comes, and cut into sentences to be spoken."""

from __future__ import annotations

import attrs
import trio

from listenai.conversation.outbox import Outbox
from listenai.conversation.sentences import SentenceSplitter
from listenai.conversation.turn import Turn
from listenai.events import TextDelta


@attrs.define(eq=False)
class ReplyWriter:
    """Where a turn's text goes; waits while the speaker is a sentence behind."""

    turn: Turn
    outbox: Outbox
    sentences: trio.MemorySendChannel[str]
    _splitter: SentenceSplitter = attrs.field(factory=SentenceSplitter)

    async def write(self, delta: str) -> None:
        """Adds an increment."""
        self.turn.text += delta
        await self.outbox.send(self.turn, TextDelta(self.turn.id, delta))
        for sentence in self._splitter.push(delta):
            await self.sentences.send(sentence)
        await trio.lowlevel.checkpoint()  # many that came together do not keep the loop

    async def end_sentence(self) -> None:
        """What was written is spoken, finished or not."""
        for sentence in self._splitter.flush():
            await self.sentences.send(sentence)

    async def say(self, line: str) -> None:
        """Adds a line that stands for itself, and has it spoken."""
        await self.end_sentence()
        text = self.turn.text
        await self.write(line if not text or text[-1].isspace() else f" {line}")
        await self.end_sentence()
