"""A symbol over its venues, exactly; and which symbols are one."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microrisk.monitor.consolidated import Consolidator, Symbols, normal
from microrisk.monitor.hub import LIVE, STALE, FeedRow, InstrumentRow, Stage
from microrisk.monitor.weights import Reliability


def feed(number, *, state=LIVE, weight=1.0):
    return FeedRow(
        number, f"f{number}", "x", "V", state, "", 0.0, *[0] * 8, silent_ms=0, instruments=1, weight=weight, reasons=[],
        latency=Stage("", 0, 0, 0, 0, 0),
    )  # fmt: skip


def row(name, number, bid, ask, *, state=LIVE):
    return InstrumentRow(name, number, state, bid, "1" if bid else "", ask, "2" if ask else "", 1, False, None, False)


def view(*rows, feeds=None, same=()):
    return Consolidator(Symbols(same))(rows, {r.feed: feed(r.feed) for r in rows} if feeds is None else feeds)


@pytest.mark.parametrize(
    ("symbol", "want"),
    [
        ("BTC-USD", "BTC-USD"), ("BTC/USD", "BTC-USD"), ("XBT/USD", "BTC-USD"), ("btcusd", "BTC-USD"),
        ("BTCUSDT", "BTC-USDT"), ("BTCUSDC", "BTC-USDC"), ("ETHBTC", "ETH-BTC"), ("BTC_USD", "BTC-USD"),
        ("BTCUSDT-PERP", "BTC-USDT-PERP"), ("XDGUSD", "DOGE-USD"), ("USDTUSD", "USDT-USD"), ("FDUSDUSDT", "FDUSD-USDT"),
        ("BTCTUSD", "BTC-TUSD"), ("SHIBUSDT", "SHIB-USDT"), ("USD", "USD"), ("", ""),
    ],
)  # fmt: skip
def test_normal_symbols(symbol, want):
    assert normal(symbol) == want


def test_a_tether_is_no_dollar_unless_the_user_says_so():
    rows = [
        row("BTC-USD.COINBASE", 0, "1", "2"),
        row("BTC/USD.KRAKEN", 1, "1", "2"),
        row("BTCUSDT.BINANCE", 2, "1", "2"),
    ]
    (one,) = view(*rows)
    assert [v[0] for v in one.venues] == ["BTC-USD.COINBASE", "BTC/USD.KRAKEN"]
    (all_,) = view(*rows, same=[["BTC-USD", "BTCUSDT"]])
    assert all_.symbol == "BTC-USD"
    assert len(all_.venues) == 3


def test_groups_that_share_a_symbol_are_one():
    symbols = Symbols([["A-USD", "A-USDT"], ["A-USDC", "A-USDT"], ["A-USD", "A-USDC"]])
    assert len({symbols.of(f"{s}.KRAKEN")[0] for s in ("A-USD", "A-USDT", "A-USDC")}) == 1


def test_shares_are_not_split_like_coins():
    symbols = Symbols()
    assert symbols.of("XYZUSD.XNAS") == ("XYZUSD", "XNAS")
    assert symbols.of("BRK.A.XNAS") == ("BRK.A", "XNAS")


def test_best_prices_gap_and_texts_as_they_came():
    (one,) = view(row("BTC-USD.COINBASE", 0, "100.10", "100.30"), row("BTC-USD.KRAKEN", 1, "100.2", "100.40"))
    assert (one.bid, one.bid_venue, one.ask, one.ask_venue) == ("100.2", "KRAKEN", "100.30", "COINBASE")
    assert (one.crossed, one.locked) == (False, False)
    assert one.gap_bp == pytest.approx(10_000 * 0.10 / 100.20)


@pytest.mark.parametrize(
    ("bid", "ask", "crossed", "locked"),
    [
        ("0.30000000000000004", "0.3", True, False),
        ("0.3", "0.30", False, True),
        ("9007199254740993", "9007199254740992", True, False),
        ("9007199254740992", "9007199254740993", False, False),
    ],
)
def test_comparisons_are_exact(bid, ask, crossed, locked):
    (one,) = view(row("A-USD.COINBASE", 0, bid, ""), row("A-USD.KRAKEN", 1, "", ask))
    assert (one.crossed, one.locked, one.gap_bp) == (crossed, locked, None)


def test_only_live_venues_with_a_weight_count():
    rows = [row("A-USD.COINBASE", 0, "1", "4"), row("A-USD.KRAKEN", 1, "2", "3"), row("A-USD.BITSTAMP", 2, "5", "1")]
    for third in (feed(2, state=STALE), feed(2, weight=0.0)):
        (one,) = view(*rows, feeds={0: feed(0), 1: feed(1), 2: third})
        assert (one.bid, one.ask, one.crossed) == ("2", "3", False)
        assert one.venues[0][:3] == ["A-USD.BITSTAMP", third.state, third.weight]
    (one,) = view(*rows[:2], row("A-USD.BITSTAMP", 2, "5", "1", state="suspect"))
    assert (one.bid, one.ask) == ("2", "3")
    (none,) = view(*rows, feeds={})
    assert (none.bid, none.ask, none.gap_bp) == ("", "", None)


def test_equal_prices_go_to_the_larger_weight():
    rows = [row("A-USD.COINBASE", 0, "1", "2"), row("A-USD.KRAKEN", 1, "1.0", "2.00")]
    (one,) = view(*rows, feeds={0: feed(0, weight=0.5), 1: feed(1)})
    assert (one.bid_venue, one.ask_venue) == ("KRAKEN", "KRAKEN")


def test_one_venue_is_no_view():
    assert view(row("A-USD.COINBASE", 0, "1", "2"), row("B-USD.KRAKEN", 1, "1", "2")) == []


def test_a_source_that_is_apart_loses_weight_and_can_win_it_back():
    reliability = Reliability()
    consolidate = Consolidator(Symbols(), reliability)
    rows = [row(f"A-USD.{v}", i, "99", "101") for i, v in enumerate(["COINBASE", "KRAKEN"])]
    for bid, ask, want in (("109", "111", 0.02), ("99", "101", 1.0)):
        third = row("A-USD.BITSTAMP", 2, bid, ask)
        consolidate([*rows, third], {i: feed(i, weight=reliability.weigh(i, {}, LIVE, 0)[0]) for i in range(3)})
        assert reliability.weigh(2, {}, LIVE, 0)[0] == pytest.approx(want, abs=0.01)
        assert reliability.weigh(0, {}, LIVE, 0)[0] == 1.0


prices = st.integers(-(10**6), 10**9)


@given(st.lists(st.tuples(prices, st.integers(0, 10**6)), min_size=2, max_size=3), st.integers(0, 12))
def test_against_fractions(quotes, exp):
    def text(value):
        digits = f"{abs(value):0{exp + 1}d}"
        return ("-" if value < 0 else "") + (f"{digits[:-exp]}.{digits[-exp:]}" if exp else digits)

    venues = ["COINBASE", "KRAKEN", "BITSTAMP"]
    rows = [row(f"A-USD.{venues[i]}", i, text(b), text(b + s)) for i, (b, s) in enumerate(quotes)]
    (one,) = view(*rows)
    bid, ask = max(b for b, _ in quotes), min(b + s for b, s in quotes)
    assert Fraction(one.bid) * 10**exp == bid
    assert Fraction(one.ask) * 10**exp == ask
    assert (one.crossed, one.locked) == (bid > ask, bid == ask)
    mids = [2 * b + s for b, s in quotes]
    want = None if min(mids) <= 0 else float(Fraction((max(mids) - min(mids)) * 10_000, min(mids)))
    assert one.gap_bp == (want if want is None else pytest.approx(want, rel=1e-9))
