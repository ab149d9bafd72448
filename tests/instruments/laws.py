"""What must hold after every conversation, whatever was done to it.

The history is compared with what the loudspeaker knew at the moment an item was
written, by the fake synthesizer's exact word timings, not with the server's own
ledger.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import pairwise

import attrs
from fakes import CHUNK_SAMPLES, RATE, Talking
from instruments.scenarios import Witness, Witnessed

from listenai.conversation.items import AssistantItem, ToolCallItem, ToolResultItem, UserItem
from listenai.errors import ErrorCode
from listenai.events import (
    Certainty,
    ErrorReported,
    SentenceStarted,
    Source,
    StreamStarted,
    Target,
    ToolCalled,
    UserTranscript,
)


class Kind(StrEnum):
    """What an instrument can find wrong."""

    BUG = "bug"  # something of ours was raised, or looks like our bug to the device
    TASK = "task left behind"
    CANCELLATION = "cancellation swallowed"
    SLOT = "slot not returned"
    CLOSE = "close without bound"
    NEIGHBOUR = "another conversation disturbed"
    HISTORY = "history untrue"
    AUDIO = "law of audio broken"


@attrs.frozen
class Broken:
    """One law that did not hold."""

    kind: Kind
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


def broken_laws(witness: Witness) -> Iterator[Broken]:
    """What one conversation, now over, has left wrong."""
    talk = witness.talk
    turns = _turns(witness.seen)
    for error in talk.device.events(ErrorReported):
        if error.code is ErrorCode.INTERNAL_ERROR:
            yield Broken(Kind.BUG, f"the device was told INTERNAL_ERROR: {error.message}")
    for engine in ("recognizers", "chat", "voice"):
        if alive := getattr(talk, engine).alive:
            yield Broken(Kind.SLOT, f"{engine}: {alive} still open")
    if talk.chat.most_alive > 1:
        yield Broken(Kind.SLOT, f"{talk.chat.most_alive} replies at a time")
    for what in talk.device.loudspeaker.law_broken:
        yield Broken(Kind.AUDIO, what)
    for what in (
        *_users(witness, turns),
        *_replies(talk, turns),
        *_tools(talk),
    ):
        yield Broken(Kind.HISTORY, what)


# --- history -------------------------------------------------------------------------------


def _turns(seen: Sequence[Witnessed]) -> list[list[Witnessed]]:
    """What was written, turn by turn: each begins with what the user said."""
    turns: list[list[Witnessed]] = []
    for each in seen:
        if isinstance(each.item, UserItem):
            turns.append([])
        turns[-1].append(each)
    return turns


def _users(witness: Witness, turns: Sequence[Sequence[Witnessed]]) -> Iterator[str]:
    """Every turn that was begun or told is there once, in the order in which they were said."""
    texts = [turn[0].item.text for turn in turns]
    begun = witness.talk.session.last_turn_id
    if len(texts) != begun:
        yield f"{begun} turns were begun, {len(texts)} user texts are there: {texts}"
    said = iter(witness.said)
    if not all(text in said for text in texts):
        yield f"the users' texts are {texts}, said was {witness.said}"
    for told in witness.talk.device.events(UserTranscript):
        if told.is_final and texts[told.turn_id - 1 : told.turn_id] != [told.text]:
            yield f"told was {told.text!r} as turn {told.turn_id}, there is {texts}"


def _replies(talk: Talking, turns: Sequence[Sequence[Witnessed]]) -> Iterator[str]:
    """Each reply is what was heard of it, no more; and no less, where the device reported."""
    started = talk.device.events(StreamStarted)
    speech = [event for event in started if event.source is Source.SPEECH]
    streams = {event.turn_id: event.stream_id for event in speech}
    for turn_id, turn in enumerate(turns, 1):
        parts = [each for each in turn if isinstance(each.item, AssistantItem)]
        if not parts:
            continue
        stream = streams.get(turn_id, 0)
        reported = parts[0].item.certainty is Certainty.REPORTED
        if not talk.device.capabilities.flush:  # it cannot stop: it plays all it has
            samples = parts[0].received[stream]
        else:
            # An estimate may count the one chunk that is on its way to a device that stalls.
            on_its_way = 0 if reported else CHUNK_SAMPLES
            samples = parts[0].played.get(stream, 0.0) + on_its_way
        allowed = _heard(talk, stream, math.floor(samples + 1))  # rounding of times
        text = " ".join(each.item.text for each in parts)
        if text != allowed if reported else not allowed.startswith(text):
            yield f"turn {turn_id}: heard was {allowed!r}, there is {text!r} ({reported=})"


def _heard(talk: Talking, stream_id: int, samples: int) -> str:
    """The whole words within so many samples of what the device was sent."""
    text = ""
    length = int(talk.voice.seconds * RATE / CHUNK_SAMPLES) * CHUNK_SAMPLES  # of a sentence
    for sentence in talk.device.events(SentenceStarted):
        if sentence.stream_id != stream_id:
            continue
        rest = samples - sentence.from_sample
        if rest < length:
            words = talk.voice._timings(sentence.text)
            # A word is over where the next begins.
            over = [word.end for word, then in pairwise(words) if then.from_sample <= rest]
            text += sentence.text[: max(over, default=0)]
            break
        text += sentence.text
    return " ".join(text.split())


def _tools(talk: Talking) -> Iterator[str]:
    """Every call that was made is there, once, with one result."""
    items = talk.session.items
    calls = {item.call.call_id: item.call for item in items if isinstance(item, ToolCallItem)}
    if sum(isinstance(item, ToolCallItem) for item in items) != len(calls):
        yield "a tool call is there twice"
    results = [item for item in items if isinstance(item, ToolResultItem)]
    if Counter(result.call_id for result in results) != Counter(calls.keys()):
        yield f"the calls are {list(calls)}, the results {[each.call_id for each in results]}"
    names = Counter(call.name for call in calls.values())
    done = Counter(
        calls[each.call_id].name for each in results if each.ok and each.call_id in calls
    )
    for each in talk.tools:
        name = each.schema.name
        if len(each.runs) > names[name] or len(each.finished) > done[name]:
            yield (
                f"{name} ran {len(each.runs)} times, {len(each.finished)} to its end; "
                f"there are {names[name]} calls, {done[name]} of them done"
            )
    for called in talk.device.events(ToolCalled):
        if called.target is Target.DEVICE and called.call_id not in calls:
            yield f"the device was asked for {called.name}, which is not there"
