"""The instruments find planted bugs of each kind, and call them by their name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from fakes import FakeChatModel, FakeSynthesizer, call
from instruments.cases import Case, Fault, explore, faults_at, run_case
from instruments.laws import Kind
from instruments.mutants import ROOT, plant
from instruments.scenarios import ANSWER, SCENARIOS, SENTENCE_SECONDS, Scenario, Witness, watched

from listenai.engines.base import ReplyPart, ReplyText, SpeechChunk
from listenai.events import ToolSchema
from listenai.tools.base import ToolTraits

# --- engines that do what they must not --------------------------------------------------------


class StubbornChatModel(FakeChatModel):
    """Takes a cancellation for a hiccup."""

    async def _stream(self, parts: Sequence[ReplyPart]) -> AsyncGenerator[ReplyPart]:
        for part in parts:
            waited = False
            while not waited:
                try:
                    await trio.sleep(self.delay)
                    waited = True
                except trio.Cancelled:
                    pass
            yield part


class ForgetfulChatModel(FakeChatModel):
    """Returns its slot only when it was left in peace."""

    @asynccontextmanager
    async def _open(self, parts: Sequence[ReplyPart]) -> AsyncIterator[AsyncIterator[ReplyPart]]:
        self.alive += 1
        async with aclosing(self._stream(parts)) as stream:
            yield stream
        self.alive -= 1


class SlowToLeaveSynthesizer(FakeSynthesizer):
    """Cannot be stopped within a sentence."""

    @asynccontextmanager
    async def open_speech(
        self, text: str, *, voice_id: str, language: str
    ) -> AsyncIterator[AsyncIterator[SpeechChunk]]:
        async with super().open_speech(text, voice_id=voice_id, language=language) as chunks:
            try:
                yield chunks
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.2)


class HangingSynthesizer(FakeSynthesizer):
    """Never lets go."""

    @asynccontextmanager
    async def open_speech(
        self, text: str, *, voice_id: str, language: str
    ) -> AsyncIterator[AsyncIterator[SpeechChunk]]:
        async with super().open_speech(text, voice_id=voice_id, language=language) as chunks:
            try:
                yield chunks
            except trio.Cancelled:
                with trio.CancelScope(shield=True):
                    await trio.sleep_forever()
                raise


@attrs.frozen
class TaskLeavingTool:
    """Starts something that nobody waits for."""

    schema: ToolSchema
    traits: ToolTraits = attrs.field(factory=ToolTraits)
    runs: list[Mapping[str, Any]] = attrs.field(factory=list)
    finished: list[Mapping[str, Any]] = attrs.field(factory=list)

    async def run(self, arguments: Mapping[str, Any]) -> Any:
        self.runs.append(arguments)
        trio.lowlevel.spawn_system_task(trio.sleep_forever)
        self.finished.append(arguments)
        return "done"


def _calls_the_tool(messages: Sequence[Any]) -> list[ReplyPart]:
    return [call("leave")] if messages[-1].role == "user" else [ReplyText(ANSWER)]


def _with_a_tool_that_leaves_a_task() -> Witness:
    leaving = TaskLeavingTool(ToolSchema("leave", "leaves a task", {"type": "object"}))
    return watched(chat=FakeChatModel(_calls_the_tool), tools=[leaving])


PLANTED_ENGINES = {
    "stubborn": (
        lambda: watched(chat=StubbornChatModel(ANSWER, delay=0.05)),
        Kind.CANCELLATION,
    ),
    "forgetful": (lambda: watched(chat=ForgetfulChatModel(ANSWER)), Kind.SLOT),
    "slow-to-leave": (lambda: watched(voice=SlowToLeaveSynthesizer(SENTENCE_SECONDS)), Kind.CLOSE),
    "hanging": (lambda: watched(voice=HangingSynthesizer(SENTENCE_SECONDS)), Kind.CLOSE),
    "leaves-a-task": (_with_a_tool_that_leaves_a_task, Kind.TASK),
}


@pytest.mark.parametrize("name", PLANTED_ENGINES)
def test_a_planted_engine_is_found(name: str):
    """At one of the sites, by the law that it breaks; and the next run is not disturbed."""
    engines, kind = PLANTED_ENGINES[name]
    plain = SCENARIOS["plain"]
    _, failed = explore(Scenario(name, engines, plain.user, plain.history), 0)
    assert kind in {each.broken.kind for each in failed}
    assert not run_case(Case(plain, 0))[1]


def test_a_failure_is_replayed_by_its_site(tmp_path: Path):
    """The printed command runs the one case, and finds nothing in a package without the plant."""
    scenario = SCENARIOS["plain"]
    visits, _ = run_case(Case(scenario, 3))
    visit = next(each for each in visits if Fault.ENGINE in faults_at(each))
    command = Case(scenario, 3, Fault.ENGINE, visit).command
    done = subprocess.run(
        command.replace("python", sys.executable),
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "1 cases, 0 failures", done.stderr


# --- mistakes in a copy of the package ---------------------------------------------------------


@attrs.frozen
class Plant:
    """A mistake, the scenario that shows it, and what it must be called."""

    name: str
    module: str
    edits: tuple[tuple[str, str], ...]
    scenario: str
    kind: Kind


PLANTS = (
    Plant(
        "a task outside of the nursery",
        "conversation/conversation.py",
        (
            (
                "self._inner.start_soon(self._ping)",
                "trio.lowlevel.spawn_system_task(self._ping)",
            ),
        ),
        "plain",
        Kind.TASK,
    ),
    Plant(
        "a loop that survives its cancellation",
        "conversation/dialogue.py",
        (
            (
                "                await self._floor_changed.wait()\n            if timer",
                "                try:\n"
                "                    await self._floor_changed.wait()\n"
                "                except trio.Cancelled:\n"
                "                    pass\n"
                "            if timer",
            ),
        ),
        "plain",
        Kind.CANCELLATION,
    ),
    Plant(
        "a cancelled turn is committed twice",
        "conversation/replying.py",
        (
            (
                "            finally:\n                self._commit(turn)\n",
                "            except BaseException:\n"
                "                self._commit(turn)\n"
                "                raise\n"
                "            finally:\n"
                "                self._commit(turn)\n",
            ),
        ),
        "plain",
        Kind.HISTORY,
    ),
    Plant(
        "what was sent counts as heard",
        "conversation/stream.py",
        (
            (
                "self.playout.sent if self.runs_out else self.playout.played(now)",
                "self.playout.sent",
            ),
        ),
        "plain",
        Kind.HISTORY,
    ),
    Plant(
        "a tool that ran is forgotten when it is cancelled",
        "conversation/tool_calls.py",
        (("            self._record(turn, call, INTERRUPTED)\n", ""),),
        "tools",
        Kind.HISTORY,
    ),
    Plant(
        "turns that wait are lost with the connection",
        "conversation/dialogue.py",
        (("        self._replying.commit_waiting()\n", "        return\n"),),
        "three-in-a-row",
        Kind.HISTORY,
    ),
    Plant(
        "the voice is left open when a turn is cancelled",
        "conversation/speaking.py",
        (
            (
                "MakeResampler = ",
                "_kept = []\n\n\n"
                "class _Forgetful:\n"
                "    def __init__(self, opened):\n"
                "        self.opened = opened\n"
                "        _kept.append(opened)\n\n"
                "    async def __aenter__(self):\n"
                "        return await self.opened.__aenter__()\n\n"
                "    async def __aexit__(self, kind, *error):\n"
                "        if kind is None:\n"
                "            await self.opened.__aexit__(None, None, None)\n\n\n"
                "MakeResampler = ",
            ),
            (
                "        async with self.synthesizer.open_speech(\n",
                "        async with _Forgetful(self.synthesizer.open_speech(\n",
            ),
            (
                "language=configuration.language\n        ) as chunks:",
                "language=configuration.language\n        )) as chunks:",
            ),
        ),
        "plain",
        Kind.SLOT,
    ),
    Plant(
        "what is being sent is shielded",
        "conversation/writer.py",
        (
            (
                "with trio.move_on_after(self._stall_seconds) as stall:",
                "with trio.CancelScope(shield=True) as stall:",
            ),
        ),
        "stall",
        Kind.CLOSE,
    ),
    Plant(
        "a drain that waits for the user",
        "conversation/dialogue.py",
        (("while self.floor.busy:", "while self.floor.last_turn_id < 9:"),),
        "drain",
        Kind.CLOSE,
    ),
    Plant(
        "all connections share one lane",
        "conversation/outbox.py",
        (
            ("class Gate(Enum):", "_one = trio.Lock()\n\n\nclass Gate(Enum):"),
            ("_lane: trio.Lock = attrs.field(factory=trio.Lock)", "_lane: trio.Lock = _one"),
        ),
        "stall",
        Kind.NEIGHBOUR,
    ),
    Plant(
        "a failed voice takes no more text",
        "conversation/speaking.py",
        (("            while True:\n                await sentences.receive()\n", ""),),
        "failing-engines",
        Kind.HISTORY,
    ),
    Plant(
        "no gate in the outbox",
        "conversation/outbox.py",
        (("if slot and slot.sender.gate is Gate.OPEN:", "if slot:"),),
        "stall-and-barge-in",
        Kind.AUDIO,
    ),
)


@pytest.mark.slow
@pytest.mark.parametrize("planted", PLANTS, ids=lambda planted: planted.name.replace(" ", "-"))
def test_a_planted_bug_is_found_and_named(planted: Plant, tmp_path: Path):
    """A copy of the package with the mistake, explored by the command of the instruments."""
    plant(planted.name, planted.module, planted.edits, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "instruments.cases", planted.scenario, "--faults", "9"],
        cwd=tmp_path,  # `-m` puts it first on the path: the mutated copy is what is imported
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{planted.kind}: " in done.stdout, done.stdout
