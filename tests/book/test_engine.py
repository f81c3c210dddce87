"""What the engine does besides keeping books (the twin has those): sinks, clock, memory, decoding, errors."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.workloads import itch_stream
from microrisk.core import ALL_INSTRUMENTS, Engine, ItchDecoder, latency_edges
from microrisk.spec.records import BBO, EVENT, FINDING, VIEW, Action, Flag, Integrity, TradingState
from microrisk.spec.units import NULL_PX, NULL_TS, TICK_NS, Side

LAST = int(Flag.LAST)


def events(*rows: dict[str, Any]) -> NDArray[np.void]:
    """EVENT array; seq counts from 1, one second between events, LAST and no receive time unless said otherwise."""
    out = np.zeros(len(rows), EVENT)
    out["flags"], out["instrument"], out["ts_recv"] = LAST, 1, NULL_TS
    out["seq"] = np.arange(1, len(rows) + 1)
    out["ts_event"] = out["seq"] * 1_000_000_000
    for record, row in zip(out, rows, strict=True):
        for name, value in row.items():
            record[name] = value
    return out


def add(order_id: int, side: int, px: int, qty: int, **more: Any) -> dict[str, Any]:
    return {"action": Action.ADD, "order_id": order_id, "side": side, "px": px, "qty": qty} | more


def level(side: int, px: int, qty: int, **more: Any) -> dict[str, Any]:
    return {"action": Action.MODIFY, "side": side, "px": px, "qty": qty} | more


def random_adds(rng: np.random.Generator, n: int, instruments: int = 1) -> NDArray[np.void]:
    out = np.zeros(n, EVENT)
    out["action"], out["flags"], out["ts_recv"] = Action.ADD, LAST, NULL_TS
    out["seq"] = out["order_id"] = np.arange(1, n + 1)
    out["ts_event"] = np.arange(n) * 1000
    out["instrument"] = rng.integers(1, instruments + 1, n)
    out["side"] = rng.choice([Side.BID, Side.ASK], n)
    out["px"] = 10_000 - out["side"] * rng.integers(1, 60, n)
    out["qty"] = rng.integers(1, 500, n)
    return out


def deletes(adds: NDArray[np.void]) -> NDArray[np.void]:
    out = adds.copy()
    out["action"], out["px"], out["qty"], out["side"] = Action.DELETE, 0, 0, 0
    return out


# -- questions ---------------------------------------------------------------------------------------------------------


def test_queue_position_counts_what_stands_in_front() -> None:
    engine = Engine()
    engine.run_events(events(*(add(i, Side.BID, 100, 10 * i) for i in range(1, 6)), add(9, Side.BID, 101, 7)))
    assert [engine.queue_position(1, i) for i in (1, 2, 5, 9)] == [(0, 0), (1, 10), (4, 100), (0, 0)]
    engine.run_events(events({"action": Action.DELETE, "order_id": 2}))
    assert engine.queue_position(1, 5) == (3, 80)
    with pytest.raises(KeyError, match="order 2 of instrument 1"):
        engine.queue_position(1, 2)
    with pytest.raises(KeyError):
        engine.queue_position(2, 1)


def test_one_order_id_in_many_instruments() -> None:
    """Ids are the instrument's own; ten thousand equal ones make the index change its hash, and stay apart."""
    n = 10_000
    engine = Engine(reserve_orders=16)
    rows = np.repeat(events(add(77, Side.BID, 100, 5)), n)
    rows["instrument"] = np.arange(n)
    begin = time.perf_counter()
    engine.run_events(rows)
    assert engine.live_orders == n
    assert time.perf_counter() - begin < 5
    rows["action"] = Action.DELETE
    engine.run_events(rows[::2].copy())
    assert engine.live_orders == n // 2
    assert not engine.integrity()["unknown_order"]
    assert len(engine.orders(1)) == 1
    assert len(engine.orders(2)) == 0


