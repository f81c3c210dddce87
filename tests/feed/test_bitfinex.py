"""Bitfinex: rules one by one, damage, and a real recording against a book of plain dictionaries."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from microrisk.errors import UsageError
from microrisk.feed import open_feed
from microrisk.spec.features import mask
from microrisk.spec.records import Action, Flag

ONE = 10**8
URL = "wss://api.bitfinex.com/ws/2"
PUSHED = Flag.EXEC | Flag.NO_PRINT
CONF = {"event": "conf", "status": "OK", "flags": 65536 + 131072}


def subscribed(chan: int, symbol: str = "tBTCUSD", channel: str = "book", **more: Any) -> dict[str, Any]:
    depth = {"prec": "P0", "freq": "F0", "len": "100"} if channel == "book" else {}
    return {"event": "subscribed", "channel": channel, "chanId": chan, "symbol": symbol} | depth | more


BOOK = [subscribed(7), [7, [[100, 1, 2.5], [99.5, 3, 4], [101, 1, -1], [102, 2, -3.25]]]]
OTHER = [subscribed(8, "tTESTBTC:TESTUSD"), [8, [[5, 1, 1], [6, 1, -1]]]]


def numbered(*messages: Any, start: int = 1) -> list[Any]:
    """Messages with the number that flag 65536 asks for."""
    out: list[Any] = [CONF]
    for m in messages:
        out.append([*m, start] if isinstance(m, list) else m)
        start += isinstance(m, list)
    return out


def test_a_book_row_by_row(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    rows = [[7, [100, 0, 1]], [7, [101, 2, -7.5]], [7, [103, 1, -2e-8]], [7, "hb"], [7, [98, 0, -1]]]
    run = replayed(open_feed([write_capture(URL, numbered(*BOOK, *rows))]))
    assert (run.feed.format, run.feed.messages, run.found) == ("cryptofeed", 8, {"unknown_level": 1})
    assert run.feed.instruments()[0].id == "BTC-USD.BITFINEX"
    bids, asks = run.levels("BTC-USD")
    assert bids == [[9_950_000_000, 4 * ONE]]
    assert asks == [[101 * ONE, 750_000_000], [102 * ONE, 325_000_000], [103 * ONE, 2]]
    stamps = run.rows("seq", "ts_event", "ts_recv", "flags")
    assert stamps[0] == (1, 1_600_000_003_250_000_000, 1_600_000_003_250_000_000, Flag.SNAPSHOT)
    assert stamps[5] == (2, 1_600_000_004_250_000_000, 1_600_000_004_250_000_000, Flag.LAST)
    assert run.feed.mask == mask("l1", "l5", "l10", "trades")
    plain = replayed(open_feed([write_capture(URL, [*BOOK, *rows])]))
    assert plain.levels("BTC-USD") == (bids, asks)
    assert plain.rows("seq")[0] == (3,)


def test_trades_count_once(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    messages = [subscribed(9, channel="trades"), [9, [[1, 1618665870435, 1, 100], [2, 1618665870435, -1, 100]]]]
    messages += [
        [9, kind, [3 + i, 1618665870435 + i, amount, 100.5]]
        for i, amount in enumerate((0.5, -2))
        for kind in ("te", "tu")
    ]
    run = replayed(open_feed([write_capture(URL, numbered(*messages))]))
    assert run.found == {"skipped": 2}
    assert run.rows("action", "side", "px", "qty", "ref", "ts_event", "flags") == [
        (Action.TRADE, -1, 10_050_000_000, ONE // 2, 3, 1_618_665_870_435_000_000, Flag.LAST),
        (Action.TRADE, 1, 10_050_000_000, 2 * ONE, 4, 1_618_665_870_436_000_000, Flag.LAST),
    ]


def sum_of(*texts: str) -> int:
    """The checksum as the documentation gives it, a signed number of 32 bits."""
    return int.from_bytes(zlib.crc32(":".join(texts).encode()).to_bytes(4, "big"), "big", signed=True)


def test_checksums(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    first = sum_of("100", "2.5", "101", "-1", "99.5", "4", "102", "-3.25")
    second = sum_of("100", "2.5", "102", "-3.25", "99.5", "4")
    good = numbered(*BOOK, [7, "cs", first], [7, [101, 0, -1]], [7, "cs", second])
    run = replayed(open_feed([write_capture(URL, good)]))
    assert run.found == {"checksum_ok": 2}
    bad = numbered(*BOOK, *OTHER, [7, "cs", first + 1], [7, [100, 1, 9]], [7, "cs", 5])
    run = replayed(open_feed([write_capture(URL, bad)]))
    assert run.found == {"checksum_mismatch": 1, "invalidated": 1, "awaiting_image": 1}
    assert run.levels("BTC-USD") == ([], [])
    assert (run.suspect("BTC-USD"), run.suspect("TESTBTC-TESTUSD")) == (True, False)
    healed = replayed(open_feed([write_capture(URL, [*bad, [7, BOOK[1][1], 6], [7, "cs", first, 7]])]))
    assert healed.found["checksum_ok"] == 1
    assert not healed.suspect("BTC-USD")


def test_a_checksum_covers_25_levels_as_they_are_written(
    write_capture: Callable[..., Path], replayed: Callable[[Any], Any]
) -> None:
    rows = [[f"{200 - i}.5", f"{i + 1}e-8"] for i in range(30)] + [[f"{300 + i}", f"-0.{i + 1}"] for i in range(3)]
    image = f"[7, [{', '.join(f'[{p}, 1, {a}]' for p, a in rows)}], 1]"
    words = [w for i in range(25) for r in [rows[i : i + 1], rows[30 + i : 31 + i]] for pair in r for w in pair]
    messages = [CONF, subscribed(7), image, [7, "cs", sum_of(*words), 2]]
    assert replayed(open_feed([write_capture(URL, messages)])).found == {"checksum_ok": 1}


def test_a_jump_ends_every_book(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    messages = [*numbered(*BOOK, *OTHER), [7, [100, 1, 9], 2], [7, [100, 1, 9], 5], [8, [5, 1, 9], 6]]
    run = replayed(open_feed([write_capture(URL, messages)]))
    assert run.found == {"duplicate_seq": 1, "gap": 1, "invalidated": 2, "awaiting_image": 2}
    assert (run.suspect("BTC-USD"), run.suspect("TESTBTC-TESTUSD")) == (True, True)
    assert "messages 3 to 4 are missing" in run.feed.notices[-1]
    healed = replayed(open_feed([write_capture(URL, [*messages, [8, [[5, 1, 1]], 7]])]))
    assert (healed.suspect("BTC-USD"), healed.suspect("TESTBTC-TESTUSD")) == (True, False)
    assert healed.levels("TESTBTC-TESTUSD") == ([[5 * ONE, ONE]], [])


def test_a_new_connection_counts_anew(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    again = [f"{URL} <-> 1600000100.5", *map(json.dumps, numbered(*BOOK))]
    path = write_capture(URL, numbered(*BOOK, [7, [100, 0, 1]]))
    text = again[0] + "\n" + "".join(f"{1600000101 + i}.5: {m}\n" for i, m in enumerate(again[1:]))
    path.write_text(path.read_text() + text)
    run = replayed(open_feed([path]))
    assert run.found == {"session_reset": 1, "invalidated": 1}
    assert (len(run.levels("BTC-USD")[0]), run.suspect("BTC-USD")) == (2, False)


@pytest.mark.parametrize("end", [{"event": "unsubscribed", "chanId": 7}, {"event": "info", "code": 20051}])
def test_the_end_of_a_subscription(
    end: dict[str, Any], write_capture: Callable[..., Path], replayed: Callable[[Any], Any]
) -> None:
    run = replayed(open_feed([write_capture(URL, [*BOOK, end])]))
    assert run.found == {"session_reset": 1, "invalidated": 1}
    assert run.suspect("BTC-USD")


def test_levels_pushed_out_of_a_full_side(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    bids = [[100 - i, 1, 1] for i in range(25)]
    rows = [[7, [99, 0, 1]], [7, [76, 0, 1]], [7, [99, 1, 1]], [7, [76, 1, 1]], [7, [76, 0, 1]], [7, [101, 1, 1]]]
    run = replayed(open_feed([write_capture(URL, [subscribed(7, len="25"), [7, bids], *rows])]))
    gone = [(px // ONE, flags & PUSHED) for px, qty, flags in run.rows("px", "qty", "flags") if qty == 0 and px]
    assert gone == [(99, 0), (76, 0), (76, PUSHED)]


BROKEN = {
    "half a row": [7, [100, 1]],
    "negative count": [7, [100, -1, 1]],
    "amount of nothing": [7, [100, 1, 0]],
    "price as a word": [7, ["low", 1, 1]],
    "negative price written twice": [7, ["--5", 1, 1]],
    "level twice": [7, [[100, 1, 1], [100, 1, 2]]],
    "empty level in an image": [7, [[100, 0, 1]]],
    "checksum without a number": [7, "cs"],
    "data of another type": [7, {"a": 1}],
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_row_that_cannot_be_read(
    broken: Any, write_capture: Callable[..., Path], replayed: Callable[[Any], Any]
) -> None:
    run = replayed(open_feed([write_capture(URL, [*OTHER, *BOOK, broken, [7, [100, 1, 9]]])]))
    assert run.found == {"malformed": 1, "invalidated": 1, "awaiting_image": 1}
    assert (run.suspect("BTC-USD"), run.suspect("TESTBTC-TESTUSD"), run.feed.messages) == (True, False, 6)
    fine = replayed(open_feed([write_capture(URL, [*BOOK, [7, [100, 1, 0.000000001]]])]))
    assert fine.found == {"px_range": 1, "invalidated": 1}


def test_what_is_not_a_book(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    strange = [
        [55, [1, 2, 3]],
        [55, "hb"],
        subscribed(10, prec="R0"),
        subscribed(11, prec="P1"),
        subscribed(12, "fUSD"),
    ]
    quiet = [subscribed(13, channel="ticker"), [13, [1, 2, 3, 4]], [10, [1, 2, 3]], {"event": "error", "code": 10300}]
    bad = [subscribed(9, channel="trades"), [9, "te", [1, 2]], [9, "te", [1, 2, 0, 5]], [7], "[]", '{"event": 3}']
    run = replayed(open_feed([write_capture(URL, [*BOOK, *strange, *quiet, *bad])]))
    assert run.found == {"unknown_type": 4, "malformed": 5}
    assert not run.suspect("BTC-USD")
    assert run.events["action"].tolist().count(Action.TRADE) == 0


def test_early_rows_garbage_and_a_cut(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    early = [subscribed(7), [7, [100, 1, 9]], BOOK[1]]
    assert replayed(open_feed([write_capture(URL, early)])).found == {"awaiting_image": 1}
    shown = numbered(*BOOK, [7, [100, 1, 9]])
    run = replayed(open_feed([write_capture(URL, [*shown, "{]", [7, [100, 1, 9], 4]])]))
    assert run.found == {"malformed": 1, "gap": 1, "invalidated": 1, "awaiting_image": 1}
    many = numbered(*BOOK, *([7, [100, 1, i * i + 1]] for i in range(500)))
    run = replayed(open_feed([write_capture(URL, many, cut=200)]))
    assert run.found == {"malformed": 1}
    assert 300 < run.feed.messages < 503
    with pytest.raises(UsageError, match="no use"):
        open_feed([write_capture(URL, BOOK)], snapshot=write_capture(URL, BOOK, name="image"))


# -- recording ----------------------------------------------------------------------------------------------------


def naive(path: Path) -> Iterator[tuple[str, int, list[list[int]], list[list[int]]]]:
    names: dict[int, str] = {}
    books: dict[int, dict[int, dict[int, int]]] = {}
    for line in gzip.decompress(path.read_bytes()).decode().split("\n"):
        m = json.loads(line.partition(": ")[2], parse_float=Decimal) if line[:1].isdigit() else {}
        if isinstance(m, dict):
            if m.get("event") == "subscribed" and m["channel"] == "book":
                name = m["symbol"][1:]
                names[m["chanId"]] = name.replace(":", "-") if ":" in name else name[:3] + "-" + name[3:]
            continue
        if m[0] not in names or m[1] == "hb":
            continue
        rows = m[1] if isinstance(m[1][0], list) else [m[1]]
        if rows is m[1]:
            books[m[0]] = {1: {}, -1: {}}
        for price, count, amount in rows:
            held = books[m[0]][1 if amount > 0 else -1]
            held[int(price * ONE)] = int(abs(amount) * ONE)
            if count == 0:
                del held[int(price * ONE)]
        bids, asks = (sorted([p, q] for p, q in books[m[0]][side].items()) for side in (1, -1))
        yield names[m[0]], m[-1], bids[::-1], asks


@pytest.mark.realdata
def test_recording(
    data_dir: Path, book_after_every_message: Callable[..., Any], findings_of: Callable[[Any], dict[str, int]]
) -> None:
    path = data_dir / "cryptofeed_raw" / "BITFINEX.ws.11.0.gz"
    feed = open_feed([path])
    books = list(book_after_every_message(feed))
    assert books == list(naive(path))
    assert max(max(len(bids), len(asks)) for _, _, bids, asks in books) == 100
    # 7 lists of 30 trades from before the session; 1,670 numbers without a hole
    assert (feed.messages, len(books), findings_of(feed)) == (1693, 1600, {"skipped": 210})
    assert {i.symbol for i in feed.instruments().values()} >= {"BFT-USD", "IOT-ETH", "TESTBTC-TESTUSD"}
