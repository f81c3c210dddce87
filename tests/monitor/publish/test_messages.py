"""Messages out of files: plain, compressed, captured, converted; what is not whole is an error."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from microrisk.errors import FeedError, UsageError
from microrisk.feed.encode import encode_message, frame
from microrisk.feed.mold import packetize, write_capture
from microrisk.monitor.publish import itch_messages, timed

SAID = [encode_message("S", locate=0, tracking=i, timestamp=1000 + i, event="O") for i in range(9000)]


@pytest.mark.parametrize("packed", [False, True])
def test_files_plain_and_compressed_one_after_another(tmp_path: Path, packed: bool) -> None:
    paths = [tmp_path / "a.itch", tmp_path / "b.itch"]
    for path, part in zip(paths, (SAID[:5000], SAID[5000:]), strict=True):
        data = frame(part, end_mark=True)
        path.write_bytes(gzip.compress(data) if packed else data)
    heard: list[float] = []
    assert list(itch_messages(paths, told=heard.append)) == [(1000 + i, m) for i, m in enumerate(SAID)]
    assert heard == sorted(heard)
    assert 0 < heard[0] <= 1


def test_a_capture_gives_receive_times_and_each_message_once(tmp_path: Path) -> None:
    path = tmp_path / "day.pcap"
    packets = list(packetize((7_000_000 + 10 * i, m) for i, m in enumerate(SAID[:200])))
    write_capture(path, [p for packet in packets for p in (packet, packet)])
    out = list(itch_messages([path]))
    assert [m for _, m in out] == SAID[:200]
    assert [ts for ts, _ in out] == sorted(ts for ts, _ in out)
    assert out[0][0] >= 7_000_000


@pytest.mark.realdata
def test_another_recording_of_orders_is_converted(data_dir: Path) -> None:
    folder = data_dir / "coinbase_l3_2018"
    out = itch_messages([folder / "messages.json.gz"], snapshot=str(folder / "beginning_level_3.json.gz"))
    kinds = [m[:1] for _, m in out]
    assert kinds[0] == b"R"
    assert kinds.count(b"A") > 60_000


def test_a_file_that_ends_inside_a_message(tmp_path: Path) -> None:
    path = tmp_path / "cut.itch"
    path.write_bytes(frame(SAID[:20])[:-5])
    with pytest.raises(FeedError, match="9 bytes"):
        list(itch_messages([path]))


def test_no_such_file() -> None:
    with pytest.raises(UsageError, match=r"nowhere\.itch"):
        next(itch_messages(["nowhere.itch"]))


def test_messages_too_short_for_a_time_keep_the_one_before() -> None:
    assert list(timed([SAID[3], b"x", b""])) == [(1003, SAID[3]), (1003, b"x"), (1003, b"")]
