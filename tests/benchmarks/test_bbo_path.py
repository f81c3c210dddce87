"""Best-price paths of two engines: equal on every legal stream, different exactly where the rules say so."""

from __future__ import annotations

import numpy as np
import pytest

itch_book = pytest.importorskip("itch_book", reason="the rival itch-book is not installed")

from benchmarks.bbo_path import compare_bbo, ours, theirs  # noqa: E402
from benchmarks.workloads import itch_stream  # noqa: E402
from microrisk.core import Engine, ItchDecoder  # noqa: E402
from microrisk.feed.encode import encode_message, frame  # noqa: E402


def message(code: str, seq: int, locate: int = 1, **fields: int | str) -> bytes:
    return encode_message(code, locate=locate, tracking=0, timestamp=seq * 1000, **fields)


def add(seq: int, ref: int, side: str, shares: int, price: int, locate: int = 1) -> bytes:
    return message("A", seq, locate, ref=ref, side=side, shares=shares, stock=f"N{locate}", price=price)


def crowded(seed: int, n: int) -> bytes:
    """Three names, five prices a side, three orders a price: bests empty, refill and are replaced by themselves."""
    rng = np.random.default_rng(seed)
    live: dict[int, tuple[int, str, int, int]] = {}
    out, ref = [], 0
    for seq in range(1, n):
        kind = "A" if len(live) < 4 or (len(live) < 40 and rng.random() < 0.4) else rng.choice(list("UUUDXE"))
        if kind == "A":
            ref, side, locate = ref + 2, str(rng.choice(["B", "S"])), int(rng.integers(1, 4))
            price = 10_000 + 100 * int(rng.integers(1, 6)) * (1 if side == "S" else -1)
            live[ref] = locate, side, 100, price
            out.append(add(seq, ref, side, 100, price, locate))
            continue
        old = int(rng.choice(list(live)))
        locate, side, qty, price = live[old]
        if kind == "D":
            del live[old]
            out.append(message("D", seq, locate, ref=old))
        elif kind == "U":
            del live[old]
            ref += 2
            price += 100 * int(rng.integers(-1, 2)) if abs(price - 10_000) > 100 else 0
            live[ref] = locate, side, qty, price
            out.append(message("U", seq, locate, ref=old, new_ref=ref, shares=qty, price=price))
        else:
            part = int(rng.integers(1, qty + 1)) if kind == "E" else max(qty // 2, 1)
            live[old] = locate, side, qty - part, price
            if part == qty:
                del live[old]
            more = {"match": seq} if kind == "E" else {}
            out.append(message(kind, seq, locate, ref=old, shares=part, **more))
    return frame(out)


@pytest.mark.parametrize("sparse", [False, True])
def test_equal_on_a_generated_stream(sparse: bool) -> None:
    stream = itch_stream(orders=30_000, symbols=200, sparse_refs=sparse)
    found = compare_bbo(stream.data, block=10_000)
    assert found["names"] == 200
    assert found["rows"] > 10_000


def test_equal_where_bests_come_and_go() -> None:
    for seed in range(6):
        assert compare_bbo(crowded(seed, 2_000), block=700)["rows"] > 300


def test_a_difference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def bent(taken: np.ndarray) -> np.ndarray:
        rows = ours(taken)
        rows["ask_qty"][len(rows) // 2] += 1
        return rows

    monkeypatch.setattr("benchmarks.bbo_path.ours", bent)
    with pytest.raises(AssertionError, match=r"row \d+: ours"):
        compare_bbo(crowded(0, 500))


def paths(*messages: bytes) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]], dict[str, int], dict[str, int]]:
    """Rows (seq, bid px, bid qty, ask px, ask qty) and findings of both."""
    data = frame(messages)
    engine, rival = Engine(), itch_book.Session(tables=["bbo"], depth=0, symbols=[])
    engine.record_bbo()
    engine.run_itch(ItchDecoder(), data, 0, 1 << 62)
    rival.feed(np.frombuffer(data, np.uint8))
    rows = [
        [tuple(int(v) for i, v in enumerate(row) if i != 1) for row in part]
        for part in (ours(engine.take_bbo()), theirs(rival.take_bbo()))
    ]
    found = {k: v for k, v in engine.integrity().items() if v}
    return rows[0], rows[1], found, rival.stats()


def test_a_replace_is_one_step_and_in_place_writes_nothing() -> None:
    a, b, _, _ = paths(
        add(1, 10, "B", 100, 9_900),
        add(2, 12, "B", 200, 9_900),
        message("U", 3, ref=10, new_ref=14, shares=100, price=9_900),
        message("U", 4, ref=12, new_ref=16, shares=200, price=10_000),
    )
    assert a == b == [(1, 9_900, 100, 0, 0), (2, 9_900, 300, 0, 0), (4, 10_000, 200, 0, 0)]


def test_a_live_reference_added_again() -> None:
    a, b, found, stats = paths(add(1, 10, "B", 100, 9_900), add(2, 10, "B", 50, 10_000))
    assert (a, found) == ([(1, 9_900, 100, 0, 0)], {"duplicate_order": 1})
    assert b == [(1, 9_900, 100, 0, 0), (2, 10_000, 50, 0, 0)]
    assert stats["dup_ref"] == 1


def test_an_order_at_price_zero() -> None:
    a, b, found, stats = paths(add(1, 10, "B", 100, 0))
    assert (a, found) == ([(1, 0, 100, 0, 0)], {"zero_price": 1})
    assert (b, stats["rejected"]) == ([], 1)


def test_an_execution_above_the_size() -> None:
    a, b, found, stats = paths(add(1, 10, "B", 100, 9_900), message("E", 2, ref=10, shares=150, match=1))
    assert a == b == [(1, 9_900, 100, 0, 0), (2, 0, 0, 0, 0)]
    assert (found, stats["clamped"]) == ({"over_execute": 1}, 1)
