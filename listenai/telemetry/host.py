"""What the server's process takes of its machine."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

_STATM = Path("/proc/self/statm")  # Linux: sizes in pages; the second one is in memory


class HostFigures:
    """Figures for clients that ask for them; reading them takes about 20 µs."""

    def __init__(self, redis_connections: Callable[[], int] = lambda: 0) -> None:
        self._redis_connections = redis_connections
        self._cpu, self._at = time.process_time(), time.monotonic()

    def read(self) -> Mapping[str, float]:
        """cpuPercent, of one core, since the last call; memoryBytes; redisConnections."""
        cpu, at = time.process_time(), time.monotonic()
        passed = max(at - self._at, 1e-3)
        percent = 100 * (cpu - self._cpu) / passed
        self._cpu, self._at = cpu, at
        return {
            "cpuPercent": round(percent, 1),
            "memoryBytes": _memory_bytes(),
            "redisConnections": self._redis_connections(),
        }


def _memory_bytes(statm: Path = _STATM) -> int:
    try:
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):  # no Linux: the most it ever had
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
