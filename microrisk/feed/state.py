"""What a feed has learned, as bytes and back: values of a closed list of classes, and nothing that runs.

A value becomes nested arrays of MessagePack: numbers, texts and bytes as they are, everything else an array that begins
with a Tag. An object is written as the values of its fields; of one met again only its number is written, so that two
holders of one object are two holders of one object afterwards.

The bytes begin with a magic, a version with a digest of the classes and their fields, and a CRC-32 of what follows: the
state of another build and a damaged one are both refused.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from enum import IntEnum
from itertools import chain
from operator import attrgetter
from struct import Struct
from typing import Any
from zlib import crc32

import msgspec
import numpy as np

from microrisk.errors import FeedError, SpecMismatch

MAGIC = b"MRFS"
VERSION = 1
_HEADER = Struct("<4sIII")
"""Magic, version, digest of the classes, CRC-32 of what follows."""
_PLAIN = frozenset({type(None), bool, int, str, bytes})
_I64 = np.dtype("<i8")


class Tag(IntEnum):
    """What an array stands for."""

    LIST = 0
    TUPLE = 1
    SET = 2
    DEQUE = 3
    """Greatest length or nil, members."""
    DICT = 4
    """Keys and values in turn."""
    SETS = 5
    """The same, a defaultdict of sets."""
    LADDER = 6
    """A dict of int64 to int64: bytes of the keys, bytes of the values."""
    NUMBERS = 7
    """A dict of text to int64: keys, bytes of the values."""
    TABLE = 8
    """A dict of text to objects of one class with plain fields: class, keys, one array for each field."""
    ARRAY = 9
    """A structured array: which of the known types, bytes."""
    OBJECT = 10
    """Class, values of the fields."""
    AGAIN = 11
    """Number of an object written before."""


# plain integers: what is written must be one, and members cost more than the writing
_LIST, _TUPLE, _SET, _DEQUE, _DICT, _SETS, _LADDER, _NUMBERS, _TABLE, _ARRAY, _OBJECT, _AGAIN = map(int, Tag)


@dataclasses.dataclass(frozen=True)
class Known:
    """A class that may be written.

    Attributes
    ----------
    cls : the class
    fields : names, in the order in which they are written
    left_out : attributes that follow from the others
    rebuild : called with each restored object, sets those
    table : fields are plain and objects have one holder, so that dicts of them are written by columns
    """

    cls: type
    fields: tuple[str, ...]
    left_out: frozenset[str] = frozenset()
    rebuild: Callable[[Any], None] | None = None
    table: bool = False

    @property
    def name(self) -> str:
        """Module and class."""
        return f"{self.cls.__module__.rpartition('.')[2]}.{self.cls.__name__}"

    def values(self, held: object) -> list[Any]:
        """Values of the fields; TypeError when the object has more attributes than the class is known to have."""
        if hasattr(held, "__dict__") and vars(held).keys() - self.left_out - set(self.fields):
            raise TypeError(f"{self.name} has attributes that its state does not know: {sorted(vars(held))}")
        return [getattr(held, name) for name in self.fields]


def known(
    cls: type,
    *,
    fields: Sequence[str] = (),
    left_out: Iterable[str] = (),
    rebuild: Callable[[Any], None] | None = None,
    table: bool = False,
) -> Known:
    """A class with all its fields: those of a struct, dataclass or tuple, its slots, or the ones named."""
    out = frozenset(left_out)
    names = [name for name in fields or _fields_of(cls) if name not in out]
    return Known(cls, tuple(names), out, rebuild, table)


def _fields_of(cls: type) -> list[str]:
    if issubclass(cls, msgspec.Struct):
        return list(cls.__struct_fields__)
    if dataclasses.is_dataclass(cls):
        return [f.name for f in dataclasses.fields(cls)]
    if issubclass(cls, tuple):
        return list(cls._fields)  # type: ignore[attr-defined]
    return [name for each in reversed(cls.__mro__) for name in getattr(each, "__slots__", ())]


class Codec:
    """Writes and reads values of the known classes and array types."""

    def __init__(self, classes: Sequence[Known], arrays: Sequence[np.dtype[Any]] = ()) -> None:
        self._of_class = {k.cls: k for k in classes}
        self._of_name = {k.name: k for k in classes}
        self._arrays = list(arrays)
        schema = [*((k.name, k.fields) for k in classes), *(str(a.descr) for a in arrays)]
        self._schema = crc32(repr(schema).encode())

    def dump(self, value: Any) -> bytes:
        """A value as bytes.

        Raises
        ------
        TypeError : it holds something of an unknown class: a mistake of the program
        """
        body = msgspec.msgpack.encode(_Writer(self._of_class, self._arrays).plain(value))
        return _HEADER.pack(MAGIC, VERSION, self._schema, crc32(body)) + body

    def load(self, data: bytes) -> Any:
        """The value again.

        Raises
        ------
        FeedError : damaged, or no state
        SpecMismatch : written by a build with other classes
        """
        if len(data) < _HEADER.size or data[:4] != MAGIC:
            raise FeedError(f"{len(data)} bytes that are no state of a feed")
        _, version, schema, crc = _HEADER.unpack_from(data)
        if (version, schema) != (VERSION, self._schema):
            raise SpecMismatch(
                f"the state of a feed was written by another build (format {version}, classes {schema:08x}; here "
                f"{VERSION}, {self._schema:08x}): go on with the build that wrote it, or begin anew"
            )
        body = data[_HEADER.size :]
        if crc32(body) != crc:
            raise FeedError("the state of a feed is damaged: its checksum is wrong")
        try:
            return _Reader(self._of_name, self._arrays).value(msgspec.msgpack.decode(body))
        except (msgspec.MsgspecError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as why:
            raise FeedError(f"the state of a feed cannot be read: {why}") from why


class _Writer:
    """One dump: remembers which objects have been written."""

    def __init__(self, classes: Mapping[type, Known], arrays: list[np.dtype[Any]]) -> None:
        self._classes, self._arrays = classes, arrays
        self._seen: dict[int, int] = {}

    def plain(self, value: Any) -> Any:
        """The value out of numbers, texts, bytes and arrays."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        known_as = self._classes.get(kind)
        if known_as is not None:
            return self._object(value, known_as)
        write = _WRITERS.get(kind)
        if write is None:
            if isinstance(value, int):  # a member of an enumeration
                return int(value)
            raise TypeError(f"{kind.__module__}.{kind.__qualname__} may not be written into the state of a feed")
        return write(self, value)

    def _object(self, value: object, known_as: Known) -> list[Any]:
        number = self._seen.get(id(value))
        if number is not None:
            return [_AGAIN, number]
        self._seen[id(value)] = len(self._seen)
        return [_OBJECT, known_as.name, *map(self.plain, known_as.values(value))]

    def _list(self, value: list[Any]) -> list[Any]:
        return [_LIST, *map(self.plain, value)]

    def _tuple(self, value: tuple[Any, ...]) -> list[Any]:
        return [_TUPLE, *map(self.plain, value)]

    def _set(self, value: set[Any]) -> list[Any]:
        return [_SET, *map(self.plain, sorted(value))]

    def _deque(self, value: deque[Any]) -> list[Any]:
        return [_DEQUE, value.maxlen, *map(self.plain, value)]

    def _sets(self, value: defaultdict[Any, Any]) -> list[Any]:
        if value.default_factory is not set:
            raise TypeError("a defaultdict of something else than sets")
        return [_SETS, *map(self.plain, chain.from_iterable(value.items()))]

    def _dict(self, value: dict[Any, Any]) -> list[Any]:
        with suppress(OverflowError):  # numbers beyond int64 are written one by one
            if (packed := self._packed(value)) is not None:
                return packed
        return [_DICT, *map(self.plain, chain.from_iterable(value.items()))]

    def _packed(self, value: dict[Any, Any]) -> list[Any] | None:
        """A dict by columns, when its keys and values allow it."""
        keys, kinds = set(map(type, value)), set(map(type, value.values()))
        if len(keys) != 1 or len(kinds) != 1:
            return None
        key, kind = keys.pop(), kinds.pop()
        if kind is int and key is int:
            return [_LADDER, _words(value), _words(value.values())]
        if kind is int and key is str:
            return [_NUMBERS, list(value), _words(value.values())]
        known_as = self._classes.get(kind)
        if known_as is None or not known_as.table or key is not str:
            return None
        columns = (list(map(attrgetter(name), value.values())) for name in known_as.fields)
        return [_TABLE, known_as.name, list(value), *columns]

    def _array(self, value: np.ndarray[Any, Any]) -> list[Any]:
        return [_ARRAY, self._arrays.index(value.dtype), value.tobytes()]


