"""A few kills of each transport; two hundred are recorded by `nox -s live_record -- kills`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.kills import SECONDS, TRANSPORTS, merged
from microrisk.evaluate.demo import planted
from microrisk.market.write import session_date, write_itch


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_killed_and_gone_on(transport: str, tmp_path: Path) -> None:
    session = planted(2, SECONDS)
    path = write_itch(session, tmp_path / "market.itch")
    found = TRANSPORTS[transport](path, session_date(session), tmp_path, 3, 1)
    assert found["kills"] == 3
    assert found["alerts"] > 5
    assert (found["lost"], found["doubled"], found["strange"], found["hash_equal"]) == (0, 0, 0, True)


def test_a_record_keeps_the_parts_that_were_not_made_again(tmp_path: Path) -> None:
    path = tmp_path / "kills.json"
    about = {"date": "d", "machine": {}, "seed": 1}
    path.write_text(json.dumps(merged(path, about | {"file": {"kills": 1}, "moldudp64": {"kills": 2}})))
    path.write_text(json.dumps(merged(path, about | {"restarts": {"books": 3}})))
    found = merged(path, about | {"file": {"kills": 9}})
    assert (found["file"]["kills"], found["moldudp64"]["kills"], found["restarts"]["books"]) == (9, 2, 3)
    assert found["restarts"]["seed"] == 1
