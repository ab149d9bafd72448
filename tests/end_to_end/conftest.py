"""A running server for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from end_to_end_server import RunningServer, running_server


@pytest.fixture
async def server() -> AsyncIterator[RunningServer]:
    async with running_server() as running:
        yield running
