"""convert: what comes out, read again, is what went in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from microrisk.core import Engine
from microrisk.errors import EncodeError, UsageError
from microrisk.pipeline import convert, replay
from microrisk.pipeline.lobster_out import write_lobster
from microrisk.pipeline.memory import Recorded
from microrisk.spec.records import EVENT, Action, Flag

DATE = "2025-01-06"


def test_itch_of_itch_has_the_same_books(itch: Path, tmp_path: Path) -> None:
    result = convert(itch, to="itch50", out=tmp_path / f"again_{DATE}.itch")
    assert any(f"--date {DATE}" in n for n in result.notices)
    first, again = replay(itch), replay(tmp_path / f"again_{DATE}.itch")
    assert again.state_hash == first.state_hash
    assert (again.first_ts, again.last_ts) == (first.first_ts + 3_322_259, first.last_ts)
    assert again.events == first.events
    assert list(result.files) == [str(tmp_path / f"again_{DATE}.itch"), str(tmp_path / f"again_{DATE}.itch.scale.json")]


@pytest.mark.realdata
def test_itch_of_coinbase_keeps_what_fits(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "coinbase_l3_2018"
    options = {"snapshot": str(folder / "beginning_level_3.json.gz")}
    result = convert(folder / "messages.json.gz", to="itch50", out=tmp_path / "btc.itch", **options)
    assert "left out or changed: " in result.notices[-1]
    again = replay(tmp_path / "btc.itch", date="2018-07-13", venue="COINBASE")
    whole = replay(folder / "messages.json.gz", **options)
    assert 0.9 < again.live_orders / whole.live_orders <= 1
    assert not again.hard


def test_catalog_layout_and_content(itch: Path, tmp_path: Path, run: Callable[..., Any]) -> None:
    code, out, _ = run("convert", itch, "--to", "parquet", "--out", tmp_path / "cat", "--json")
    assert code == 0
    found = sorted(str(p.relative_to(tmp_path / "cat")) for p in (tmp_path / "cat").rglob("*.parquet"))
    assert len(found) == len(out["files"]) == 6
    assert not [p for p in (tmp_path / "cat").iterdir() if p.name != "data"]
    replay(itch, bbo=tmp_path / "bbo.parquet")
    whole = pl.read_parquet(tmp_path / "bbo.parquet")
    for path in found:
        data, kind, name, span = path.split("/")
        assert data == "data"
        frame = pl.read_parquet(tmp_path / "cat" / path)
        start, end = (int(x) for x in span.removesuffix(".parquet").split("-"))
        assert (frame["ts_event"].min(), frame["ts_event"].max()) == (start, end)
        assert frame["instrument"].cast(pl.String).unique().to_list() == [name]
        if kind == "bbo":
            mine = whole.filter(pl.col("instrument").cast(pl.String) == name)
            assert frame.drop("instrument").equals(mine.drop("instrument"))


def test_trades_of_the_catalog_carry_price_size_and_aggressor(itch: Path, session: Any, tmp_path: Path) -> None:
    convert(itch, to="parquet", out=tmp_path)
    (path,) = (tmp_path / "data" / "trades" / "SIM1.XNAS").iterdir()
    frame = pl.read_parquet(path)
    e = session.events
    traded = (e["instrument"] == 1) & (
        ((e["action"] == int(Action.REDUCE)) & (e["flags"] & int(Flag.EXEC) != 0)) | (e["action"] == int(Action.TRADE))
    )
    assert len(frame) == np.count_nonzero(traded)
    assert frame["qty"].to_list() == e["qty"][traded].tolist()
    sides = {1: "A", -1: "B", 0: "N"}  # the aggressor is the other one
    assert frame["aggressor"].cast(pl.String).to_list() == [sides[int(s)] for s in e["side"][traded]]
    assert frame["px"].null_count() == 0


def test_lobster_pair_holds_the_books(itch: Path, session: Any, tmp_path: Path) -> None:
    result = convert(itch, to="lobster", out=tmp_path / "lob")
    messages = sorted(p for p in map(Path, result.files) if "_message_" in p.name)
    assert [p.name.split("_")[:2] for p in messages] == [["SIM1", DATE], ["SIM2", DATE]]
    for index, path in enumerate(messages, 1):
        again = replay(path)
        assert not again.hard
        engine = Engine()
        engine.run_events(np.ascontiguousarray(session.events[session.events["instrument"] == index]))
        image = path.with_name(path.name.replace("_message_", "_orderbook_")).read_text().splitlines()[-1]
        cells = np.array(image.split(","), np.int64).reshape(-1, 4)
        bids, asks = engine.levels(index, 10)
        assert cells[: len(asks), :2].tolist() == asks.tolist()
        assert cells[: len(bids), 2:].tolist() == bids.tolist()


@pytest.mark.realdata
def test_lobster_of_lobster_is_the_same_bytes(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "lobster_amzn_aapl"
    source = next(folder.glob("AAPL*message*.csv"))
    result = convert(source, to="lobster", out=tmp_path)
    assert len(result.files) == 2
    for path in map(Path, result.files):
        assert path.read_bytes() == (folder / path.name).read_bytes()


def one(action: Action, **fields: int) -> np.ndarray[Any, Any]:
    event = np.zeros(1, EVENT)
    event["action"], event["flags"], event["instrument"] = int(action), int(Flag.LAST), 1
    for name, value in fields.items():
        event[name] = value
    return event


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([one(Action.MODIFY, side=1, px=10, qty=5)], "MODIFY of a level"),
        ([one(Action.ADD, side=1, px=15, qty=5, order_id=1)], "price = .15e-5 of X.VENUE"),
    ],
)
def test_what_lobster_cannot_hold_is_refused(events: list[Any], text: str, tmp_path: Path) -> None:
    from microrisk.feed.base import Instrument

    held = Recorded(np.concatenate(events), {1: Instrument("X.VENUE", "VENUE", "X", 5, 0)})
    with pytest.raises(EncodeError, match=text):
        write_lobster(held.open(), tmp_path)


def test_an_unknown_target(itch: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot convert to 'csv'"):
        convert(itch, to="csv", out=tmp_path)
