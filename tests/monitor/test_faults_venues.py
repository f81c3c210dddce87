"""Every websocket venue in one monitor, each kind of fault: what is served as live is the market's own book, always.

The checker is that of `benchmarks/venue_rig.py`, which keeps each market's history by itself; `benchmarks/venues.py`
records times of fifty faults of a kind.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from benchmarks.venue_rig import VENUES, doubts, running
from benchmarks.venues import RETRY_AFTER_S, SLOW_S, exercise, replayed

SEED = 7
FAULTS = {
    "damaged": 2,
    "dropped": 2,
    "429": 1,
    "slow REST": 1,
    "late REST": 1,
    "disconnected": 1,
    "half open": 1,
    "lost unseen": 3,
}
SILENT_MS = 700
GENEROUS_MS = 5000.0
"""What a busy machine is given; the figures are recorded elsewhere."""


@cache
def outcomes() -> dict[str, dict[str, Any]]:
    """All venues at once, by name."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options: dict[str, Any] = {"products": 8, "rate": 120.0, "seed": SEED, "silent_ms": SILENT_MS}
        with running(list(VENUES), folder, follow=True, scored=8, **options) as rig:
            out = exercise(rig, FAULTS, calm_s=0.0)
        hashes, again, told = rig.service.desk.hashes(), replayed(folder), doubts(folder)
        for feed in rig.feeds.values():
            own = rig.service.desk.opened[feed.number].name
            out[feed.name] |= {"same": hashes[own] == again[own], "doubts": told[feed.number]}
    return out


every = pytest.mark.parametrize("venue", VENUES)


@every
def test_no_wrong_book_is_served_as_live(venue: str) -> None:
    out = outcomes()[venue]
    assert out["wrong_served_live"] == out["frames_wrong"] == 0, (SEED, out)
    assert out["compared_live"] > 300
    assert out["frames_live"] > 20


@every
def test_only_the_book_in_doubt_is_taken_anew(venue: str) -> None:
    out = outcomes()[venue]
    assert out["others_not_live"] == 0, (SEED, out)
    if VENUES[venue].rest:  # an image in the stream comes at once
        assert out["others_applied_meanwhile"] > 0
    assert out["books_equal_at_the_end"] == out["books"] == 8, (SEED, out)


@every
def test_books_are_live_again(venue: str) -> None:
    rows = outcomes()[venue]["rows"]
    kinds = {"damaged", "disconnected", "half open"}
    kinds |= {"dropped"} if VENUES[venue].drop_seen else set()
    kinds |= {"429", "slow REST", "late REST"} if VENUES[venue].rest else set()
    assert set(rows) == kinds
    for kind, row in rows.items():
        assert 0 < row["seen_ms"]["max"] < row["live_again_ms"]["max"] < GENEROUS_MS, (SEED, kind, row)
    if VENUES[venue].rest:
        assert rows["429"]["live_again_ms"]["max"] >= 1000 * RETRY_AFTER_S
        assert rows["slow REST"]["live_again_ms"]["max"] >= 1000 * SLOW_S
        assert rows["late REST"]["live_again_ms"]["max"] >= 1000 * SLOW_S


@every
def test_each_doubt_is_a_mark_in_the_data(venue: str) -> None:
    out = outcomes()[venue]
    found, books = out["integrity"], out["books"]
    rest = 3 * VENUES[venue].rest
    singles = FAULTS["damaged"] + FAULTS["dropped"] * VENUES[venue].drop_seen + rest
    lost = FAULTS["disconnected"] + FAULTS["half open"]
    assert found["session_reset"] == lost * books
    assert found["invalidated"] == lost * books + singles, (SEED, found)
    assert found[VENUES[venue].broken] >= FAULTS["damaged"]
    if venue != "Kraken v2" and VENUES[venue].drop_seen:
        assert found["gap"] >= FAULTS["dropped"]
    assert "quote_mismatch" not in found, (SEED, found)
    assert out["doubts"] == lost + 1, "each loss of the connection, and the end"
    assert out["same"], "the journal alone makes the same books"


@pytest.mark.parametrize("venue", [name for name, v in VENUES.items() if not v.drop_seen])
def test_a_loss_that_no_number_shows_would_be_found_by_this_checker(venue: str) -> None:
    assert outcomes()[venue]["unseen_losses_wrong_records"] > 0, SEED
