"""`python -m listenai doctor`: is everything there, reachable and able to talk?

Each check is a row: what it looks at, the entry of the troubleshooting page that helps, a
deadline, and a function.  They run side by side, but for the spoken ones: their times mean
something only on a quiet machine.  What cannot be cancelled (a folder on a network that hangs)
is waited for, and told as late.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import attrs
import trio

from listenai.app.doctor import machine, reach, speech
from listenai.app.doctor.report import Check, Finding, Mark, as_line, broken, finding_of, look, well
from listenai.config import Loaded
from listenai.errors import ConfigurationError

Tell = Callable[[str], None]

ALL_WELL, SOMETHING_IS_WRONG = 0, 1  # exit status


async def examine(
    configuration: Loaded | ConfigurationError, tell: Tell, encoding: str = "utf-8"
) -> int:
    """Runs every check and tells a line for each, in order; the exit status.

    configuration: what `serve` would run with, or why it would not; then only what does not
        depend on it is checked.
    encoding: of where the lines go.  Never raises what a check may meet.
    """
    # Libraries may log what a line here says better, and worse: with a traceback.
    logging.getLogger().addHandler(logging.NullHandler())
    together, apart = _checks(configuration)
    marks = [
        *await _run(together, tell, encoding),
        *[mark for check in apart for mark in await _run([check], tell, encoding)],
    ]
    return SOMETHING_IS_WRONG if Mark.BROKEN in marks else ALL_WELL


def _checks(configuration: Loaded | ConfigurationError) -> tuple[list[Check], list[Check]]:
    """Those that run side by side, and those that run alone after them."""
    if isinstance(configuration, ConfigurationError):
        told = [_constant(broken(problem)) for problem in configuration.problems]
        return [*machine.checks(), *told], speech.checks()
    warned = [_constant(look(warning, "configuration")) for warning in configuration.warnings]
    config = configuration.config
    return (
        [
            *machine.checks(),
            _constant(well("every setting can work")),
            *warned,
            *machine.configured_checks(config),
            *reach.checks(config),
        ],
        speech.checks(config),
    )


def _constant(finding: Finding) -> Check:
    async def run() -> Finding:
        return finding

    return Check("configuration", "configuration", 1.0, run)


@attrs.define
class _Running:
    """A check and what becomes of it."""

    check: Check
    done: trio.Event = attrs.field(factory=trio.Event)
    finding: Finding | None = None

    async def run(self) -> None:
        self.finding = await examine_one(self.check)
        self.done.set()


async def _run(checks: Sequence[Check], tell: Tell, encoding: str) -> list[Mark]:
    running = [_Running(check) for check in checks]
    marks: list[Mark] = []
    async with trio.open_nursery() as nursery:
        for each in running:
            nursery.start_soon(each.run)
        for each in running:
            await each.done.wait()
            assert each.finding
            tell(as_line(each.check, each.finding, encoding=encoding))
            marks.append(each.finding.mark)
    return marks


async def examine_one(check: Check) -> Finding:
    """What a check found, whatever it raised and however long it takes."""
    with trio.move_on_after(check.seconds):
        try:
            return await check.run()
        except Exception as error:  # a report, no traceback: that is what it is for
            return finding_of(error)
    return check.broken(f"nothing came of it within {check.seconds:g} s")
