"""The state of a feed as bytes: every kind of value comes back as it was, and nothing else can be written."""

from __future__ import annotations

import zlib
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microrisk.errors import FeedError, SpecMismatch
from microrisk.feed.state import Codec, known

ROW = np.dtype([("id", "<u8"), ("px", "<i8")])


class Pair(NamedTuple):
    a: int
    b: str


class Packed(msgspec.Struct, frozen=True):
    name: str
    rows: list[tuple[int, int]] = []


@dataclass(frozen=True, slots=True)
class Frozen:
    at: int
    held: Any


class Base:
    __slots__ = ("left",)


class Slotted(Base):
    __slots__ = ("right", "twice")

    def __init__(self, left: int, right: int) -> None:
        self.left, self.right, self.twice = left, right, 2 * right

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slotted) and (self.left, self.right, self.twice) == (
            other.left,
            other.right,
            other.twice,
        )

    __hash__ = None  # type: ignore[assignment]


class Open:
    def __init__(self) -> None:
        self.value = 1


def _twice(made: Slotted) -> None:
    made.twice = 2 * made.right


CLASSES = [
    known(Pair),
    known(Packed),
    known(Frozen),
    known(Slotted, left_out=["twice"], rebuild=_twice, table=True),
    known(Open, fields=["value"]),
]
CODEC = Codec(CLASSES, [ROW])

WORDS = st.integers(-(2**63), 2**63 - 1)
PLAIN = st.none() | st.booleans() | WORDS | st.integers(0, 2**64 - 1) | st.text(max_size=8) | st.binary(max_size=8)
KEYS = WORDS | st.text(max_size=4) | st.tuples(st.text(max_size=4), st.booleans())


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.sets(WORDS, max_size=4)
        | st.lists(inner, max_size=4).map(lambda items: deque(items, maxlen=7))
        | st.dictionaries(WORDS, WORDS, max_size=5)
        | st.dictionaries(st.text(max_size=4), WORDS, max_size=5)
        | st.dictionaries(st.text(max_size=4), st.builds(Slotted, WORDS, WORDS), max_size=4)
        | st.builds(Frozen, WORDS, inner)
        | st.builds(Pair, WORDS, st.text(max_size=4))
        | st.builds(Packed, st.text(max_size=4), st.lists(st.tuples(WORDS, WORDS), max_size=3))
    )


def types_of(value: Any) -> Any:
    """The shape of a value: equal values may still differ in it (True and 1, a list and a deque)."""
    if isinstance(value, dict):
        return type(value), [(types_of(k), types_of(v)) for k, v in value.items()]
    if isinstance(value, (list, tuple, deque)):
        return type(value), getattr(value, "maxlen", None), [types_of(v) for v in value]
    return type(value), types_of(value.held) if isinstance(value, Frozen) else None


@given(st.recursive(PLAIN, nested, max_leaves=20))
def test_values_come_back_as_they_were(value: Any) -> None:
    data = CODEC.dump(value)
    back = CODEC.load(data)
    assert back == value
    assert types_of(back) == types_of(value)
    assert CODEC.dump(back) == data


def test_numbers_beyond_int64_in_a_table_of_numbers() -> None:
    for value in ({"a": 2**64 - 1}, {1: 2**64 - 1}, {2**64 - 1: 1}):
        assert CODEC.load(CODEC.dump(value)) == value


def test_arrays_and_sets_by_name() -> None:
    rows = np.array([(1, -2), (2**64 - 1, 5)], ROW)
    channels = defaultdict(set, {"a": {"y", "x"}})
    back = CODEC.load(CODEC.dump([rows, channels]))
    np.testing.assert_array_equal(back[0], rows)
    assert back[0].flags.writeable
    assert back[1] == channels
    assert back[1]["new"] == set()


def test_two_holders_of_one_object_stay_two_holders_of_one_object() -> None:
    one, other = Slotted(1, 2), Slotted(1, 2)
    back = CODEC.load(CODEC.dump([one, {("k", True): one}, Frozen(3, one), other]))
    assert back[0] is back[1]["k", True] is back[2].held
    assert back[3] == back[0]
    assert back[3] is not back[0]


@pytest.mark.parametrize("value", [1.5, {1.5}, object(), defaultdict(list), np.int64(1), np.zeros(2), Base])
def test_what_is_not_known_cannot_be_written(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        CODEC.dump([value])


def test_an_attribute_that_the_state_does_not_know_is_no_silent_loss() -> None:
    held = Open()
    assert CODEC.load(CODEC.dump(held)).value == 1
    held.more = 2  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="more"):
        CODEC.dump(held)


def test_other_classes_are_another_build() -> None:
    with pytest.raises(SpecMismatch, match="another build"):
        Codec(CLASSES[:-1], [ROW]).load(CODEC.dump([1]))


@given(st.binary(max_size=60))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(FeedError):
        CODEC.load(data)


@given(st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4), max_leaves=12))
def test_no_body_under_a_right_checksum_does_anything_else_than_fail(plain: Any) -> None:
    body = msgspec.msgpack.encode(plain)
    head = CODEC.dump(None)
    data = head[:12] + zlib.crc32(body).to_bytes(4, "little") + body
    try:
        CODEC.dump(CODEC.load(data))
    except (FeedError, TypeError):
        return