def test_asking_about_nothing() -> None:
    engine = Engine()
    assert engine.now == NULL_TS
    assert len(engine.orders(5)) == len(engine.instruments()) == len(engine.findings()) == 0
    assert [x.shape for x in engine.levels(5)] == [(0, 2), (0, 2)]
    assert not engine.suspect(5)
    assert set(engine.integrity()) == set(engine.integrity(5)) == {k.name for k in Integrity}
    with pytest.raises(KeyError):
        engine.state_of(5)


def test_findings_keep_place_and_numbers_and_stop_at_ten_thousand() -> None:
    engine = Engine()
    engine.run_events(events(add(4, Side.BID, 10, 1), add(4, Side.ASK, 12, 3, seq=77)))
    found = engine.findings()
    assert found.dtype == FINDING
    assert found[0].item() == (2_000_000_000, 77, 4, 12, 3, 1, Integrity.duplicate_order)
    engine.run_events(np.repeat(events({"action": Action.DELETE, "order_id": 5}), 20_000))
    assert len(engine.findings()) == 10_000
    assert engine.integrity()["unknown_order"] == 20_000


def test_marks_come_and_go() -> None:
    engine = Engine()
    engine.run_events(events(add(1, Side.BID, 10, 1), {"action": Action.DELETE, "order_id": 9}))
    assert engine.suspect(1)
    engine.run_events(events({"action": Action.CLEAR}))
    assert not engine.suspect(1)
    engine.count(Integrity.unknown_level, 3, 1)
    assert not engine.suspect(1)
    engine.count(Integrity.gap, 2, 1)
    assert engine.suspect(1)
    engine.reset_book(1)
    assert not engine.suspect(1)
    engine.run_events(events(add(1, Side.BID, 10, 1), add(1, Side.BID, 10, 1, instrument=2)))
    engine.count(Integrity.gap)
    assert engine.suspect(1)
    assert engine.suspect(2)
    assert engine.integrity()["gap"] == 3
    assert engine.integrity(1)["gap"] == 2
    engine.run_events(events(add(5, Side.BID, 9, 1, flags=Flag.SNAPSHOT), add(6, Side.ASK, 20, 1)))
    assert not engine.suspect(1)
    assert engine.suspect(2)


def test_a_finding_behind_an_image_and_the_venues_own_doubt_stay() -> None:
    engine = Engine()
    engine.run_events(events(add(1, Side.BID, 10, 1, flags=Flag.SNAPSHOT | Flag.LAST)))
    engine.count(Integrity.gap, 1, 1)
    engine.run_events(events(add(2, Side.ASK, 20, 1)))
    assert engine.suspect(1)
    engine.run_events(events({"action": Action.CLEAR}, add(3, Side.ASK, 20, 1, flags=Flag.LAST | Flag.SUSPECT)))
    assert engine.suspect(1)
    engine.run_events(events(add(4, Side.ASK, 20, 1)))
    assert engine.suspect(1)


# -- sinks -------------------------------------------------------------------------------------------------------------


def test_best_prices_and_empty_sides() -> None:
    engine = Engine()
    engine.record_bbo()
    steps = events(
        add(1, Side.BID, 10, 5),
        add(2, Side.BID, 9, 5),  # behind the best: no row
        add(3, Side.ASK, 12, 1),
        {"action": Action.DELETE, "order_id": 1},
        {"action": Action.CLEAR},
    )
    engine.run_events(steps)
    rows = engine.take_bbo()
    assert rows.dtype == BBO
    assert rows["seq"].tolist() == [1, 3, 4, 5]
    assert rows[["bid_px", "bid_qty", "ask_px", "ask_qty"]].tolist() == [
        (10, 5, NULL_PX, 0),
        (10, 5, 12, 1),
        (9, 5, 12, 1),
        (NULL_PX, 0, NULL_PX, 0),
    ]
    assert len(engine.take_bbo()) == 0


