"""The C++ engine against the naive one: the same events, hostile ones too, and every answer must be the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from numpy.typing import NDArray

from microrisk.book import best_levels, same_books, state_hash
from microrisk.book.reference import ReferenceEngine
from microrisk.core import Engine
from microrisk.spec.records import EVENT, Action, Flag, Integrity, TradingState
from microrisk.spec.units import NULL_PX, NULL_TS, TICK_NS

ALL = 0xFFFFFFFF
SEQUENCES, EXAMPLES = 100, 100
"""100 examples of 100 sequences: ten thousand."""


# -- random feeds -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Profile:
    """How wild a random feed is: number of ids, half width of prices, share of damaged fields."""

    ids: int
    spread: int
    damage: float
    actions: tuple[float, ...]  # weights of Action 0..9


#                     NONE  ADD  MODIFY REDUCE DELETE REPLACE CLEAR TRADE STATE FILL
TAME = Profile(100, 12, 0.0, (0.0, 0.4, 0.25, 0.12, 0.08, 0.1, 0.005, 0.02, 0.01, 0.01))
TIGHT = Profile(6, 2, 0.05, (0.02, 0.35, 0.15, 0.15, 0.08, 0.12, 0.03, 0.05, 0.03, 0.02))
HOSTILE = Profile(4, 1, 0.4, (0.05, 0.25, 0.2, 0.15, 0.1, 0.1, 0.04, 0.05, 0.04, 0.02))
FLAT = Profile(1, 6, 0.1, (0.02, 0.02, 0.8, 0.02, 0.02, 0.02, 0.03, 0.04, 0.02, 0.01))
PROFILES = (TAME, TIGHT, HOSTILE, FLAT)

ODD = {
    "px": (0, 0, 0, -7, NULL_PX, 2**63 - 1),
    "qty": (0, -1, 2**62, 2**62, 2**63 - 1, -(2**63)),
    "instrument": (0, 3, ALL, 1 << 20, (1 << 20) - 1),
    "side": (0, 5, -128, 1, -1),
    "order_id": (0, 2**64 - 1, 2**63, 1, 2),
    "ref": (0, 7, 2**64 - 1, 1, 2),
    "action": (10, 255, 6, 8, 5),
}


def random_flags(rng: np.random.Generator, n: int, damage: float) -> NDArray[np.uint8]:
    last = np.where(rng.random(n) < 0.85, Flag.LAST, 0)
    bits = [(Flag.EXEC, 0.2), (Flag.NO_PRINT, 0.1), (Flag.CROSS, 0.1), (Flag.PRIORITY_KEPT, 0.25), (Flag.HIDDEN, 0.1)]
    for bit, share in bits:
        last |= np.where(rng.random(n) < share, bit, 0)
    if n > 4 and rng.random() < 0.5 + damage:  # an image of the book in the middle of the stream
        begin, length = rng.integers(0, n - 2), rng.integers(1, 8)
        last[begin : begin + length] |= Flag.SNAPSHOT
    return last.astype(np.uint8)


def random_times(rng: np.random.Generator, events: NDArray[np.void], damage: float) -> None:
    n = len(events)
    steps = np.where(rng.random(n) < 0.05, rng.integers(0, 3_000_000_000, n), rng.integers(0, 1000, n))
    events["ts_event"] = 1_000_000_000 + np.cumsum(steps)
    if rng.random() < 0.3:  # on the grid of ticks and of thinned views, exactly
        events["ts_event"] -= events["ts_event"] % (TICK_NS // 5)
    late = rng.random(n) < damage / 4
    events["ts_event"][late] -= rng.integers(0, 10_000, int(late.sum()))
    events["ts_recv"] = np.where(rng.random(n) < 0.5, NULL_TS, events["ts_event"] + rng.integers(0, 500, n))
    events["ts_event"][rng.random(n) < damage / 20] = NULL_TS


def aim_modifies(rng: np.random.Generator, events: NDArray[np.void]) -> None:
    """Half of the modifies name the side and price that their order was added at: these may stay in place."""
    places: dict[int, tuple[int, int]] = {}
    columns = (events[n].tolist() for n in ("action", "order_id", "side", "px"))
    for i, (action, order_id, side, px) in enumerate(zip(*columns, strict=True)):
        if action == Action.ADD:
            places[order_id] = (side, px)
        elif action == Action.MODIFY and order_id in places and rng.random() < 0.5:
            events["side"][i], events["px"][i] = places[order_id]


def random_events(rng: np.random.Generator, n: int, p: Profile) -> NDArray[np.void]:
    events = np.zeros(n, EVENT)
    events["action"] = rng.choice(10, n, p=np.array(p.actions) / sum(p.actions))
    events["order_id"] = rng.integers(p is not FLAT, p.ids + (p is not FLAT), n)
    events["ref"] = rng.integers(1, p.ids + 1, n)
    state = events["action"] == Action.STATE
    events["ref"][state] = rng.integers(0, 7, int(state.sum()))
    events["side"] = rng.choice([1, -1], n)
    drift = np.where(rng.random(n) < 0.8, -2 * events["side"].astype(int), 0)  # mostly not crossing
    events["px"] = 100 + drift + rng.integers(-p.spread, p.spread + 1, n) * np.where(rng.random(n) < 0.5, 1, 0)
    events["px"] -= events["side"] * rng.integers(0, p.spread + 1, n)
    events["qty"] = rng.integers(1, 10, n)
    events["instrument"] = rng.choice([1, 2], n, p=[0.8, 0.2])
    events["instrument"][state & (rng.random(n) < 0.3)] = ALL
    events["flags"] = random_flags(rng, n, p.damage)
    events["seq"] = np.arange(1, n + 1)
    random_times(rng, events, p.damage)
    for name, values in ODD.items():
        hit = rng.random(n) < p.damage / 6
        events[name][hit] = rng.choice(np.array(values, events.dtype[name]), int(hit.sum()))
    aim_modifies(rng, events)
    return events


# -- the comparison -----------------------------------------------------------------------------------------------


def assert_equal(a: NDArray[Any], b: NDArray[Any], what: str) -> None:
    """Same records; the bytes are compared first (fast), then fields (so that the report names one)."""
    if a.tobytes() == b.tobytes() and a.shape == b.shape:
        return
    assert len(a) == len(b), (what, a, b)
    for name in a.dtype.names or ("",):
        np.testing.assert_array_equal(a[name] if name else a, b[name] if name else b, err_msg=f"{what} {name}")
    raise AssertionError(f"{what} differ only in padding or dtype: {a.dtype}, {b.dtype}")


class Pair:
    """Both engines, driven alike."""

    def __init__(self, *, always_open: bool = False, every_ns: int = 0, ticks: bool = False) -> None:
        self.fast = Engine(always_open=always_open, reserve_orders=16, reserve_instruments=4)
        self.naive = ReferenceEngine(always_open=always_open)
        for engine in (self.fast, self.naive):
            engine.record_bbo()
            engine.record_views(every_ns)
            engine.ticks(ticks)

    def run(self, events: NDArray[np.void]) -> None:
        self.fast.run_events(events)
        self.naive.run_events(events)

    def assert_same_books(self) -> None:
        fast, naive = self.fast, self.naive
        assert same_books(fast, naive) is None
        assert (fast.n_events, fast.live_orders, fast.now) == (naive.n_events, naive.live_orders, naive.now)
        assert fast.integrity() == naive.integrity()

    def assert_same_details(self) -> None:
        """Levels at several depths, marks, findings and queue positions of each instrument."""
        fast, naive = self.fast, self.naive
        for index in map(int, naive.instruments()):
            for depth in (0, 1, 3):
                for a, b in zip(fast.levels(index, depth), naive.levels(index, depth), strict=True):
                    assert_equal(a, b, "levels")
            assert fast.suspect(index) == naive.suspect(index)
            assert fast.integrity(index) == naive.integrity(index)
            for order in naive.orders(index)["order_id"][:3].tolist():
                if order:
                    assert fast.queue_position(index, order) == naive.queue_position(index, order)
        assert_equal(fast.findings(), naive.findings(), "findings")

    def assert_same(self) -> None:
        self.assert_same_books()
        self.assert_same_details()
        assert_equal(self.fast.take_bbo(), self.naive.take_bbo(), "BBO")
        assert_equal(self.fast.take_views(), self.naive.take_views(), "views")
        ids = [f"I{i}.TEST" for i in self.naive.instruments()]
        assert state_hash(self.fast, ids) == state_hash(self.naive, ids)


def shortest_failure(events: NDArray[np.void], **options: Any) -> NDArray[np.void]:
    """The shortest beginning of a failing sequence that fails already."""
    for n in range(1, len(events) + 1):
        pair = Pair(**options)
        try:
            pair.run(events[:n])
            pair.assert_same()
        except AssertionError:
            return events[:n]
    return events


def run_sequence(events: NDArray[np.void], step: int, **options: Any) -> None:
    """Run in pieces of `step` events, compare the books after each and everything in the end."""
    pair = Pair(**options)
    try:
        for begin in range(0, len(events), max(step, 1)):
            pair.run(events[begin : begin + max(step, 1)])
            pair.assert_same_books()
        pair.naive.finish()
        pair.fast.finish()
        pair.assert_same()
    except AssertionError as error:
        raise AssertionError(f"{error}\nfails after\n{shortest_failure(events, **options)}") from error


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=EXAMPLES)
def test_ten_thousand_random_feeds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for number, profile in enumerate(PROFILES):
        lengths = rng.integers(1, 20, SEQUENCES // len(PROFILES))
        feeds = np.split(random_events(rng, int(lengths.sum()), profile), np.cumsum(lengths)[:-1])
        for k, events in enumerate(feeds, number):
            options = {"always_open": k % 7 == 0, "ticks": k % 5 == 0, "every_ns": TICK_NS // 5 * (k % 3 == 0)}
            run_sequence(events, (len(events) + 1) // 2, **options)


@pytest.mark.parametrize("profile", PROFILES, ids=["tame", "tight", "hostile", "flat"])
@pytest.mark.parametrize("seed", range(3))
def test_long_feeds(profile: Profile, seed: int) -> None:
    """Deep books: more levels than a view shows, arenas that grow, freed handles that come again."""
    run_sequence(random_events(np.random.default_rng(seed), 1500, profile), 10, ticks=seed == 1)


def test_random_feeds_reach_every_rule() -> None:
    """The generator is worth something only if each kind of finding that events can cause does occur."""
    seen: dict[str, int] = {}
    for k, profile in enumerate(PROFILES):
        engine = ReferenceEngine()
        engine.run_events(random_events(np.random.default_rng(k), 1500, profile))
        seen = {name: seen.get(name, 0) + n for name, n in engine.integrity().items()}
    by_decoders = {"unknown_type", "gap", "checksum_mismatch", "checksum_ok", "px_range", "never_rested", "skipped"}
    by_decoders |= {"duplicate_seq", "session_reset", "trailing", "suspect_flag", "beyond_depth"}
    by_decoders |= {"stale_order", "quote_ok", "quote_mismatch", "invalidated", "awaiting_image", "unknown_trade"}
    assert {name for name, n in seen.items() if n == 0} == by_decoders


# -- a state machine: every rule alone, shrunk by Hypothesis --------------------------------------------------------

ids, prices, sizes = st.integers(0, 4), st.integers(-1, 4), st.integers(-1, 6)
sides, flags = (
    st.sampled_from([1, -1, 1, -1, 0]),
    st.sampled_from([0x01, 0x01, 0x01, 0x00, 0x03, 0x21, 0x61, 0x81, 0x11]),
)


class BookMachine(RuleBasedStateMachine):
    """Random calls on both engines; after each the books are equal, and in the end everything they recorded."""

    @initialize(always_open=st.booleans())
    def begin(self, always_open: bool) -> None:
        self.pair = Pair(always_open=always_open)
        self.seq = 0

    def send(self, action: Action, **fields: int) -> None:
        event = np.zeros(1, EVENT)
        self.seq += 1
        values = {"ts_event": self.seq * 10, "ts_recv": NULL_TS, "seq": self.seq, "instrument": 1, "action": action}
        for name, value in (values | fields).items():
            event[name] = value
        self.pair.run(event)

    @rule(order_id=ids, px=prices, qty=sizes, side=sides, flags=flags)
    def add(self, **fields: int) -> None:
        self.send(Action.ADD, **fields)

    @rule(order_id=ids, px=prices, qty=sizes, side=sides, flags=flags)
    def modify(self, **fields: int) -> None:
        self.send(Action.MODIFY, **fields)

    @rule(order_id=ids, px=prices, qty=sizes, flags=flags)
    def reduce(self, **fields: int) -> None:
        self.send(Action.REDUCE, **fields)

    @rule(order_id=ids, flags=flags)
    def delete(self, **fields: int) -> None:
        self.send(Action.DELETE, **fields)

    @rule(order_id=ids, ref=ids, px=prices, qty=sizes, flags=flags)
    def replace(self, **fields: int) -> None:
        self.send(Action.REPLACE, **fields)

    @rule(px=prices, qty=sizes, side=sides, flags=flags)
    def trade(self, **fields: int) -> None:
        self.send(Action.TRADE, **fields)

    @rule(ref=st.integers(0, 7), instrument=st.sampled_from([1, 1, 2, ALL]), flags=flags)
    def state(self, **fields: int) -> None:
        self.send(Action.STATE, **fields)

    @rule(order_id=ids, flags=flags)
    def fill(self, **fields: int) -> None:
        self.send(Action.FILL, **fields)

    @rule(flags=flags)
    def clear(self, **fields: int) -> None:
        self.send(Action.CLEAR, **fields)

    @rule(kind=st.sampled_from(list(Integrity)), n=st.integers(0, 3), instrument=st.sampled_from([1, 2, ALL]))
    def count(self, kind: Integrity, n: int, instrument: int) -> None:
        self.pair.fast.count(kind, n, instrument)
        self.pair.naive.count(kind, n, instrument)

    @rule(instrument=st.integers(1, 3))
    def reset(self, instrument: int) -> None:
        self.pair.fast.reset_book(instrument)
        self.pair.naive.reset_book(instrument)

    @invariant()
    def same(self) -> None:
        self.pair.assert_same_books()

    def teardown(self) -> None:
        if hasattr(self, "pair"):
            self.pair.naive.finish()
            self.pair.fast.finish()
            self.pair.assert_same()


BookMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30)
test_state_machine = pytest.mark.filterwarnings("ignore")(BookMachine.TestCase)


# -- the twin itself: worked examples that need no other engine -----------------------------------------------------


def event(action: Action, **fields: int) -> NDArray[np.void]:
    out = np.zeros(1, EVENT)
    out["action"], out["instrument"], out["flags"], out["ts_recv"] = action, 1, Flag.LAST, NULL_TS
    for name, value in fields.items():
        out[name] = value
    return out


@pytest.fixture(params=[ReferenceEngine, Engine], ids=["naive", "fast"])
def engine(request: pytest.FixtureRequest) -> Any:
    made = request.param()
    made.record_views()
    made.record_bbo()
    made.run_events(event(Action.ADD, order_id=1, side=1, px=100, qty=10))
    made.run_events(event(Action.ADD, order_id=2, side=1, px=100, qty=5))
    made.run_events(event(Action.ADD, order_id=3, side=-1, px=103, qty=7))
    made.take_views()
    made.take_bbo()
    return made


def queue(engine: Any) -> list[tuple[int, int, int]]:
    return [(int(o["order_id"]), int(o["px"]), int(o["qty"])) for o in engine.orders(1)]


def test_a_smaller_size_keeps_the_place_a_larger_one_loses_it(engine: Any) -> None:
    engine.run_events(event(Action.MODIFY, order_id=1, side=1, px=100, qty=4))
    assert queue(engine) == [(1, 100, 4), (2, 100, 5), (3, 103, 7)]
    assert engine.queue_position(1, 2) == (1, 4)
    engine.run_events(event(Action.MODIFY, order_id=1, side=1, px=100, qty=6))
    assert queue(engine) == [(2, 100, 5), (1, 100, 6), (3, 103, 7)]
    engine.run_events(event(Action.MODIFY, order_id=2, side=1, px=100, qty=9, flags=Flag.LAST | Flag.PRIORITY_KEPT))
    assert queue(engine) == [(2, 100, 9), (1, 100, 6), (3, 103, 7)]


def test_a_replace_is_one_event_with_both_quantities(engine: Any) -> None:
    engine.run_events(event(Action.REPLACE, order_id=1, ref=9, px=101, qty=3))
    assert queue(engine) == [(9, 101, 3), (2, 100, 5), (3, 103, 7)]
    (view,) = engine.take_views()
    assert (view["cancel_qty"], view["add_qty"], view["px"], view["level"], view["side"]) == (10, 3, 101, 0, 1)
    (row,) = engine.take_bbo()
    assert (row["bid_px"], row["bid_qty"], row["ask_px"], row["ask_qty"]) == (101, 3, 103, 7)


def test_an_execution_beyond_the_size_removes_the_order_and_marks_the_book(engine: Any) -> None:
    engine.run_events(event(Action.REDUCE, order_id=1, qty=11, flags=Flag.LAST | Flag.EXEC))
    assert queue(engine)[0] == (2, 100, 5)
    assert engine.integrity(1)["over_execute"] == 1
    assert engine.suspect(1)
    (view,) = engine.take_views()
    assert (view["trade_qty"], view["px"], view["suspect"]) == (10, 100, 1)
    engine.run_events(event(Action.CLEAR))
    assert not engine.suspect(1)
    assert best_levels(engine, 1) == {"bid_px": NULL_PX, "bid_qty": 0, "ask_px": NULL_PX, "ask_qty": 0}


def test_crossing_is_a_finding_only_once_trading_has_begun(engine: Any) -> None:
    engine.run_events(event(Action.ADD, order_id=4, side=-1, px=99, qty=1))
    assert (engine.integrity()["crossed"], engine.integrity()["crossed_preopen"]) == (0, 1)
    engine.run_events(event(Action.TRADE, px=99, qty=1, side=1))
    engine.run_events(event(Action.ADD, order_id=5, side=-1, px=99, qty=1))
    assert (engine.integrity()["crossed"], engine.integrity()["crossed_preopen"]) == (1, 1)
    engine.run_events(event(Action.STATE, ref=TradingState.HALTED))
    engine.run_events(event(Action.ADD, order_id=6, side=-1, px=98, qty=1))
    assert (engine.integrity()["crossed"], engine.integrity()["crossed_preopen"]) == (1, 2)


def test_events_before_last_are_summed_into_one_view(engine: Any) -> None:
    parts = [
        event(Action.REDUCE, order_id=1, qty=2, flags=Flag.EXEC),
        event(Action.REDUCE, order_id=2, qty=1, flags=0),
        event(Action.ADD, order_id=8, side=-1, px=104, qty=6),
    ]
    engine.run_events(np.concatenate(parts))
    (view,) = engine.take_views()
    assert (view["trade_qty"], view["cancel_qty"], view["add_qty"], view["level"], view["side"]) == (2, 1, 6, 1, -1)


def test_a_book_image_makes_no_views_and_one_quote(engine: Any) -> None:
    image = [event(Action.CLEAR, flags=Flag.SNAPSHOT)]
    image += [
        event(Action.ADD, order_id=n, side=1, px=90 + n, qty=n, flags=Flag.SNAPSHOT | Flag.LAST) for n in (1, 2, 3)
    ]
    engine.run_events(np.concatenate(image))
    assert len(engine.take_views()) == len(engine.take_bbo()) == 0
    engine.run_events(event(Action.NONE))
    (row,) = engine.take_bbo()
    assert (row["bid_px"], row["bid_qty"], row["ask_px"]) == (93, 3, NULL_PX)


def test_the_digest_is_what_its_description_says(engine: Any) -> None:
    """Written out by hand, so that another program can make the same digest."""
    import hashlib
    import struct

    text = b"X.TEST\0" + b"B" + struct.pack("<qqQqqQ", 100, 10, 1, 100, 5, 2) + b"A" + struct.pack("<qqQ", 103, 7, 3)
    assert state_hash(engine, ["X.TEST"]) == hashlib.blake2b(text, digest_size=16).hexdigest()
    with pytest.raises(ValueError, match="2 ids for 1"):
        state_hash(engine, ["A", "B"])


def test_a_difference_is_named(engine: Any) -> None:
    other = ReferenceEngine()
    assert "instruments" in str(same_books(engine, other))
    other.run_events(event(Action.ADD, order_id=1, side=1, px=100, qty=11))
    assert "order 0" in str(same_books(engine, other))


def test_a_price_of_zero_is_a_finding_only_outside_a_book_image(engine: Any) -> None:
    engine.run_events(event(Action.ADD, order_id=7, side=-1, px=0, qty=1, flags=Flag.SNAPSHOT))
    assert engine.integrity()["zero_price"] == 0
    engine.run_events(event(Action.ADD, order_id=8, side=-1, px=0, qty=1))
    engine.run_events(event(Action.MODIFY, order_id=3, side=-1, px=0, qty=1))
    assert engine.integrity()["zero_price"] == 2
    assert queue(engine)[-3:] == [(7, 0, 1), (8, 0, 1), (3, 0, 1)]


def test_a_level_never_holds_more_than_63_bits(engine: Any) -> None:
    engine.run_events(event(Action.ADD, order_id=7, side=1, px=100, qty=2**63 - 17))
    engine.run_events(event(Action.ADD, order_id=8, side=1, px=100, qty=1))
    assert (engine.integrity()["malformed"], len(queue(engine))) == (0, 5)
    engine.run_events(event(Action.ADD, order_id=9, side=1, px=100, qty=1))
    assert (engine.integrity()["malformed"], len(queue(engine))) == (1, 5)
    engine.run_events(event(Action.MODIFY, order_id=2, side=1, px=100, qty=6, flags=Flag.LAST | Flag.PRIORITY_KEPT))
    assert (engine.integrity()["malformed"], queue(engine)[1]) == (2, (2, 100, 5))
    assert engine.suspect(1)
