"""Hand-made recordings: what happens around one edit, message by message."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from replay import findings

from microrisk.market.inject import _merge
from microrisk.market.rng import Stream
from microrisk.market.tape import FIRST_ID, Row, Scale, Tape
from microrisk.spec.records import EVENT, Action, Flag, TradingState
from microrisk.spec.units import NULL_TS

LAST, EXEC, NONE = int(Flag.LAST), int(Flag.EXEC), 0
ADD, MODIFY, REDUCE, DELETE = Action.ADD, Action.MODIFY, Action.REDUCE, Action.DELETE
REPLACE, FILL, CLEAR = Action.REPLACE, Action.FILL, Action.CLEAR
BOOK: list[tuple[int, ...]] = [
    (Action.STATE, 0, int(TradingState.TRADING), 0, 0, 0, LAST),
    (ADD, 1, 0, 1, 100, 10, LAST),
    (ADD, 2, 0, 1, 99, 10, LAST),
    (ADD, 3, 0, 1, 97, 10, LAST),
    (ADD, 4, 0, -1, 102, 10, LAST),
    (ADD, 5, 0, -1, 103, 10, LAST),
]


class Play:
    """A tape over BOOK and what follows; `at` runs something before a place of what follows."""

    def __init__(self, *after: tuple[int, ...]) -> None:
        rows = [*BOOK, *after]
        self.events = np.zeros(len(rows), EVENT)
        for k, (action, oid, ref, side, px, qty, flags) in enumerate(rows):
            self.events[k] = (k * 1000, NULL_TS, k, oid, ref, px, qty, 0, 0, action, side, flags)
        scale = Scale(1, 10, np.array([10]), 1.0)
        self.tape = Tape(self.events, np.arange(len(rows)), scale, Stream(1), FIRST_ID)
        self.rows: list[Row] = [tuple(int(x) for x in row) for row in rows]  # type: ignore[misc]
        self.place = 0
        self.to(0)

    def to(self, after: int) -> Tape:
        """Run to just before message `after` behind the book."""
        while self.place < len(BOOK) + after:
            self.tape.move(self.place, self.place * 1000, self.place)
            self.tape.step(self.place, self.rows[self.place])
            self.place += 1
        return self.tape

    def end(self) -> NDArray[np.void]:
        self.to(len(self.rows) - len(BOOK))
        return _merge(self.events, self.tape)


def story(events: NDArray[np.void]) -> list[tuple[int, int]]:
    """(action, order id) behind the book; inserted ids as negative numbers."""
    rows = zip(events["action"].tolist(), events["order_id"].tolist(), strict=True)
    return [(a, FIRST_ID - oid if oid > FIRST_ID else oid) for a, oid in rows][len(BOOK) :]


def test_an_inserted_order_leaves_before_a_quote_would_meet_it() -> None:
    for px, expected in ((99, [(ADD, -1), (DELETE, -1), (DELETE, 1), (ADD, 9)]), (100, None)):
        play = Play((DELETE, 1, 0, 1, 100, 10, LAST), (ADD, 9, 0, -1, px + 1, 5, LAST))
        own = play.tape.add(1, 100, 7)
        assert own == FIRST_ID + 1
        out = play.end()
        if expected is None:  # 101 does not meet the bid at 100
            assert story(out) == [(ADD, -1), (DELETE, 1), (ADD, 9)]
        else:
            assert story(out) == [(ADD, -1), (DELETE, 1), (DELETE, -1), (ADD, 9)]
        assert findings(out) == {}


def test_an_inserted_order_leaves_before_a_modify_or_replace_meets_it() -> None:
    for after in (
        (MODIFY, 4, 0, -1, 100, 10, LAST),
        (REPLACE, 4, 9, 0, 100, 10, LAST),
        (MODIFY, 77, 0, -1, 100, 1, LAST),
    ):
        play = Play((DELETE, 1, 0, 1, 100, 10, LAST), after)
        play.tape.add(1, 100, 7)
        assert story(play.end())[-2][0] == DELETE
        assert play.tape.own == {}


def test_an_inserted_order_is_not_traded_through() -> None:
    play = Play(
        (DELETE, 1, 0, 1, 100, 10, LAST), (REDUCE, 2, 0, 1, 99, 10, LAST | EXEC), (REDUCE, 3, 0, 1, 97, 4, LAST)
    )
    play.tape.add(1, 100, 7)
    play.tape.add(1, 98, 7)
    # the one at 100 would have traded first; the one at 98 stays, and a cancel below it moves nothing
    assert story(play.end()) == [(ADD, -1), (ADD, -2), (DELETE, 1), (DELETE, -1), (REDUCE, 2), (REDUCE, 3)]


def test_inside_an_event_of_several_records_nothing_is_completed_early() -> None:
    play = Play((DELETE, 1, 0, 1, 100, 10, NONE), (ADD, 9, 0, -1, 100, 5, LAST))
    play.tape.add(1, 100, 7)
    assert not play.to(1).ready()
    out = play.end()
    assert story(out) == [(ADD, -1), (DELETE, 1), (DELETE, -1), (ADD, 9)]
    assert [int(f) & LAST for f in out["flags"][-4:]] == [LAST, 0, 0, LAST]


def test_every_later_message_of_an_order_taken_early_is_left_out() -> None:
    play = Play(
        (REDUCE, 2, 0, 1, 99, 4, LAST),
        (FILL, 2, 0, 1, 99, 1, LAST),
        (MODIFY, 2, 0, 1, 98, 20, LAST),
        (REPLACE, 2, 8, 1, 98, 5, LAST),
        (REDUCE, 8, 0, 1, 98, 5, LAST | EXEC),
        (ADD, 2, 0, 1, 98, 3, LAST),
        (DELETE, 2, 0, 1, 98, 3, LAST),
    )
    assert play.tape.execute(2) == 10
    out = play.end()
    assert story(out) == [(REDUCE, 2), (ADD, 2), (DELETE, 2)]
    assert findings(out) == {}


def test_an_event_whose_last_record_goes_is_completed_by_the_one_before() -> None:
    play = Play((DELETE, 1, 0, 1, 100, 10, NONE), (DELETE, 2, 0, 1, 99, 10, LAST), (ADD, 9, 0, 1, 98, 1, LAST))
    play.tape.cancel(2)
    out = play.end()
    assert story(out) == [(DELETE, 2), (DELETE, 1), (ADD, 9)]
    assert (out["flags"] & LAST != 0).all()


def test_thinning_leaves_out_new_orders_and_all_of_their_messages() -> None:
    play = Play((ADD, 9, 0, 1, 98, 5, LAST), (ADD, 10, 0, -1, 104, 5, LAST), (REDUCE, 9, 0, 1, 98, 5, LAST))
    play.tape.thin[1] = 1.0
    assert story(play.end()) == [(ADD, 10)]


def test_a_clear_takes_inserted_orders_along() -> None:
    play = Play((CLEAR, 0, 0, 0, 0, 0, LAST), (ADD, 2, 0, 1, 99, 10, LAST), (DELETE, 2, 0, 1, 99, 10, LAST))
    own = play.tape.add(1, 98, 7)
    play.tape.cancel(2)
    play.to(1).cancel(own)
    out = play.end()
    assert story(out) == [(ADD, -1), (DELETE, 2), (CLEAR, 0), (ADD, 2), (DELETE, 2)]
    assert findings(out) == {}


def test_prices_that_would_cross_are_not_quoted_and_halts_are_respected() -> None:
    play = Play((Action.STATE, 0, int(TradingState.HALTED), 0, 0, 0, LAST), (ADD, 9, 0, 1, 98, 5, LAST))
    assert play.tape.ready()
    assert play.tape.add(1, 102, 5) == 0
    assert play.tape.add(-1, 100, 5) == 0
    assert play.tape.execute(12345) == 0
    assert not play.to(1).ready()
    assert story(play.end()) == [(Action.STATE, 0), (ADD, 9)]
