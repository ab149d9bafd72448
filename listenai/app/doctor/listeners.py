"""Which program listens on a port, as far as the system tells."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")  # of Linux
_LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp


def who_listens(port: int, *, proc: Path = _PROC) -> str | None:
    """Like "nginx (process 12)"; None: other systems, and other users' programs, do not tell."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port, proc)}
    if not sockets:
        return None
    for process in sorted(proc.glob("[0-9]*")):
        # Processes end while we look, and those of others are closed to us.
        with suppress(OSError):
            if any(os.readlink(file) in sockets for file in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
    return None


def _listening_inodes(port: int, proc: Path) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (proc / "net" / table).read_text().splitlines()[1:]:
                _number, local, _remote, state, *rest = line.split()
                if state == _LISTENING and int(local.rpartition(":")[2], 16) == port:
                    yield rest[5]
