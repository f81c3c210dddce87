"""What level feeds share: exact units, batches as events, findings at their place, damage; a venue made up for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microrisk.errors import FeedError, UsageError
from microrisk.feed import l2
from microrisk.feed.capture import Capture, Line
from microrisk.feed.l2 import L2Feed, Product, RangeError, Stamp, Units, no_snapshot, number_text
from microrisk.feed.open import Source
from microrisk.feed.text import from_units, to_units
from microrisk.spec.records import Action, FeedId, Flag, Integrity
from microrisk.spec.units import NULL_TS, Side


class ToyFeed(L2Feed[Product]):
    """{"s": symbol, "k": "image" or "update" or "trade" or "break", "b": [...], "a": [...]}."""

    format = "toy"
    feed_id = FeedId.KRAKEN
    default_venue = "KRAKEN"
    product_type = Product

    def _message(self, line: Line) -> None:
        m = msgspec.json.decode(line.body)
        bids, asks = self.levels(m.get("b", [])), self.levels(m.get("a", []))
        product = self._product(m["s"])
        stamp = Stamp(line.ts_recv, line.ts_recv, line.number)
        if m["k"] == "image":
            self.image(product, stamp, bids, asks)
        elif m["k"] == "trade":
            self.trade(product, stamp, int(Side.ASK), *asks[0], 9)
        elif m["k"] == "break":
            self.invalidate(product, Integrity.gap, stamp, "made up")
        elif product.waiting:
            self.awaiting(product)
        else:
            self.update(product, stamp, bids, asks, m.get("pb", ()), m.get("pa", ()))


def toy(tmp_path: Path, *messages: Any) -> ToyFeed:
    lines = [m if isinstance(m, str) else f"{1600000000 + i}.5: {json.dumps(m)}" for i, m in enumerate(messages)]
    path = tmp_path / "toy"
    path.write_text("".join(line + "\n" for line in lines))
    return ToyFeed(Capture([Source(path)]), None)


IMAGE = {"s": "A/B", "k": "image", "b": [["99", "1"], ["98.5", "2"]], "a": [["101", "3"]]}


def test_batches_become_events(tmp_path: Path, replayed: Callable[[Any], Any]) -> None:
    change = {"s": "A/B", "k": "update", "b": [["99", "0"], ["99.5", "4"]], "a": [["102", "1"]], "pb": [9850000000]}
    run = replayed(toy(tmp_path, IMAGE, change, {"s": "A/B", "k": "trade", "a": [["101", "0.5"]]}))
    first, last, out = Flag.SNAPSHOT, Flag.LAST, Flag.EXEC | Flag.NO_PRINT
    assert run.rows("action", "side", "px", "qty", "flags", "ref", "seq") == [
        (Action.CLEAR, 0, 0, 0, first, 0, 1),
        (Action.MODIFY, 1, 9_900_000_000, 10**8, first, 0, 1),
        (Action.MODIFY, 1, 9_850_000_000, 2 * 10**8, first, 0, 1),
        (Action.MODIFY, -1, 10_100_000_000, 3 * 10**8, first | last, 0, 1),
        (Action.MODIFY, 1, 9_900_000_000, 0, 0, 0, 2),
        (Action.MODIFY, 1, 9_950_000_000, 4 * 10**8, 0, 0, 2),
        (Action.MODIFY, -1, 10_200_000_000, 10**8, 0, 0, 2),
        (Action.MODIFY, 1, 9_850_000_000, 0, out | last, 0, 2),
        (Action.TRADE, -1, 10_100_000_000, 5 * 10**7, last, 9, 3),
    ]
    assert run.levels("A/B") == ([[9_950_000_000, 4 * 10**8]], [[10_100_000_000, 3 * 10**8], [10_200_000_000, 10**8]])
    assert run.feed.synthetic == 1
    assert set(run.events["ts_recv"].tolist()) == {1600000000500000000 + i * 10**9 for i in range(3)}
    assert run.found == {}


@given(st.lists(st.sampled_from(["image", "update", "trade", "break"]), min_size=1, max_size=12), st.data())
def test_few_rows_and_many_are_the_same_events(kinds: list[str], data: st.DataObject) -> None:
    """Chunks of up to l2.FEW rows are made another way."""
    feeds = [ToyFeed(Capture([]), None) for _ in range(2)]
    level = st.tuples(st.integers(-(2**62), 2**62), st.integers(0, 2**62))
    for n, kind in enumerate(kinds):
        name, stamp = data.draw(st.sampled_from(["A", "B"])), Stamp(n * 7, n * 9, n)
        bids, asks = (data.draw(st.lists(level, min_size=1, max_size=3)) for _ in range(2))
        for feed in feeds:
            product = feed._product(name)
            if kind == "image":
                feed.image(product, stamp, bids, asks)
            elif kind == "trade":
                feed.trade(product, stamp, int(Side.BID), *asks[0], ref=2**64 - 1)
            elif kind == "break":
                feed.invalidate(product, Integrity.gap, stamp, "made up")
            else:
                feed.update(product, stamp, bids, asks, pushed_asks=[asks[0][0]])
    few = feeds[0]._take_few()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(l2, "FEW", 0)
        many = feeds[1]._take_events()
    assert few.dtype == many.dtype
    assert few.tolist() == many.tolist()
    assert feeds[0]._take_events().tolist() == [], "each is told once"


def test_a_broken_rule_throws_one_book_away(tmp_path: Path, replayed: Callable[[Any], Any]) -> None:
    other = {**IMAGE, "s": "C/D"}
    more = {"s": "A/B", "k": "update", "b": [["97", "1"]]}
    run = replayed(toy(tmp_path, IMAGE, other, {"s": "A/B", "k": "break"}, more, more))
    assert run.levels("A/B") == ([], [])
    assert run.levels("C/D")[0][0][0] == 9_900_000_000
    assert run.found == {"gap": 1, "invalidated": 1, "awaiting_image": 2}
    assert (run.suspect("A/B"), run.suspect("C/D")) == (True, False)


def test_the_next_image_heals(tmp_path: Path, replayed: Callable[[Any], Any]) -> None:
    run = replayed(toy(tmp_path, IMAGE, {"s": "A/B", "k": "break"}, {"s": "A/B", "k": "break"}, IMAGE))
    assert run.found == {"gap": 2, "invalidated": 1}
    assert not run.suspect("A/B")
    assert len(run.levels("A/B")[0]) == 2


def test_a_bad_message_changes_nothing(tmp_path: Path, replayed: Callable[[Any], Any]) -> None:
    half = {"s": "A/B", "k": "update", "b": [["99", "0"], ["x", "1"]]}
    run = replayed(toy(tmp_path, IMAGE, half, "garbage", "1600000009.5: {", {"s": "", "k": "update"}))
    assert run.found == {"malformed": 4}
    assert len(run.levels("A/B")[0]) == 2
    assert run.feed.messages == 5
    assert any("line 3" in n for n in run.feed.notices)


def test_a_new_connection_ends_every_book(tmp_path: Path, replayed: Callable[[Any], Any]) -> None:
    run = replayed(toy(tmp_path, "wss://x.y <-> 1600000000.0", IMAGE, "wss://x.y <-> 1600000009.0", IMAGE))
    assert run.found == {"session_reset": 1, "invalidated": 1}
    assert [a for a, _ in run.rows("action", "flags")].count(Action.CLEAR) == 3
    assert len(run.levels("A/B")[0]) == 2


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="no whole toy message"):
        list(toy(tmp_path, "garbage", "1.5: {").events())


def test_receive_time_may_be_missing(tmp_path: Path) -> None:
    (events,) = toy(tmp_path, json.dumps(IMAGE)).events()
    assert set(events["ts_recv"].tolist()) == {NULL_TS}


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_units_are_exact(value: int) -> None:
    text = from_units(value, 8)
    table = Units(signed=True)
    assert table[text] == table[text] == to_units(text, 8) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("1", 10**8),
        ("0.00000001", 1),
        ("007.50", 75 * 10**7),
        ("1.000000000", 10**8),
        ("1e-8", 1),
        ("2.5E3", 25 * 10**10),
    ],
)
def test_forms_of_numbers(text: str, value: int) -> None:
    assert Units()[text] == value


@pytest.mark.parametrize(
    "text", ["", ".", "-", "1.", "+1", " 1", "1 ", "1,5", "0x10", "nan", "inf", "1e", "1_0", "٣", "--1", "1.5.2"]
)
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match=r"decimal number|below zero") as why:
        Units()[text]
    assert not isinstance(why.value, RangeError)


@pytest.mark.parametrize(
    "text", ["0.000000001", "1e-9", "92233720368.54775808", "1e30", "9" * 30, "-92233720368.54775808"]
)
def test_what_does_not_fit(text: str) -> None:
    with pytest.raises(RangeError):
        Units(signed=True)[text]


@pytest.mark.parametrize("text", ["1e999999999", "1e-999999999", "9" * 100_000])
def test_hostile_numbers_cost_nothing(text: str) -> None:
    with pytest.raises(ValueError, match="decimal number"):
        Units()[text]
    with pytest.raises(ValueError, match=r".+"):
        to_units(text, 8)


def test_sizes_below_zero_are_refused() -> None:
    assert Units(signed=True)["-1.5"] == -15 * 10**7
    with pytest.raises(ValueError, match="below zero"):
        Units()["-1.5"]


def test_units_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microrisk.feed.l2.TEXTS_KEPT", 8)
    table = Units()
    assert [table[str(i)] for i in range(100)] == [i * 10**8 for i in range(100)]
    assert len(table) <= 8


def test_number_text() -> None:
    assert number_text(msgspec.Raw(b"1.50")) == number_text(msgspec.Raw(b'"1.50"')) == "1.50"
    for bad in (b"null", b"true", b"[1]", b'""', b"\xff"):
        with pytest.raises(ValueError, match="not a number"):
            number_text(msgspec.Raw(bad))


def test_snapshot_may_be_refused(tmp_path: Path) -> None:
    no_snapshot(None, "Toy")
    with pytest.raises(UsageError, match="Toy"):
        no_snapshot(Source(tmp_path), "Toy")
