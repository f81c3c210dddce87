"""A lively market that needs no sources: feeds in every state, books that move, trades, alerts; the same for one seed.

Nothing moves but by `advance`; `Lively` calls it from a thread for people and browser tests.
"""

from __future__ import annotations

import hashlib
import math
import random
import threading
import time
from collections import deque
from typing import Any

from microrisk.evaluate.words import FEATURE_WORDS
from microrisk.monitor.hub import (
    DOWN,
    ENDED,
    LIVE,
    SCHEMA,
    STALE,
    SUSPECT,
    SYNCING,
    Alert,
    Consolidated,
    FeedRow,
    Frame,
    InstrumentRow,
    Stage,
)
from microrisk.spec.features import FEATURES
from microrisk.spec.weightfile import HEADS

LEVELS, KEPT = 20, 1200
STEP_NS = 50_000_000
START_NS = 1_795_773_600_000_000_000
"""2026-11-27 10:00:00 UTC."""
FEEDS = [
    # name, kind, venue, state, why, rate, weight, reasons
    ("itch-A", "moldudp64", "XNAS", LIVE, "", 182_000.0, 1.0, []),
    (
        "itch-B",
        "moldudp64",
        "XBOS",
        STALE,
        "3 messages missing since 40 ms, asked again",
        96_400.0,
        0.62,
        ["3 messages missing", "40 ms behind line A"],
    ),
    ("replay", "soupbintcp", "XPSX", LIVE, "", 41_250.0, 0.98, ["2 gaps in the last hour"]),
    ("coinbase", "coinbase", "COINBASE", LIVE, "", 1_840.0, 0.97, []),
    (
        "kraken",
        "kraken",
        "KRAKEN",
        SUSPECT,
        "checksum of BTC/USD does not fit, image asked for",
        212.0,
        0.31,
        ["checksum break 2 s ago", "mid price 4 bp from the others"],
    ),
    ("binance", "binance", "BINANCE", LIVE, "", 2_310.0, 0.94, ["1 resync in the last hour"]),
    ("bitstamp", "bitstamp", "BITSTAMP", SYNCING, "waits for the image of BTC-USD", 95.0, 0.5, ["no image yet"]),
    ("es-file", "file", "XCME", ENDED, "the file has ended", 0.0, 0.8, []),
    ("backup", "coinbase", "COINBASE2", DOWN, "connection refused, next attempt in 8 s", 0.0, 0.0, ["no connection"]),
]
BOOKS = [
    # instrument, feed, price in feed units, px_exp, qty_exp, tick, typical size
    ("AAPL.XNAS", 0, 2_314_500, -4, 0, 100, 300),
    ("MSFT.XNAS", 0, 4_872_300, -4, 0, 100, 200),
    ("NVDA.XNAS", 0, 1_821_100, -4, 0, 100, 500),
    ("AMZN.XNAS", 0, 2_207_800, -4, 0, 100, 250),
    ("AAPL.XBOS", 1, 2_314_600, -4, 0, 100, 150),
    ("TSLA.XBOS", 1, 3_950_500, -4, 0, 100, 120),
    ("AAPL.XPSX", 2, 2_314_400, -4, 0, 100, 100),
    ("BTC-USD.COINBASE", 3, 9_124_312_000_000, -8, -8, 1_000_000, 30_000_000),
    ("ETH-USD.COINBASE", 3, 302_451_000_000, -8, -8, 1_000_000, 400_000_000),
    ("BTC/USD.KRAKEN", 4, 9_124_250_000_000, -8, -8, 10_000_000, 20_000_000),
    ("BTCUSDT.BINANCE", 5, 9_124_401_000_000, -8, -8, 1_000_000, 50_000_000),
    ("ESZ6.XCME", 7, 684_525, -2, 0, 25, 40),
]
SYMBOLS = {"AAPL": [0, 4, 6], "BTC-USD": [7, 9, 10]}
FEED_STATES = [f[3] for f in FEEDS]


