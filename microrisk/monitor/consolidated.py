"""One symbol over its venues: best prices, locked and crossed markets, the gap between venues, what each is worth.

Prices are decimals as exact as the feeds' own. Best prices and gaps count venues that are live and have a weight. A
symbol is BASE-QUOTE: `BTC-USD.COINBASE` and `BTC/USD.KRAKEN` are one; a tether is not a dollar, so `BTCUSDT.BINANCE` is
another unless the user says that they are the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from microrisk.monitor.hub import LIVE, Consolidated, FeedRow, InstrumentRow
from microrisk.monitor.weights import Reliability
from microrisk.spec.venues import VENUES

QUOTES = ("FDUSD", "USDT", "USDC", "BUSD", "TUSD", "USD", "EUR", "GBP", "JPY", "CHF", "TRY", "BTC", "ETH", "BNB")
"""Currencies at the end of symbols without a separator, the longer before those that they end with."""
ALIASES = {"XBT": "BTC", "XDG": "DOGE"}
PERPETUAL = "-PERP"


class Symbols:
    """Which instruments are one symbol.

    Parameters
    ----------
    same : groups of symbols taken for one another; the first names the group
    """

    def __init__(self, same: Iterable[Sequence[str]] = ()) -> None:
        self._first: dict[str, str] = {}
        self._known: dict[str, tuple[str, str]] = {}
        for group in same:
            names = [self._leader(normal(name)) for name in group]
            for name in names[1:]:
                if name != names[0]:
                    self._first[name] = names[0]

    def of(self, instrument: str) -> tuple[str, str]:
        """Symbol and venue of an instrument's id."""
        found = self._known.get(instrument)
        if found is None:
            symbol, _, venue = instrument.rpartition(".")
            known = VENUES.get(venue)
            plain = normal(symbol) if known is not None and known.always_open else symbol
            found = self._known[instrument] = self._leader(plain), venue
        return found

    def _leader(self, symbol: str) -> str:
        while symbol in self._first:
            symbol = self._first[symbol]
        return symbol


def normal(symbol: str) -> str:
    """A crypto symbol as BASE-QUOTE, with -PERP for perpetual futures; one that is not understood stays."""
    plain = symbol.upper()
    suffix = PERPETUAL if plain.endswith(PERPETUAL) else ""
    plain = plain.removesuffix(PERPETUAL).replace("/", "-").replace("_", "-")
    base, dash, quote = plain.partition("-")
    if not dash:
        base, quote = _split(plain)
    parts = [ALIASES.get(p, p) for p in (base, quote) if p]
    return "-".join(parts) + suffix


def _split(plain: str) -> tuple[str, str]:
    """Base and quote of a symbol without separator; a base that is a currency itself decides (USDTUSD, BTCTUSD)."""
    found = [(plain.removesuffix(q), q) for q in QUOTES if plain.endswith(q) and len(plain) >= len(q) + 2]
    known = [pair for pair in found if pair[0] in QUOTES]
    # the longest such base: a tether in dollars is traded, a dollar in another token is not
    return max(known, key=lambda pair: len(pair[0]), default=found[0] if found else (plain, ""))


class _Quote(NamedTuple):
    """One venue's side of a symbol; prices None for an empty side."""

    row: InstrumentRow
    venue: str
    state: str
    weight: float
    bid: Decimal | None
    ask: Decimal | None

    @property
    def counts(self) -> bool:
        """Whether it is believed at all."""
        return self.state == LIVE and self.weight > 0

    @property
    def mid2(self) -> Decimal | None:
        """Twice the mid price."""
        return self.bid + self.ask if self.bid is not None and self.ask is not None else None