@pytest.mark.parametrize("depth", [1, 3, 10, 25])
def test_depth_rows_are_the_levels_after_each_change(depth: int) -> None:
    rng = np.random.default_rng(depth)
    adds = random_adds(rng, 400, instruments=2)
    stream = np.concatenate([adds, deletes(rng.permutation(adds))])
    engine, slow = Engine(), Engine()
    engine.record_depth(depth)
    engine.run_events(stream)
    rows, levels = engine.take_depth()
    assert levels.shape == (len(rows), 2, depth, 2)

    expected: list[NDArray[np.int64]] = []
    blank = np.zeros((2, depth, 2), np.int64)
    blank[:, :, 0] = NULL_PX
    last = {1: blank, 2: blank}
    for i in range(len(stream)):
        slow.run_events(stream[i : i + 1])
        index = int(stream["instrument"][i])
        image = blank.copy()
        for side, held in enumerate(slow.levels(index, depth)):
            image[side, : len(held)] = held
        if not np.array_equal(image, last[index]):
            expected.append(image)
        last[index] = image
    np.testing.assert_array_equal(levels, np.array(expected))
    np.testing.assert_array_equal(rows["bid_px"], levels[:, 0, 0, 0])
    np.testing.assert_array_equal(rows["ask_qty"], levels[:, 1, 0, 1])


def test_views_agree_with_levels_after_every_event() -> None:
    rng = np.random.default_rng(8)
    adds = random_adds(rng, 1500)
    stream = np.concatenate([adds[:500], deletes(rng.permutation(adds[:500])[:250]), adds[500:]])
    engine, slow = Engine(), Engine()
    engine.record_views()
    engine.run_events(stream)
    views = engine.take_views()
    assert len(views) == len(stream)
    for i, view in enumerate(views):
        slow.run_events(stream[i : i + 1])
        for name, held in zip(("bid", "ask"), slow.levels(1, 10), strict=True):
            n = view["n_" + name]
            assert n == len(held)
            np.testing.assert_array_equal(view[name + "_px"][:n], held[:, 0])
            np.testing.assert_array_equal(view[name + "_qty"][:n], held[:, 1])
            assert not view[name + "_px"][n:].any()


def test_views_at_most_one_per_interval() -> None:
    rows = [add(i, Side.BID, 100 - i % 7, 1, ts_event=i * 100) for i in range(1, 50)]
    engine = Engine()
    engine.record_views(1000)
    engine.run_events(events(*rows))
    assert engine.take_views()["now"].tolist() == [100, 1100, 2100, 3100, 4100]


def test_large_results_are_handed_over_without_a_copy() -> None:
    """Above 64 MiB the block itself goes to NumPy; the engine goes on with a new one."""
    n = (64 << 20) // VIEW.itemsize + 1000
    engine = Engine()
    engine.record_views()
    stream = np.repeat(events(add(1, Side.BID, 100, 5)), n)
    stream["action"][1:], stream["seq"] = Action.NONE, np.arange(n)
    engine.run_events(stream)
    first = engine.take_views()
    engine.run_events(stream[1:3])
    second = engine.take_views()
    assert len(first) == n
    assert len(second) == 2
    np.testing.assert_array_equal(first["seq"], np.arange(n))
    assert (first["bid_qty"][:, 0] == 5).all()


def test_sinks_come_before_the_first_event() -> None:
    engine = Engine()
    engine.run_events(events(add(1, Side.BID, 1, 1)))
    for late in (engine.record_bbo, engine.record_views, lambda: engine.record_depth(5), lambda: engine.ticks(True)):
        with pytest.raises(RuntimeError, match="before the first event"):
            late()


# -- clock -------------------------------------------------------------------------------------------------------------


def test_the_clock_takes_receive_time_first_and_never_goes_back() -> None:
    engine = Engine()
    engine.run_events(events({"ts_event": 900, "ts_recv": 500}, {"ts_event": 400, "ts_recv": 450}))
    assert engine.now == 500
    engine.run_events(events({"ts_event": 700}))
    assert engine.now == 700


