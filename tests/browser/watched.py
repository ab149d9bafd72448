"""A page that is listened in on by `tap.js`, in whichever browser: what was said and played."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
from stage import wait_for

LOUD = 3_000  # of 32 767: speech


@attrs.frozen
class Watched:
    """What tests ask a page; `call` gives what an expression is in it."""

    call: Callable[[str], Any]

    def until(self, expression: str, seconds: float, words: str = "") -> Any:
        """Asks until the expression is true; fails with what happened last."""
        try:
            return wait_for(lambda: self.call(expression), seconds, words or expression)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story()}") from None

    def message(self, kind: str, seconds: float = 10, **fields: object) -> dict[str, Any]:
        """The server's first message of a kind with these fields: {at, played, message}."""
        wanted = {"type": kind, **fields}
        return self.until(f"tap.message({json.dumps(wanted)})", seconds, f"a message {wanted}")

    def received(self, stream_id: int) -> npt.NDArray[np.int16]:
        """The samples of a stream, as the server sent them."""
        return _samples(self.call(f"tap.received({stream_id})"))

    def recorded(self) -> npt.NDArray[np.int16]:
        """What the loudspeaker has put out since it was opened, at `tap.rate()`."""
        return _samples(self.call("tap.recorded()"))

    def between(self, first: dict[str, Any], last: dict[str, Any]) -> npt.NDArray[np.int16]:
        """What it put out between the arrivals of two messages."""
        rate = self.call("tap.rate()")
        return self.recorded()[round(first["played"] * rate) : round(last["played"] * rate)]

    def pauses(self, last: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Each `pause` before a message, and its `resume`, or else that message."""
        turns = self.call("tap.messages.filter(({message}) => /pause|resume/.test(message.type))")
        turns = [one for one in turns if one["at"] < last["at"]] + [last]
        return [
            (held, until) for held, until in pairwise(turns) if held["message"]["type"] == "pause"
        ]

    def sound_after_ms(self, first: dict[str, Any], last: dict[str, Any]) -> float:
        """For how long it sounded on after a message, up to another one."""
        sounding = np.flatnonzero(self.between(first, last))
        rate = self.call("tap.rate()")
        return float(1000 * (sounding[-1] + 1) / rate) if len(sounding) else 0.0

    def story(self) -> str:
        """What happened last, in short."""
        seen = self.call("tap.messages.map(({at, message}) => [at, JSON.stringify(message)])")
        lines = [f"{at:9.0f} {text[:160]}" for at, text in seen if '"delta"' not in text]
        return "\n".join(lines[-30:])


@attrs.frozen
class Harness(Watched):
    """The harness, which also tells its modules' events."""

    def event(self, seconds: float = 10, **fields: object) -> dict[str, Any]:
        """The first event with these fields."""
        return self.until(f"harness.find({json.dumps(fields)})", seconds, f"an event {fields}")

    def has(self, **fields: object) -> bool:
        """Whether there was such an event."""
        return self.call(f"harness.find({json.dumps(fields)}) !== undefined")

    def states(self, source: str) -> list[str]:
        """The states that a module has told."""
        of = f"harness.events.filter((e) => e.from === '{source}' && e.type === 'state')"
        return self.call(f"{of}.map((e) => e.state)")

    def story(self) -> str:
        """What happened last, in short."""
        seen = self.call(
            "harness.events.filter((e) => e.type !== 'audio').map((e) => JSON.stringify(e))"
        )
        return "\n".join(text[:200] for text in seen[-40:])


def added_samples(played: npt.NDArray[np.int16], sent: npt.NDArray[np.int16]) -> int:
    """By how much playing took longer than what was sent, both at the same rate.

    Fails where anything was lost, or, of what took no longer, anything differs.
    """
    heard, said = sounding(played), sounding(sent)
    assert len(heard) >= len(said), f"{len(said) - len(heard)} samples were not played"
    if len(heard) == len(said):
        differs = np.flatnonzero(heard != said)
        assert not len(differs), f"{len(differs)} samples differ, the first at {differs[0]}"
    return len(heard) - len(said)


def sounding(samples: npt.NDArray[np.int16], quiet: int = 0) -> npt.NDArray[np.int16]:
    """Without what is no louder than `quiet` around it."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > quiet)
    assert len(loud), "nothing sounds"
    return samples[loud[0] : loud[-1] + 1]


def _samples(text: str) -> npt.NDArray[np.int16]:
    return np.frombuffer(base64.b64decode(text), "<i2")
