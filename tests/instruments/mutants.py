"""Planted mistakes in the conversation, each with the test that must catch it.

A mutant is a copy of the package with one piece of one module replaced.  The
named test has to fail on it under some of the given schedules, and must pass on
the package as it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]


@attrs.frozen
class Mutant:
    """One planted mistake."""

    name: str
    module: str  # below listenai/
    edits: tuple[tuple[str, str], ...]  # (what stands there, what is put in its place)
    caught_by: str  # test file and name, below tests/


MUTANTS = (
    Mutant(
        "gate missing in the outbox",
        "conversation/outbox.py",
        (("if slot and slot.sender.gate is Gate.OPEN:", "if slot:"),),
        "conversation/test_failures.py::test_a_hold_covers_the_chunk_that_waits_for_a_stalled_device",
    ),
    Mutant(
        "gate in the speaker only",
        "conversation/outbox.py",
        (
            ("if slot and slot.sender.gate is Gate.OPEN:", "if slot:"),
            (
                "        try:\n            self._lane.acquire_nowait()",
                "        while sender.gate is not Gate.OPEN:\n"
                "            await sender.wait_changed()\n"
                "        try:\n            self._lane.acquire_nowait()",
            ),
        ),
        "conversation/test_failures.py::test_a_hold_covers_the_chunk_that_waits_for_a_stalled_device",
    ),
    Mutant(
        "history commit inside the cancelled scope",
        "conversation/replying.py",
        (
            (
                "            finally:\n                self._commit(turn)\n",
                "            finally:\n                pass\n",
            ),
            (
                "            await self.speaking.finish(turn)  #",
                "            await self.speaking.finish(turn)\n            self._commit(turn)  #",
            ),
        ),
        "conversation/test_barge_in.py::test_twice_in_a_row",
    ),
    Mutant(
        "pacer not shifted on resume",
        "conversation/replying.py",
        (
            (
                "stream.playout.resume(trio.current_time())",
                "stream.playout._paused_at = None",
            ),
        ),
        "conversation/test_barge_in.py::test_a_false_alarm_resumes_at_the_held_sample",
    ),
    Mutant(
        "listener waits for the writer",
        "conversation/listening.py",
        (
            (
                "        recognizer.accept(pcm)\n",
                "        recognizer.accept(pcm)\n"
                "        outbox = self.hear.__self__._outbox\n"
                "        while outbox._posted:\n"
                "            await trio.sleep(0.01)\n",
            ),
        ),
        "conversation/test_failures.py::test_a_device_that_does_not_read_cannot_stop_listening",
    ),
    Mutant(
        "interrupt reopens the gate",
        "conversation/replying.py",
        (("        turn.set_gate(Gate.SHUT)\n", "        turn.set_gate(Gate.OPEN)\n"),),
        "conversation/test_failures.py::test_no_stale_audio_through_a_wire_that_never_yields",
    ),
    Mutant(
        "the tail is outside the turn",
        "conversation/speaking.py",
        (("            await self._wait_until(turn, stream.playout.ends_at)\n", ""),),
        "conversation/test_turns.py::test_a_turn_lasts_until_it_was_played",
    ),
    Mutant(
        "writer inside the inner nursery",
        "conversation/conversation.py",
        (
            ("                outer.start_soon(self._writer.write)\n", ""),
            (
                "                self._inner.start_soon(self._ping)\n",
                "                self._inner.start_soon(self._writer.write)\n"
                "                self._inner.start_soon(self._ping)\n",
            ),
        ),
        "conversation/test_turns.py::test_ending_the_session_says_goodbye",
    ),
    Mutant(
        "a cancelled send leaves its slot",
        "conversation/outbox.py",
        (("if self._slot is slot:  # cancelled", "if False:  # cancelled"),),
        "conversation/test_failures.py::test_a_stream_that_failed_before_it_opened_is_never_announced",
    ),
    Mutant(
        "no stall deadline",
        "conversation/writer.py",
        (("trio.move_on_after(self._stall_seconds) as stall", "trio.CancelScope() as stall"),),
        "conversation/test_failures.py::test_a_stalled_device_is_given_up_after_5_seconds",
    ),
    Mutant(
        "the hold has no deadline",
        "conversation/floor.py",
        (("self._hold_deadline = now + HOLD_SECONDS", "pass"),),
        "conversation/test_barge_in.py::test_speech_that_goes_on_takes_the_floor_without_a_word",
    ),
    Mutant(
        "reports go to the latest turn",
        "conversation/replying.py",
        (("        turn = self._running\n", "        turn = self.latest\n"),),
        "conversation/test_barge_in.py::test_twice_in_a_row",
    ),
    Mutant(
        "turns run side by side",
        "conversation/replying.py",
        (
            (
                "                    await self._run_turn(turn)\n",
                "                    trio.lowlevel.spawn_system_task(self._run_turn, turn)\n",
            ),
        ),
        "conversation/test_turns.py::test_a_full_turn_in_order",
    ),
    Mutant(
        "a failed voice takes no more text",
        "conversation/speaking.py",
        (("            while True:\n                await sentences.receive()\n", ""),),
        "conversation/test_failures.py::test_a_failed_synthesizer_is_one_error_with_sentences_waiting",
    ),
    Mutant(
        "unheard text in the history",
        "conversation/replying.py",
        (("        text, certainty = heard.text,", "        text, certainty = turn.text,"),),
        "conversation/test_barge_in.py::test_barge_in_at_every_point",
    ),
)


def plant(name: str, module: str, edits: tuple[tuple[str, str], ...], folder: Path) -> None:
    """Makes a copy of the package in `folder`, with the edits in its module."""
    package = folder / "listenai"
    shutil.copytree(ROOT / "listenai", package, ignore=shutil.ignore_patterns("__pycache__"))
    source = (package / module).read_text("utf-8")
    for before, after in edits:
        if source.count(before) != 1:
            raise ValueError(f"{name}: {module} holds {before!r} not exactly once")
        source = source.replace(before, after)
    (package / module).write_text(source, "utf-8")


def is_caught(mutant: Mutant, folder: Path, seeds: int) -> bool:
    """Runs the mutant's test on a mutated copy of the package in `folder`."""
    plant(mutant.name, mutant.module, mutant.edits, folder)
    command = [
        sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
        "-c", str(ROOT / "pyproject.toml"), "--seeds", str(seeds),
        str(ROOT / "tests" / mutant.caught_by),
    ]  # fmt: skip
    # `-m` puts the working folder first on the path: the mutated copy is what is imported.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=25,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return True  # it hangs: nobody would overlook that
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{mutant.name}: pytest could not run\n{done.stdout}{done.stderr}")
    return done.returncode == 1
