"""What the process takes of its machine, as clients are told."""

from __future__ import annotations

import time

from listenai.telemetry.host import HostFigures

MIB = 1 << 20


def test_figures_are_those_of_this_process() -> None:
    """Memory is there, work is seen, and a process that waits takes less of the CPU."""
    figures = HostFigures(lambda: 3)
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    busy = figures.read()
    assert set(busy) == {"cpuPercent", "memoryBytes", "redisConnections"}
    assert busy["redisConnections"] == 3
    assert 10 * MIB < busy["memoryBytes"] < 100_000 * MIB
    assert busy["cpuPercent"] > 0
    ballast = bytearray(64 * MIB)
    ballast[::4096] = b"x" * len(ballast[::4096])
    assert figures.read()["memoryBytes"] > busy["memoryBytes"] + 32 * MIB
    assert HostFigures().read()["redisConnections"] == 0