def test_ticks_lie_on_the_grid_and_end_after_forty() -> None:
    engine = Engine()
    engine.record_views()
    engine.ticks(True)
    start = 10 * TICK_NS
    engine.run_events(
        events(
            add(1, Side.BID, 10, 5, ts_event=start + 5, instrument=7),
            add(2, Side.BID, 10, 5, ts_event=start + TICK_NS + 1, instrument=3),
            add(3, Side.BID, 11, 5, ts_event=start + 2 * TICK_NS, instrument=7),
            {"ts_event": start + 1000 * TICK_NS, "instrument": 9},
        )
    )
    views = engine.take_views()
    ticks = views[views["tick"] == 1]
    grid = (ticks["now"] - start) // TICK_NS
    assert not (ticks["now"] % TICK_NS).any()
    assert list(zip(grid[:5].tolist(), ticks["instrument"][:5].tolist(), strict=True)) == [
        (1, 7),
        (2, 3),
        (2, 7),  # a tick at the very time of the next event comes before it
        (3, 3),
        (3, 7),
    ]
    assert grid[ticks["instrument"] == 7].tolist() == [1, 2, *range(3, 43)]
    assert grid[ticks["instrument"] == 3].tolist() == [*range(2, 42)]
    late = ticks[-1]
    assert (late["seq"], late["ts_event"], late["action"], late["add_qty"]) == (3, start + 2 * TICK_NS, 0, 0)
    assert late["bid_px"][:2].tolist() == [11, 10]


@pytest.mark.parametrize("jump", [2**63 - 1, 2**63 - 1 - TICK_NS, 2**62])
def test_absurd_times_end(jump: int) -> None:
    engine = Engine()
    engine.record_views()
    engine.ticks(True)
    engine.run_events(events(add(1, 1, 1, 1, ts_event=-(2**63) + 1), {"ts_event": 0}, {"ts_event": jump}, {}))
    assert engine.now == jump
    assert engine.take_views()["tick"].sum() == 80


# -- market state ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "kind"),
    [
        ([], "crossed_preopen"),
        ([(1, TradingState.TRADING)], "crossed"),
        ([(ALL_INSTRUMENTS, TradingState.TRADING)], "crossed"),
        ([(1, TradingState.HALTED), (ALL_INSTRUMENTS, TradingState.TRADING)], "crossed_preopen"),
        ([(ALL_INSTRUMENTS, TradingState.TRADING), (ALL_INSTRUMENTS, TradingState.CLOSED)], "crossed_preopen"),
    ],
)
def test_state_decides_what_a_crossed_book_is(states: list[tuple[int, int]], kind: str) -> None:
    engine = Engine()
    told = [{"action": Action.STATE, "instrument": i, "ref": s} for i, s in states]
    engine.run_events(events(*told, add(1, Side.BID, 11, 1), add(2, Side.ASK, 10, 1)))
    assert {k: v for k, v in engine.integrity().items() if v} == {kind: 1}
    assert engine.suspect(1) == (kind == "crossed")
    always = Engine(always_open=True)
    always.run_events(events(*told, add(1, Side.BID, 11, 1), add(2, Side.ASK, 10, 1)))
    assert always.integrity()["crossed"] == 1


# -- memory and time ---------------------------------------------------------------------------------------------------


def test_nothing_is_allocated_after_warm_up() -> None:
    rng = np.random.default_rng(0)
    adds = random_adds(rng, 20_000, instruments=20)
    round_trip = np.concatenate([adds, deletes(rng.permutation(adds))])
    engine = Engine(reserve_orders=20_000)
    engine.record_bbo()
    engine.record_views()
    for _ in range(2):
        engine.run_events(round_trip)
        engine.take_bbo(), engine.take_views()
    before = engine.allocations
    assert before > 0
    for _ in range(3):
        engine.run_events(round_trip)
        engine.take_bbo(), engine.take_views()
    assert engine.allocations == before


