"""The page for everyone: no violation that axe-core finds, and everything from the keyboard."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Playwright, expect, sync_playwright
from stage import HERE, server
from visitor import Visitor, quiet_microphone, visitor

pytestmark = [pytest.mark.browser, pytest.mark.engines, pytest.mark.slow]

SIZES = ((1280, 860), (390, 844))
SCHEMES = ("light", "dark")
# What axe-core found, each as its rule and the elements.
FINDINGS = """
(async () => (await axe.run({resultTypes: ["violations"]})).violations.map(
    ({id, nodes}) => `${id}: ${nodes.map((node) => node.target.join(" ")).join(", ")}`))()
"""
FOCUSED = """
(({activeElement: one}) => {
    const {outlineStyle, outlineWidth} = getComputedStyle(one);
    return [one.id || one.name || one.className, outlineStyle, outlineWidth];
})(document)
"""
# The user's words, a tool that has run, an answer that was cut off: everything that has a colour.
FULL = """
["user", "tool", "assistant"].every((kind) => listenai.state.entries.some(
    (entry) => entry.kind === kind))
&& listenai.state.entries.some((entry) => entry.outcome === "interrupted")
"""


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server() as running:
        yield running


@pytest.fixture(scope="module")
def axe() -> str:
    """axe-core's source, of the version that `scripts/web_check.sh` installs."""
    script = (HERE.parents[1] / "scripts" / "web_check.sh").read_text()
    found = re.search(r"^axe_core=(\S+)$", script, re.MULTILINE)
    assert found, "scripts/web_check.sh does not say which axe-core it installs"
    file = Path(sys.prefix) / f"axe-core-{found[1]}" / "node_modules/axe-core/axe.min.js"
    assert file.is_file(), "please type: bash scripts/web_check.sh, which installs axe-core"
    return file.read_text()


def open_tab(name: str) -> Callable[[Visitor], None]:
    return lambda user: user.page.click(f"#tab-{name}")


def watch_demo(user: Visitor) -> None:
    """Up to where everything is in sight; it stands still there, as axe-core takes its time."""
    user.page.click("#demo")
    user.until(FULL, "the demo shows an interruption and a tool")
    user.page.click("#replay-toggle")
    expect(user.page.locator("#replay-toggle")).to_have_text("Go on")


def talk(user: Visitor) -> None:
    """A live conversation with a tool that ran."""
    user.connect()
    user.asks("Set the volume to fifty percent.")
    expect(user.page.locator("#log .k-tool")).to_contain_text("succeeded")


VIEWS: dict[str, Callable[[Visitor], object]] = {
    "idle": lambda user: None,
    "statistics": open_tab("stats"),
    "settings": open_tab("settings"),
    "protocol": open_tab("protocol"),
    "shortcuts": lambda user: user.page.click("#help"),
    "demo": watch_demo,
    "live": talk,
}


@pytest.mark.parametrize("view", VIEWS)
def test_axe_core_finds_no_violation(
    playwright: Playwright, url: str, axe: str, tmp_path: Path, view: str
) -> None:
    """In light and dark, on a desktop and on a phone."""
    quiet = quiet_microphone(tmp_path)
    with visitor(playwright, url, quiet, reduced_motion="reduce") as user:
        VIEWS[view](user)
        user.page.evaluate(axe)
        found = {}
        for width, height in SIZES:
            for scheme in SCHEMES:
                user.page.set_viewport_size({"width": width, "height": height})
                user.page.emulate_media(color_scheme=scheme)
                found[f"{scheme}, {width} wide"] = user.page.evaluate(FINDINGS)
        assert found == {key: [] for key in found}


def test_axe_core_finds_what_is_wrong(
    playwright: Playwright, url: str, axe: str, tmp_path: Path
) -> None:
    """Under the page's policy, too: a button without a name, and words too pale to read."""
    with visitor(playwright, url, quiet_microphone(tmp_path)) as user:
        user.page.evaluate(axe)
        user.page.evaluate("document.querySelector('#help span').textContent = ''")
        user.page.evaluate("document.querySelector('#detail').style.color = '#ddd'")
        rules = {finding.partition(":")[0] for finding in user.page.evaluate(FINDINGS)}
        assert rules == {"button-name", "color-contrast"}


def test_tab_goes_through_everything_in_its_order(
    playwright: Playwright, url: str, tmp_path: Path
) -> None:
    """And shows where it is; Enter connects."""
    path = ["theme", "help", "connect", "talk", "demo", "mute", "pause", "volume", "message"]
    with visitor(playwright, url, quiet_microphone(tmp_path)) as user:
        reached: list[str] = []
        while "message" not in reached:
            user.page.keyboard.press("Tab")
            name, style, width = user.page.evaluate(FOCUSED)
            reached.append(name)
            assert len(reached) < 40, f"Tab does not reach the message field: {reached}"
            if name != "open":  # its label shows the outline
                assert (style, width) != ("none", "0px"), f"no outline shows that {name} is chosen"
        assert reached[0] == "skip"
        assert [name for name in reached if name in path] == path
        while user.page.evaluate("document.activeElement.id") != "connect":
            user.page.keyboard.press("Shift+Tab")
        user.page.keyboard.press("Enter")
        user.sees("Listening")


def test_the_first_link_skips_to_the_message_field(
    playwright: Playwright, url: str, tmp_path: Path
) -> None:
    with visitor(playwright, url, quiet_microphone(tmp_path)) as user:
        user.page.keyboard.press("Tab")
        user.page.keyboard.press("Enter")
        user.until("document.activeElement.id === 'message'")


def test_each_key_does_what_the_list_of_keys_says(
    playwright: Playwright, url: str, tmp_path: Path
) -> None:
    with visitor(playwright, url, quiet_microphone(tmp_path)) as user:
        press = user.page.keyboard.press
        press("?")
        expect(user.page.locator("#shortcuts")).to_be_visible()
        press("Escape")
        expect(user.page.locator("#shortcuts")).to_be_hidden()
        press("t")
        assert theme(user.page) == "light"
        press("t")
        assert theme(user.page) == "dark"
        press("c")
        user.sees("Listening")
        for key, title in (("m", "Muted"), ("Space", "Muted"), ("p", "Playback paused")):
            press(key)
            user.sees(title)
            press(key)
            user.sees("Listening")
        press("/")
        user.page.keyboard.type("Tell me a story.")  # letters are letters there
        assert user.page.input_value("#message") == "Tell me a story."
        press("Enter")
        user.until("Object.values(listenai.state.streams).some(({played}) => played > 0)")
        press("Escape")
        expect(user.page.locator("#log .k-assistant.interrupted")).to_be_visible()
        user.page.evaluate("document.activeElement.blur()")
        press("c")
        user.sees("Not connected")


def test_single_keys_can_be_turned_off(playwright: Playwright, url: str, tmp_path: Path) -> None:
    """Somebody who dictates would press them all."""
    with visitor(playwright, url, quiet_microphone(tmp_path)) as user:
        user.page.click("#tab-settings")
        user.page.uncheck("[name=shortcuts]")
        user.page.evaluate("document.activeElement.blur()")
        user.page.keyboard.press("t")
        assert theme(user.page) is None
        user.page.click("#theme")
        assert theme(user.page) == "light"


def theme(page: Page) -> str | None:
    """The one that was chosen."""
    return page.evaluate("document.documentElement.dataset.theme ?? null")