class _Reader:
    """One load: remembers the objects in the order in which they were written."""

    def __init__(self, classes: Mapping[str, Known], arrays: list[np.dtype[Any]]) -> None:
        self._classes, self._arrays = classes, arrays
        self._seen: list[Any] = []

    def value(self, plain: Any) -> Any:
        """What `plain` stands for; ValueError, TypeError or LookupError when nothing."""
        if type(plain) in _PLAIN:
            return plain
        tag, *rest = plain
        return _READERS[tag](self, rest)

    def _object(self, rest: list[Any]) -> Any:
        known_as = self._classes[rest[0]]
        number = len(self._seen)
        self._seen.append(None)  # numbers are given from the outside in, as they were in writing
        values = [self.value(v) for v in rest[1:]]
        made = self._seen[number] = _made(known_as, values)
        return made

    def _again(self, rest: list[Any]) -> Any:
        return self._seen[rest[0]]

    def _list(self, rest: list[Any]) -> list[Any]:
        return [self.value(v) for v in rest]

    def _tuple(self, rest: list[Any]) -> tuple[Any, ...]:
        return tuple(self.value(v) for v in rest)

    def _set(self, rest: list[Any]) -> set[Any]:
        return {self.value(v) for v in rest}

    def _deque(self, rest: list[Any]) -> deque[Any]:
        return deque((self.value(v) for v in rest[1:]), maxlen=rest[0])

    def _dict(self, rest: list[Any]) -> dict[Any, Any]:
        values = [self.value(v) for v in rest]
        return dict(zip(values[::2], values[1::2], strict=True))

    def _sets(self, rest: list[Any]) -> defaultdict[Any, set[Any]]:
        return defaultdict(set, self._dict(rest))

    def _ladder(self, rest: list[Any]) -> dict[int, int]:
        keys, values = (np.frombuffer(part, _I64).tolist() for part in rest)
        return dict(zip(keys, values, strict=True))

    def _table(self, rest: list[Any]) -> dict[str, Any]:
        name, keys, *columns = rest
        known_as, out = self._classes[name], {}
        for key, *values in zip(keys, *columns, strict=True):
            out[key] = _made(known_as, values)
        return out

    def _numbers(self, rest: list[Any]) -> dict[str, int]:
        return dict(zip(rest[0], np.frombuffer(rest[1], _I64).tolist(), strict=True))

    def _array(self, rest: list[Any]) -> np.ndarray[Any, Any]:
        return np.frombuffer(rest[1], self._arrays[rest[0]]).copy()


