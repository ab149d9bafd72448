#!/usr/bin/env python3
"""check_budget.py BUDGET SIZE FOOTPRINT OBJECT...: sizes and stack against the budget.

FOOTPRINT is the object with a device's static memory; the others are the core, each with the
compiler's `.su` file of stack use beside it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def sections(size: str, objects: list[str]) -> tuple[int, int]:
    """Bytes of code with constants, and of variables."""
    lines = subprocess.run(  # noqa: S603 - the Makefile names the program
        [size, *objects], check=True, capture_output=True, text=True
    ).stdout.splitlines()[1:]
    rows = [[int(cell) for cell in line.split()[:3]] for line in lines]
    return sum(row[0] for row in rows), sum(row[1] + row[2] for row in rows)


def largest_frame(objects: list[str]) -> tuple[int, str]:
    """The largest stack frame in bytes, and whose it is."""
    frames = []
    for one in objects:
        for line in Path(one).with_suffix(".su").read_text().splitlines():
            place, used, kind = line.split("\t")
            if kind != "static":
                sys.exit(f"{place}: its stack use has no bound ({kind})")
            frames.append((int(used), place.rpartition(":")[2]))
    return max(frames)


def main() -> None:
    """Prints each number beside its budget; exits with 1 where one is over it."""
    budget_path, size, footprint, *core = sys.argv[1:]
    rows = (line.split("#")[0].split() for line in Path(budget_path).read_text().splitlines())
    budget = {row[0]: int(row[1]) for row in rows if row}
    code, core_ram = sections(size, core)
    _, static_ram = sections(size, [footprint])
    frame, whose = largest_frame(core)
    measured = {
        "static_ram": static_ram + core_ram,
        "core_ram": core_ram,
        "code": code,
        "stack_function": frame,
    }
    over = False
    for name, bytes_used in measured.items():
        note = f" ({whose})" if name == "stack_function" else ""
        print(f"size: {name} {bytes_used} of {budget[name]} bytes{note}")
        over |= bytes_used > budget[name]
    sys.exit("The core has outgrown its budget: see budget.txt" if over else 0)


if __name__ == "__main__":
    main()
