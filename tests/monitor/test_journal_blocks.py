"""Blocks that the core writes, read with struct and zlib alone; and disks that are full, slow or broken."""

from __future__ import annotations

import os
import random
import resource
import signal
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EFBIG, ENOSPC
from pathlib import Path

import pytest

from microrisk.core import Journal, crc32
from microrisk.spec.journal import MAX_BODY, NO_FEED, Kind
from tests.monitor.journal_bytes import parse

Written = tuple[int, int, int, int, int, bytes]


@contextmanager
def journal_file(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)


def some(rng: random.Random, n: int, longest: int = 300) -> list[Written]:
    return [
        (
            rng.choice([0, 7, NO_FEED]),
            int(rng.choice(list(Kind))),
            rng.randrange(256),
            rng.randrange(-(1 << 63), 1 << 63),
            rng.randrange(1 << 64),
            rng.randbytes(rng.choice([0, 1, rng.randrange(longest)])),
        )
        for _ in range(n)
    ]


def blocks(data: bytes, number: int = 0, crc: int = 0) -> list[list[Written]]:
    """Records of every block; the chain is checked on the way."""
    out = []
    while data:
        magic, size, found, n, check = struct.unpack_from("<4sIQII", data)
        assert magic == b"BLK1"
        assert found == number
        crc = zlib.crc32(struct.pack("<I", crc) + data[:20] + data[24 : 24 + size])
        assert check == crc
        out.append(parse(data[24 : 24 + size]))
        assert len(out[-1]) == n
        data, number = data[24 + size :], number + 1
    return out


def test_crc_is_the_one_of_zlib() -> None:
    rng = random.Random(1)
    for size in [*range(70), 1000, 65537]:
        data, start = rng.randbytes(size), rng.randrange(1 << 32)
        assert crc32(data) == zlib.crc32(data), size
        assert crc32(data, start) == zlib.crc32(data, start), size
        assert crc32(memoryview(data)[size // 3 :], start) == zlib.crc32(data[size // 3 :], start), size


@pytest.mark.parametrize("seed", range(5))
def test_blocks_over_files(tmp_path: Path, seed: int) -> None:
    """Records come back as they went in; number and chain go over from file to file."""
    rng = random.Random(seed)
    sent = [some(rng, rng.randint(1, 50)) for _ in range(20)]
    number, crc = rng.randrange(1 << 40), rng.randrange(1 << 32)
    with journal_file(tmp_path / "a") as first, journal_file(tmp_path / "b") as second:
        journal = Journal(first, number=number, crc=crc)
        for k, group in enumerate(sent):
            if k == 12:
                journal.switch(second)
            for written in group:
                journal.append(*written)
            assert journal.pending_records == len(group)
            assert journal.flush() == 24 + sum(24 + len(w[5]) for w in group)
            assert journal.flush() == 0
        data = (tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes()
        assert blocks((tmp_path / "a").read_bytes(), number, crc) == sent[:12]
        assert blocks(data, number, crc) == sent
        assert (journal.number, journal.written_bytes, journal.pending_records) == (number + 20, len(data), 0)
        assert journal.crc == struct.unpack_from("<I", data, len(data) - 4 - sum(24 + len(w[5]) for w in sent[-1]))[0]


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    with journal_file(tmp_path / "a") as fd:
        journal = Journal(fd)
        with pytest.raises(ValueError, match=f"{MAX_BODY + 1} bytes"):
            journal.append(0, Kind.TEXT, 0, 0, 0, bytes(MAX_BODY + 1))
        assert journal.pending_records == 0
        journal.append(0, Kind.TEXT, 0, 0, 0, bytes(MAX_BODY))
        with pytest.raises(ValueError, match="flush"):
            journal.append(0, Kind.TEXT, 0, 0, 0, bytes(MAX_BODY))
        with pytest.raises(RuntimeError, match="pending"):
            journal.switch(fd)
        assert journal.pending_records == 1


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writes beyond `size` bytes of any file fail, as on a full disk: in part first, then whole."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("kept", [0, 1, 23, 24, 500])
def test_a_full_disk_leaves_whole_blocks(tmp_path: Path, kept: int) -> None:
    """Whatever part of the block still fitted is cut off again; once there is room the block is written, once."""
    rng = random.Random(kept)
    one, two = some(rng, 20), [*some(rng, 20), (0, 1, 0, 0, 1, bytes(1000))]
    path = tmp_path / "a"
    with journal_file(path) as fd:
        journal = Journal(fd)
        for written in one:
            journal.append(*written)
        whole = journal.flush()
        for written in two:
            journal.append(*written)
        for _ in range(2):
            with largest_file(whole + kept), pytest.raises(OSError, match="journal") as caught:
                journal.flush()
            assert caught.value.errno == EFBIG
            assert path.stat().st_size == whole
            assert (journal.number, journal.pending_records) == (1, len(two))
        journal.append(*one[0])
        journal.flush()
        assert blocks(path.read_bytes()) == [one, [*two, one[0]]]


def test_no_room_at_all() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        journal = Journal(fd)
        journal.append(0, Kind.CLOCK, 0, 1, 0, b"")
        with pytest.raises(OSError, match="journal") as caught:
            journal.flush()
        assert caught.value.errno == ENOSPC
        assert journal.pending_records == 1
    finally:
        os.close(fd)


def test_short_writes_and_signals_do_not_tear_a_block() -> None:
    """Into a pipe that holds 4 KiB, while a signal comes every millisecond and the reader is slow."""
    rng = random.Random(9)
    sent = some(rng, 2000)
    reading, writing = os.pipe()
    got = bytearray()
    calls: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: calls.append(1))
    reader = threading.Thread(target=lambda: [got.extend(p) for p in iter(lambda: os.read(reading, 700), b"")])
    try:
        journal = Journal(writing)
        for written in sent:
            journal.append(*written)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        reader.start()
        size = journal.flush()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        os.close(writing)
        reader.join()
        os.close(reading)
    assert len(got) == size > 65536
    assert blocks(bytes(got)) == [sent]