def _words(values: Iterable[int]) -> bytes:
    return np.fromiter(values, _I64).tobytes()


def _made(known_as: Known, values: Sequence[Any]) -> Any:
    """An object with these fields; its constructor runs only where there is no other way to one."""
    cls: Any = known_as.cls
    if issubclass(cls, (tuple, msgspec.Struct)):
        return cls(*values)
    made = cls.__new__(cls)
    for name, value in zip(known_as.fields, values, strict=True):
        object.__setattr__(made, name, value)  # frozen ones, too
    if known_as.rebuild is not None:
        known_as.rebuild(made)
    return made


_WRITERS: dict[type, Callable[[_Writer, Any], list[Any]]] = {
    list: _Writer._list,
    tuple: _Writer._tuple,
    set: _Writer._set,
    deque: _Writer._deque,
    dict: _Writer._dict,
    defaultdict: _Writer._sets,
    np.ndarray: _Writer._array,
}
_READERS: dict[int, Callable[[_Reader, list[Any]], Any]] = {
    _LIST: _Reader._list,
    _TUPLE: _Reader._tuple,
    _SET: _Reader._set,
    _DEQUE: _Reader._deque,
    _DICT: _Reader._dict,
    _SETS: _Reader._sets,
    _LADDER: _Reader._ladder,
    _NUMBERS: _Reader._numbers,
    _TABLE: _Reader._table,
    _ARRAY: _Reader._array,
    _OBJECT: _Reader._object,
    _AGAIN: _Reader._again,
}
