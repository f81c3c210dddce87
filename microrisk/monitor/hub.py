"""What displays, sinks and metrics may ask of a running monitor: plain values, made by the engine's thread.

Everything here is immutable once handed out. A reader never waits for a book and a book never for a reader: frames are
latest values, lists are bounded.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

SCHEMA = 1
"""Version of every structure below as it leaves the process; a change of meaning raises it."""

SYNCING, LIVE, STALE, SUSPECT, DOWN, ENDED = "syncing", "live", "stale", "suspect", "down", "ended"
"""States of a feed and of an instrument. stale: the book was right and may be old (a hole is being filled, the line is
silent). suspect: something contradicts the book. Neither is ever shown as live."""


class Stage(msgspec.Struct, frozen=True):
    """One stage of the latency: ns."""

    name: str
    count: int
    p50: int
    p99: int
    p999: int
    max: int


class FeedRow(msgspec.Struct, frozen=True):
    """A feed on the overview.

    Attributes
    ----------
    name, kind, venue : as configured; kind is the scheme of its URL
    state, why : one of the states, and a sentence ("" when live)
    rate : messages a second over the last second
    messages, gaps, missing, recovered, duplicates, malformed, resyncs : totals
    behind : messages held while a hole is open
    silent_ms : since the last packet or message
    weight : 0..1, how far the source is believed at present; reasons in words
    latency : receive to scored
    """

    number: int
    name: str
    kind: str
    venue: str
    state: str
    why: str
    rate: float
    messages: int
    gaps: int
    missing: int
    recovered: int
    duplicates: int
    malformed: int
    resyncs: int
    behind: int
    silent_ms: int
    instruments: int
    weight: float
    reasons: list[str]
    latency: Stage


class InstrumentRow(msgspec.Struct, frozen=True):
    """An instrument in a list: best prices as decimal text, "" for an empty side."""

    id: str
    feed: int
    state: str
    bid: str
    bid_qty: str
    ask: str
    ask_qty: str
    events: int
    scored: bool
    level: float | None
    """Lowest tail probability among the heads, None when not scored."""
    alert: bool


class Alert(msgspec.Struct, frozen=True):
    """One alarm that began. `id` depends on instrument, session, sequence and head alone."""

    schema: int
    id: str
    n: int
    """Counts alerts of this journal from 1."""
    ts_ns: int
    """Clock of the core."""
    instrument: str
    feed: str
    session: str
    seq: int
    head: str
    heads: dict[str, int]
    level: float
    """Smoothed tail probability of the head."""
    calibrated: bool
    drivers: list[str]
    """The three features that drove it, in words with their direction."""
    suspect: bool
    """The book was marked when it arose."""
    bid: str
    ask: str
    backend: str
    model: str


class Frame(msgspec.Struct, frozen=True, array_like=False):
    """The state of one instrument, at most some thirty times a second.

    Attributes
    ----------
    n : rises with every frame of the instrument
    ts_ns : clock of the core
    px_exp, qty_exp : a price is px * 10**px_exp (the other sign than in feed.base.Instrument)
    bids, asks : [px, qty] in feed units, best first, at most LEVELS
    trades : since the frame before: [ts_ns, px, qty, side of the aggressor: 1 bought, -1 sold]
    codes : int8 feature codes (1/16 step), None when not scored
    heads, levels : by head; levels are tail probabilities
    alert : heads in alarm
    drivers : words
    """

    n: int
    ts_ns: int
    instrument: str
    state: str
    why: str
    px_exp: int
    qty_exp: int
    tick: int
    bids: list[list[int]]
    asks: list[list[int]]
    trades: list[list[int]]
    codes: list[int] | None
    heads: dict[str, int]
    levels: dict[str, float]
    alert: list[str]
    drivers: list[str]
    events: int


class Consolidated(msgspec.Struct, frozen=True):
    """One symbol over its venues; prices as decimal text.

    `venues`: [instrument, state, weight, bid, bid_qty, ask, ask_qty]. Best and gap count only venues that are live.
    """

    symbol: str
    bid: str
    bid_venue: str
    ask: str
    ask_venue: str
    crossed: bool
    locked: bool
    gap_bp: float | None
    """Largest distance between venues' mid prices, in 1/10,000."""
    venues: list[list[Any]]


class Hub(Protocol):
    """A running monitor as others see it. Every method is safe from any thread and returns at once."""

    def overview(self) -> dict[str, Any]:
        """{"schema", "ts_ns", "uptime_s", "rate", "messages", "events", "instruments", "scored", "alerts",
        "model", "backend", "journal": {...}, "feeds": [FeedRow], "notices": [str]}.
        """

    def instruments(self) -> list[InstrumentRow]:
        """Every instrument with a book, busiest first."""

    def consolidated(self) -> list[Consolidated]:
        """Symbols that more than one venue has."""

    def follow(self, instrument: str) -> Any:
        """A subscription: `take(after=0)` gives the newest Frame that was not taken yet, or None; `close()` ends it.

        It carries the trades of the frames behind number `after` and the last one taken, which readers skip.
        Raises KeyError for an instrument that is not known.
        """

    def history(self, instrument: str) -> list[Frame]:
        """Frames of the last minute or two, oldest first."""

    def alerts(self, after: int = 0, limit: int = 1000) -> list[Alert]:
        """Alerts with n > after, oldest first."""

    def around(self, alert_id: str) -> list[Frame]:
        """Frames from 5 s before to 5 s behind an alert; KeyError when it is not kept any more."""

    def label(self, alert_id: str, value: bool | None, by: str) -> None:
        """A person says whether the alert was right; None takes the label back. Kept beside the alerts."""

    def labels(self) -> dict[str, bool]:
        """By alert id."""

    def latency(self) -> dict[str, Any]:
        """{"stages": [Stage], "histogram": {stage: [[upper_ns, count], ...]}, "rate": ...}."""

    def metrics(self) -> bytes:
        """Prometheus exposition."""

    def ready(self) -> tuple[bool, dict[str, str]]:
        """Whether every feed is in sync, and the state of each by name."""
