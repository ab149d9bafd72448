"""Takes pictures of the page while it plays its built-in demo: light and dark, desktop and phone.

    python scripts/page_pictures.py http://localhost:9400/ DIRECTORY

Needs a server at that address, Playwright for Python and Chromium.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
SIZES = {"desktop": (1280, 860), "phone": (390, 844)}
PATIENCE_SECONDS = 60.0  # the demo takes half of it
# The answer that was cut off has ended, the next one is being spoken: everything is in sight.
MOMENT = """() => {
    const { entries, turns, phase } = window.listenai.state;
    const cut = entries.some((entry) => entry.outcome === "interrupted");
    return cut && phase === "speaking" && turns.at(-1).playingAt !== null;
}"""


@click.command(help=__doc__)
@click.argument("url")
@click.argument("directory", type=click.Path(path_type=Path))
def main(url: str, directory: Path) -> None:
    """Four pictures, named page-{light,dark}-{desktop,phone}.png."""
    directory.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for scheme in ("light", "dark"):
            for name, size in SIZES.items():
                path = directory / f"page-{scheme}-{name}.png"
                _take(browser, url, scheme, size, path)
                click.echo(path)
        browser.close()


def _take(browser: Browser, url: str, scheme: str, size: tuple[int, int], path: Path) -> None:
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        device_scale_factor=2,
    )
    page = context.new_page()
    page.goto(url)
    page.click("#demo")
    _wait_for(page, MOMENT)
    page.wait_for_timeout(700)  # so that the spectrum is in full swing
    page.screenshot(path=path)
    context.close()


def _wait_for(page: Page, condition: str) -> None:
    """Asks again and again: the page's policy forbids Playwright's own way of waiting."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not page.evaluate(condition):
        if time.monotonic() > deadline:
            raise click.ClickException(f"the page did not get there in {PATIENCE_SECONDS:g} s")
        page.wait_for_timeout(50)


if __name__ == "__main__":
    main()
