"""What a check found, as one line: ✓, or what to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum

import attrs

from listenai.errors import ConfigurationError, ListenAIError
from listenai.server.troubles import advice
from listenai.server.troubleshooting import PATH


class Mark(Enum):
    """How well it is; `plain` is for terminals that know no ✓."""

    WELL = "✓", "ok  "
    LOOK = "!", "look"  # it works, with less than was asked for
    BROKEN = "✗", "FAIL"

    @property
    def sign(self) -> str:
        """One character."""
        return self.value[0]

    @property
    def plain(self) -> str:
        """The same in ASCII."""
        return self.value[1]


@attrs.frozen
class Finding:
    """What a check found; `todo` is empty where `said` tells already what to do."""

    mark: Mark
    said: str
    todo: str = ""


@attrs.frozen
class Check:
    """One line of the report."""

    name: str
    trouble: str  # its anchor on the troubleshooting page
    seconds: float  # after which it has failed
    run: Callable[[], Awaitable[Finding]]

    def broken(self, said: str) -> Finding:
        """It failed; what to do is on the page."""
        return Finding(Mark.BROKEN, said, advice(self.trouble))


def well(said: str) -> Finding:
    """All is well."""
    return Finding(Mark.WELL, said)


def broken(said: str, trouble: str = "") -> Finding:
    """It does not work.

    trouble: whose advice follows; "" where `said` tells what to do, as all our errors do.
    """
    return Finding(Mark.BROKEN, said, advice(trouble) if trouble else "")


def look(said: str, trouble: str = "") -> Finding:
    """It works, with less than was asked for; trouble: as in `broken`."""
    return Finding(Mark.LOOK, said, advice(trouble) if trouble else "")


def finding_of(error: Exception) -> Finding:
    """What an exception says: our own tell what to do, others are faults of the check.

    The text of those others is not shown: it may hold anything, a secret too.
    """
    leaves = _leaves(error)
    ours = [
        problem
        for leaf in leaves
        if isinstance(leaf, ListenAIError)
        for problem in (leaf.problems if isinstance(leaf, ConfigurationError) else [str(leaf)])
    ]
    if ours:
        return broken("; ".join(dict.fromkeys(ours)))
    kinds = ", ".join(dict.fromkeys(type(leaf).__name__ for leaf in leaves))
    return broken(f"could not be checked ({kinds})", "doctor")


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [error]


def as_line(check: Check, finding: Finding, *, encoding: str = "utf-8") -> str:
    """The finding as one line without control characters, in what this encoding can say."""
    words = f"{check.name}: {finding.said}"
    if finding.todo:
        words += f" — {finding.todo}"
    if finding.mark is not Mark.WELL:
        words += f"  [{PATH}#{check.trouble}]"
    printable = "".join(each if each.isprintable() else " " for each in words)
    text = f"{finding.mark.sign} {' '.join(printable.split())}"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = finding.mark.plain + text[len(finding.mark.sign) :].replace("—", "-")
        text = text.encode(encoding, "replace").decode(encoding)
    return text