class Consolidator:
    """Rows of instruments to rows of symbols; tells the sources' weights how far venues are apart."""

    def __init__(self, symbols: Symbols, reliability: Reliability | None = None) -> None:
        self._symbols, self._reliability = symbols, reliability

    def __call__(self, rows: Iterable[InstrumentRow], feeds: Mapping[int, FeedRow]) -> list[Consolidated]:
        """Symbols that more than one venue has, by name."""
        several = self._several(rows, feeds)
        if self._reliability is not None:
            self._reliability.disagree(distances_mbp(several.values()))
        return [_consolidated(symbol, several[symbol]) for symbol in sorted(several)]

    def again(self, rows: Iterable[InstrumentRow], feeds: Mapping[int, FeedRow]) -> list[Consolidated]:
        """The same of some symbols between two times; weights stay."""
        return [_consolidated(symbol, quotes) for symbol, quotes in self._several(rows, feeds).items()]

    def _several(self, rows: Iterable[InstrumentRow], feeds: Mapping[int, FeedRow]) -> dict[str, list[_Quote]]:
        groups: dict[str, list[_Quote]] = defaultdict(list)
        for row in rows:
            symbol, venue = self._symbols.of(row.id)
            groups[symbol].append(_quote(row, venue, feeds.get(row.feed)))
        return {s: g for s, g in groups.items() if len({q.venue for q in g}) > 1}


def _quote(row: InstrumentRow, venue: str, feed: FeedRow | None) -> _Quote:
    state = row.state if feed is None or feed.state == LIVE else feed.state
    weight = 0.0 if feed is None else feed.weight
    return _Quote(
        row, venue, state, weight, Decimal(row.bid) if row.bid else None, Decimal(row.ask) if row.ask else None
    )


def _consolidated(symbol: str, quotes: list[_Quote]) -> Consolidated:
    """Equal prices go to the venue with the larger weight, then by name."""
    quotes = sorted(quotes, key=lambda q: (-q.weight, q.row.id))
    counted = [q for q in quotes if q.counts]
    bids, asks = [q for q in counted if q.bid is not None], [q for q in counted if q.ask is not None]
    bid = max(bids, key=lambda q: q.bid or Decimal(0), default=None)
    ask = min(asks, key=lambda q: q.ask or Decimal(0), default=None)
    spread = ask.ask - bid.bid if bid and ask and bid.bid is not None and ask.ask is not None else None
    return Consolidated(
        symbol=symbol,
        bid=bid.row.bid if bid else "",
        bid_venue=bid.venue if bid else "",
        ask=ask.row.ask if ask else "",
        ask_venue=ask.venue if ask else "",
        crossed=spread is not None and spread < 0,
        locked=spread is not None and spread == 0,
        gap_bp=_gap_bp([q.mid2 for q in counted if q.mid2 is not None]),
        venues=[
            [q.row.id, q.state, q.weight, q.row.bid, q.row.bid_qty, q.row.ask, q.row.ask_qty]
            for q in sorted(quotes, key=lambda q: q.row.id)
        ],
    )


def _gap_bp(mids2: list[Decimal]) -> float | None:
    """Distance of the outermost mid prices; None with fewer than two, or without a positive price to compare with."""
    if len(mids2) < 2 or min(mids2) <= 0:
        return None
    return float((max(mids2) - min(mids2)) * 10_000 / min(mids2))


def distances_mbp(groups: Iterable[list[_Quote]]) -> dict[int, int]:
    """By feed: the distance of its mid price from the nearest of the other live venues', 1/1000 bp; the largest symbol.

    The nearest: of three venues the one that is apart is far from both, the others are not. Weights play no part, so a
    source that lost its own for being apart can win it back.
    """
    out: dict[int, int] = {}
    for quotes in groups:
        live = [(q.row.feed, q.mid2) for q in quotes if q.state == LIVE and q.mid2 is not None and q.mid2 > 0]
        for place, (feed, mid2) in enumerate(live):
            apart = [abs(mid2 - m) * 10_000_000 / m for i, (_, m) in enumerate(live) if i != place]
            if apart:
                out[feed] = max(out.get(feed, 0), int(min(apart)))
    return out
