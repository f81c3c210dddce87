"""The committed C++ header is the one that the specification gives, and the extension was built from it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from microrisk.core import ABI_HASH, ALL_INSTRUMENTS, check_abi
from microrisk.errors import SpecMismatch
from microrisk.spec import emit_cpp
from microrisk.spec.hashes import abi_hash
from microrisk.spec.messages import ITCH
from microrisk.spec.records import RECORDS


def test_header_is_up_to_date() -> None:
    assert emit_cpp.HEADER.read_text() == emit_cpp.header(), "run `python -m microrisk.spec.emit_cpp`"


def test_extension_was_built_from_this_specification() -> None:
    assert abi_hash() == ABI_HASH
    assert ALL_INSTRUMENTS == 0xFFFFFFFF


def test_other_records_are_refused_with_what_to_do() -> None:
    with pytest.raises(SpecMismatch, match=r"0123456789abcdef.*emit_cpp.*pip install"):
        check_abi("0123456789abcdef", abi_hash())


def _offset(dtype: np.dtype[np.void], field: str) -> int:
    assert dtype.fields is not None
    return int(dtype.fields[field][1])


def test_every_offset_is_asserted() -> None:
    text = emit_cpp.header()
    for name, dtype in RECORDS.items():
        assert f"static_assert(sizeof({name}) == {dtype.itemsize});" in text
        for field in dtype.names or ():
            assert f"static_assert(offsetof({name}, {field}) == {_offset(dtype, field)});" in text


def test_itch_lengths_are_all_there() -> None:
    text = emit_cpp.header()
    lengths = dict(re.findall(r"case '(\w)': return (\d+);", text))
    assert lengths == {m.code: str(m.length) for m in ITCH}