class Book:
    """One instrument: best price, sizes of both sides, features that wander, now and then an episode."""

    def __init__(self, row: tuple[Any, ...], rng: random.Random) -> None:
        self.name, self.feed, self.mid, self.px_exp, self.qty_exp, self.tick, self.size = row
        self.rng, self.n, self.events, self.walls = rng, 0, 0, {1: 0, -1: 0}
        self.bids = [self._size(i) for i in range(LEVELS)]
        self.asks = [self._size(i) for i in range(LEVELS)]
        self.codes = [rng.gauss(0, 12) for _ in FEATURES]
        self.trouble, self.kept = 0, deque[Frame](maxlen=KEPT)
        self.best = self.mid // self.tick

    def _size(self, level: int) -> int:
        near = 0.5 + 1.5 * math.exp(-(((level - 6) / 5) ** 2))
        return max(1, int(self.size * near * self.rng.lognormvariate(0, 0.7)))

    def step(self, ts_ns: int, state: str, why: str) -> Frame:
        self.n += 1
        self.events += self.rng.randrange(1, 60)
        self._move()
        trades = self._trades(ts_ns)
        self._wander()
        frame = self._frame(ts_ns, state, why, trades)
        self.kept.append(frame)
        return frame

    def _move(self) -> None:
        if self.rng.random() < 0.16:
            up = self.rng.random() < 0.5
            self.best += 1 if up else -1
            for side, gone in ((self.bids, not up), (self.asks, up)):
                if gone:
                    side.pop(0)
                    side.append(self._size(LEVELS - 1))
                else:
                    side.insert(0, self._size(0) // 3 + 1)
                    side.pop()
        for side in (self.bids, self.asks):
            level = min(LEVELS - 1, int(self.rng.expovariate(0.3)))
            side[level] = self._size(level)
        if self.trouble:
            for level in range(4, 9):
                self.bids[level] = self.size * 12 if self.trouble > 6 else self._size(level)

    def _trades(self, ts_ns: int) -> list[list[int]]:
        out = []
        while self.rng.random() < 0.22:
            side = self.rng.choice((1, -1))
            px = (self.best + (1 if side > 0 else 0)) * self.tick
            out.append(
                [ts_ns - self.rng.randrange(STEP_NS), px, max(1, int(self.size * self.rng.lognormvariate(-1, 1))), side]
            )
        return sorted(out)

    def _wander(self) -> None:
        if self.trouble:
            self.trouble -= 1
        elif self.rng.random() < 0.004:
            self.trouble = 40
        for i, code in enumerate(self.codes):
            pull = 90 if self.trouble and i in (5, 15, 18, 20, 30) else 0
            self.codes[i] = code + 0.12 * (pull - code) + self.rng.gauss(0, 4)

    def levels(self) -> dict[str, float]:
        size = max(abs(c) for c in self.codes) / 16
        return {h: min(1.0, math.exp(-1.9 * max(0.0, size - 0.5 - 0.25 * k))) for k, h in enumerate(HEADS)}

    def drivers(self) -> list[str]:
        top = sorted(range(len(self.codes)), key=lambda i: -abs(self.codes[i]))[:3]
        return [f"{FEATURES[i].name}: {FEATURE_WORDS[FEATURES[i].name][self.codes[i] < 0]}" for i in top]

    def _frame(self, ts_ns: int, state: str, why: str, trades: list[list[int]]) -> Frame:
        codes = [max(-128, min(127, round(c))) for c in self.codes]
        levels = self.levels()
        return Frame(
            n=self.n,
            ts_ns=ts_ns,
            instrument=self.name,
            state=state,
            why=why,
            px_exp=self.px_exp,
            qty_exp=self.qty_exp,
            tick=self.tick,
            bids=[[(self.best - i) * self.tick, q] for i, q in enumerate(self.bids)],
            asks=[[(self.best + 1 + i) * self.tick, q] for i, q in enumerate(self.asks)],
            trades=trades,
            codes=codes,
            heads={h: int(sum(c * c for c in codes) >> k) if k else max(map(abs, codes)) for k, h in enumerate(HEADS)},
            levels=levels,
            alert=[h for h, p in levels.items() if p < 1e-3],
            drivers=self.drivers(),
            events=self.events,
        )

    def text(self, px: int, exp: int) -> str:
        return f"{px / 10**-exp:.{min(2, -exp)}f}"

    def row(self, state: str) -> InstrumentRow:
        bid, ask = self.best * self.tick, (self.best + 1) * self.tick
        level = min(self.levels().values())
        return InstrumentRow(
            id=self.name,
            feed=self.feed,
            state=state,
            bid=self.text(bid, self.px_exp),
            bid_qty=self.text(self.bids[0], self.qty_exp),
            ask=self.text(ask, self.px_exp),
            ask_qty=self.text(self.asks[0], self.qty_exp),
            events=self.events,
            scored=True,
            level=level,
            alert=level < 1e-3,
        )


class FakeSlot:
    """Newest frame of one instrument."""

    def __init__(self, hub: FakeHub, book: Book) -> None:
        self.hub, self.book, self.taken = hub, book, 0
        hub.following += 1

    def take(self, after: int = 0) -> Frame | None:
        frame = self.book.kept[-1] if self.book.kept else None
        if frame is None or frame.n == self.taken:
            return None
        self.taken = frame.n
        return frame

    def close(self) -> None:
        if self.hub is not None:
            self.hub.following -= 1
            self.hub = None  # type: ignore[assignment]


class FakeHub:
    """hub.Hub over a made-up market."""

    def __init__(self, seed: int = 1, *, history_s: float = 60.0) -> None:
        self.rng = random.Random(seed)
        self.now_ns, self.started_ns = START_NS, START_NS
        self.books = [Book(row, random.Random(seed * 100 + i)) for i, row in enumerate(BOOKS)]
        self.by_name = {b.name: b for b in self.books}
        self.told: list[Alert] = []
        self.capsules: dict[str, tuple[str, int]] = {}
        self.kept_labels: dict[str, bool] = {}
        self.said_by: list[str] = []
        self.messages = [int(f[5] * 600) for f in FEEDS]
        self.following = 0
        self.all_live = self.silent = False
        self._alarmed: set[str] = set()
        for _ in range(int(history_s * 1e9 / STEP_NS)):
            self.advance()

    def states(self) -> list[str]:
        return [LIVE] * len(FEEDS) if self.all_live else FEED_STATES

    def advance(self) -> None:
        """One step of time for everything."""
        self.now_ns += STEP_NS
        for book in self.books:
            state = self.states()[book.feed]
            frame = book.step(self.now_ns, state, "" if state == LIVE else FEEDS[book.feed][4])
            self._tell(book, frame)
        for i, feed in enumerate(FEEDS):
            self.messages[i] += int(feed[5] * STEP_NS / 1e9)

    def _tell(self, book: Book, frame: Frame) -> None:
        if not frame.alert:
            self._alarmed.discard(book.name)
        elif book.name not in self._alarmed:
            self._alarmed.add(book.name)
            self._add(book, frame)

    def _add(self, book: Book, frame: Frame) -> None:
        head = frame.alert[0]
        own = hashlib.blake2b(f"{book.name}{frame.n}{head}".encode(), digest_size=12).hexdigest()
        self.capsules[own] = book.name, frame.ts_ns
        self.told.append(
            Alert(
                schema=SCHEMA,
                id=own,
                n=len(self.told) + 1,
                ts_ns=frame.ts_ns,
                instrument=book.name,
                feed=FEEDS[book.feed][0],
                session="20261127",
                seq=book.events * 7,
                head=head,
                heads=frame.heads,
                level=frame.levels[head],
                calibrated=book.feed == 0,
                drivers=frame.drivers,
                suspect=frame.state != LIVE,
                bid=book.text(frame.bids[0][0], book.px_exp),
                ask=book.text(frame.asks[0][0], book.px_exp),
                backend="cpu",
                model="default",
            )
        )

    # -- hub.Hub ------------------------------------------------------------------------------------------------------

    def overview(self) -> dict[str, Any]:
        feeds = [] if self.silent else [self._feed(i) for i in range(len(FEEDS))]
        return {
            "schema": SCHEMA,
            "ts_ns": self.now_ns,
            "uptime_s": (self.now_ns - self.started_ns) / 1e9,
            "rate": sum(f.rate for f in feeds),
            "messages": sum(self.messages),
            "events": sum(b.events for b in self.books),
            "instruments": len(self.books),
            "scored": len(self.books),
            "alerts": len(self.told),
            "model": {"name": "default", "format_hash": "9b8eda72cafa8938"},
            "backend": "cpu",
            "journal": {"folder": "journal-20261127", "block": 8123, "bytes": 412_000_000, "trouble": ""},
            "feeds": feeds,
            "notices": ["kraken: level of BTC/USD is not calibrated"],
        }

    def _feed(self, i: int) -> FeedRow:
        name, kind, venue, _, why, rate, weight, reasons = FEEDS[i]
        state = self.states()[i]
        p50 = 4_000 + 900 * i
        wobble = 1 + 0.06 * math.sin(self.now_ns / 3e9 + i)
        return FeedRow(
            number=i,
            name=name,
            kind=kind,
            venue=venue,
            state=state,
            why=why if state != LIVE else "",
            rate=rate * wobble,
            messages=self.messages[i],
            gaps=i % 3,
            missing=3 * (state == STALE),
            recovered=17 * i,
            duplicates=self.messages[i] // 2,
            malformed=int(i == 4),
            resyncs=i // 3,
            behind=42 * (state == STALE),
            silent_ms=3 if rate else 61_000,
            instruments=sum(b.feed == i for b in self.books),
            weight=weight,
            reasons=reasons,
            latency=Stage("receive to scored", self.messages[i], p50, p50 * 5, p50 * 22, p50 * 160)
            if rate
            else Stage("receive to scored", 0, 0, 0, 0, 0),
        )

    def instruments(self) -> list[InstrumentRow]:
        return sorted((b.row(self.states()[b.feed]) for b in self.books), key=lambda r: -r.events)

    def consolidated(self) -> list[Consolidated]:
        return [] if self.silent else [self._symbol(s, places) for s, places in SYMBOLS.items()]

    def _symbol(self, symbol: str, places: list[int]) -> Consolidated:
        books = [self.books[i] for i in places]
        rows = [b.row(self.states()[b.feed]) for b in books]
        live = [r for r in rows if r.state == LIVE] or rows
        bid, ask = max(live, key=lambda r: float(r.bid)), min(live, key=lambda r: float(r.ask))
        return Consolidated(
            symbol=symbol,
            bid=bid.bid,
            bid_venue=bid.id.partition(".")[2],
            ask=ask.ask,
            ask_venue=ask.id.partition(".")[2],
            crossed=float(bid.bid) > float(ask.ask),
            locked=bid.bid == ask.ask,
            gap_bp=abs(float(bid.bid) - float(ask.ask)) / float(ask.ask) * 1e4,
            venues=[
                [r.id, r.state, FEEDS[b.feed][6], r.bid, r.bid_qty, r.ask, r.ask_qty]
                for r, b in zip(rows, books, strict=True)
            ],
        )

    def follow(self, instrument: str) -> FakeSlot:
        return FakeSlot(self, self.by_name[instrument])

    def history(self, instrument: str) -> list[Frame]:
        return list(self.by_name[instrument].kept)

    def alerts(self, after: int = 0, limit: int = 1000) -> list[Alert]:
        return [a for a in self.told if a.n > after][:limit]

    def around(self, alert_id: str) -> list[Frame]:
        name, at_ns = self.capsules[alert_id]
        return [f for f in self.history(name) if abs(f.ts_ns - at_ns) <= 5_000_000_000]

    def label(self, alert_id: str, value: bool | None, by: str) -> None:
        if alert_id not in self.capsules:
            raise KeyError(alert_id)
        self.said_by.append(by)
        self.kept_labels = {k: v for k, v in self.kept_labels.items() if k != alert_id}
        if value is not None:
            self.kept_labels[alert_id] = value

    def labels(self) -> dict[str, bool]:
        return dict(self.kept_labels)

    def latency(self) -> dict[str, Any]:
        if self.silent:
            return {"stages": [], "histogram": {}, "rate": 0.0}
        stages = {
            "receive to taken": 900,
            "taken to journalled": 2_100,
            "journalled to scored": 2_600,
            "receive to scored": 6_100,
        }
        count = sum(self.messages)
        return {
            "stages": [Stage(n, count, p, p * 4, p * 19, p * 210) for n, p in stages.items()],
            "histogram": {n: _histogram(p, count) for n, p in stages.items()},
            "rate": 324_000.0,
        }

    def metrics(self) -> bytes:
        return b"# HELP microrisk_messages_total Messages.\n# TYPE microrisk_messages_total counter\n"

    def ready(self) -> tuple[bool, dict[str, str]]:
        states = dict(zip((f[0] for f in FEEDS), self.states(), strict=True))
        return all(s == LIVE for s in states.values()), states


def _histogram(p50: int, count: int) -> list[list[int]]:
    """Log-normal body with a heavy tail, in buckets an eighth of a doubling wide."""
    out = []
    for k in range(-20, 70):
        upper = p50 * 2 ** (k / 8)
        share = math.exp(-((k / 7) ** 2) / 2) + 0.02 * math.exp(-k / 12) * (k > 0)
        out.append([int(upper), int(count * share * 0.055)])
    return [row for row in out if row[1]]


class Lively:
    """A FakeHub that moves by the clock, for as long as the block lasts."""

    def __init__(self, hub: FakeHub) -> None:
        self.hub = hub
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            self.hub.advance()
            due += STEP_NS / 1e9
            self._stop.wait(max(0.0, due - time.monotonic()))

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self.hub

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
