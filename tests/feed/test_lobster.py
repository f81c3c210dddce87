"""LOBSTER pairs: rows through EVENT and back, the book against the images, on generated windows and on real files."""

from __future__ import annotations

import gzip
import random
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microrisk.core import Engine
from microrisk.errors import EncodeError, FeedError, UsageError
from microrisk.feed import lobster, open_feed
from microrisk.feed.lobster import LobsterFeed, export, find_pairs, read_pair, to_events, to_rows, write_messages
from microrisk.feed.lobster_book import SYNTHETIC
from microrisk.feed.lobster_check import compare_images, determined_images
from microrisk.feed.lobster_csv import (
    MESSAGE,
    Rows,
    format_images,
    format_messages,
    format_time,
    parse_name,
    read_images,
    read_messages,
)
from microrisk.feed.lobster_csv import _read_images_singly as images_singly
from microrisk.feed.lobster_csv import _read_messages_singly as messages_singly
from microrisk.feed.open import Source, find_sources
from microrisk.spec import features
from microrisk.spec.records import EVENT, Action, Flag, Integrity, TradingState

STEM = "XYZ_2012-06-21_34200000_57600000"
MIDNIGHT = 1_340_251_200_000_000_000  # 2012-06-21 in New York
EMPTY = {1: -9_999_999_999, -1: 9_999_999_999}


