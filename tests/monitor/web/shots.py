"""Pictures of every page: python -m tests.monitor.web.shots FOLDER [--theme dark light] [--demo] [--small].

--demo : of what `microrisk demo --serve` shows, instead of the made-up market of the tests
--small : a palette instead of true colour, for pictures that are committed
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from microrisk.monitor.web.serve import open_server
from tests.monitor.web.browser import CHROMIUM, FLAGS, SIZE
from tests.monitor.web.conftest import serving
from tests.monitor.web.fake_hub import FakeHub, Lively
from tests.monitor.web.palette import shrink

MADE_UP = ("AAPL.XNAS", "BTC-USD.COINBASE", "AAPL.XBOS", "BTC/USD.KRAKEN")
DEMO = ("SIM1.SIMX", "BTC-USD.COINBASE")
WAIT_MS, WAIT_DEMO_MS = 6_000, 40_000
"""Before the first picture: the demo's first planted trouble takes its time."""


@contextmanager
def made_up() -> Iterator[str]:
    """Address of the made-up market."""
    with Lively(FakeHub()) as hub, serving(hub) as running:
        yield running.address


@contextmanager
def demo() -> Iterator[str]:
    """Address of the demo."""
    from microrisk.monitor.demo import MINUTES, demo_sources
    from microrisk.monitor.service import Service, Settings

    with (
        tempfile.TemporaryDirectory() as folder,
        demo_sources(Path(folder), seed=1, minutes=MINUTES, say=print) as all_,
    ):
        service = Service(all_, Settings(folder=Path(folder) / "state", model=None, scored=200))
        server, address = open_server(service.hub, port=0)
        service.start()
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield address
        finally:
            server.stop()
            thread.join()
            service.stop()


class Camera:
    """Takes pictures of one page in one theme."""

    def __init__(self, page: Page, folder: Path, theme: str) -> None:
        self.page, self.folder, self.theme = page, folder, theme

    def shot(self, name: str, wait_ms: int = 900) -> None:
        """A few frames more, so that lines have length; then the picture."""
        self.page.wait_for_timeout(wait_ms)
        self.page.screenshot(path=self.folder / f"{name}-{self.theme}.png")

    def all(self, address: str, instruments: tuple[str, ...], wait_ms: int) -> None:
        """Every page."""
        self.page.goto(address)
        self.page.locator("#page-overview tbody tr").first.wait_for()
        self.shot("overview", wait_ms)
        for i, name in enumerate(instruments):
            self.instrument(name, str(i or ""))
        self.alerts()
        for key, name in (("4", "latency"), ("5", "hardware")):
            self.page.keyboard.press(key)
            self.page.locator(f"#page-{name} tbody tr").first.wait_for()
            self.shot(name, 1500)
        self.page.keyboard.press("?")
        self.shot("help")

    def instrument(self, name: str, suffix: str) -> None:
        """One instrument, the pointer on its first picture."""
        self.page.keyboard.press("/")
        self.page.keyboard.type(name)
        self.page.locator("#found [aria-selected=true]").wait_for()
        self.page.keyboard.press("Enter")
        self.page.locator(".ladder .bid .price").first.wait_for()
        self.page.mouse.move(300, 200) if not suffix else self.page.mouse.move(5, 700)
        self.shot(f"instrument{suffix}", 4000)
        self.page.mouse.move(5, 700)

    def alerts(self) -> None:
        """The third alert from above."""
        self.page.keyboard.press("3")
        self.page.locator("#page-alerts tbody tr").first.wait_for()
        for key in ("j", "j", "j", "Enter"):
            self.page.keyboard.press(key)
        self.page.locator(".picture:not(.idle)").wait_for()
        self.shot("alerts")


def main() -> None:
    """Both themes, or the one asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--theme", nargs="*", default=["dark", "light"])
    parser.add_argument("--demo", action="store_true")
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    names, wait_ms = (DEMO, WAIT_DEMO_MS) if asked.demo else (MADE_UP, WAIT_MS)
    with demo() if asked.demo else made_up() as address, sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for theme in asked.theme:
            context = browser.new_context(viewport=SIZE, color_scheme=theme)
            page = context.new_page()
            page.on("console", lambda m: print(m.type, m.text, m.location))
            page.on("pageerror", lambda e: print("ERROR", e, e.stack))
            Camera(page, asked.folder, theme).all(address, names, wait_ms)
            context.close()
        for path in sorted(asked.folder.glob("*.png")) if asked.small else ():
            shrink(browser, path)
        browser.close()


if __name__ == "__main__":
    main()
