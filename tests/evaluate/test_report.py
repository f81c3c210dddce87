"""The report: one file, nothing from outside, every planted episode on it; its pieces against hand-made cases."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from fake_report import DEMO_BOOKS, KINDS, SECOND, fake_report

from microrisk.errors import EvaluationError
from microrisk.evaluate import charts, svg
from microrisk.evaluate.report import (
    Alert,
    BookWindow,
    Driver,
    Latency,
    ModelFacts,
    PlantedEpisode,
    Trades,
    write_report,
)  # fmt: skip
from microrisk.evaluate.report_build import alerts, book_window, drivers, match, traces, trades_of
from microrisk.evaluate.words import FEATURE_WORDS, FINDING_WORDS, KIND_WORDS, meaning, missing
from microrisk.spec.records import EVENT, ROW, Action, Flag, Integrity

VOID = {"meta", "br", "img", "hr", "link"}


class Page(HTMLParser):
    """Fails on unbalanced tags; collects ids, links and text."""

    def __init__(self, html):
        super().__init__()
        self.stack, self.ids, self.links, self.words = [], [], [], []
        self.feed(html)
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.stack.append(tag)
        self._attributes(attrs)

    def handle_startendtag(self, tag, attrs):
        self._attributes(attrs)

    def _attributes(self, attrs):
        for k, v in attrs:
            if k == "id":
                self.ids.append(v)
            if k in ("href", "src", "xlink:href", "action", "data"):
                self.links.append(v)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(self.words)


@pytest.fixture(scope="module")
def report():
    return fake_report()


@pytest.fixture(scope="module")
def html(report, tmp_path_factory):
    path = write_report(tmp_path_factory.mktemp("report") / "r.html", report)
    return path.read_text("utf-8")


def test_one_file_without_requests_and_small_enough(html, report):
    page = Page(html)
    assert len(report.episodes) == DEMO_BOOKS == 12
    assert len(html.encode()) < 3_000_000
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert re.findall(r"https?://[^\"' ]*", html) == ["http://www.w3.org/2000/svg"] * html.count("<svg")
    assert "<script" not in html
    assert "@import" not in html
    assert "url(" not in html
    assert "default-src 'none'" in html


def test_every_planted_episode_is_listed_and_every_link_lands(html, report):
    page = Page(html)
    for kind in KINDS:
        assert page.text.count(kind) >= sum(e.kind == kind for e in report.episodes)
    rows = re.findall(r"<tr><td class=n>\d+</td><td><a .*?</tr>", html)
    assert len(rows) == len(report.episodes)
    for e, row in zip(report.episodes, rows, strict=True):
        assert ("✓ found" in row) == e.found
        assert ("✕ missed" in row) == (not e.found)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_headline_says_what_was_found(html, report):
    found = sum(e.found for e in report.episodes)
    assert f"<b>{found} of 12</b> planted episodes found, with <b>2 false alarms</b> in 30 min" in html
    assert "Missed: 2 of 2 gap and 1 of 2 layering." in html


def test_thresholds_alerts_and_episodes_are_drawn(html, report):
    assert html.count('class="band found"') == 9
    assert html.count('class="band missed"') == 3
    assert html.count("mark true-mark") >= sum(a.episode is not None for a in report.alerts)
    assert html.count("mark false-mark") == 2
    assert "alarm at 13.5 bits" in html


def test_text_from_outside_is_escaped(report, tmp_path):
    evil = "<script>alert(1)</script>"
    bad = replace(report, title=evil, source=evil, findings=[evil], notes=[evil], commands=[(evil, evil)],
                  model=ModelFacts(evil, evil, trained_on=evil), integrity={evil: 1})  # fmt: skip
    text = write_report(tmp_path / "r.html", bad).read_text("utf-8")
    assert "<script" not in text
    Page(text)


def test_a_run_without_truth_calls_nothing_false(report, tmp_path):
    plain = replace(report, episodes=[], alerts=[replace(a, episode=None) for a in report.alerts], latency=None,
                    books=[("alert", 0, report.books[0][2])], integrity={"gap": 0})  # fmt: skip
    page = Page(write_report(tmp_path / "r.html", plain).read_text("utf-8"))
    assert plain.false_alarms() == []
    assert "False alarms" not in page.text
    assert "No finding" in page.text
    assert "alert-0" in page.ids


def test_an_empty_run_still_makes_a_page(report, tmp_path):
    empty = replace(report, episodes=[], alerts=[], traces=[], books=[], latency=None, integrity={}, commands=[])
    assert "0 alerts" in Page(write_report(tmp_path / "r.html", empty).read_text("utf-8")).text


def test_uncalibrated_levels_have_no_threshold(report):
    bare = [replace(t, on_bits=None) for t in report.traces]
    assert "threshold" not in charts.heads_chart(bare, [], [])


# --- pieces ---


def decode_png(uri):
    """A second reading of the format: chunks with checked sums, filter 0 only."""
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + size
    w, h, *_ = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    raw = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(h, w + 1)
    assert not raw[:, 0].any()
    colour = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)
    return raw[:, 1:], np.c_[colour, np.frombuffer(chunks[b"tRNS"], np.uint8)]


def test_png_survives_its_own_format():
    pixels = np.random.default_rng(0).integers(0, 255, (7, 13)).astype(np.uint8)
    got, palette = decode_png(svg.png(pixels, charts.heat_palette()))
    assert (got == pixels).all()
    assert (palette == charts.heat_palette()).all()


def test_heat_has_bids_below_asks_and_stronger_colour_for_more():
    bid = np.asarray([[100.0, 0], [10, 0], [0, 0]])
    ask = np.asarray([[0, 0.0], [0, 0], [10, 50]])
    nan = np.full(2, np.nan)
    pixels = charts.heat_pixels(BookWindow("A.X", np.arange(2), np.arange(3.0), bid, ask, nan, nan))
    top, middle, bottom = pixels  # highest price first
    assert middle[0] < bottom[0] <= 127
    assert 128 <= top[0] < top[1]
    assert bottom[1] == middle[1] == 0


def test_book_window_shows_the_book_as_it_stood_at_the_end_of_each_column():
    times = np.asarray([10, 12]) * SECOND
    depth = np.zeros((2, 2, 2, 2), np.int64)
    depth[0] = [[[100, 5], [99, 7]], [[101, 3], [0, 0]]]
    depth[1] = [[[100, 1], [0, 0]], [[102, 4], [0, 0]]]
    trades = Trades(np.asarray([1, 11]) * SECOND, np.ones(2), np.ones(2), np.ones(2, np.int8))
    w = book_window("A.X", 11 * SECOND, times, depth, tick=1, px_unit=0.5, qty_unit=2.0, span_ns=2 * SECOND,
                    step_ns=SECOND, trades=trades)  # fmt: skip
    assert w.px.tolist() == [49.5, 50.0, 50.5, 51.0]
    # columns [9,10) [10,11) [11,12) [12,13): before the first record nothing is known
    assert w.bid.tolist() == [[0, 14, 14, 0], [0, 10, 10, 2], [0] * 4, [0] * 4]
    assert w.ask.tolist() == [[0] * 4, [0] * 4, [0, 6, 6, 0], [0, 0, 0, 8]]
    assert w.best_bid.tolist()[1:] == [50.0, 50.0, 50.0]
    assert np.isnan(w.best_bid[0])
    assert w.trades.ns.tolist() == [11 * SECOND]


def test_book_window_checks_its_shapes():
    with pytest.raises(EvaluationError, match=r"^book window: ask is \(1, 2\), prices x times is \(1, 3\)$"):
        BookWindow("A.X", np.arange(3), np.ones(1), np.ones((1, 3)), np.ones((1, 2)), np.ones(3), np.ones(3))


def test_match_follows_the_rule_of_the_harness():
    def at(s, instrument="A.X"):
        return Alert(int(s * SECOND), instrument, "maxz", 10.0)

    planted = [PlantedEpisode("gap", 10 * SECOND, 12 * SECOND, 1.0, "A.X"),
               PlantedEpisode("wash", 40 * SECOND, 41 * SECOND, 1.0, "A.X")]  # fmt: skip
    episodes, marks = match(planted, [at(16.9), at(4), at(6), at(11, "B.X"), at(47), at(13)])
    assert [a.ns // SECOND for a in marks] == [4, 6, 11, 13, 16, 47]
    assert [a.episode for a in marks] == [None, 0, None, 0, 0, None]
    assert episodes[0].alert == 3  # the one at 6 s came before the start: not false, but no find
    assert not episodes[1].found


def test_false_alarms_five_seconds_apart_are_one(report):
    near = [Alert(s * SECOND, "A.X", "vae", 9.0) for s in (100, 104, 109, 120)]
    assert [a.ns // SECOND for a in replace(report, alerts=near).false_alarms()] == [100, 120]


def test_traces_and_alerts_come_from_rows():
    rows = np.zeros(4, ROW)
    rows["now"] = np.asarray([0, 100, 200, 800]) * 1_000_000
    rows["instrument"] = 7
    rows["level"][:, 2] = (256, 512, 128, 1024)
    rows["fresh"][3] = 0b0100
    rows["codes"][3, :3] = (-32, 16, 0)
    got = traces(rows, {7: "A.X"}, on=(1, 2, 768, 4))
    assert [t.head for t in got] == ["maxz", "maha", "vae", "exposure"]
    assert got[2].bits[[0, 3]].tolist() == [2.0, 4.0]
    assert np.isnan(got[2].bits[1:3]).all()
    assert got[2].on_bits == 3.0
    assert got[2].off_bits is None
    alert = alerts(rows, {7: "A.X"})[0]
    assert (alert.head, alert.bits, alert.ns) == ("vae", 4.0, 800_000_000)
    assert alert.drivers == (Driver("spread", -2.0), Driver("depth_l1", 1.0))
    assert drivers(rows["codes"][3], mask=0b10) == (Driver("depth_l1", 1.0),)


def test_trades_of_takes_prints_once():
    events = np.zeros(4, EVENT)
    events["action"] = (Action.TRADE, Action.REDUCE, Action.REDUCE, Action.ADD)
    events["flags"] = (0, Flag.EXEC, Flag.EXEC | Flag.NO_PRINT, 0)
    events["px"], events["qty"], events["side"] = 20_000, 5, (1, -1, 1, 1)
    events["instrument"] = 3
    got = trades_of(events, 3)
    assert got.px.tolist() == [2.0, 2.0]
    assert got.aggressor.tolist() == [-1, 1]
    assert len(trades_of(events, 4).ns) == 0


def test_percentiles_are_upper_edges():
    latency = Latency(np.asarray([0.0, 10, 20, 30]), np.asarray([50, 49, 1], np.uint64))
    assert charts.percentiles(latency, (0.5, 0.99, 1.0)) == [10.0, 20.0, 30.0]
    lower_edges_only = Latency(np.asarray([1.0, 10, 20]), np.asarray([0, 0, 4], np.uint64))
    assert charts.percentiles(lower_edges_only, (0.5,)) == [40.0]


def test_latency_columns_hold_all_messages():
    edges, counts = np.geomspace(50, 1e6, 40), np.arange(40, dtype=float)
    share = charts._rebin(counts, edges, lambda v: v * 100)
    assert sum(share.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(4.2e-7, "420 ns"), (3.1e-6, "3.1 µs"), (0.0425, "42.5 ms"), (12.345, "12.3 s"), (90, "1 min 30 s"),
     (1800, "30 min"), (7380, "2 h 3 min")],
)  # fmt: skip
def test_durations_in_words(seconds, words):
    assert svg.duration(seconds) == words


def test_ticks_are_round_and_inside():
    assert svg.ticks(0, 24, 3) == [0, 10, 20]
    assert svg.ticks(-10, 10, 4) == [-10, -5, 0, 5, 10]
    for low, high in ((99.93, 100.21), (1e-9, 3e-9), (5, 5)):
        assert all(low - 1e-9 <= v <= high + 1e-9 for v in svg.ticks(low, high))


def test_clock_is_utc():
    assert svg.clock(1_736_173_800 * SECOND + 5_000_000) == "14:30:00.005"
    assert svg.day(1_736_173_800 * SECOND) == "2025-01-06"


def test_words_for_everything_and_short_enough_for_the_picture():
    assert missing() == []
    assert set(FINDING_WORDS) == {i.name for i in Integrity}
    assert set(KIND_WORDS) == set(KINDS)
    assert max(len(w) for pair in FEATURE_WORDS.values() for w in pair) <= 34
    assert meaning("spread", -1) == "spread tight"
    assert meaning("of a later version", 1) == "of a later version"


def test_paths_break_at_nan():
    assert svg.path([0, 1, 2, 3], [1, float("nan"), 2, 3], "c").count("M") == 2
