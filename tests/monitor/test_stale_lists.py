"""Lists that were begun while a feed was live do not show it as live when it is so no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from microrisk.feed.encode import unframe
from microrisk.market.simulator import simulate
from microrisk.market.write import write_itch
from microrisk.monitor.hub import LIVE, STALE
from tests.monitor.test_days import Fake, ns


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    messages = unframe(write_itch(simulate(3, 30.0), tmp_path / "market.itch").read_bytes())
    made = Fake(tmp_path / "j")
    made.service.ingest.on_states = made.service.hub.note_states
    made.send(messages[:300], ns("2025-01-06 09:30"))
    made.clock(ns("2025-01-06 09:30"))
    return made


def test_at_no_step_of_their_making(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest, hub = fake.service.ingest, fake.service.hub
    state = (LIVE, "")
    monkeypatch.setattr(ingest, "feed_state", lambda books, now: state)
    ingest._tell_states()
    hub.refresh_all(1)
    assert [f.state for f in hub.overview()["feeds"]] == [LIVE]
    steps = len(list(hub._make(2)))
    assert steps > 5
    for turned in range(steps):
        state = (LIVE, "")
        ingest.told_states.clear()
        ingest._tell_states()
        hub.refresh_all(3)
        for step, _ in enumerate(hub._make(4)):
            if step == turned:
                state = (STALE, "a hole")
                ingest._said.add(0)
                ingest._tell_states()
            if step >= turned:
                assert [f.state for f in hub.overview()["feeds"]] == [STALE]
                assert {r.state for r in hub.instruments()} == {STALE}
        assert [f.state for f in hub.overview()["feeds"]] == [STALE]
    fake.close()
