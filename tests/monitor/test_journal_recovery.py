"""What is read back of a journal, and what of a damaged one: the end is cut off and kept, anything else is refused."""

from pathlib import Path

import pytest

from microrisk.errors import JournalError
from microrisk.monitor.journal import Block, Reader, records, segments
from microrisk.spec.journal import Kind
from tests.monitor.journal_bytes import block, journal, record


def some(n: int, size: int = 3) -> list[list[bytes]]:
    return [[record(1, Kind.TEXT, 10 * i, i, bytes([i]) * size), record(0, Kind.CLOCK, 10 * i)] for i in range(n)]


def read(folder: Path, **start: int) -> tuple[list[Block], Reader]:
    reader = Reader(folder, **start)
    return list(reader), reader


def test_blocks_come_back_in_order_over_segments(tmp_path: Path) -> None:
    crcs = journal(tmp_path, some(3), some(2), some(1))
    found, reader = read(tmp_path)
    assert [b.number for b in found] == list(range(6))
    assert [b.crc for b in found] == crcs
    assert (reader.state.number, reader.state.crc, reader.state.cut) == (6, crcs[-1], None)
    first = list(records(found[2].payload))
    assert [(r.feed, r.kind, r.recv_ns, r.seq, bytes(r.body)) for r in first] == [
        (1, Kind.TEXT, 20, 2, b"\2\2\2"),
        (0, Kind.CLOCK, 20, 0, b""),
    ]


@pytest.mark.parametrize("start", range(7))
def test_reading_begins_where_a_checkpoint_was_made(tmp_path: Path, start: int) -> None:
    crcs = journal(tmp_path, some(3), some(2), some(1))
    found, reader = read(tmp_path, start=start, crc=crcs[start - 1] if start else 0)
    assert [b.number for b in found] == list(range(start, 6))
    assert reader.state.number == 6


def test_a_checkpoint_of_another_journal_is_noticed(tmp_path: Path) -> None:
    crcs = journal(tmp_path, some(3), some(3))
    with pytest.raises(JournalError, match="checksum of block 3"):
        read(tmp_path, start=3, crc=crcs[2] ^ 1)


def test_every_torn_tail_is_cut_off(tmp_path: Path) -> None:
    """The last block ends at any of its bytes: what was whole before it is read, the rest is kept aside."""
    last, _ = block(0, 0, *some(1)[0])
    for kept in range(len(last)):
        folder = tmp_path / str(kept)
        crcs = journal(folder, some(4))
        path = segments(folder)[-1][1]
        whole = path.stat().st_size - len(last)
        path.write_bytes(path.read_bytes()[: whole + kept])
        found, reader = read(folder)
        assert [b.crc for b in found] == crcs[:3]
        assert path.stat().st_size == whole
        assert (reader.state.cut is None) == (kept == 0)
        again, second = read(folder)
        assert [b.crc for b in again] == crcs[:3]
        assert second.state.cut is None


def test_every_flipped_bit_of_the_last_block_is_found(tmp_path: Path) -> None:
    last, _ = block(0, 0, *some(1)[0])
    crcs = journal(tmp_path, some(3))
    path = segments(tmp_path)[-1][1]
    whole = path.read_bytes()
    for place in range(8 * len(last)):
        data = bytearray(whole)
        data[len(data) - len(last) + place // 8] ^= 1 << place % 8
        path.write_bytes(data)
        found, reader = read(tmp_path)
        assert [b.crc for b in found] == crcs[:2], place
        assert reader.state.cut is not None
        torn = next(tmp_path.glob("*.torn"))
        assert torn.read_bytes() == bytes(data[len(data) - len(last) :])
        torn.unlink()


def test_damage_in_front_of_whole_blocks_is_not_guessed_over(tmp_path: Path) -> None:
    last, _ = block(0, 0, *some(1)[0])
    for place in range(0, len(last), 5):
        folder = tmp_path / str(place)
        journal(folder, some(3))
        path = segments(folder)[-1][1]
        data = bytearray(path.read_bytes())
        data[len(data) - 2 * len(last) + place] ^= 16
        path.write_bytes(data)
        with pytest.raises(JournalError, match="whole block begins"):
            read(folder)
        assert path.read_bytes() == bytes(data)


def test_a_segment_that_is_missing_or_cut_in_the_middle_is_refused(tmp_path: Path) -> None:
    journal(tmp_path / "a", some(2), some(2), some(2))
    segments(tmp_path / "a")[1][1].unlink()
    with pytest.raises(JournalError, match="block 4 where block 2 is due"):
        read(tmp_path / "a")
    journal(tmp_path / "b", some(2), some(2))
    path = segments(tmp_path / "b")[0][1]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(JournalError, match="another segment follows"):
        read(tmp_path / "b")
    journal(tmp_path / "c", some(2), some(2))
    segments(tmp_path / "c")[0][1].unlink()
    with pytest.raises(JournalError, match="block 0 is due"):
        read(tmp_path / "c")


def test_an_empty_folder_is_a_new_journal(tmp_path: Path) -> None:
    found, reader = read(tmp_path)
    assert found == []
    assert (reader.state.number, reader.state.crc) == (0, 0)
    (tmp_path / "0000000000000000.journal").write_bytes(b"")
    assert read(tmp_path)[0] == []


def test_a_record_that_leaves_its_block_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="a record of 99 bytes"):
        list(records(b"\x63\0\0\0" + bytes(30)))
    with pytest.raises(JournalError, match="3 bytes behind"):
        list(records(record(1, Kind.CLOCK) + b"abc"))
