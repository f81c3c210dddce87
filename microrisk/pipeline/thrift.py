"""Thrift's compact protocol, writing only: what the headers and the footer of a Parquet file are made of.

Source: Apache Thrift, doc/specs/thrift-compact-protocol.md. A struct is a dict of field number -> value, in rising
order; None leaves the field out. A plain int is an i32; other widths are said by type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class I8(int):
    """A byte."""


class I16(int):
    """16 bits."""


class I64(int):
    """64 bits."""


_TRUE, _FALSE, _BINARY, _LIST, _STRUCT = 1, 2, 8, 9, 12


def varint(value: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _zigzag(value: int) -> bytes:
    return varint(value * 2 if value >= 0 else -value * 2 - 1)


def _kind(value: Any) -> int:
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    if isinstance(value, int):
        return {I8: 3, I16: 4, I64: 6}.get(type(value), 5)
    if isinstance(value, bytes | str):
        return _BINARY
    return _STRUCT if isinstance(value, Mapping) else _LIST


def _body(value: Any) -> bytes:
    if isinstance(value, bool):
        return b""  # its kind says it
    if isinstance(value, I8):
        return (value & 0xFF).to_bytes(1, "little")
    if isinstance(value, int):
        return _zigzag(value)
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return varint(len(value)) + value
    return struct(value) if isinstance(value, Mapping) else _list(value)


def _list(values: Sequence[Any]) -> bytes:
    kind = _kind(values[0]) if values else _STRUCT
    head = bytes([len(values) << 4 | kind]) if len(values) < 15 else bytes([0xF0 | kind]) + varint(len(values))
    return head + b"".join(map(_body, values))


def struct(fields: Mapping[int, Any]) -> bytes:
    """A struct with its stop byte."""
    out, last = bytearray(), 0
    for number, value in fields.items():
        if value is None:
            continue
        step = number - last
        out += bytes([step << 4 | _kind(value)]) if 0 < step < 16 else bytes([_kind(value)]) + _zigzag(number)
        out += _body(value)
        last = number
    return bytes(out) + b"\0"