def test_latency_histogram() -> None:
    edges = latency_edges()
    assert edges.dtype == np.uint64
    assert (np.diff(edges.astype(np.int64)) > 0).all()
    assert edges[:34].tolist() == [*range(33), 34]
    assert (np.diff(edges.astype(np.float64))[40:] / edges[40:-1] <= 1 / 16).all()
    engine = Engine()
    engine.latency(True)
    stream = random_adds(np.random.default_rng(1), 5000)
    begin = time.perf_counter_ns()
    engine.run_events(stream)
    wall = time.perf_counter_ns() - begin
    counts = engine.take_latency()
    assert counts.shape == edges.shape
    assert counts.sum() == 5000
    assert 0 < (counts * edges).sum() <= 1.5 * wall
    assert engine.take_latency().sum() == 0
    engine.latency(False)
    engine.run_events(deletes(stream))
    assert engine.take_latency().sum() == 0


def test_the_interpreter_runs_meanwhile() -> None:
    work = itch_stream(orders=150_000, symbols=50)
    engine, decoder = Engine(), ItchDecoder()
    thread = threading.Thread(target=lambda: engine.run_itch(decoder, work.data, 0, 1 << 40))
    laps, refused = 0, 0
    thread.start()
    while thread.is_alive():
        laps += 1
        try:
            engine.take_bbo()
        except RuntimeError as e:
            refused += "another thread" in str(e)
    thread.join()
    assert refused > 0
    assert engine.live_orders == work.live_orders
    assert laps > 100


# -- decoding on the way -----------------------------------------------------------------------------------------------


def test_itch_in_one_step_is_decode_then_apply() -> None:
    work = itch_stream(orders=5_000, symbols=30)
    one, two = Engine(), Engine()
    whole, parts = ItchDecoder(), ItchDecoder()
    for engine in (one, two):
        engine.record_views()
    assert one.run_itch(whole, work.data, 0, 1 << 40) == len(work.data)

    out = np.zeros(257, EVENT)
    offset = 0
    for cut in (*range(999, len(work.data), 1999), len(work.data)):  # the input in pieces that cut messages
        while True:
            n, offset = parts.decode(memoryview(work.data)[:cut], offset, out)
            two.run_events(out[:n])
            if n < len(out):
                break
    np.testing.assert_array_equal(one.take_views(), two.take_views())
    assert whole.messages == parts.messages == work.messages
    assert whole.counts() == parts.counts()
    assert whole.symbols() == parts.symbols()
    assert one.live_orders == two.live_orders == work.live_orders
    total = sum(int(one.orders(int(i))["qty"].sum()) for i in one.instruments())
    assert total == work.shares


def test_run_itch_stops_at_its_bound_and_before_an_incomplete_message() -> None:
    work = itch_stream(orders=100, symbols=3)
    engine, decoder = Engine(), ItchDecoder()
    offset = engine.run_itch(decoder, work.data, 0, 7)
    assert decoder.messages == 7
    cut = memoryview(work.data)[: len(work.data) - 1]
    offset = engine.run_itch(decoder, cut, offset, 1 << 40)
    assert 0 < len(work.data) - offset <= 64
    assert decoder.messages == work.messages - 1
    assert engine.run_itch(decoder, work.data, offset, 1 << 40) == len(work.data)
    assert decoder.messages == work.messages


def test_damaged_itch_is_counted_with_its_instrument() -> None:
    work = itch_stream(orders=50, symbols=1)
    engine, decoder = Engine(), ItchDecoder()
    engine.run_itch(decoder, work.data, 0, 1 << 40)
    bad = b"\x00\x05A\x00\x01\x00\x00" + b"\x00\x03zzz" + b"\x00\x01E" + b"\x00\x00" + b"rest"
    assert engine.run_itch(decoder, bad, 0, 1 << 40) == len(bad)
    found = {k: v for k, v in engine.integrity().items() if v}
    assert found == {"malformed": 2, "unknown_type": 1, "trailing": 4}
    assert (decoder.malformed, decoder.unknown_type, decoder.trailing, decoder.ended) == (2, 1, 4, True)
    assert engine.integrity(1)["malformed"] == 1
    assert engine.suspect(1)
    assert engine.run_itch(decoder, b"more", 0, 1 << 40) == 4
    assert decoder.trailing == 8


