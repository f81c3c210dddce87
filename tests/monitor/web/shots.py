"""Pictures of every page over the made-up market: python -m tests.monitor.web.shots FOLDER [--theme dark] [--small].

--small : 255 colours, through ImageMagick's `convert`, for pictures that are committed
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.monitor.web.browser import CHROMIUM, FLAGS, SIZE
from tests.monitor.web.conftest import serving
from tests.monitor.web.fake_hub import FakeHub, Lively

INSTRUMENTS = ("AAPL.XNAS", "BTC-USD.COINBASE", "AAPL.XBOS", "BTC/USD.KRAKEN")


def take(page: Page, url: str, folder: Path, theme: str) -> None:
    """Every page in one theme; each waits until it has something to show."""

    def shot(name: str) -> None:
        page.wait_for_timeout(700)  # a few frames more, so that lines have length
        page.screenshot(path=folder / f"{name}-{theme}.png")

    page.goto(url)
    page.locator("#page-overview tbody tr").first.wait_for()
    page.wait_for_timeout(6000)
    shot("overview")
    for i, name in enumerate(INSTRUMENTS):
        page.keyboard.press("/")
        page.keyboard.type(name)
        page.locator("[role=option]").first.wait_for()
        page.keyboard.press("Enter")
        page.locator(".ladder .bid .price").first.wait_for()
        if i == 0:
            page.mouse.move(300, 200)
        shot(f"instrument{i or ''}")
    page.mouse.move(5, 700)
    page.keyboard.press("3")
    page.locator("#page-alerts tbody tr").first.wait_for()
    for key in ("j", "j", "j", "Enter"):
        page.keyboard.press(key)
    page.locator(".picture:not(.idle)").wait_for()
    shot("alerts")
    for key, name in (("4", "latency"), ("5", "hardware")):
        page.keyboard.press(key)
        page.locator(f"#page-{name} tbody tr").first.wait_for()
        shot(name)
    page.keyboard.press("?")
    shot("help")


def main() -> None:
    """Both themes, or the one asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--theme", nargs="*", default=["dark", "light"])
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with Lively(FakeHub()) as hub, serving(hub) as running, sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for theme in arguments.theme:
            context = browser.new_context(viewport=SIZE, color_scheme=theme)
            page = context.new_page()
            page.on("console", lambda m: print(m.type, m.text, m.location))
            page.on("pageerror", lambda e: print("ERROR", e, e.stack))
            take(page, running.address, arguments.folder, theme)
            context.close()
        browser.close()
    if arguments.small:
        for path in sorted(arguments.folder.glob("*.png")):
            shrink(path)


def shrink(path: Path) -> None:
    """A palette instead of true colour: a third of the size."""
    options = ["+dither", "-colors", "255", "-strip", "-define", "png:compression-level=9"]
    subprocess.run(["convert", path, *options, f"PNG8:{path}"], check=True)


if __name__ == "__main__":
    main()
