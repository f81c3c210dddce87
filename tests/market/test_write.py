"""Sessions as bytes come back as the same events, and gaps are gaps on the wire."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from replay import findings

from microrisk.book import state_hash
from microrisk.core import Engine
from microrisk.feed import open_feed
from microrisk.market import Plan, Session, read_episodes, simulate
from microrisk.market.write import session_date, write_itch, write_mold_pcap
from microrisk.spec.records import Action

S = 1_000_000_000


@pytest.fixture(scope="module")
def session() -> Session:
    plans = [Plan("stuffing", 20 * S, 0.5, 1.0), Plan("wash", 30 * S, 0.5, 5.0, 2), Plan("gap", 45 * S, 1.0, 3.0, 0)]
    return simulate(61, 60, instruments=2, episodes=plans, resync_s=None)


def replayed(path: Path) -> tuple[Engine, dict[str, int], int]:
    feed, engine = open_feed([path]), Engine()
    while feed.pump(engine):
        pass
    engine.finish()
    return engine, {name: n for name, n in engine.integrity().items() if n}, feed.messages


def decoded(path: Path) -> NDArray[np.void]:
    events = np.concatenate(list(open_feed([path]).events()))
    return events[(events["instrument"] < 0xFFFFFFFF) & (events["action"] != Action.NONE)]


def test_an_itch_file_gives_the_events_back(session: Session, tmp_path: Path) -> None:
    path = write_itch(session, tmp_path / f"sim-{session_date(session)}.itch")
    assert session_date(session) == "2025-01-06"
    events = decoded(path)
    assert len(events) == len(session.events)
    for name in ("ts_event", "instrument", "action", "order_id", "ref", "flags"):
        assert (events[name] == session.events[name]).all(), name
    quantity = np.isin(events["action"], [Action.ADD, Action.REDUCE, Action.REPLACE, Action.TRADE])
    assert (events["qty"] == session.events["qty"])[quantity].all()
    priced = np.isin(events["action"], [Action.ADD, Action.REPLACE, Action.TRADE])
    assert (events["px"] == session.events["px"])[priced].all()
    assert read_episodes(path) == session.episodes


def test_both_kinds_of_bytes_rebuild_the_same_books(session: Session, tmp_path: Path) -> None:
    engine = Engine()
    engine.run_events(session.events)
    names = ["SIM1", "SIM2"]
    for path in (
        write_itch(session, tmp_path / "a-2025-01-06.itch"),
        write_mold_pcap(session, tmp_path / "a-2025-01-06.pcap"),
    ):
        other, found, _ = replayed(path)
        assert other.live_orders == engine.live_orders
        for index in (1, 2):
            assert (other.orders(index) == engine.orders(index)).all()
        assert found.pop("gap", 0) == (1 if path.suffix == ".pcap" else 0)
        assert found == findings(session.events)
        assert state_hash(other, names)


def test_dropped_packets_are_gaps_too(tmp_path: Path) -> None:
    clean = simulate(62, 30)
    _, found, messages = replayed(write_mold_pcap(clean, tmp_path / "a-2025-01-06.pcap"))
    assert found == {}
    assert messages == len(clean.events) + 2 + 1 + 2
    _, torn, fewer = replayed(write_mold_pcap(clean, tmp_path / "b-2025-01-06.pcap", drop=range(400, 420)))
    assert torn["gap"] == 1
    assert fewer < messages


def test_book_images_are_no_part_of_the_wire(tmp_path: Path) -> None:
    torn = simulate(63, 60, episodes=[Plan("gap", 30 * S, 1.0, 2.0)])
    bare = simulate(63, 60, episodes=[Plan("gap", 30 * S, 1.0, 2.0)], resync_s=None)
    assert len(torn.events) > len(bare.events)
    one, two = (write_itch(s, tmp_path / f"{k}-2025-01-06.itch").read_bytes() for k, s in enumerate((torn, bare)))
    assert one == two
