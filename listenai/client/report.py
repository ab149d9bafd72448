"""SANS-IO: what `talk` prints about replies, and what it finds wrong with them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence

import attrs

from listenai.client.speaker import LOUD_DBFS, Violation
from listenai.client.turns import AUDIBLE_SECONDS, Reply, ToolRun

WATERFALL_COLUMNS = 40
SHOWN_RESULT = 200  # characters of a tool's result


@attrs.frozen
class BargeIn:
    """How fast a reply stopped; ms from the first speech sample sent, None: it did not come."""

    pause_ms: float | None
    flush_ms: float | None
    silence_ms: float | None  # at the loudspeaker
    heard_text: str | None
    certainty: str | None


def measure_barge_in(speech_started_at: float, interrupted: Reply) -> BargeIn:
    """What the interrupted reply shows of a barge-in that began then."""

    def ms(at: float | None) -> float | None:
        return None if at is None else (at - speech_started_at) * 1000

    def first(kind: str) -> float | None:
        times = (event.at for event in interrupted.events if event.type == kind)
        return next((at for at in times if at >= speech_started_at), None)

    told = interrupted.interrupted or {}
    return BargeIn(
        ms(first("pause")),
        ms(first("flush")),
        ms(interrupted.silent_at),
        told.get("heard_text"),
        told.get("certainty"),
    )


def describe_reply(reply: Reply) -> Iterator[str]:
    """The lines about one reply."""
    if reply.transcript is not None:
        yield f"  you       {reply.transcript}"
    yield from (f"  tool      {_tool(run)}" for run in reply.tools)
    yield f"  reply     {reply.text}"
    yield f"  sound     {reply.audible_seconds:.2f} s audible, RMS {reply.level_dbfs:.1f} dBFS"
    yield from waterfall(reply)


def describe_barge_in(barge_in: BargeIn) -> Iterator[str]:
    """The lines about one barge-in."""
    yield "  barge-in, ms from its first speech sample sent"
    yield f"    pause   {_ms(barge_in.pause_ms)}"
    yield f"    flush   {_ms(barge_in.flush_ms)}"
    yield f"    silence {_ms(barge_in.silence_ms)}"
    if barge_in.heard_text is not None:
        yield f"    heard   {barge_in.heard_text!r} ({barge_in.certainty})"


def waterfall(reply: Reply) -> Iterator[str]:
    """When each stage was done, in ms after the last speech sample; bars show each one's share."""
    stages = [(name.removesuffix("_ms"), ms) for name, ms in reply.metrics.items()]
    if reply.voice_to_voice_ms is not None:
        stages.append(("first sound heard", reply.voice_to_voice_ms))
    known = sorted(((name, ms) for name, ms in stages if ms is not None), key=lambda s: s[1])
    unknown = [name for name, ms in stages if ms is None]
    if not known:
        return
    yield "  latency, ms from the last speech sample (first sound heard: on this device's clock)"
    scale = WATERFALL_COLUMNS / max(1.0, known[-1][1])
    before = 0
    for name, ms in known:
        column = max(before, round(ms * scale))
        bar = " " * before + "█" * (column - before) or "▏"
        yield f"    {name:<18}{ms:>8.0f}  {bar}"
        before = column
    if unknown:
        yield f"    unknown: {', '.join(unknown)}"


def reply_problems(reply: Reply) -> Iterator[str]:
    """Why this is no audible answer."""
    for error in reply.errors:
        yield f"error {error.get('code')}: {error.get('message')}"
    if not reply.audible:
        yield (
            f"no audible answer: {reply.audible_seconds:.2f} s louder than {LOUD_DBFS:g} dBFS, "
            f"at least {AUDIBLE_SECONDS:g} s expected"
        )


def law_problems(violations: Sequence[Violation]) -> Iterator[str]:
    """Each broken law once, with how often and the first time."""
    counts = Counter(violation.law for violation in violations)
    for law, count in counts.items():
        first = next(violation for violation in violations if violation.law == law)
        yield f"the server broke a law {count}x: {law} ({first.detail})"


def _ms(value: float | None) -> str:
    return "    —" if value is None else f"{value:>5.0f}"


def _tool(run: ToolRun) -> str:
    call = f"{run.name}({json.dumps(dict(run.arguments), ensure_ascii=False)})"
    if run.ok is None:
        return f"{call} did not return"
    outcome = json.dumps(run.outcome, ensure_ascii=False)
    if len(outcome) > SHOWN_RESULT:
        outcome = outcome[:SHOWN_RESULT] + "…"
    duration = "" if run.duration_ms is None else f", {run.duration_ms:.0f} ms"
    return f"{call} → {'' if run.ok else 'failed: '}{outcome} [{run.target}{duration}]"
