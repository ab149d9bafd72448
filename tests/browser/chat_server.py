"""The stand-in for a language model's server, for tests that are not asynchronous themselves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue

import trio
from openai_server import Behaviour, OpenAIServer, open_openai_server


@contextmanager
def chat_server(usual: Behaviour) -> Iterator[OpenAIServer]:
    """Runs in a thread; `requests` has what it was asked, and `url` where it is."""
    started: Queue[tuple[OpenAIServer, trio.lowlevel.TrioToken, trio.Event]] = Queue()

    async def run() -> None:
        async with open_openai_server(usual=usual) as running:
            over = trio.Event()
            started.put((running, trio.lowlevel.current_trio_token(), over))
            await over.wait()

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    running, token, over = started.get(timeout=10)
    try:
        yield running
    finally:
        token.run_sync_soon(over.set)
        thread.join()
