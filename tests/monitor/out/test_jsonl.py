"""The file of alerts: whole lines only, once each, over kills, full disks and rotation."""

import errno
import json
import os
import time
from datetime import UTC, datetime

import pytest
from alerts_made import made, until

from microrisk.errors import OutputError
from microrisk.monitor.out.jsonl import JsonLines


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_object_a_line_with_its_schema(tmp_path):
    out = JsonLines(tmp_path / "new" / "a.jsonl")
    for n in range(1, 4):
        assert out.put(made(n))
    out.close()
    assert [(line["n"], line["schema"]) for line in lines(out.path)] == [(1, 1), (2, 1), (3, 1)]
    assert out.path.stat().st_mode & 0o077 == 0


def test_a_torn_tail_is_cut_at_every_byte_and_ids_are_not_repeated(tmp_path):
    path = tmp_path / "a.jsonl"
    out = JsonLines(path)
    for n in (1, 2):
        out.put(made(n))
    out.close()
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for size in range(first, len(whole)):
        path.write_bytes(whole[:size])
        again = JsonLines(path)
        assert again.cut == size - first
        for n in (1, 2):
            again.put(made(n))
        again.close()
        assert path.read_bytes() == whole
        assert (again.repeated, again.written) == (1, 1)


def test_lines_that_are_none_do_not_stop_the_start(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": 3}\n\xff\n[]\n')
    out = JsonLines(path)
    out.put(made(1))
    out.close()
    assert path.read_bytes().count(b"\n") == 4


def test_a_full_disk_is_said_and_the_line_is_written_when_there_is_room(tmp_path, monkeypatch):
    out = JsonLines(tmp_path / "a.jsonl", retry_s=0.01)
    out.put(made(1))
    until(lambda: out.written == 1)
    real, full = os.write, [True]

    def write(fd, data):
        if fd == out._fd and full[0]:
            real(fd, bytes(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    out.put(made(2))
    until(lambda: out.failures >= 3)
    assert "No space left" in out.trouble
    assert [line["n"] for line in lines(out.path)] == [1]
    full[0] = False
    until(lambda: out.written == 2)
    out.put(made(3))
    out.close()
    assert [line["n"] for line in lines(out.path)] == [1, 2, 3]
    assert (out.trouble, out.dropped) == ("", 0)


def test_a_disk_that_stays_full_bounds_the_queue_and_the_end(tmp_path, monkeypatch):
    out = JsonLines(tmp_path / "a.jsonl", queue=3, retry_s=5.0)
    real = os.write

    def write(fd, data):
        if fd == out._fd:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    out.put(made(1))
    until(lambda: out.trouble)
    assert [out.put(made(n)) for n in range(2, 6)] == [True, True, False, False]
    begin = time.monotonic()
    out.close()
    assert time.monotonic() - begin < 4
    assert out.dropped == 5


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        JsonLines(tmp_path / "file" / "a.jsonl")


@pytest.mark.parametrize(
    "moment",
    ["2026-10-25T00:59:59", "2026-03-29T01:00:00", "2026-11-01T06:00:00", "2026-12-31T23:59:60", "2026-06-01T00:00:00"],
)
def test_files_put_aside_are_named_in_utc_whatever_the_local_clock_does(tmp_path, monkeypatch, moment):
    """Around the ends of summer time in Berlin and New York, a leap second (which POSIX time repeats), midnight."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        text = moment.replace(":60", ":59")
        at_s = int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
        # the clock is stepped back an hour in the middle: names are only names, none is written over
        clock = iter([at_s, at_s + 1, at_s - 3599, at_s, at_s, at_s + 1])
        out = JsonLines(tmp_path / "a.jsonl", max_bytes=1, clock=lambda: next(clock) * 10**9)
        for n in range(1, 7):
            out.put(made(n))
        out.close()
    finally:
        monkeypatch.undo()
        time.tzset()
    aside = sorted(p for p in tmp_path.iterdir() if p.name != "a.jsonl")
    assert len(aside) == 6
    assert sorted(line["n"] for p in aside for line in lines(p)) == [1, 2, 3, 4, 5, 6]
    stamp = text.replace("-", "").replace(":", "") + "Z"
    assert {p.name for p in aside if stamp in p.name} == {f"a.jsonl.{stamp}{s}" for s in ("", "-2", "-3")}
    assert out.trouble == ""
