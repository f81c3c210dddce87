"""The page in Debian's Chromium: every page, keyboard, both themes, offline, and not one message on the console."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from microrisk.monitor.web import assets
from tests.monitor.web.browser import CHROMIUM, FLAGS, SIZE
from tests.monitor.web.conftest import VIEWER, Running, serving
from tests.monitor.web.fake_hub import FakeHub, Lively
from tests.monitor.web.test_limits import until

if not Path(CHROMIUM).exists():
    pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium", allow_module_level=True)

from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

LOOPBACK = {"127.0.0.1", "localhost", "::1"}
expect.set_options(timeout=20_000)
PAGES = ("overview", "instrument", "alerts", "latency", "hardware")


@dataclass
class Seen:
    """A page of the browser, and everything it said or asked for."""

    page: Page
    running: Running
    console: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def on(self, name: str) -> Any:
        return self.page.locator(f"#page-{name}")

    def quiet(self) -> None:
        assert self.console == []
        assert self.foreign == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def lively() -> Iterator[Running]:
    with Lively(FakeHub(history_s=30)) as hub, serving(hub) as running:
        yield running


@contextlib.contextmanager
def visit(browser: Browser, running: Running, address: str = "", **options: Any) -> Iterator[Seen]:
    """A fresh profile, signed in, with everything but loopback blocked."""
    context = browser.new_context(viewport=SIZE, **options)
    seen = Seen(context.new_page(), running)

    def only_here(route: Route) -> None:
        if urlsplit(route.request.url).hostname in LOOPBACK:
            route.continue_()
        else:
            seen.foreign.append(route.request.url)
            route.abort()

    context.route("**/*", only_here)
    seen.page.on("console", lambda m: seen.console.append(f"{m.type}: {m.text}"))
    seen.page.on("pageerror", lambda e: seen.console.append(f"error: {e}"))
    seen.page.set_default_timeout(20_000)
    seen.page.goto(address or running.address)
    try:
        yield seen
    finally:
        context.close()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_every_page_in_both_themes(browser: Browser, lively: Running, theme: str, tmp_path: Path) -> None:
    with visit(browser, lively, color_scheme=theme) as seen:
        page = seen.page
        expect(page.locator("html")).to_have_attribute("data-theme", theme)
        for number, name in enumerate(PAGES, 1):
            seen.press(str(number))
            expect(seen.on(name)).to_be_visible()
            expect(page.locator(f"nav a[data-page={name}]")).to_have_attribute("aria-current", "page")
            waits = ".ladder .bid .price" if name == "instrument" else "tbody tr"
            expect(seen.on(name).locator(waits).first).to_be_visible()
            picture = page.screenshot(path=tmp_path / f"{name}-{theme}.png")
            assert len(picture) > 20_000
            assert page.evaluate("document.documentElement.scrollWidth") <= SIZE["width"]
        seen.quiet()


def test_the_token_leaves_the_address(browser: Browser, lively: Running) -> None:
    with visit(browser, lively) as seen:
        expect(seen.on("overview")).to_be_visible()
        assert "token" not in seen.page.url
        assert seen.page.evaluate("document.cookie") == ""  # HttpOnly
        seen.page.reload()
        expect(seen.on("overview")).to_be_visible()
        seen.quiet()


def test_overview_says_the_state_of_each_feed_in_words(browser: Browser, lively: Running) -> None:
    with visit(browser, lively) as seen:
        feeds = seen.on("overview").get_by_role("table", name="Feeds").locator("tbody tr")
        expect(feeds).to_have_count(9)
        for row, words in ((0, "live"), (1, "stale"), (4, "suspect"), (6, "syncing"), (7, "ended"), (8, "down")):
            expect(feeds.nth(row)).to_contain_text(words)
        expect(feeds.nth(1)).to_contain_text("3 messages missing")
        expect(seen.on("overview").get_by_role("table", name="Consolidated book").locator("tbody tr")).to_have_count(2)
        seen.press("j", "j", "Enter")
        expect(seen.on("alerts").locator(".one-head")).to_be_visible()
        seen.quiet()


def find(seen: Seen, name: str) -> None:
    seen.press("/")
    box = seen.page.get_by_role("combobox", name="Find an instrument")
    expect(box).to_be_focused()
    box.fill(name)  # typed letters can outrun the focus on a busy machine
    expect(seen.page.locator("#found [aria-selected=true]")).to_contain_text(name)
    seen.press("Enter")
    expect(seen.page).to_have_title(re.compile(re.escape(name)))


def test_instrument_shows_what_the_hub_has(browser: Browser, lively: Running) -> None:
    with visit(browser, lively) as seen:
        find(seen, "MSFT.XNAS")
        page = seen.on("instrument")
        expect(page.locator(".features .value").first).to_have_text(re.compile(r"^[+−]\d+\.\d$"))
        expect(page.locator(".feature")).to_have_count(32)
        expect(page.locator(".drivers li").first).not_to_have_text("–")
        expect(page.locator(".banner")).to_be_hidden()
        book = lively.hub.by_name["MSFT.XNAS"]
        shown = float(page.locator(".ladder .bid .price").first.inner_text())
        assert abs(shown - book.best / 100) < 0.5
        find(seen, "BTC/USD.KRAKEN")
        expect(page.locator(".banner")).to_contain_text("suspect: Something contradicts the book. Checksum of BTC/USD")
        expect(page.locator(".ladder .bid .price").first).to_contain_text("91,2")
        seen.quiet()


def test_the_pointer_reads_price_size_and_time(browser: Browser, lively: Running) -> None:
    with visit(browser, lively) as seen:
        find(seen, "AAPL.XNAS")
        expect(seen.on("instrument").locator(".ladder .bid .price").first).to_be_visible()
        box = seen.on("instrument").locator(".heatmap").bounding_box()
        assert box is not None
        seen.page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.45)
        tip = seen.on("instrument").locator(".tip")
        expect(tip).to_contain_text(re.compile(r"23\d\.\d\d.*\d\d:\d\d:\d\d\.\d\d\d UTC"))
        seen.page.mouse.move(5, 5)
        expect(tip).to_be_hidden()
        seen.quiet()


def test_the_picture_has_colour_and_moves(browser: Browser, lively: Running) -> None:
    count = """() => {
      const canvas = document.querySelector("#page-instrument .heatmap canvas");
      const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      const seen = new Set();
      for (let i = 0; i < data.length; i += 4) seen.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
      return seen.size;
    }"""
    with visit(browser, lively) as seen:
        find(seen, "AAPL.XNAS")
        expect(seen.on("instrument").locator(".facts")).to_contain_text("events")
        assert until(lambda: seen.page.evaluate(count) > 100)
        before = seen.on("instrument").locator(".map canvas").screenshot()
        assert until(lambda: seen.on("instrument").locator(".map canvas").screenshot() != before)
        seen.quiet()


def test_pause_zoom_and_theme_by_key(browser: Browser, lively: Running) -> None:
    with visit(browser, lively, color_scheme="dark") as seen:
        find(seen, "AAPL.XNAS")
        page = seen.on("instrument")
        expect(page.locator(".facts")).to_contain_text("events")
        seen.press(" ")
        expect(page.locator(".banner")).to_contain_text("Paused")
        held = page.locator(".facts").inner_text()
        seen.page.wait_for_timeout(400)
        assert page.locator(".facts").inner_text() == held
        seen.press(" ")
        expect(page.locator(".banner")).to_be_hidden()
        expect(page.locator(".facts")).not_to_have_text(held)
        seconds = page.locator(".toolbar .fixed").inner_text()
        seen.press("-")
        expect(page.locator(".toolbar .fixed")).not_to_have_text(seconds)
        seen.press("+", "[", "]", "t")
        expect(seen.page.locator("html")).to_have_attribute("data-theme", "light")
        seen.page.reload()
        expect(seen.page.locator("html")).to_have_attribute("data-theme", "light")  # the choice is remembered
        seen.quiet()


def test_help_and_escape(browser: Browser, lively: Running) -> None:
    with visit(browser, lively) as seen:
        expect(seen.on("overview")).to_be_visible()
        seen.press("?")
        dialog = seen.page.get_by_role("dialog", name="Keys")
        expect(dialog).to_be_visible()
        seen.press("3")  # keys of pages do nothing behind the dialog
        seen.press("Escape")
        expect(dialog).to_be_hidden()
        expect(seen.on("overview")).to_be_visible()
        seen.press("/")
        expect(seen.page.get_by_role("combobox", name="Find an instrument")).to_be_focused()
        seen.page.keyboard.type("zzz")
        expect(seen.page.locator("#found")).to_contain_text("no instrument of that name")
        seen.press("Escape")
        expect(seen.page.locator("#found")).to_be_hidden()
        seen.quiet()


def test_alerts_are_replayed_and_labelled(browser: Browser, serve: Callable[..., Running]) -> None:
    running = serve(FakeHub(history_s=40))
    with visit(browser, running) as seen:
        seen.press("3")
        page = seen.on("alerts")
        rows = page.get_by_role("table", name="Alerts").locator("tbody tr")
        expect(rows).to_have_count(len(running.hub.told))
        seen.press("j", "j", "Enter")
        alert = running.hub.told[-2]
        expect(rows.nth(1)).to_have_attribute("aria-selected", "true")
        expect(page.locator(".one-head .title")).to_contain_text(alert.instrument)
        slider, moment = page.get_by_role("slider"), page.locator(".moment")
        expect(moment).to_have_text("+0.00 s")
        seen.press("ArrowLeft")
        expect(moment).to_have_text("−0.05 s")
        seen.press("ArrowRight", " ")
        expect(slider).to_have_js_property("value", str(len(running.hub.around(alert.id)) - 1))
        expect(page.get_by_role("button", name="▶ Play")).to_be_visible()
        seen.press("y")
        expect(rows.nth(1)).to_contain_text("✓ true")
        assert running.hub.labels() == {alert.id: True}
        seen.press("n")
        expect(rows.nth(1)).to_contain_text("✗ false")
        page.get_by_role("button", name="none").click()
        expect(rows.nth(1)).not_to_contain_text("false")
        assert running.hub.labels() == {}
        seen.quiet()


def test_alerts_are_filtered_and_exported(browser: Browser, serve: Callable[..., Running]) -> None:
    running = serve(FakeHub(history_s=40))
    with visit(browser, running) as seen:
        seen.press("3")
        page = seen.on("alerts")
        rows = page.get_by_role("table", name="Alerts").locator("tbody tr")
        page.get_by_role("searchbox", name="Filter alerts").fill("kraken")
        of_kraken = [a for a in running.hub.told if "KRAKEN" in a.instrument]
        assert 0 < len(of_kraken) < len(running.hub.told)
        expect(rows).to_have_count(len(of_kraken))
        page.get_by_role("combobox", name="Label").select_option("true")
        expect(rows).to_have_count(0)
        for name, lines in (("CSV", len(running.hub.told) + 1), ("JSON lines", len(running.hub.told))):
            with seen.page.expect_download() as download:
                page.get_by_role("link", name=name).click()
            assert len(Path(download.value.path()).read_text().splitlines()) == lines
        seen.quiet()


def test_a_viewer_reads_and_changes_nothing(browser: Browser, serve: Callable[..., Running]) -> None:
    running = serve(FakeHub(history_s=20))
    with visit(browser, running, f"{running.url}?token={VIEWER}") as seen:
        seen.press("3")
        expect(seen.on("alerts").locator("tbody tr").first).to_be_visible()
        seen.press("j", "Enter")
        expect(seen.on("alerts").get_by_role("button", name="true")).to_be_disabled()
        seen.press("y")
        expect(seen.on("alerts").locator(".picture:not(.idle)")).to_be_visible()
        assert running.hub.labels() == {}
        seen.quiet()


def test_names_from_venues_stay_text(browser: Browser, serve: Callable[..., Running]) -> None:
    hub = FakeHub(history_s=1)
    evil = "<img src=x onerror=alert(1)>/../'\"%00.XX"
    book = hub.books[0]
    del hub.by_name[book.name]
    book.name = evil
    hub.by_name[evil] = book
    hub.advance()
    running = serve(hub)
    with visit(browser, running) as seen:
        seen.press("/")
        seen.page.locator("#found li").filter(has_text="onerror").first.click()
        expect(seen.page).to_have_title(f"{evil} · microrisk")
        expect(seen.on("instrument").locator(".ladder .bid .price").first).to_be_visible()
        assert seen.page.locator("main img").count() == 0
        seen.quiet()


def test_a_lost_connection_is_said_and_taken_up_again(browser: Browser, serve: Callable[..., Running]) -> None:
    running = serve(FakeHub(history_s=5))
    with visit(browser, running) as seen:
        find(seen, "AAPL.XNAS")
        expect(seen.on("instrument").locator(".facts")).to_contain_text("events")
        seen.page.context.set_offline(True)
        for connection in list(running.server.limits.open):
            connection._loop.call_soon_threadsafe(connection.abort)
        lost = seen.page.get_by_role("alert")
        expect(lost).to_contain_text("Connection lost")
        expect(lost).to_contain_text("What you see is old")
        seen.page.context.set_offline(False)
        seen.page.get_by_role("button", name="Try now").click()
        expect(lost).to_be_hidden()
        before = seen.on("instrument").locator(".facts").inner_text()
        running.hub.advance()
        expect(seen.on("instrument").locator(".facts")).not_to_have_text(before)
        assert seen.foreign == []


def test_after_a_restart_the_page_says_what_to_do(browser: Browser) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.ExitStack())
        running = first.enter_context(serving(FakeHub(history_s=1)))
        with visit(browser, running) as seen:
            expect(seen.on("overview")).to_be_visible()
            first.close()
            expect(seen.page.get_by_role("alert")).to_contain_text("Connection lost")
            with serving(FakeHub(history_s=1), at=running.port):
                expect(seen.page.get_by_role("alert")).to_contain_text("Open the address that it printed")


def test_empty_monitor_says_what_to_do(browser: Browser, serve: Callable[..., Running]) -> None:
    hub = FakeHub(history_s=0)
    hub.books.clear()
    hub.by_name.clear()
    hub.silent = True
    running = serve(hub)
    with visit(browser, running) as seen:
        expect(seen.on("overview")).to_contain_text("No feed is configured")
        expect(seen.on("overview")).to_contain_text("No alert so far")
        seen.press("2")
        expect(seen.on("instrument")).to_contain_text("No instrument has a book yet")
        seen.press("3")
        expect(seen.on("alerts")).to_contain_text("No alert so far")
        seen.press("4")
        expect(seen.on("latency")).to_contain_text("Nothing was measured yet")
        seen.quiet()


def test_without_uplot_the_page_draws_and_says_so(
    browser: Browser, serve: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "vendor_folders", list)
    running = serve(FakeHub(history_s=5))
    with visit(browser, running) as seen:
        find(seen, "AAPL.XNAS")
        expect(seen.on("instrument").locator(".chart .notice")).to_contain_text("uPlot is not installed")
        expect(seen.on("instrument").locator(".plot canvas")).to_be_visible()
        seen.press("4")
        expect(seen.on("latency").locator(".plot canvas")).to_be_visible()
        seen.quiet()
