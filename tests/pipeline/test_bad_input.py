"""Bad input, one row a kind: a typed error or a counted finding, with place and numbers, and nothing read is lost."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest

Make = Callable[..., bytes]


@dataclass(frozen=True)
class Case:
    """What is put behind (or in place of) two good orders, and what has to come of it.

    Attributes
    ----------
    make : (message maker, the good bytes) -> the file
    counts : integrity counts that are not zero
    place : what a finding or a notice must name
    live : orders that rest at the end
    strict : exit code under --strict
    """

    make: Callable[[Make, bytes], bytes]
    counts: dict[str, int]
    live: int
    place: dict[str, Any] = field(default_factory=dict)
    notice: str = ""
    strict: int = 0


def unknown_type(m: Make, good: bytes) -> bytes:
    return good + (12).to_bytes(2, "big") + b"z" + bytes(11)


def wrong_length(m: Make, good: bytes) -> bytes:
    damaged = m("D", ref=1)
    return good + (len(damaged) - 3).to_bytes(2, "big") + damaged[2:-1]


def bad_side(m: Make, good: bytes) -> bytes:
    message = bytearray(m("A", ref=3, side="B", shares=100, price=9_000))
    message[2 + 19] = ord("?")
    return good + bytes(message)


CASES = {
    "truncated inside a message": Case(
        lambda m, good: good + m("A", ref=3, side="B", shares=100, price=9_000)[:-7],
        {"malformed": 1}, 2, notice="offset", strict=3,
    ),
    "unknown type": Case(unknown_type, {"unknown_type": 1}, 2, {"kind": "unknown_type", "seq": 4}),
    "wrong length": Case(wrong_length, {"malformed": 1}, 2, {"kind": "malformed", "seq": 4}, strict=3),
    "impossible side": Case(bad_side, {"malformed": 1}, 2, {"kind": "malformed", "seq": 4}, strict=3),
    "unknown reference": Case(
        lambda m, good: good + m("D", ref=77), {"unknown_order": 1}, 2,
        {"kind": "unknown_order", "order": "77", "seq": 4},
    ),
    "over-execution": Case(
        lambda m, good: good + m("E", ref=1, shares=900, match=5), {"over_execute": 1}, 1,
        {"kind": "over_execute", "order": "1", "qty": "900"}, strict=3,
    ),
    "duplicate id": Case(
        lambda m, good: good + m("A", ref=2, side="S", shares=5, price=20_000), {"duplicate_order": 1}, 2,
        {"kind": "duplicate_order", "order": "2", "px": "2"}, strict=3,
    ),
    "no shares": Case(
        lambda m, good: good + m("A", ref=3, side="B", shares=0, price=9_000), {"zero_qty": 1}, 2, {"order": "3"},
    ),
    "crossed before the opening": Case(
        lambda m, good: good + m("A", ref=3, side="B", shares=5, price=20_000), {"crossed_preopen": 1}, 3,
        {"order": "3", "px": "2"},
    ),
    "crossed in trading": Case(
        lambda m, good: good + m("E", ref=1, shares=1, match=5) + m("A", ref=3, side="B", shares=5, price=20_000),
        {"crossed": 1}, 3, {"kind": "crossed", "order": "3", "seq": 5}, strict=3,
    ),
    "bytes behind the end mark": Case(lambda m, good: good + b"\0\0" + b"more", {"trailing": 4}, 2),
}  # fmt: skip


@pytest.fixture
def good(itch_message: Make) -> bytes:
    """A directory message, a bid and an ask."""
    directory = {
        "market_category": "Q", "financial_status": "N", "round_lot_size": 100, "round_lots_only": "N",
        "issue_classification": "C", "issue_subtype": "Z ", "authenticity": "P", "short_sale_threshold": "N",
        "ipo_flag": "N", "luld_tier": "1", "etp_flag": "N", "etp_leverage": 0, "inverse": "N",
    }  # fmt: skip
    orders = [
        itch_message("A", ref=1, side="B", shares=100, price=10_000),
        itch_message("A", ref=2, side="S", shares=100, price=10_100),
    ]
    return itch_message("R", **directory) + b"".join(orders)


@pytest.mark.parametrize("name", CASES)
def test_counted_with_its_place(
    name: str, good: bytes, itch_message: Make, tmp_path: Path, run: Callable[..., Any]
) -> None:
    case = CASES[name]
    path, orders = tmp_path / "2025-01-06.itch", tmp_path / "orders.parquet"
    path.write_bytes(case.make(itch_message, good))
    code, out, err = run("replay", path, "--orders", orders, "--json")
    assert code == 0
    assert {k: v for k, v in out["integrity"].items() if v} == case.counts
    assert out["live_orders"] == case.live == len(pl.read_parquet(orders))
    if case.place:
        assert any(case.place.items() <= f.items() for f in out["findings"]), out["findings"]
        assert next(iter(case.counts)) in err
    assert case.notice in " ".join(out["notices"])
    assert run("replay", path, "--strict")[0] == case.strict


def test_a_hole_in_a_capture_is_a_gap(session: Any, tmp_path: Path, run: Callable[..., Any]) -> None:
    from microrisk.market.write import write_mold_pcap

    path = write_mold_pcap(session, tmp_path / "sim_2025-01-06.pcap", drop=[20, 21])
    code, out, _ = run("replay", path, "--json")
    assert code == 0
    assert out["integrity"]["gap"] == 1
    gap = next(f for f in out["findings"] if f["kind"] == "gap")
    assert session.start_ns < gap["ts_event"] < session.start_ns + 240 * 10**9
    assert run("replay", path, "--strict")[0] == 3


def test_messages_without_their_snapshot(tmp_path: Path, run: Callable[..., Any]) -> None:
    """A book that begins in the middle: every unknown order is counted, and the run goes on."""
    lines = [
        {"type": "done", "side": "buy", "order_id": f"o{k}", "reason": "canceled", "product_id": "BTC-USD",
         "price": "10.0", "remaining_size": "1", "sequence": k, "time": "2018-07-13T20:47:11.025000Z"}
        for k in range(1, 4)
    ]  # fmt: skip
    path = tmp_path / "messages.json"
    path.write_text(json.dumps(lines))
    code, out, _ = run("replay", path, "--json")
    assert code == 0
    assert out["messages"] == 3
    assert out["live_orders"] == 0
    assert out["integrity"]["unknown_order"] + out["integrity"]["never_rested"] == 3


@pytest.mark.parametrize(
    ("name", "data", "code", "text", "named"),
    [
        ("empty.itch", b"", 3, "empty", None),
        ("end_mark_only.itch", b"\0\0", 3, "message", "itch50"),
        ("cut.itch", b"\0\x24A\0\x01", 3, "message", "itch50"),
        ("garbage.itch", bytes(range(7, 250)) * 5, 2, "format", None),
        ("empty.gz", gzip.compress(b""), 3, "empty", None),
        ("cut.gz", gzip.compress(b"\0\x0cS" * 9)[:12], 3, "message", "itch50"),
        ("words.txt", b"not a feed at all\n" * 20, 2, "--format", None),
    ],
)
def test_nothing_could_be_read(
    name: str, data: bytes, code: int, text: str, named: str | None, tmp_path: Path, run: Callable[..., Any]
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    how = [] if named is None else ["--format", named]
    got, out, err = run("replay", path, *how, "--bbo", tmp_path / "bbo.parquet", "--json")
    assert (got, out["exit"]) == (code, code)
    assert text in out["error"]
    assert err.splitlines()[-1] == f"microrisk: {out['error']}"
    assert not (tmp_path / "bbo.parquet").exists()


def test_a_missing_file_and_a_folder_without_any(tmp_path: Path, run: Callable[..., Any]) -> None:
    code, out, _ = run("replay", tmp_path / "nowhere.itch", "--json")
    assert code == 2
    assert str(tmp_path / "nowhere.itch") in out["error"]
    (tmp_path / "bare").mkdir()
    code, out, _ = run("replay", tmp_path / "bare", "--json")
    assert code in (2, 3)
    assert "bare" in out["error"]


def test_another_format_than_named(itch: Path, run: Callable[..., Any]) -> None:
    code, out, _ = run("replay", itch, "--format", "dbn", "--json")
    assert code == 3
    assert out["kind"] == "FeedError"


def test_two_formats_are_no_feed(itch: Path, tmp_path: Path, run: Callable[..., Any]) -> None:
    other = tmp_path / "AAPL_2012-06-21_34200000_57600000_message_1.csv"
    other.write_text("34200.1,1,5,100,10000,1\n")
    code, out, _ = run("replay", itch, other, "--json")
    assert code == 2
    assert "lobster" in out["error"]


def test_a_compressed_file_that_breaks_off_keeps_what_was_read(
    itch: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    whole = gzip.compress(itch.read_bytes())
    path, orders = tmp_path / "cut_2025-01-06.itch.gz", tmp_path / "orders.parquet"
    path.write_bytes(whole[: len(whole) // 2])
    code, out, _ = run("replay", path, "--orders", orders, "--json")
    everything = run("replay", itch, "--json")[1]["messages"]
    assert 0.3 * everything < out["messages"] < 0.7 * everything
    assert len(pl.read_parquet(orders)) == out["live_orders"] > 0
    told = " ".join([*out["notices"], out.get("error", "")])
    assert str(path) in told
    assert code == (3 if "error" in out else 0)
    assert run("replay", path, "--strict", "--json")[0] == 3


def test_a_feed_that_fails_in_the_middle_writes_what_it_gave(
    session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
) -> None:
    """An unreadable block of the disk: the error is told with its place, the outputs hold what came before."""
    from microrisk.errors import FeedError
    from microrisk.pipeline import spine
    from microrisk.pipeline.memory import simulated

    class Breaks:
        def __init__(self) -> None:
            self._feed = simulated(session).open()

        def pump(self, engine: Any) -> bool:
            if self._feed.messages:
                raise FeedError("cannot read: Input/output error", path="day.itch", offset=4096)
            return self._feed.pump(engine)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._feed, name)

    monkeypatch.setattr(spine, "open_feed", lambda *a, **k: Breaks())
    out = tmp_path / "bbo.parquet"
    code, found, err = run("replay", "day.itch", "--bbo", out, "--json")
    assert code == 3
    assert found["error"] == "cannot read: Input/output error (file day.itch, at 4096)"
    assert "the input broke off" in err
    assert found["messages"] > 0
    assert len(pl.read_parquet(out)) == found["outputs"]["bbo"] > 0
