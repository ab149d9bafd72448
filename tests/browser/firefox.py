"""Firefox ESR over WebDriver BiDi, spoken directly: no driver program is needed.

WebDriver BiDi (W3C): JSON over a WebSocket; each command has an id that its answer repeats, and
events come in between.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import attrs
from stage import need, process, wait_for_words
from websockets.sync.client import ClientConnection, connect

COMMAND_SECONDS = 60
_PREFERENCES: Mapping[str, object] = {
    "media.navigator.permission.disabled": True,  # whoever asks for the microphone gets it
    "media.navigator.streams.fake": True,  # it hears a tone
    "media.autoplay.default": 0,
    "media.autoplay.blocking_policy": 0,
    "app.update.enabled": False,
    "browser.safebrowsing.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
    "toolkit.telemetry.enabled": False,
    "remote.active-protocols": 1,  # BiDi alone
}


@attrs.frozen
class FirefoxPage:
    """One tab."""

    socket: ClientConnection
    context: str
    ids: Iterator[int]
    errors: list[str]  # of the page

    def evaluate(self, expression: str) -> Any:
        """What an expression gives, promises waited for."""
        answer = self.command(
            "script.evaluate",
            expression=f"(async () => JSON.stringify(await ({expression})))()",
            target={"context": self.context},
            awaitPromise=True,
            userActivation=True,
        )
        if answer["type"] != "success":
            raise AssertionError(f"{expression}: {answer['exceptionDetails']['text']}")
        return json.loads(answer["result"].get("value", "null"))

    def open(self, url: str) -> None:
        """Loads a page."""
        self.command("browsingContext.navigate", context=self.context, url=url, wait="complete")

    def command(self, method: str, **parameters: object) -> Any:
        """Sends one command and gives its answer."""
        number = next(self.ids)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        deadline = time.monotonic() + COMMAND_SECONDS
        while True:
            answer = json.loads(self.socket.recv(timeout=deadline - time.monotonic()))
            if answer.get("id") == number:
                assert answer["type"] == "success", answer
                return answer["result"]
            if answer.get("method") == "log.entryAdded" and answer["params"]["level"] == "error":
                self.errors.append(answer["params"]["text"])


@contextmanager
def firefox(directory: Path, env: Mapping[str, str]) -> Iterator[FirefoxPage]:
    """A tab in a browser of its own; fails at the end where the page had an error.

    directory: for its profile.  env: of a sound card, without which its audio never starts.
    """
    need("firefox-esr")
    profile = directory / "profile"
    profile.mkdir()
    preferences = (f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in _PREFERENCES.items())
    (profile / "user.js").write_text("\n".join(preferences))
    command = ["firefox-esr", "--headless", "--no-remote", "--remote-debugging-port", "0"]
    with process([*command, "--profile", str(profile)], env=env) as said:
        address = wait_for_words(said, r"ws://127\.0\.0\.1:\d+")
        with connect(f"{address}/session", max_size=None, compression=None) as socket:
            page = FirefoxPage(socket, "", count(1), [])
            page.command("session.new", capabilities={})
            page.command("session.subscribe", events=["log.entryAdded"])
            context = page.command("browsingContext.create", type="tab")["context"]
            page = attrs.evolve(page, context=context)
            yield page
            page.command("browser.close")
    assert not page.errors, f"the page said: {page.errors}"