def test_an_end_mark_at_the_end_of_a_buffer_may_still_be_a_length() -> None:
    """Zero lengths: the framing of some writers, cut between the zero and the type."""
    work = itch_stream(orders=40, symbols=2)
    plain, at = [], 0
    while at < len(work.data):
        size = int.from_bytes(work.data[at : at + 2], "big")
        plain.append(work.data[at + 2 : at + 2 + size])
        at += 2 + size
    zeros = b"".join(b"\x00\x00" + m for m in plain)
    for step in (1, 2, 3, 7, len(zeros)):
        engine, decoder = Engine(), ItchDecoder()
        offset = 0
        for end in range(step, len(zeros) + step, step):
            offset = engine.run_itch(decoder, zeros[:end], offset, 1 << 40)
        assert decoder.messages == work.messages
        assert engine.live_orders == work.live_orders
        assert not decoder.ended
        assert not sum(engine.integrity().values())
    wrong = b"".join(b"\x00\x09" + m for m in plain)
    engine, decoder = Engine(), ItchDecoder(loose_framing=True)
    assert engine.run_itch(decoder, wrong, 0, 1 << 40) == len(wrong)
    assert engine.live_orders == work.live_orders
    assert not decoder.malformed


def test_random_bytes_never_harm() -> None:
    rng = np.random.default_rng(4)
    work = itch_stream(orders=300, symbols=4)
    for _ in range(150):
        data = bytearray(work.data)
        for at in rng.integers(0, len(data), 40):
            data[at] = rng.integers(0, 256)
        engine, decoder = Engine(), ItchDecoder()
        engine.record_views()
        engine.record_depth(5)
        end = engine.run_itch(decoder, data, 0, 1 << 40)
        assert 0 <= end <= len(data)
        assert sum(decoder.counts().values()) + decoder.malformed + decoder.unknown_type == decoder.messages


# -- wrong use ---------------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_refused() -> None:
    engine, decoder = Engine(), ItchDecoder()
    with pytest.raises(TypeError, match=r"records\.EVENT"):
        engine.run_events(np.zeros(3, VIEW))
    with pytest.raises(TypeError, match="contiguous"):
        engine.run_events(np.zeros(6, EVENT)[::2])
    with pytest.raises(ValueError, match="offset 5 is behind the end of 4 bytes"):
        engine.run_itch(decoder, b"abcd", 5, 1)
    with pytest.raises(ValueError, match="offset"):
        decoder.decode(b"", 1, np.zeros(1, EVENT))
    frozen = np.zeros(1, EVENT)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        decoder.decode(b"", 0, frozen)
    with pytest.raises(ValueError, match="no room"):
        decoder.message(b"", 1, 0, np.zeros(0, EVENT))
    with pytest.raises(ValueError, match="no such Integrity kind"):
        engine.count(99)
    with pytest.raises(ValueError, match="depth"):
        engine.record_depth(0)
    with pytest.raises(TypeError):
        engine.run_itch(decoder, "text", 0, 1)


def test_instrument_numbers_have_a_limit() -> None:
    engine = Engine()
    engine.run_events(events(add(1, 1, 10, 1, instrument=(1 << 20) - 1), add(2, 1, 10, 1, instrument=1 << 20)))
    assert engine.instruments().tolist() == [(1 << 20) - 1]
    assert engine.integrity()["malformed"] == 1


def test_levels_of_both_kinds_do_not_mix() -> None:
    engine = Engine()
    engine.run_events(events(level(1, 10, 5), add(3, 1, 10, 2), add(4, 1, 11, 2), level(1, 11, 9), level(1, 9, 1)))
    assert engine.integrity()["malformed"] == 2
    assert engine.levels(1)[0].tolist() == [[11, 2], [10, 5], [9, 1]]
    assert engine.orders(1)["order_id"].tolist() == [4, 0, 0]
