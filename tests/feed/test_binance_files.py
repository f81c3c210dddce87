"""Files of Binance's data site: exact columns, both layouts, fast = naive row by row, damage, three real files."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microrisk.errors import FeedError, UsageError
from microrisk.feed import binance_files, open_feed
from microrisk.feed.binance_files import LAYOUTS, fast_columns, kind_of, slow_row
from microrisk.feed.l2 import Units
from microrisk.spec.records import Action, FeedId, Flag
from microrisk.spec.units import NULL_TS, Side

SPOT = [
    "184359103,122335.79000000,0.00084000,243254795,243254804,1759536000061015,False,True",
    "184359104,122336.26000000,0.00005000,243254805,243254805,1759536000061999,True,True",
]
FUTURES_HEADER = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
FUTURES = ["5,61804.8,4,10,11,1723161257679,true", "6,61804.9,1,12,12,1723161257680,false"]
TRADES = ["9,100.5,2.5,251.25,1723161257679,False,True", "10,100.6,1,100.6,1723161257680,True,True"]
BARS_HEADER = "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,x,ignore"
BAR = "1759968000000,123277.8,123326.1,123274.8,123310.1,0,1759968059999,0,60,0,0,0"
Run = Callable[[Any], Any]


def put(folder: Path, name: str, rows: list[str], end: str = "\n") -> Path:
    (folder / name).write_bytes((end.join(rows) + end).encode())
    return folder / name


def test_spot_aggregate_trades(tmp_path: Path, replayed: Run) -> None:
    run = replayed(open_feed([put(tmp_path, "BTCUSDC-aggTrades-2025-10-04.csv", SPOT)]))
    assert run.rows("ts_event", "seq", "ref", "px", "qty", "side") == [
        (1759536000061015000, 184359103, 184359103, 12233579000000, 84000, Side.ASK),
        (1759536000061999000, 184359104, 184359104, 12233626000000, 5000, Side.BID),
    ]
    same = (Action.TRADE, Flag.LAST, FeedId.BINANCE, NULL_TS)
    assert run.rows("action", "flags", "feed", "ts_recv") == [same, same]
    assert [i.id for i in run.feed.instruments().values()] == ["BTCUSDC.BINANCE"]
    assert (run.found, run.feed.messages, run.feed.progress) == ({}, 2, 1.0)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_futures_have_a_header_and_ms(tmp_path: Path, replayed: Run, end: str) -> None:
    path = put(tmp_path, "BTCUSDT-aggTrades-2024-08.csv", [FUTURES_HEADER, *FUTURES], end)
    run = replayed(open_feed([path]))
    assert run.rows("ts_event", "px", "qty", "side") == [
        (1723161257679000000, 6180480000000, 4 * 10**8, Side.BID),
        (1723161257680000000, 6180490000000, 10**8, Side.ASK),
    ]
    assert [i.id for i in run.feed.instruments().values()] == ["BTCUSDT-PERP.BINANCE"]
    assert (run.found, run.feed.messages) == ({}, 2)


def test_single_trades(tmp_path: Path, replayed: Run) -> None:
    run = replayed(open_feed([put(tmp_path, "BTCUSD_PERP-trades-2024-08-08.csv", TRADES)]))
    assert run.rows("seq", "px", "qty", "side") == [
        (9, 10050000000, 250000000, Side.ASK),
        (10, 10060000000, 10**8, Side.BID),
    ]
    assert [i.symbol for i in run.feed.instruments().values()] == ["BTCUSD-PERP"]


def test_bars_are_counted(tmp_path: Path, replayed: Run) -> None:
    for rows in ([BARS_HEADER, BAR, BAR], [BAR, BAR]):
        run = replayed(open_feed([put(tmp_path, "BTCUSD_PERP-1m-2025.csv", rows)]))
        assert (run.feed.messages, len(run.events), run.found) == (2, 0, {})
        assert any("bars" in n for n in run.feed.notices)


def test_ids_that_jump_or_come_again(tmp_path: Path, replayed: Run) -> None:
    rows = [f"{i},1.5,1,1,1,1759536000061015,False,True" for i in (5, 6, 9, 9, 8)]
    run = replayed(open_feed([put(tmp_path, "A-aggTrades-x.csv", rows)]))
    assert run.found == {"gap": 1, "duplicate_seq": 2}
    assert len(run.events) == 5
    assert any("7 to 8 are missing" in n for n in run.feed.notices)
    more = put(tmp_path, "A-aggTrades-y.csv", ["12,1.5,1,1,1,1759536000061015,False,True"])
    run = replayed(open_feed([tmp_path / "A-aggTrades-x.csv", more]))
    assert run.found == {"gap": 2, "duplicate_seq": 2}
    assert any("10 to 11 are missing" in n for n in run.feed.notices)


def test_one_instrument_a_file(tmp_path: Path, replayed: Run) -> None:
    one, two = put(tmp_path, "AAA-aggTrades-x.csv", SPOT), put(tmp_path, "BBB-aggTrades-x.csv", SPOT)
    run = replayed(open_feed([one, two]))
    assert run.rows("instrument") == [(0,), (0,), (1,), (1,)]
    assert run.found == {}
    (tmp_path / "what.csv").write_bytes(one.read_bytes())
    run = replayed(open_feed([tmp_path / "what.csv"]))
    assert run.feed.instruments()[0].id == "WHAT.BINANCE"
    assert any("no SYMBOL" in n for n in run.feed.notices)


@pytest.mark.parametrize(
    "bad",
    [
        "", "x", "1,2", "184359105,122336.26,0.1,1,1,1759536000061999,maybe,True", SPOT[1].replace("1223", "x"),
        SPOT[1].replace("0.00005000", "-0.5"), SPOT[1].replace("0.00005000", "0"), SPOT[1].replace("0.00005000", ""),
        SPOT[1].replace("1759536000061999", "17"), SPOT[1].replace("1759536000061999", "99999999999999999"),
        SPOT[1].replace("184359104", "18446744073709551616"), SPOT[1].replace("184359104", "-4"), '"' + SPOT[1],
        SPOT[1].replace("122336.26000000", "nan"), "\x00\x01", "\u0663" * 30,
    ],
)  # fmt: skip
def test_a_damaged_row_costs_itself_only(tmp_path: Path, replayed: Run, bad: str) -> None:
    path = put(tmp_path, "A-aggTrades-x.csv", [SPOT[0], bad, SPOT[1]])
    run = replayed(open_feed([path]))
    assert run.found == ({"malformed": 1} if bad else {})
    assert run.events["seq"].tolist() == [184359103, 184359104]
    assert run.feed.messages == 2 + bool(bad)
    assert all("line 2" in n for n in run.feed.notices)


@pytest.mark.parametrize("number", ["0.000000001", "99999999999999", "92233720368.54775808", "1e30"])
def test_numbers_outside_the_units(tmp_path: Path, replayed: Run, number: str) -> None:
    rows = [SPOT[0], SPOT[1].replace("0.00005000", number)]
    run = replayed(open_feed([put(tmp_path, "A-aggTrades-x.csv", rows)]))
    assert (run.found, len(run.events)) == ({"px_range": 1}, 1)
    fine = [SPOT[0], SPOT[1].replace("0.00005000", "5E-5")]
    assert replayed(open_feed([put(tmp_path, "A-aggTrades-x.csv", fine)])).events["qty"][1] == 5000


def rows_text() -> st.SearchStrategy[list[str]]:
    number = st.decimals(0, 10**12, places=8).map(lambda d: f"{d:f}")
    odd = st.sampled_from(["", "x", "-1", "1e-8", "1E3", "0", "5", "0.1", "+1", " 1", "1 ", "1_0", ".5", "5.", "1e-9"])
    price = st.one_of(number, number, odd)
    flag = st.sampled_from(["True", "False", "true", "false", "TRUE", "1", "0", "T", ""])
    when = st.sampled_from(["1759536000061015", "1723161257679", "17", "", "9223372036854775807", "9000000000000000"])
    ids = st.one_of(st.integers(0, 10**19).map(str), st.sampled_from(["", "x", "007", "-1"]))
    good = st.builds("{},{},{},1,2,1759536000061015,True,True".format, st.integers(0, 10**12), number, number)
    free = st.builds("{},{},{},1,2,{},{},True".format, ids, price, price, when, flag)
    return st.lists(st.one_of(good, good, good, free), min_size=1, max_size=6)


@given(rows_text())
def test_fast_columns_equal_the_naive_rows(rows: list[str]) -> None:
    """Where Arrow takes the rows, it says what the naive reader says; what that one refuses, Arrow refuses."""
    fast = fast_columns(("\n".join(rows) + "\n").encode(), LAYOUTS["aggTrades"])
    if fast is None:
        return
    table = [slow_row(row.encode(), LAYOUTS["aggTrades"], Units())[0] for row in rows]
    assert np.stack([fast.ids, fast.px, fast.qty, fast.ts, fast.side], axis=1).tolist() == [list(r) for r in table]


def test_good_rows_take_the_fast_way() -> None:
    fast = fast_columns(("\n".join(SPOT) + "\n").encode(), LAYOUTS["aggTrades"])
    assert fast is not None
    assert fast.spot
    assert fast.px.tolist() == [12233579000000, 12233626000000]


def test_pieces_do_not_matter(tmp_path: Path, replayed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"{i},{i}.5,1,1,1,1759536000061015,False,True" for i in range(20_000)]
    path = put(tmp_path, "A-aggTrades-x.csv", [*rows[:9], "damaged", *rows[9:]])
    whole = replayed(open_feed([path]))
    monkeypatch.setattr(binance_files, "PIECE", 1000)
    pieces = replayed(open_feed([path]))
    assert np.array_equal(whole.events, pieces.events)
    assert whole.found == pieces.found == {"malformed": 1}
    assert pieces.feed.notices == whole.feed.notices
    assert "line 10" in whole.feed.notices[0]


def test_cut_file(tmp_path: Path, replayed: Run) -> None:
    rows = [f"{i},{i * 7919 % 997}.5,1,1,1,{1759536000061015 + i * i},False,True" for i in range(20_000)]
    data = gzip.compress(("\n".join(rows) + "\n").encode())
    (tmp_path / "A-aggTrades-x.csv.gz").write_bytes(data[: len(data) // 2])
    run = replayed(open_feed([tmp_path / "A-aggTrades-x.csv.gz"]))
    assert run.found == {"malformed": 1}
    assert 1000 < len(run.events) < 20_000
    assert run.events["seq"].tolist() == list(range(len(run.events)))


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="no whole binance message"):
        list(open_feed([put(tmp_path, "A-aggTrades-x.csv", [FUTURES_HEADER])]).events())
    capture = put(tmp_path, "capture", ['{"stream":"a@depth","data":{"e":"depthUpdate"}}'])
    with pytest.raises(UsageError, match="cannot be one feed"):
        open_feed([put(tmp_path, "A-aggTrades-x.csv", SPOT), capture])


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (SPOT[0], "aggTrades"), (FUTURES_HEADER, "aggTrades"), (FUTURES[0], "aggTrades"), (TRADES[0], "trades"),
        ("id,price,qty,quote_qty,time,is_buyer_maker", "trades"), (BARS_HEADER, "bars"), (BAR, "bars"),
        ('{"stream":"x"}', None), ("34200.017459617,5,0,1,2238200,-1", None), ("", None),
    ],
)  # fmt: skip
def test_kinds(row: str, kind: str | None) -> None:
    assert kind_of(row.encode() + b"\n") == kind


FILES = [
    ("BTCUSDC-aggTrades-2025-10-04", 140_489, 184359103),
    ("BTCUSDC-aggTrades-2025-10-08", 256_978, 185437564),
]


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "rows", "first"), FILES)
def test_real_files(data_dir: Path, replayed: Run, name: str, rows: int, first: int) -> None:
    path = data_dir / "binance_trades_2025" / f"{name}.zip"
    run = replayed(open_feed([path]))
    assert (run.feed.messages, run.found) == (rows, {})
    assert run.events["seq"].tolist() == list(range(first, first + rows))
    text = zipfile.ZipFile(path).read(f"{name}.csv").splitlines()
    units = Units()
    for i in range(0, rows, 97):
        parsed, _ = slow_row(text[i], LAYOUTS["aggTrades"], units)
        assert parsed == tuple(int(v) for v in run.events[["seq", "px", "qty", "ts_event", "side"]][i].tolist())


@pytest.mark.realdata
def test_real_bars(data_dir: Path, replayed: Run) -> None:
    run = replayed(open_feed([data_dir / "binance_trades_2025" / "BTCUSD_PERP-1m-2025-10-09.zip"]))
    assert (run.feed.messages, len(run.events), run.found) == (1440, 0, {})
