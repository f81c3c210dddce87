"""replay: the contract of its JSON and of its three files, against the naive book and real recordings."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from microrisk.book import state_hash
from microrisk.book.reference import ReferenceEngine
from microrisk.errors import UsageError
from microrisk.market.simulator import Session
from microrisk.market.write import write_itch, write_mold_pcap
from microrisk.pipeline import replay
from microrisk.pipeline.memory import Recorded, simulated
from microrisk.pipeline.spine import Spine, decimal
from microrisk.pipeline.tables import Names
from microrisk.spec.records import BBO, EVENT, Action, Flag, Integrity
from microrisk.spec.units import NULL_PX, NULL_TS, Side

STAMPS = {"ts_event": pl.Int64, "ts_recv": pl.Int64, "seq": pl.UInt64}
BEST = dict.fromkeys(("bid_px", "ask_px", "bid_qty", "ask_qty"), pl.Int64)


def test_json_has_every_field_of_the_contract(itch: Path, run: Callable[..., Any]) -> None:
    code, out, err = run("replay", itch, "--json")
    assert code == 0
    fields = "format messages events live_orders first_ts last_ts seconds messages_per_second state_hash"
    assert set(fields.split()) <= set(out)
    assert set(out["integrity"]) == {k.name for k in Integrity}
    assert [i["id"] for i in out["instruments"]] == ["SIM1.XNAS", "SIM2.XNAS"]
    assert out["instruments"][0] == {"id": "SIM1.XNAS", "venue": "XNAS", "symbol": "SIM1", "tick": "0.0001", "lot": "1"}
    assert out["format"] == "itch50"
    assert out["integrity"]["malformed"] == 0
    assert "integrity: nothing found" in err


def test_numbers_are_those_of_the_naive_book(short: Session, tmp_path: Path) -> None:
    result = replay(write_itch(short, tmp_path / "short_2025-01-06.itch"))
    twin = ReferenceEngine()
    for events in simulated(short).open().events():
        twin.run_events(events)
    assert result.live_orders == twin.live_orders
    assert result.messages == len(short.events) + 4 + 2  # system events and directories
    assert result.state_hash == state_hash(twin, ["SIM1.XNAS", "SIM2.XNAS"])
    assert (result.first_ts, result.last_ts) == (short.start_ns, int(short.events["ts_event"][-1]))


def test_bbo_is_that_of_the_naive_book(short: Session, tmp_path: Path) -> None:
    capture, out = write_mold_pcap(short, tmp_path / "short_2025-01-06.pcap"), tmp_path / "bbo.parquet"
    result = replay(capture, bbo=out, venue="SIMX")
    frame = pl.read_parquet(out)
    assert dict(frame.schema) == STAMPS | {"instrument": pl.Categorical} | BEST
    twin = ReferenceEngine()
    twin.record_bbo()
    for events in simulated(short).open().events():
        twin.run_events(events)
    expected = twin.take_bbo()
    assert len(frame) == len(expected) == result.outputs["bbo"]
    for name in BEST:
        px = name.endswith("px")
        empty = expected[f"{name[:3]}_px"] == NULL_PX
        values = np.where(empty, 0, expected[name]) * (100_000 if px else 1)
        assert frame[name].is_null().to_list() == empty.tolist()
        assert frame[name].fill_null(0).to_list() == values.tolist()
    assert frame["instrument"].cast(pl.String).to_list() == [f"SIM{i}.SIMX" for i in expected["instrument"]]
    assert frame["ts_event"].to_list() == expected["ts_event"].tolist()
    # a packet leaves with its last message
    late = frame["ts_recv"] - frame["ts_event"]
    assert late.null_count() == 0
    assert late.min() == 0
    assert late.max() < 10**9


def test_an_itch_file_has_no_receive_time_and_counts_messages(itch: Path, tmp_path: Path) -> None:
    out = tmp_path / "bbo.parquet"
    replay(itch, bbo=out)
    frame = pl.read_parquet(out)
    assert frame["ts_recv"].null_count() == len(frame)
    assert frame["seq"].is_sorted()
    assert frame["seq"][0] >= 3


def test_book_lists_begin_with_the_best(itch: Path, tmp_path: Path) -> None:
    out = tmp_path / "book.parquet"
    replay(itch, book=out, depth=4)
    frame = pl.read_parquet(out)
    for side in ("bid", "ask"):
        assert frame[f"{side}_px_levels"].dtype == pl.List(pl.Int64)
        lengths = frame[f"{side}_px_levels"].list.len()
        assert lengths.max() == 4
        assert (lengths == frame[f"{side}_qty_levels"].list.len()).all()
        for what in ("px", "qty"):
            first = frame[f"{side}_{what}_levels"].list.first()
            assert first.equals(frame[f"{side}_{what}"], null_equal=True)
        steps = frame[f"{side}_px_levels"].list.diff().list.drop_nulls().explode().drop_nulls()
        assert ((steps < 0) if side == "bid" else (steps > 0)).all()


def test_orders_are_the_resting_ones_in_queue_order(itch: Path, tmp_path: Path) -> None:
    out = tmp_path / "orders.parquet"
    result = replay(itch, orders=out)
    frame = pl.read_parquet(out)
    assert frame.columns == ["instrument", "id", "side", "px", "qty", "priority"]
    assert frame.schema["priority"] == pl.UInt64
    assert len(frame) == result.live_orders
    assert set(frame["side"]) == {"B", "A"}
    queues = frame.group_by("instrument", "side", "px", maintain_order=True).agg("priority")
    for queue in queues["priority"]:
        assert queue.to_list() == list(range(len(queue)))


def test_outputs_do_not_change_what_is_found(itch: Path, tmp_path: Path) -> None:
    plain = replay(itch)
    full = replay(itch, bbo=tmp_path / "a", book=tmp_path / "b", orders=tmp_path / "c")
    assert plain.state_hash == full.state_hash
    assert plain.integrity == full.integrity


def test_neither_numba_nor_torch_is_loaded(itch: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from microrisk.cli import main; "
        f"assert main(['replay', {str(itch)!r}, '--bbo', {str(tmp_path / 'b')!r}, '--json']) == 0; "
        "loaded = {'numba', 'torch', 'llvmlite'} & set(sys.modules); assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)


@pytest.mark.parametrize(
    ("value", "exp", "text"),
    [(10_000, 4, "1"), (1, 4, "0.0001"), (100, 0, "100"), (-2_500, 3, "-2.5"), (0, 8, "0"), (1, 8, "0.00000001")],
)
def test_decimal_strings(value: int, exp: int, text: str) -> None:
    assert decimal(value, exp) == text
    assert Decimal(text) == Decimal(value).scaleb(-exp)


class _Units:
    def get(self, index: int) -> Any:
        from microrisk.feed.base import Instrument

        return Instrument("X.COINBASE", "COINBASE", "X", 8, 8) if index == 1 else None


def test_prices_beyond_int64_nano_are_null_and_counted() -> None:
    names = Names(_Units())
    limit = (2**63 - 1) // 10
    px = np.array([limit, limit + 1, -limit - 1, NULL_PX, 7], np.int64)
    values, null, lost = names.nano(px, names.positions(np.ones(5, np.uint32)))
    assert null.tolist() == [False, True, True, True, False]
    assert lost == 2
    assert values[[0, 4]].tolist() == [limit * 10, 70]


def test_an_order_out_of_range_rests_and_is_reported() -> None:
    event = np.zeros(1, EVENT)
    event["action"], event["flags"], event["side"] = int(Action.ADD), int(Flag.LAST), int(Side.ASK)
    event["order_id"], event["px"], event["qty"], event["instrument"] = 9, 10**18, 5, 1
    event["ts_recv"], event["seq"] = NULL_TS, 77
    spine = Spine(Recorded(event, {1: _Units().get(1)}))
    for _ in spine.chunks():
        pass
    assert spine.engine.live_orders == 1
    assert spine.integrity()["px_range"] == 1
    (found,) = spine.findings()
    assert found == {
        "kind": "px_range", "instrument": "X.COINBASE", "seq": 77, "ts_event": 0,
        "order": "9", "px": "10000000000", "qty": "0.00000005",
    }  # fmt: skip


def test_an_instrument_without_a_name_keeps_its_number() -> None:
    names = Names(_Units())
    assert names[1] == "X.COINBASE"
    assert names[5] == "#5"
    rows = np.zeros(2, BBO)
    rows["instrument"] = [5, 1]
    column = names.column(names.positions(rows["instrument"]))
    assert pa.array(column).to_pylist() == ["#5", "X.COINBASE"]


def test_depth_must_be_positive(itch: Path) -> None:
    with pytest.raises(UsageError, match="--depth 0"):
        replay(itch, book="x", depth=0)


@pytest.mark.realdata
def test_coinbase_ends_in_the_second_image(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "coinbase_l3_2018"
    out = tmp_path / "orders.parquet"
    result = replay(folder / "messages.json.gz", snapshot=str(folder / "beginning_level_3.json.gz"), orders=out)
    assert (result.messages, result.live_orders) == (36_743, 66_833)
    assert not result.hard
    with gzip.open(folder / "ending_level_3.json.gz") as file:
        image = json.load(file)
    expected = {
        (order[2], side): (Decimal(order[0]), Decimal(order[1]))
        for side, name in (("B", "bids"), ("A", "asks"))
        for order in image[name]
    }
    frame = pl.read_parquet(out)
    found = {
        (i, s): (None if p is None else Decimal(p).scaleb(-9), Decimal(q).scaleb(-8))
        for i, s, p, q in frame.select("id", "side", "px", "qty").iter_rows()
    }
    assert found.keys() == expected.keys()
    far = {k for k, (px, _) in expected.items() if px * 10**9 > 2**63 - 1}
    assert {k for k, (px, _) in found.items() if px is None} == far
    assert result.integrity["px_range"] >= len(far) > 0
    assert all(found[k] == expected[k] for k in expected.keys() - far)


@pytest.mark.realdata
def test_cme_is_crossed_before_the_opening_only(data_dir: Path) -> None:
    files = sorted((data_dir / "databento_cme_es").glob("esh4*.dbn.zst"))
    result = replay(files)
    assert result.messages == 8_725 + 68_792
    assert (result.integrity["crossed"], result.integrity["crossed_preopen"]) == (0, 891)
    assert result.integrity["unknown_fill"] == 7
    assert result.strict_exit_code() == 0
    assert [i["id"] for i in result.instruments] == ["ESH4.GLBX"]
