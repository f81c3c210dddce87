"""Writes cpp/include/microrisk/spec.hpp: records, enumerations, ITCH layouts and constants for C++.

`python -m microrisk.spec.emit_cpp` rewrites the committed header; a test makes it again and compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from microrisk.spec import formats, iex, journal, messages, records, units, weightfile
from microrisk.spec.hashes import abi_hash

HEADER = Path(__file__).resolve().parents[2] / "cpp" / "include" / "microrisk" / "spec.hpp"

_C_TYPES = {
    "int8": "std::int8_t",
    "uint8": "std::uint8_t",
    "int32": "std::int32_t",
    "uint32": "std::uint32_t",
    "int64": "std::int64_t",
    "uint64": "std::uint64_t",
}
_ENUM_TYPES = {"Integrity": "std::uint32_t"}
_RAW_ENUMS = ("Flag",)
"""Bit masks: plain constants in a namespace, because they are or-ed together."""


def _struct(name: str, dtype: np.dtype[Any]) -> list[str]:
    """One record as a struct, with its size and every offset asserted."""
    fields: Mapping[str, Any] = dtype.fields or {}
    out, checks = [f"struct {name} {{"], [f"static_assert(sizeof({name}) == {dtype.itemsize});"]
    for field in dtype.names or ():
        kind, offset = fields[field][0], fields[field][1]
        base, shape = kind.subdtype if kind.subdtype else (kind, ())
        dims = "".join(f"[{n}]" for n in shape)
        out.append(f"  {_C_TYPES[base.name]} {field}{dims};")
        checks.append(f"static_assert(offsetof({name}, {field}) == {offset});")
    return [*out, "};", *checks, f"static_assert(std::is_trivially_copyable_v<{name}>);", ""]


def _enum(name: str, members: type[Enum]) -> list[str]:
    base = _ENUM_TYPES.get(name, "std::uint8_t")
    items = [(k, int(v.value)) for k, v in members.__members__.items()]
    if name in _RAW_ENUMS:
        rows = [f"inline constexpr {base} {k} = 0x{v:02X};" for k, v in items]
        return [f"namespace {name.lower()} {{", *rows, f"}}  // namespace {name.lower()}", ""]
    return [f"enum class {name} : {base} {{", *(f"  {k} = {v}," for k, v in items), "};", ""]


def _integrity_names() -> list[str]:
    kinds = list(records.Integrity)
    hard = sorted(int(k) for k in records.HARD)
    return [
        f"inline constexpr std::size_t N_INTEGRITY = {len(kinds)};",
        "inline constexpr const char* INTEGRITY_NAMES[N_INTEGRITY] = {",
        *(f'    "{k.name}",' for k in kinds),
        "};",
        "inline constexpr bool INTEGRITY_HARD[N_INTEGRITY] = {",
        "    " + ", ".join("true" if int(k) in hard else "false" for k in kinds),
        "};",
        "",
    ]


def _itch() -> list[str]:
    """Lengths by type code (0 = no such type) and the offset of every field."""
    out = ["namespace itch {", "constexpr std::size_t length_of(unsigned char type) noexcept {", "  switch (type) {"]
    out += [f"    case '{m.code}': return {m.length};" for m in messages.ITCH]
    out += ["    default: return 0;", "  }", "}"]
    for m in messages.ITCH:
        out.append(f"namespace {m.name} {{  // {m.code}, section {m.section}")
        out += [f"inline constexpr std::size_t {f.name}_at = {f.offset};" for f in m.fields]
        out.append(f"}}  // namespace {m.name}")
    return [*out, "}  // namespace itch", ""]


def _offsets(m: messages.Message, prefix: str = "") -> list[str]:
    """One namespace of field offsets."""
    out = [f"namespace {m.name} {{  // {prefix}{m.section}"]
    out += [f"inline constexpr std::size_t {f.name}_at = {f.offset};" for f in m.fields]
    return [*out, f"}}  // namespace {m.name}"]


def _transports() -> list[str]:
    """Headers of MoldUDP64 packets."""
    m = messages.MOLD_HEADER
    return [
        "namespace mold {",
        f"inline constexpr std::size_t LENGTH = {m.length};",
        f"inline constexpr std::uint64_t HEARTBEAT = {messages.MOLD_HEARTBEAT};",
        f"inline constexpr std::uint64_t END_OF_SESSION = {messages.MOLD_END_OF_SESSION};",
        *(f"inline constexpr std::size_t {f.name}_at = {f.offset};" for f in m.fields),
        "}  // namespace mold",
        "",
    ]


def _journal() -> list[str]:
    """Sizes and record kinds of the input journal."""
    sizes = ("BLOCK_HEADER_BYTES", "RECORD_HEADER_BYTES", "MAX_BODY", "MAX_PAYLOAD")
    return [
        "namespace journal {",
        f"inline constexpr std::uint32_t BLOCK_MAGIC = 0x{journal.BLOCK_MAGIC:08X};",
        *(f"inline constexpr std::size_t {name} = {getattr(journal, name)};" for name in sizes),
        f"inline constexpr std::uint16_t NO_FEED = 0x{journal.NO_FEED:04X};",
        *_enum("Kind", journal.Kind)[:-1],
        "}  // namespace journal",
        "",
    ]


def _iex() -> list[str]:
    """Least lengths by protocol and type code (0 = no such type), and the offset of every field."""
    out = ["namespace iex {"]
    names = (("TOPS", iex.TOPS), ("DEEP", iex.DEEP), ("DEEP_PLUS", iex.DEEP_PLUS))
    out += [f"inline constexpr std::uint16_t {name} = 0x{value:04X};" for name, value in names]
    out += [
        f"inline constexpr std::size_t SEGMENT_LENGTH = {iex.SEGMENT.length};",
        f"inline constexpr std::uint8_t SEGMENT_VERSION = {iex.SEGMENT_VERSION};",
        f"inline constexpr std::uint8_t SALE_CROSS = {iex.SALE_CROSS};",
        "constexpr std::size_t length_of(std::uint16_t protocol, unsigned char type) noexcept {",
        "  switch (static_cast<std::uint32_t>(protocol) << 8 | type) {",
    ]
    for _, value in names:
        out += [f"    case 0x{value:04X}00U | '{m.code}': return {m.length};" for m in iex.by_code(value).values()]
    out += ["    default: return 0;", "  }", "}", *_offsets(iex.SEGMENT)]
    for m in iex.IEX:
        out += _offsets(m.layout, f"{m.layout.code}, ")
    return [*out, "}  // namespace iex", ""]


def _constants() -> list[str]:
    i64, size = "inline constexpr std::int64_t", "inline constexpr std::size_t"
    feature_codes = 1 << formats.FEATURE.width
    return [
        f'inline constexpr char ABI_HASH[] = "{abi_hash()}";',
        f"{size} DEPTH = {records.DEPTH};",
        f"{size} N_FEATURES = {records.N_FEATURES};",
        f"{size} N_HEADS = {records.N_HEADS};",
        f"{i64} NS_PER_S = {units.NS_PER_S};",
        f"{i64} TICK_NS = {units.TICK_NS};",
        f"inline constexpr std::uint32_t MAX_TICKS = {units.MAX_TICKS};",
        f"{i64} NULL_TS = INT64_MIN;",
        f"{i64} NULL_PX = INT64_MIN;",
        f"{size} TABLE_BYTES = {records.N_FEATURES * feature_codes};  // int8[N_FEATURES][{feature_codes}]",
        f"inline constexpr int SHIFT_MAX = {formats.SHIFT_MAX};",
        f"{i64} ACC_LIMIT = {formats.ACC.high + 1};  // a row's worst case must stay below",
        f"inline constexpr std::int32_t CODE_LOW = {formats.CODE.low};",
        f"inline constexpr std::int32_t CODE_HIGH = {formats.CODE.high};",
        f"inline constexpr int RESIDUAL_EXP_MAX = {formats.RESIDUAL_EXP_MAX};",
        "",
    ]


def _layers() -> list[str]:
    """Layers of the heads in file order."""
    acts = sorted({a for _, _, a in weightfile.LAYERS.values()})
    out = [
        "enum class Activation : std::uint8_t { " + ", ".join(acts) + " };",
        "struct LayerShape {",
        "  const char* name;",
        "  std::size_t out, in;",
        "  Activation activation;",
        "};",
        "inline constexpr LayerShape LAYERS[] = {",
    ]
    out += [f'    {{"{n}", {o}, {i}, Activation::{a}}},' for n, (o, i, a) in weightfile.LAYERS.items()]
    return [*out, "};", ""]


def _sides() -> list[str]:
    rows = [f"inline constexpr std::int8_t {s.name} = {int(s)};" for s in units.Side]
    return ["namespace side {", *rows, "}  // namespace side", ""]


def header() -> str:
    """The whole text of spec.hpp."""
    lines = [
        "// Generated by microrisk/spec/emit_cpp.py: change the Python specification, then run",
        "// `python -m microrisk.spec.emit_cpp`. A test compares this file with a fresh one.",
        "#pragma once",
        "",
        "#include <cstddef>",
        "#include <cstdint>",
        "#include <type_traits>",
        "",
        "// clang-format off",
        "namespace microrisk {",
        "",
        *_constants(),
        *_sides(),
    ]
    for name, enum in records.ENUMS.items():
        lines += _enum(name, enum)
    lines += _integrity_names()
    for name, dtype in records.RECORDS.items():
        lines += _struct(name, dtype)
    lines += [*_itch(), *_transports(), *_journal(), *_iex(), *_layers(), "}  // namespace microrisk", ""]
    return "\n".join(lines)


def main() -> None:
    """Rewrite the header."""
    HEADER.write_text(header())


if __name__ == "__main__":
    main()