class Window:
    """A full book of random orders of which only the first levels are shown, as LOBSTER shows them."""

    def __init__(self, seed: int, levels: int) -> None:
        self.random = random.Random(seed)
        self.levels = levels
        self.books: dict[int, dict[int, dict[int, int]]] = {1: {}, -1: {}}
        self.next = 1
        for _ in range(60):
            self.add(self.random.choice((1, -1)))

    def top(self, side: int) -> list[int]:
        return sorted(self.books[side], reverse=side > 0)[: self.levels]

    def image(self) -> list[int]:
        tops = {s: self.top(s) for s in (-1, 1)}
        out = []
        for k in range(self.levels):
            for s in (-1, 1):
                price = tops[s][k] if k < len(tops[s]) else None
                out += [EMPTY[s], 0] if price is None else [price, sum(self.books[s][price].values())]
        return out

    def add(self, side: int) -> tuple[int, ...]:
        best = max(self.books[1], default=1000) if side < 0 else min(self.books[-1], default=1001)
        price = best - side * self.random.randint(1, 9)
        self.books[side].setdefault(price, {})[self.next] = size = self.random.randint(1, 5)
        self.next += 1
        return 1, self.next - 1, size, price, side

    def take(self, kind: int, side: int) -> tuple[int, ...] | None:
        prices = self.top(side)[:1] if kind == 4 else list(self.books[side])
        if not prices:
            return None
        price = self.random.choice(prices)
        orders = self.books[side][price]
        order = next(iter(orders)) if kind == 4 else self.random.choice(list(orders))
        size = orders[order] if kind == 3 else self.random.randint(1, orders[order] - (kind == 2) or 1)
        if kind == 2 and orders[order] == 1:
            return None
        orders[order] -= size
        if not orders[order]:
            del orders[order]
        if not orders:
            del self.books[side][price]
        return kind, order, size, price, side

    def rows(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        messages, images = [], []
        while len(messages) < n:
            side, kind = self.random.choice((1, -1)), self.random.choice((1, 1, 1, 2, 3, 3, 4, 5))
            before = self.top(side)
            row = self.add(side) if kind == 1 else (5, 0, 3, 1000, side) if kind == 5 else self.take(kind, side)
            if row and (kind == 5 or row[3] in before + self.top(side)):
                messages.append((34_200_000_000_000 + len(messages) * 1_000_001, *row))
                images.append(self.image())
        out = np.zeros(n, MESSAGE)
        for name, column in zip(
            ("time", "type", "id", "size", "price", "direction"), zip(*messages, strict=True), strict=True
        ):
            out[name] = column
        return out, np.array(images, np.int64)


def write(folder: Path, messages: np.ndarray, images: np.ndarray | None, levels: int, stem: str = STEM) -> Path:
    path = folder / f"{stem}_message_{levels}.csv"
    path.write_bytes(format_messages(messages))
    if images is not None:
        (folder / f"{stem}_orderbook_{levels}.csv").write_bytes(format_images(images))
    return path


def everything(feed: Any) -> np.ndarray:
    return np.concatenate([np.zeros(0, EVENT), *feed.events()])


def findings(feed: Any) -> dict[str, int]:
    out: Counter[str] = Counter()
    for kind, n, _ in feed.drain():
        out[Integrity(kind).name] += n
    return dict(out)


def pumped(feed: Any, engine: Any) -> dict[str, int]:
    while feed.pump(engine):
        pass
    engine.finish()
    return {k: n for k, n in engine.integrity().items() if n}


def image_of(engine: Engine, index: int, levels: int) -> list[int]:
    bids, asks = (x.tolist() for x in engine.levels(index))
    out: list[int] = []
    for k in range(levels):
        out += asks[k] if k < len(asks) else [EMPTY[-1], 0]
        out += bids[k] if k < len(bids) else [EMPTY[1], 0]
    assert max(len(bids), len(asks)) <= levels
    return out


def books_after_each_row(events: np.ndarray, levels: int, engine: Engine) -> np.ndarray:
    out = []
    ends = np.flatnonzero(events["flags"] & Flag.LAST) + 1
    for a, b in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        engine.run_events(events[a:b])
        out.append(image_of(engine, 0, levels))
    return np.array(out)


@pytest.mark.parametrize("levels", [1, 2, 5, 10])
@pytest.mark.parametrize("seed", range(5))
def test_the_book_equals_the_image_after_every_row(seed: int, levels: int, tmp_path: Path) -> None:
    messages, images = Window(seed, levels).rows(400)
    feed, engine = open_feed([write(tmp_path, messages, images, levels)]), Engine()
    events = everything(feed)
    np.testing.assert_array_equal(books_after_each_row(events, levels, engine), images)
    assert not any(engine.integrity().values())
    assert set(findings(feed)) <= {"beyond_depth"}
    assert engine.n_events - feed.synthetic == int((messages["type"] < 5).sum())
    np.testing.assert_array_equal(to_rows(events), messages)


@pytest.mark.parametrize("levels", [1, 2, 5, 10])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_determined_is_right(seed: int, levels: int) -> None:
    messages, images = Window(seed + 100, levels).rows(400)
    found = compare_images(messages, images)
    assert found.first_difference is None
    assert found.equal == found.determined > 0
    assert found.total == 399 * levels * 4
    wrong = images.copy()
    _, sure = determined_images(messages, images)
    row, column = np.argwhere(sure[1:])[-1] + [1, 0]
    wrong[row, column] += 1
    assert compare_images(messages, wrong).first_difference == (row, column)


@pytest.mark.parametrize("levels", [3, 40])
def test_the_engine_rebuilds_what_is_determined_from_the_first_row_alone(levels: int, tmp_path: Path) -> None:
    messages, images = Window(7, levels).rows(300)
    pairs = find_pairs([Source(write(tmp_path, messages, images, levels))])
    events = everything(LobsterFeed(pairs, use="first"))
    mine, sure = rebuilt(events, messages, images, levels)
    np.testing.assert_array_equal(mine[sure], images[sure])
    # with more levels than the book ever has, everything is determined
    assert bool(sure.all()) == (levels == 40)


def rebuilt(events: np.ndarray, messages: np.ndarray, images: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Books of an engine cut at the frontier: in each row as many levels as are determined."""
    _, sure = determined_images(messages, images)
    engine, out = Engine(), np.zeros_like(images)
    ends = np.flatnonzero(events["flags"] & Flag.LAST) + 1
    for k, (a, b) in enumerate(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)):
        engine.run_events(events[a:b])
        bids, asks = engine.levels(0)
        for held, column in ((asks, 0), (bids, 2)):
            n = int(sure[k, column::4].sum())
            place = out[k].reshape(levels, 4)[:, column : column + 2]
            place[:] = EMPTY[1 if column else -1], 0
            place[: min(n, len(held))] = held[:n]
    return out, sure


def test_every_kind_of_row_survives_the_event() -> None:
    rows = np.array(
        [
            (34_200_004_241_176, 16_113_575, 18, 5_853_300, 1, 1),
            (34_200_100_000_000, 16_113_575, 8, 5_853_300, 2, 1),
            (34_201_000_000_000, 16_113_575, 10, 5_853_300, 3, 1),
            (34_201_000_000_001, 99, 10, 5_853_400, 4, -1),
            (34_201_000_000_002, 0, 1, 5_853_400, 5, -1),
            (34_201_000_000_003, 7, 1, 5_853_400, 5, 1),
            (34_201_000_000_004, -1, 3000, 5_853_400, 6, -1),
            (34_201_000_000_005, 0, 0, -1, 7, -1),
            (34_201_000_000_006, 0, 0, 0, 7, -1),
            (34_201_000_000_007, 0, 0, 1, 7, -1),
        ],
        MESSAGE,
    )
    events = to_events(rows, MIDNIGHT, 1)
    np.testing.assert_array_equal(to_rows(events), rows)
    assert events["side"].tolist() == [1, 1, 1, -1, -1, 1, 0, -1, -1, -1]
    assert events["ref"][-3:].tolist() == [TradingState.HALTED, TradingState.AUCTION, TradingState.TRADING]
    assert events["order_id"][4:7].tolist() == [0, 0, 0]
    assert int(events["ts_event"][2]) == MIDNIGHT + 34_201 * 10**9
    assert events["seq"].tolist() == list(range(1, 11))


def test_events_that_are_no_lobster_rows_are_refused() -> None:
    events = np.zeros(1, EVENT)
    events["action"] = Action.REPLACE
    with pytest.raises(EncodeError, match="REPLACE"):
        to_rows(events)


times = st.integers(0, 86_400 * 10**9)


def _ids(kind: int) -> st.SearchStrategy[int]:
    return st.integers(0 if kind <= 4 else -1, 2**62)


rows_of_messages = st.integers(1, 9).flatmap(
    lambda kind: st.tuples(times, _ids(kind), st.integers(0, 10**6), st.integers(-1, 10**10), st.just(kind),
                           st.sampled_from((1, -1)))
)  # fmt: skip


@pytest.mark.parametrize("read", [read_messages, messages_singly])
def test_orders_in_the_book_have_numbers_and_cross_prints_need_none(read: Any) -> None:
    rows = [f"34200.1,{kind},-1,100,5853300,1\n".encode() for kind in range(1, 8)]
    for row, kind in zip(rows, range(1, 8), strict=True):
        assert read(row)["type"].tolist() == [kind if kind > 4 else 0]
    assert read(b"".join(rows))["type"].tolist() == [0, 0, 0, 0, 5, 6, 7]


@given(st.lists(rows_of_messages, max_size=20))
def test_text_of_messages_is_exact_in_both_readers(rows: list[Any]) -> None:
    made = np.array(rows, MESSAGE)
    text = format_messages(made)
    np.testing.assert_array_equal(read_messages(text), made)
    np.testing.assert_array_equal(messages_singly(text), made)
    np.testing.assert_array_equal(read_messages(text.replace(b"\n", b"\r\n")), made)
    assert format_messages(read_messages(text)) == text


@given(st.lists(st.lists(st.integers(-(10**12), 10**12), min_size=8, max_size=8), max_size=10))
def test_text_of_images_is_exact_in_both_readers(rows: list[list[int]]) -> None:
    made = np.array(rows, np.int64).reshape(-1, 8)
    text = format_images(made)
    np.testing.assert_array_equal(read_images(text).reshape(-1, 8), made)
    assert format_images(read_images(text)) == text
    if rows:
        np.testing.assert_array_equal(images_singly(text), made)


def test_times_lose_their_trailing_zeros_and_nothing_else() -> None:
    assert format_time(34_200_004_260_640) == "34200.00426064"
    assert format_time(34_200_000_000_000) == "34200"
    assert format_time(34_200_000_000_001) == "34200.000000001"
    assert format_time(9) == "0.000000009"


def test_names() -> None:
    assert parse_name(f"{STEM}_message_10.csv") == parse_name("XYZ_2012-06-21_1_2_message_10.csv")
    assert parse_name(f"{STEM}_orderbook_10.csv").levels == 10
    assert parse_name("mine_message.csv").ticker == "mine"


def test_pairs_are_found_beside_each_other(tmp_path: Path) -> None:
    messages, images = Window(1, 2).rows(20)
    path = write(tmp_path, messages, images, 2)
    book = tmp_path / f"{STEM}_orderbook_2.csv"
    for given_ in ([path], [book], [path, book], [book, path], [tmp_path]):
        (pair,) = open_feed(given_).pairs  # type: ignore[attr-defined]
        assert (pair.messages.name, pair.images.name) == (path.name, book.name)
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / (book.name + ".gz")).write_bytes(gzip.compress(book.read_bytes()))
    shutil.copy(path, packed / path.name)
    assert open_feed([packed / path.name]).notices == []
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, path.name)
        archive.write(book, book.name)
    np.testing.assert_array_equal(everything(open_feed([tmp_path / "a.zip"])), everything(open_feed([path])))
    path.unlink()
    with pytest.raises(UsageError, match="no message file"):
        open_feed([book])


def test_without_images_the_messages_stand_alone(tmp_path: Path) -> None:
    messages, _ = Window(2, 5).rows(200)
    feed, engine = open_feed([write(tmp_path, messages, None, 5)]), Engine()
    found = pumped(feed, engine)
    assert set(found) == {"beyond_depth"} or "crossed" in found
    assert "unknown_order" not in found
    assert "no orderbook file" in feed.notices[0]
    assert feed.mask == features.mask("orders", "trades")
    np.testing.assert_array_equal(to_rows(everything(open_feed([tmp_path]))), messages)


@pytest.mark.parametrize(("levels", "depth"), [(1, ["l1"]), (5, ["l1", "l5"]), (10, ["l1", "l5", "l10"])])
def test_the_mask_follows_the_levels(levels: int, depth: list[str], tmp_path: Path) -> None:
    messages, images = Window(3, levels).rows(10)
    feed = open_feed([write(tmp_path, messages, images, levels)])
    assert feed.mask == features.mask(*depth, "orders", "trades")


@pytest.mark.parametrize("chunk", [1, 13])
def test_chunks_do_not_matter(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages, images = Window(4, 3).rows(100)
    path = write(tmp_path, messages, images, 3)
    whole = everything(open_feed([path]))
    monkeypatch.setattr(lobster, "CHUNK_EVENTS", chunk)
    feed = open_feed([path])
    np.testing.assert_array_equal(everything(feed), whole)
    assert (feed.messages, feed.progress) == (100, 1.0)


def test_orders_that_come_back_into_the_window_keep_their_names(tmp_path: Path) -> None:
    rows = [(1, 11, 5, 100, 1), (1, 12, 6, 100, 1), (1, 13, 1, 101, 1), (3, 13, 1, 101, 1), (3, 12, 6, 100, 1)]
    images = [[0, 0, 100, 5], [0, 0, 100, 11], [0, 0, 101, 1], [0, 0, 100, 11], [0, 0, 100, 5]]
    messages = np.zeros(5, MESSAGE)
    for name, column in zip(("type", "id", "size", "price", "direction"), zip(*rows, strict=True), strict=True):
        messages[name] = column
    book = np.array(images)
    book[:, 0] = EMPTY[-1]
    feed, engine = open_feed([write(tmp_path, messages, book, 1)]), Engine()
    assert pumped(feed, engine) == {}
    assert engine.orders(0)["order_id"].tolist() == [11]


def test_aggregates_have_labels_of_their_own(tmp_path: Path) -> None:
    messages, images = Window(5, 3).rows(3)
    feed = open_feed([write(tmp_path, messages, images, 3)])
    ids = everything(feed)["order_id"]
    assert int(ids.max()) >= SYNTHETIC
    assert feed.order_label(SYNTHETIC + 4) == "aggregate-4"
    assert feed.order_label(17) == "17"


def test_pairs_of_one_ticker_continue_and_others_are_instruments(tmp_path: Path) -> None:
    first, second = Window(6, 2).rows(50), Window(8, 2).rows(50)
    one = write(tmp_path, *first, 2)
    two = write(tmp_path, *second, 2, stem=STEM.replace("06-21", "06-22"))
    three = write(tmp_path, *second, 2, stem=STEM.replace("XYZ", "ABC"))
    feed, engine = open_feed([one, two, three]), Engine()
    assert not {"duplicate_order", "unknown_order"} & set(pumped(feed, engine))
    assert [i.id for i in feed.instruments().values()] == ["XYZ.XNAS", "ABC.XNAS"]
    assert image_of(engine, 0, 2) == image_of(engine, 1, 2) == second[1][-1].tolist()
    assert engine.n_events - feed.synthetic == sum(int((m["type"] < 5).sum()) for m in (first[0], second[0], second[0]))


def test_damaged_rows_are_counted_and_keep_the_others(tmp_path: Path) -> None:
    messages, images = Window(9, 2).rows(30)
    path = write(tmp_path, messages, images, 2)
    lines = path.read_bytes().split(b"\n")
    lines[10] = b"34200.1,1,x,1,1,1"
    path.write_bytes(b"\n".join(lines))
    book = tmp_path / f"{STEM}_orderbook_2.csv"
    rows = book.read_bytes().split(b"\n")
    rows[20] = b"1,2,3"
    book.write_bytes(b"\n".join(rows))
    feed, engine = open_feed([path]), Engine()
    found = pumped(feed, engine)
    assert found["malformed"] == 2
    assert feed.messages == 30
    assert image_of(engine, 0, 2) == images[-1].tolist()
    with pytest.raises(FeedError, match="cannot be written"):
        export(open_feed([path]), tmp_path / "..")  # type: ignore[arg-type]


def test_files_of_different_lengths(tmp_path: Path) -> None:
    messages, images = Window(10, 2).rows(30)
    short = open_feed([write(tmp_path, messages, images[:25], 2)])
    assert findings_of(short)["malformed"] == 5
    long = open_feed([write(tmp_path, messages[:25], images, 2)])
    assert findings_of(long)["trailing"] == 5
    assert any("more than the message file" in n for n in long.notices)


def findings_of(feed: Any) -> dict[str, int]:
    everything(feed)
    return findings(feed)


def test_a_message_that_contradicts_its_image_is_a_finding(tmp_path: Path) -> None:
    messages, images = Window(11, 2).rows(30)
    k = int(np.flatnonzero(messages["type"] == 1)[-1])
    messages["size"][k] += 1000
    feed, engine = open_feed([write(tmp_path, messages, images, 2)]), Engine()
    assert pumped(feed, engine)["malformed"] == 1


def test_an_empty_message_file(tmp_path: Path) -> None:
    (tmp_path / f"{STEM}_message_1.csv").write_bytes(b"")
    with pytest.raises(FeedError):
        everything(open_feed([tmp_path / f"{STEM}_message_1.csv"], format="lobster"))


def amzn(data_dir: Path) -> Path:
    return data_dir / "lobster_amzn_aapl/LOBSTER_SampleFile_AMZN_2012-06-21_1.zip"


def aapl(data_dir: Path) -> Path:
    return data_dir / "lobster_amzn_aapl/AAPL_2012-06-21_34200000_57600000_message_10.csv"


@pytest.mark.realdata
def test_real_files_come_back_byte_for_byte(data_dir: Path, tmp_path: Path) -> None:
    for path in (amzn(data_dir), aapl(data_dir)):
        feed = open_feed([path])
        written = export(feed, tmp_path)  # type: ignore[arg-type]
        (pair,) = feed.pairs  # type: ignore[attr-defined]
        assert [p.name for p in written] == [pair.messages.name, pair.images.name]
        for out, source in zip(written, (pair.messages, pair.images), strict=True):
            assert out.read_bytes() == b"".join(source.stream()), out.name
        rows = Rows(pair.messages, read_messages)
        rows.take(1 << 40)
        write_messages(everything(feed), tmp_path / "again.csv", final_newline=rows.ends_with_newline)
        assert (tmp_path / "again.csv").read_bytes() == written[0].read_bytes()


@pytest.mark.realdata
@pytest.mark.parametrize(("of", "levels", "n"), [(aapl, 10, 999), (amzn, 1, 57_515)])
def test_real_books_equal_their_images_after_every_row(of: Any, levels: int, n: int, data_dir: Path) -> None:
    feed, engine = open_feed([of(data_dir)]), Engine()
    engine.record_depth(levels)
    found = pumped(feed, engine)
    assert set(found) == {"beyond_depth"}
    assert feed.messages == n
    messages, images = read_pair(feed.pairs[0])  # type: ignore[attr-defined]
    assert images is not None
    rows, depth = engine.take_depth()
    # a row of the engine stands until the next one; every image must be the one that stands
    at = np.searchsorted(rows["seq"], np.arange(1, n + 1), side="right") - 1
    shown = depth[at]  # (n, side, level, px and qty)
    theirs = images.reshape(n, levels, 2, 2)
    occupied = theirs[..., 1] > 0
    mine = shown.transpose(0, 2, 1, 3)[:, :, ::-1]
    np.testing.assert_array_equal(mine[occupied], theirs[occupied])
    np.testing.assert_array_equal(mine[..., 1][~occupied], 0)
    assert engine.n_events - feed.synthetic == int((messages["type"] < 5).sum())


@pytest.mark.realdata
def test_aapl_is_rebuilt_from_its_first_row_and_the_messages_alone(data_dir: Path, exercised: Any) -> None:
    pairs = find_pairs(find_sources([aapl(data_dir)]))
    messages, images = read_pair(pairs[0])
    assert images is not None
    found = compare_images(messages, images)
    assert (found.total, found.equal, found.first_difference) == (998 * 40, found.determined, None)
    assert found.share > 0.4
    events = everything(LobsterFeed(pairs, use="first"))
    mine, sure = rebuilt(events, messages, images, 10)
    np.testing.assert_array_equal(mine[sure], images[sure])
    exercised(f"LOBSTER AAPL: {found.equal} of {found.determined} determined cells equal, {found.share:.1%} of all")
